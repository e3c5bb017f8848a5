"""Random small networks as ONNX files: images through convolutions, tokens through attention.

A :class:`Network` grows layer by layer; every layer is one of the ways in which real networks tie,
split, join or repeat their channels. Sizes are small, so that a cut can be checked by brute force.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from hypothesis import strategies as st

from tests.core.operators.brute_force import ints, model, node

Draw = Callable[[st.SearchStrategy[Any]], Any]


@dataclass
class Network:
    """Nodes and stored tensors so far; ``value`` is the current tensor, ``earlier`` those before."""

    draw: Draw
    value: str = "x"
    shape: tuple[int, ...] = ()
    nodes: list[Any] = field(default_factory=list)
    stored: dict[str, Any] = field(default_factory=dict)
    earlier: list[tuple[str, tuple[int, ...]]] = field(default_factory=list)
    inputs: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def integer(self, low: int, high: int) -> int:
        return int(self.draw(st.integers(low, high)))

    def one_of(self, *choices: Any) -> Any:
        return self.draw(st.sampled_from(choices))

    def weight(self, *shape: int) -> str:
        """Store a random float tensor under a name like a layer's; nothing in it is near zero."""
        name = f"layer{len(self.nodes)}.weight{len(self.stored)}"
        rng = np.random.default_rng(len(self.stored))
        fan = np.sqrt(np.prod(shape[1:]))
        self.stored[name] = rng.uniform(0.5, 1.5, shape) * rng.choice([-1, 1], shape) / fan
        return name

    def constant(self, *values: int) -> str:
        name = f"constant{len(self.stored)}"
        self.stored[name] = ints(*values)
        return name

    def apply(self, kind: str, inputs: list[str], shape: tuple[int, ...], **attributes: Any) -> str:
        name = f"v{len(self.nodes)}"
        self.nodes.append(node(kind, inputs, [name], **attributes))
        self.value, self.shape = name, shape
        return name

    def remember(self) -> None:
        self.earlier.append((self.value, self.shape))

    def data(self) -> bytes:
        return model(
            self.nodes, self.inputs, [self.value], self.stored, shapes={self.value: self.shape}
        )


