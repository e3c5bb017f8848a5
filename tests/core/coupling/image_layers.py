"""Layers of images: the ways in which convolutional networks tie, split and join channels."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from tests.core.coupling.network import Network
from tests.core.operators.brute_force import node


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
    value = net.value
    parts = net.target(value, (n,), groups, c // groups, h, w)
    net.apply("Reshape", [value, parts], ())
    net.apply("Transpose", [net.value], (), perm=[0, 2, 1, 3, 4])
    net.apply("Reshape", [net.value, net.target(value, (n, c), h, w)], (n, c, h, w))


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


def instance_norm(net: Network) -> None:
    c = net.shape[1]
    net.apply("InstanceNormalization", [net.value, net.weight(c), net.weight(c)], net.shape)


def prelu(net: Network) -> None:
    net.apply("PRelu", [net.value, net.weight(net.shape[1], 1, 1)], net.shape)


def shared_conv(net: Network) -> None:
    """One weight used twice in a row."""
    n, c, h, w = net.shape
    weight = net.weight(c, c, 1, 1)
    net.apply("Conv", [net.value, weight], net.shape)
    net.apply("Tanh", [net.value], net.shape)
    net.apply("Conv", [net.value, weight], (n, c, h, w))


def channel_attention(net: Network) -> None:
    """Channels are weighed by their own sum over all channels."""
    value, (n, c, h, w) = net.value, net.shape
    net.apply("ReduceSum", [value, net.constant(1)], (n, 1, h, w), keepdims=1)
    net.apply("Tanh", [net.value], net.shape)
    net.apply("Mul", [net.value, value], (n, c, h, w))


def reverse_channels(net: Network) -> None:
    bounds = [net.constant(-1), net.constant(-(2**62)), net.constant(1), net.constant(-1)]
    net.apply("Slice", [net.value, *bounds], net.shape)


def every_second(net: Network) -> None:
    """Even and odd channels apart, then side by side."""
    n, c, h, w = net.shape
    if c % 2:
        return
    value, axis, step = net.value, net.constant(1), net.constant(2)
    parts = [
        net.apply("Slice", [value, net.constant(k), net.constant(c), axis, step], ())
        for k in (0, 1)
    ]
    net.apply(net.one_of("Add", "Mul"), parts, (n, c // 2, h, w))


def resize(net: Network) -> None:
    n, c, h, w = net.shape
    if h <= 4:
        sizes = net.constant(n, c, h + 1, w + 1)
        net.apply("Resize", [net.value, "", "", sizes], (n, c, h + 1, w + 1), mode="nearest")


def quantise(net: Network) -> None:
    """To eight bits and back, with a scale a channel."""
    c = net.shape[1]
    scale = net.weight(c)
    net.stored[scale] = np.linspace(0.05, 0.2, c)
    zero = net.constant(0)
    net.stored[zero] = np.zeros(c, np.int8)
    net.apply("QuantizeLinear", [net.value, scale, zero], net.shape, axis=1)
    net.apply("DequantizeLinear", [net.value, scale, zero], net.shape, axis=1)


def patch_merge(net: Network) -> None:
    """Neighbouring positions become channels, as between the stages of a Swin."""
    n, c, h, w = net.shape
    if h % 2 == 0 and w % 2 == 0:
        net.apply("SpaceToDepth", [net.value], (n, 4 * c, h // 2, w // 2), blocksize=2)


def window(net: Network) -> None:
    """Channels are rolled by one place and dealt into two windows."""
    n, c, h, w = net.shape
    if c < 2 or c % 2:
        return
    value, axis = net.value, net.constant(1)
    tail = net.apply("Slice", [value, net.constant(1), net.constant(c), axis], ())
    head = net.apply("Slice", [value, net.constant(0), net.constant(1), axis], ())
    net.apply("Concat", [tail, head], net.shape, axis=1)
    net.apply("Reshape", [net.value, net.constant(n, 2, c // 2, h, w)], ())
    net.apply("ReduceMean", [net.value, net.constant(1)], (n, c // 2, h, w), keepdims=0)


def masked(net: Network) -> None:
    """Where a stored channel is positive, the value; elsewhere a stored one."""
    c = net.shape[1]
    name = net.weight(1, c, 1, 1)
    condition = net.constant(0)
    net.stored[condition] = (np.arange(c) % 2 == 0).reshape(1, c, 1, 1)
    net.apply("Where", [condition, net.value, name], net.shape)


IMAGE_LAYERS = (
    conv, conv, conv, transposed_conv, batch_norm, group_norm, activation, residual, concatenate,
    split_apart, pick_channels, slice_channels, pad_channels, shuffle, pixel_shuffle,
    squeeze_excite, scale_channels, pool, instance_norm, prelu, shared_conv, channel_attention,
    reverse_channels, every_second, resize, quantise, patch_merge, window, masked,
)  # fmt: skip

IMAGE_VIEWS = (
    conv, group_norm, shuffle, pixel_shuffle, transposed_conv, batch_norm, every_second, patch_merge, window,
)  # fmt: skip
