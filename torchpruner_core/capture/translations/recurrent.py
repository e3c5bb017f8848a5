"""Recurrent layers. Sources: https://onnx.ai/onnx/operators/onnx__LSTM.html, onnx__GRU.html, onnx__RNN.html

PyTorch stacks the gates of an LSTM as input, forget, cell, output, and of a GRU as reset, update, new;
ONNX as input, output, forget, cell, and update, reset, hidden.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from torchpruner_core.capture.errors import CaptureError
from torchpruner_core.capture.registry import aten
from torchpruner_core.capture.tape import Call, Value
from torchpruner_core.capture.writer import Writer

_ORDERS: dict[str, list[int]] = {"LSTM": [0, 3, 1, 2], "GRU": [1, 0, 2], "RNN": [0]}


def _gates(g: Writer, kind: str, weight: Value) -> str:
    """Return a stacked weight with its gates in ONNX's order."""
    order = _ORDERS[kind]
    if len(order) == 1:
        return g.name(weight)
    size = weight.shape[0] // len(order)
    part = (size, *weight.shape[1:])
    parts = g.ops(
        "Split",
        weight,
        g.ints([size] * len(order)),
        outputs=len(order),
        axis=0,
        types=[(part, weight.dtype)] * len(order),
    )
    return g.op(
        "Concat", *(parts[k] for k in order), axis=0, shape=weight.shape, dtype=weight.dtype
    )


def _stacked(g: Writer, parts: Sequence[str], shape: tuple[int, ...], dtype: torch.dtype) -> str:
    """Return one tensor of all directions."""
    rows = [g.op("Unsqueeze", each, g.ints([0]), shape=(1, *shape), dtype=dtype) for each in parts]
    if len(rows) == 1:
        return rows[0]
    return g.op("Concat", *rows, axis=0, shape=(len(rows), *shape), dtype=dtype)


def layers(
    g: Writer,
    call: Call,
    kind: str,
    x: Value,
    states: Sequence[Value],
    params: Sequence[Value],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
    **settings: Any,
) -> list[str]:
    """Write a stack of recurrent layers; return output and last states, as PyTorch orders them."""
    directions = 2 if bidirectional else 1
    batched = x.rank == 3
    value = g.name(x)
    dtype = x.dtype
    if batched and batch_first:
        value = g.op("Transpose", x, perm=[1, 0, 2])
    elif not batched:
        value = g.op("Unsqueeze", x, g.ints([1]))
    per_layer = 4 if has_biases else 2
    last: list[list[str]] = [[] for _ in states]
    count = len(params) // (num_layers * directions)
    if count != per_layer:
        raise CaptureError("a recurrent layer with projections has no ONNX operator")
    for layer in range(num_layers):
        own = [
            params[(layer * directions + d) * per_layer : (layer * directions + d + 1) * per_layer]
            for d in range(directions)
        ]
        hidden = own[0][1].shape[1]
        w_ih = _stacked(g, [_gates(g, kind, p[0]) for p in own], own[0][0].shape, dtype)
        w_hh = _stacked(g, [_gates(g, kind, p[1]) for p in own], own[0][1].shape, dtype)
        bias = None
        if has_biases:
            rows = own[0][2].shape[0]
            both = [
                g.op(
                    "Concat",
                    _gates(g, kind, p[2]),
                    _gates(g, kind, p[3]),
                    axis=0,
                    shape=(2 * rows,),
                    dtype=dtype,
                )
                for p in own
            ]
            bias = _stacked(g, both, (2 * rows,), dtype)
        initial = []
        for state in states:
            name = g.name(state)
            if not batched:
                name = g.op("Unsqueeze", name, g.ints([1]))
            if num_layers > 1:
                start = layer * directions
                name = g.op(
                    "Slice", name, g.ints([start]), g.ints([start + directions]), g.ints([0])
                )
            initial.append(name)
        outputs = g.ops(
            kind,
            value,
            w_ih,
            w_hh,
            bias,
            None,
            *initial,
            outputs=1 + len(states),
            hidden_size=hidden,
            direction="bidirectional" if bidirectional else "forward",
            linear_before_reset=1 if kind == "GRU" else None,
            **settings,
        )
        for store, name in zip(last, outputs[1:], strict=True):
            store.append(name)
        # (time, directions, batch, hidden) -> (time, batch, directions * hidden)
        if directions == 1:
            value = g.op("Squeeze", outputs[0], g.ints([1]))
        else:
            turned = g.op("Transpose", outputs[0], perm=[0, 2, 1, 3])
            value = g.op("Reshape", turned, g.ints([0, 0, -1]))
    if batched and batch_first:
        value = g.op("Transpose", value, perm=[1, 0, 2])
    elif not batched:
        value = g.op("Squeeze", value, g.ints([1]))
    found = [value]
    for store in last:
        final = store[0] if len(store) == 1 else g.op("Concat", *store, axis=0)
        found.append(final if batched else g.op("Squeeze", final, g.ints([1])))
    return found


@aten("lstm.input")
def lstm(
    g: Writer, call: Call, x: Value, states: list[Value], params: list[Value], *rest: Any
) -> list[str]:
    return layers(g, call, "LSTM", x, states, params, *rest)


@aten("gru.input")
def gru(
    g: Writer, call: Call, x: Value, state: Value, params: list[Value], *rest: Any
) -> list[str]:
    return layers(g, call, "GRU", x, [state], params, *rest)


def _plain(activation: str) -> Any:
    def translate(
        g: Writer, call: Call, x: Value, state: Value, params: list[Value], *rest: Any
    ) -> list[str]:
        directions = 2 if rest[4] else 1
        names = [activation] * directions
        return layers(g, call, "RNN", x, [state], params, *rest, activations=names)

    return translate


aten("rnn_tanh.input")(_plain("Tanh"))
aten("rnn_relu.input")(_plain("Relu"))