def conv(net: Network) -> None:
    n, c, h, w = net.shape
    groups = net.one_of(*(g for g in (1, 1, 2, 3, 4, c) if c % g == 0))
    out = groups * net.integer(1, 3)
    size = net.one_of(*(k for k in (1, 3) if k <= h))
    inputs = [net.value, net.weight(out, c // groups, size, size)]
    if net.draw(st.booleans()):
        inputs.append(net.weight(out))
    net.apply("Conv", inputs, (n, out, h, w), group=groups, auto_pad="SAME_UPPER")


def transposed_conv(net: Network) -> None:
    n, c, h, w = net.shape
    groups = net.one_of(*(g for g in (1, 2, c) if c % g == 0))
    per_group = net.integer(1, 3)
    weight = net.weight(c, per_group, 2, 2)
    net.apply(
        "ConvTranspose", [net.value, weight], (n, groups * per_group, h + 1, w + 1), group=groups
    )


def batch_norm(net: Network) -> None:
    c = net.shape[1]
    names = [net.weight(c) for _ in range(3)]
    variance = net.weight(c)
    net.stored[variance] = np.linspace(0.5, 2, c)
    net.apply("BatchNormalization", [net.value, *names, variance], net.shape)


def group_norm(net: Network) -> None:
    c = net.shape[1]
    groups = net.one_of(*(g for g in (1, 2, 3, c) if c % g == 0))
    names = [net.weight(c), net.weight(c)]
    net.apply("GroupNormalization", [net.value, *names], net.shape, num_groups=groups)


def activation(net: Network) -> None:
    kind = net.one_of("LeakyRelu", "Sigmoid", "Tanh", "Erf", "Softplus", "HardSwish")
    net.apply(kind, [net.value], net.shape)


def residual(net: Network) -> None:
    same = [n for n, shape in net.earlier if shape == net.shape and n != net.value]
    if same:
        kind = net.one_of("Add", "Mul", "Sub", "Max")
        net.apply(kind, [net.value, net.one_of(*same)], net.shape)


def concatenate(net: Network) -> None:
    n, c, *rest = net.shape
    fitting = [(name, s) for name, s in net.earlier if s[0] == n and list(s[2:]) == rest]
    if fitting and len(net.shape) == 4:
        name, shape = net.one_of(*fitting)
        net.apply("Concat", [net.value, name], (n, c + shape[1], *rest), axis=1)


def split_apart(net: Network) -> None:
    n, c, h, w = net.shape
    if c < 2:
        return
    first = net.integer(1, c - 1)
    a, b = f"s{len(net.nodes)}a", f"s{len(net.nodes)}b"
    sizes = net.constant(first, c - first)
    net.nodes.append(node("Split", [net.value, sizes], [a, b], axis=1))
    net.value, net.shape = b, (n, c - first, h, w)
    net.earlier.append((a, (n, first, h, w)))


def pick_channels(net: Network) -> None:
    c = net.shape[1]
    taken = [net.integer(0, c - 1) for _ in range(net.integer(2, 4))]
    shape = (net.shape[0], len(taken), *net.shape[2:])
    net.apply("Gather", [net.value, net.constant(*taken)], shape, axis=1)


def slice_channels(net: Network) -> None:
    c = net.shape[1]
    if c < 3:
        return
    start, stop = net.integer(0, c - 2), net.integer(0, 1)
    end = c - 1 if stop else c
    bounds = [net.constant(start), net.constant(-1 if stop else c), net.constant(1)]
    net.apply("Slice", [net.value, *bounds], (net.shape[0], end - start, *net.shape[2:]))


def pad_channels(net: Network) -> None:
    n, c, h, w = net.shape
    before, after = net.integer(0, 1), net.integer(0, 2)
    pads = net.constant(0, before, 0, 0, 0, after, 0, 0)
    net.apply("Pad", [net.value, pads], (n, c + before + after, h, w))


def shuffle(net: Network) -> None:
    n, c, h, w = net.shape
    groups = net.one_of(*(g for g in (1, 2, 3) if c % g == 0))
    net.apply("Reshape", [net.value, net.constant(n, groups, c // groups, h, w)], ())
    net.apply("Transpose", [net.value], (), perm=[0, 2, 1, 3, 4])
    net.apply("Reshape", [net.value, net.constant(n, c, h, w)], (n, c, h, w))


def pixel_shuffle(net: Network) -> None:
    n, c, h, w = net.shape
    if c % 4 == 0:
        mode = net.one_of("DCR", "CRD")
        net.apply("DepthToSpace", [net.value], (n, c // 4, 2 * h, 2 * w), blocksize=2, mode=mode)


def squeeze_excite(net: Network) -> None:
    value, (n, c, h, w) = net.value, net.shape
    net.apply("GlobalAveragePool", [value], (n, c, 1, 1))
    net.apply("Conv", [net.value, net.weight(2, c, 1, 1), net.weight(2)], (n, 2, 1, 1))
    net.apply("Relu", [net.value], net.shape)
    net.apply("Conv", [net.value, net.weight(c, 2, 1, 1), net.weight(c)], (n, c, 1, 1))
    net.apply("Sigmoid", [net.value], net.shape)
    net.apply("Mul", [value, net.value], (n, c, h, w))


def scale_channels(net: Network) -> None:
    c = net.shape[1]
    net.apply(net.one_of("Mul", "Add"), [net.value, net.weight(1, c, 1, 1)], net.shape)


def pool(net: Network) -> None:
    n, c, h, w = net.shape
    if h >= 2:
        kind = net.one_of("MaxPool", "AveragePool")
        net.apply(kind, [net.value], (n, c, h - 1, w - 1), kernel_shape=[2, 2])


IMAGE_LAYERS = (
    conv, conv, conv, transposed_conv, batch_norm, group_norm, activation, residual, concatenate,
    split_apart, pick_channels, slice_channels, pad_channels, shuffle, pixel_shuffle,
    squeeze_excite, scale_channels, pool,
)  # fmt: skip


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
    net.apply("Reshape", [value, net.constant(b, t, count, size)], ())
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
    net.apply("Reshape", [net.value, net.constant(b, t, count * size)], (b, t, count * size))
    linear(net, d)
    if net.draw(st.booleans()):
        net.apply("Add", [net.value, source], (b, t, d))


def fused_attention(net: Network) -> None:
    """One projection for query, key and value, split by an axis of three, as in a ViT."""
    source, (b, t, d) = net.value, net.shape
    count, size = net.integer(1, 3), net.integer(2, 3)
    linear(net, 3 * count * size)
    net.apply("Reshape", [net.value, net.constant(b, t, 3, count, size)], ())
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
    net.apply("Reshape", [net.value, net.constant(b, t, count * size)], (b, t, count * size))
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


TOKEN_LAYERS = (
    linear, linear, layer_norm, activation, gated, attention, fused_attention, rotate, recurrent,
    contract, token_residual, add_position,
)  # fmt: skip


IMAGE_VIEWS = (conv, group_norm, shuffle, pixel_shuffle, transposed_conv, batch_norm)
TOKEN_VIEWS = (attention, fused_attention, gated, rotate, activation)


def shown(data: bytes) -> str:
    """Return a network as text, a line an operator: what a failing example reports."""
    loaded = onnx.load_model_from_string(data)
    stored = {}
    for tensor in loaded.graph.initializer:
        value = onnx.numpy_helper.to_array(tensor)
        stored[tensor.name] = value.tolist() if value.dtype == np.int64 else list(value.shape)
    lines = []
    for item in loaded.graph.node:
        read = ", ".join(f"{name}{stored.get(name, '')}" for name in item.input)
        given = {a.name: onnx.helper.get_attribute_value(a) for a in item.attribute}
        lines.append(f"{', '.join(item.output)} = {item.op_type}({read}) {given or ''}")
    return "\n".join(lines)


@st.composite
def networks(draw: Draw, layers: int = 6, views: bool = False) -> bytes:
    """Return a strategy of ONNX files of one random network each.

    With ``views``, layers are drawn of those kinds that split an axis into several.
    """
    net = Network(draw)
    if draw(st.booleans()):
        net.shape = (1, net.integer(1, 3), 3, 3)
        net.inputs["x"] = net.shape
        conv(net)
        kinds, last = IMAGE_VIEWS if views else IMAGE_LAYERS, conv
    else:
        net.shape = (2, 3, net.integer(2, 4))
        net.inputs["x"] = net.shape
        linear(net)
        kinds, last = TOKEN_VIEWS if views else TOKEN_LAYERS, linear
    for layer in draw(st.lists(st.sampled_from(kinds), min_size=1, max_size=layers)):
        net.remember()
        layer(net)
    last(net)
    return net.data()
