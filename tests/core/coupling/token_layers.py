"""Layers of tokens: heads, gates, tables and recurrences."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from tests.core.coupling.image_layers import activation, residual
from tests.core.coupling.network import Network
from tests.core.operators.brute_force import node


def linear(net: Network, width: int | None = None) -> None:
    out = width or net.integer(2, 6)
    net.apply("MatMul", [net.value, net.weight(net.shape[-1], out)], (*net.shape[:-1], out))
    if net.draw(st.booleans()):
        net.apply("Add", [net.value, net.weight(out)], net.shape)


def layer_norm(net: Network) -> None:
    width = net.shape[-1]
    names = [net.weight(width), net.weight(width)]
    net.apply("LayerNormalization", [net.value, *names], net.shape)


def gated(net: Network) -> None:
    """A projection split into a gate and a value."""
    b, t, _ = net.shape
    half = net.integer(2, 3)
    linear(net, 2 * half)
    a, c = f"s{len(net.nodes)}a", f"s{len(net.nodes)}b"
    net.nodes.append(node("Split", [net.value], [a, c], axis=-1, num_outputs=2))
    net.apply(net.one_of("Sigmoid", "Tanh", "LeakyRelu"), [a], (b, t, half))
    net.apply("Mul", [net.value, c], (b, t, half))


def heads(net: Network, value: str, count: int, size: int) -> str:
    b, t = net.shape[:2]
    sizes = [net.target(value, (b, t), count), net.quotient(value, count, size)]
    net.apply("Reshape", [value, net.apply("Concat", sizes, (), axis=0)], ())
    return net.apply("Transpose", [net.value], (), perm=[0, 2, 1, 3])


def attention(net: Network) -> None:
    """Query, key and value from one input; keys and values may serve several query heads."""
    source, (b, t, d) = net.value, net.shape
    kv_heads, repeats, size = net.integer(1, 2), net.integer(1, 2), net.integer(2, 3)
    count = kv_heads * repeats
    names = {}
    for part, n in (("q", count), ("k", kv_heads), ("v", kv_heads)):
        net.value, net.shape = source, (b, t, d)
        linear(net, n * size)
        names[part] = heads(net, net.value, n, size)
        net.shape = (b, t, d)
    if repeats > 1:
        for part in ("k", "v"):
            net.apply("Unsqueeze", [names[part], net.constant(2)], ())
            net.apply("Expand", [net.value, net.constant(b, kv_heads, repeats, t, size)], ())
            names[part] = net.apply("Reshape", [net.value, net.constant(b, count, t, size)], ())
    turned = net.apply("Transpose", [names["k"]], (), perm=[0, 1, 3, 2])
    scores = net.apply("MatMul", [names["q"], turned], ())
    weights = net.apply("Softmax", [scores], ())
    net.apply("MatMul", [weights, names["v"]], ())
    net.apply("Transpose", [net.value], (), perm=[0, 2, 1, 3])
    merged = net.target(source, (b, t), count * size)
    net.apply("Reshape", [net.value, merged], (b, t, count * size))
    linear(net, d)
    if net.draw(st.booleans()):
        net.apply("Add", [net.value, source], (b, t, d))


def fused_attention(net: Network) -> None:
    """One projection for query, key and value, split by an axis of three, as in a ViT."""
    source, (b, t, d) = net.value, net.shape
    count, size = net.integer(1, 3), net.integer(2, 3)
    linear(net, 3 * count * size)
    net.apply("Reshape", [net.value, net.target(net.value, (b, t), 3, count, size)], ())
    parts = net.apply("Transpose", [net.value], (), perm=[2, 0, 3, 1, 4])
    one = {}
    for k, part in enumerate("qkv"):
        index = net.constant(k)
        net.stored[index] = np.int64(k)
        one[part] = net.apply("Gather", [parts, index], (), axis=0)
    turned = net.apply("Transpose", [one["k"]], (), perm=[0, 1, 3, 2])
    net.apply("MatMul", [one["q"], turned], ())
    net.apply("Softmax", [net.value], ())
    net.apply("MatMul", [net.value, one["v"]], ())
    net.apply("Transpose", [net.value], (), perm=[0, 2, 1, 3])
    merged = net.target(source, (b, t), count * size)
    net.apply("Reshape", [net.value, merged], (b, t, count * size))
    linear(net, d)
    net.apply("Add", [net.value, source], (b, t, d))


def rotate(net: Network) -> None:
    """Halves of the last axis change places, as a rotary embedding does."""
    value, shape = net.value, net.shape
    d = shape[-1]
    if d % 2:
        return
    half, last = net.constant(d // 2), net.constant(2)
    first = net.apply("Slice", [value, net.constant(0), half, last], ())
    second = net.apply("Slice", [value, half, net.constant(2**62), last], ())
    minus = net.apply("Neg", [second], ())
    turned = net.apply("Concat", [minus, first], (), axis=-1)
    table = net.weight(d)
    scaled = net.apply("Mul", [turned, table], ())
    net.apply("Add", [scaled, value], shape)


def recurrent(net: Network) -> None:
    b, t, d = net.shape
    kind = net.one_of("LSTM", "GRU", "RNN")
    gates, hidden = {"LSTM": 4, "GRU": 3, "RNN": 1}[kind], net.integer(2, 3)
    weights = [net.weight(1, gates * hidden, d), net.weight(1, gates * hidden, hidden)]
    net.apply(kind, [net.value, *weights], (b, 1, t, hidden), hidden_size=hidden)
    net.apply("Squeeze", [net.value, net.constant(1)], (b, t, hidden))


def contract(net: Network) -> None:
    """Tokens against tokens, summed over channels that need not be zero when masked."""
    b, t, _ = net.shape
    net.apply(net.one_of("Sigmoid", "LeakyRelu", "Tanh", "Softplus"), [net.value], net.shape)
    net.apply("Einsum", [net.value, net.value], (b, t, t), equation="bid,bjd->bij")


def token_residual(net: Network) -> None:
    residual(net)


def add_position(net: Network) -> None:
    net.apply("Add", [net.value, net.weight(*net.shape[1:])], net.shape)


def tied_embedding(net: Network) -> None:
    """Scores of tokens against a table that is also looked up and added."""
    b, t, d = net.shape
    table = net.weight(5, d)
    turned = net.apply("Transpose", [table], (), perm=[1, 0])
    rows = net.constant(*(k % 5 for k in range(t)))
    looked_up = net.apply("Gather", [table, rows], (), axis=0)
    value = net.apply("Add", [net.earlier[-1][0], looked_up], (b, t, d))
    net.apply("MatMul", [value, turned], (b, t, 5))


def class_token(net: Network) -> None:
    """A stored token in front of the others, and read alone at the end."""
    b, t, d = net.shape
    token = net.apply("Expand", [net.weight(1, 1, d), net.constant(b, 1, d)], ())
    net.apply("Concat", [token, net.earlier[-1][0]], (b, t + 1, d), axis=1)
    attention(net)
    net.apply("Slice", [net.value, net.constant(0), net.constant(t), net.constant(1)], (b, t, d))


def running_sum(net: Network) -> None:
    axis = net.constant(0)
    net.stored[axis] = np.int64(net.one_of(1, 2))
    net.apply("CumSum", [net.value, axis], net.shape)


def rms_norm(net: Network) -> None:
    """Decomposed, as exporters write it."""
    value, shape = net.value, net.shape
    squared = net.apply("Mul", [value, value], shape)
    mean = net.apply("ReduceMean", [squared, net.constant(-1)], (*shape[:-1], 1), keepdims=1)
    small = net.weight(1)
    root = net.apply("Sqrt", [net.apply("Add", [mean, small], ())], ())
    net.stored[small] = np.array([0.1])
    scaled = net.apply("Div", [value, root], shape)
    net.apply("Mul", [scaled, net.weight(shape[-1])], shape)


def tiled(net: Network) -> None:
    """The last axis twice, one after the other, then weighed."""
    *rest, d = net.shape
    net.apply("Tile", [net.value, net.constant(1, 1, 2)], (*rest, 2 * d))
    net.apply("Mul", [net.value, net.weight(2 * d)], net.shape)


def bilinear(net: Network) -> None:
    b, t, d = net.shape
    out = net.integer(2, 3)
    net.apply(
        "Einsum",
        [net.value, net.weight(out, d, d), net.value],
        (b, t, out),
        equation="bti,oij,btj->bto",
    )


TOKEN_LAYERS = (
    linear, linear, layer_norm, activation, gated, attention, fused_attention, rotate, recurrent,
    contract, token_residual, add_position, tied_embedding, class_token, running_sum, rms_norm,
    tiled, bilinear,
)  # fmt: skip

TOKEN_VIEWS = (attention, fused_attention, gated, rotate, activation, tiled, rms_norm)
