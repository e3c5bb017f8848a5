"""What an operator gives back, without computing it: empty tensors of the right shape and dtype.

The operators that networks mostly consist of have their rule here; PyTorch's own meta kernels,
which take longer, are asked about the others, once for each kind of arguments. An empty tensor's
memory is not touched, so it costs no time and no memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from torchpruner_core.capture.aten import Operator
from torchpruner_core.capture.meta_shapes import grouped_product

Rule = Callable[..., "torch.Tensor | None"]

_META = torch.device("meta")
_SPECS: dict[Any, Any] = {}
_LIMIT = 1 << 14
"""So many kinds of arguments are kept."""


def empty_outputs(op: Operator, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return empty tensors in place of ``op``'s outputs, in the same containers.

    Raises what the operator raises where its arguments do not fit.
    """
    rule = _RULES.get(op.name)
    if rule is not None and (not kwargs or op.name in _BY_NAME):
        found = rule(*args, **kwargs)
        if found is not None:
            return found
    device = device_of(args, kwargs)
    key = (op.function, _key(args), _key(tuple(kwargs.items())) if kwargs else None)
    try:
        spec = _SPECS.get(key)
    except TypeError:  # an argument that has no hash
        return _filled(_spec_of(_on_meta(op, args, kwargs)), device)
    if spec is None:
        spec = _spec_of(_on_meta(op, args, kwargs))
        if len(_SPECS) > _LIMIT:
            _SPECS.clear()
        _SPECS[key] = spec
    return _filled(spec, device)


def empty_as(x: torch.Tensor, shape: Any, dtype: torch.dtype | None = None) -> torch.Tensor:
    """Return an empty contiguous tensor on the device of ``x``."""
    return x.new_empty(shape, dtype=dtype) if dtype else x.new_empty(shape)


def device_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.device:
    """Return where an operator's outputs are."""
    if kwargs.get("device") is not None:
        return torch.device(kwargs["device"])
    first: torch.device | None = None
    for each in (*args, *kwargs.values()):
        for tensor in each if type(each) in (list, tuple) else (each,):
            if isinstance(tensor, torch.Tensor):
                # A scalar, or a mask made on the host, does not decide where the result is.
                if tensor.dim() and tensor.device.type != "cpu":
                    return tensor.device
                first = first or tensor.device
    return first or torch.device("cpu")


def _key(values: Any) -> Any:
    return tuple(
        [
            (each.shape, each.stride(), each.dtype)
            if isinstance(each, torch.Tensor)
            else _key(each)
            if type(each) in (list, tuple)
            else (type(each), each)
            for each in values
        ]
    )


def _on_meta(op: Operator, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    def meta(each: Any) -> Any:
        if isinstance(each, torch.Tensor):
            return torch.empty_strided(each.shape, each.stride(), dtype=each.dtype, device=_META)
        if type(each) in (list, tuple):
            return type(each)(meta(inner) for inner in each)
        return _META if isinstance(each, torch.device) else each

    given = {name: meta(each) for name, each in kwargs.items()}
    try:
        return op.function(*map(meta, args), **given)
    except NotImplementedError:

        def zeros(each: Any) -> Any:
            if isinstance(each, torch.Tensor):
                device = torch.device("cpu") if each.is_meta else each.device
                return torch.zeros(each.shape, dtype=each.dtype, device=device)
            if type(each) in (list, tuple):
                return type(each)(zeros(inner) for inner in each)
            return each

        return op.function(*map(zeros, args), **{k: zeros(v) for k, v in kwargs.items()})


def _spec_of(result: Any) -> Any:
    if isinstance(result, torch.Tensor):
        return result.shape, result.stride(), result.dtype
    if type(result) in (list, tuple):
        return [_spec_of(each) for each in result], type(result)
    return (result,)


def _filled(spec: Any, device: torch.device) -> Any:
    if len(spec) == 3:
        shape, stride, dtype = spec
        return torch.empty_strided(shape, stride, dtype=dtype, device=device)
    if len(spec) == 2:
        each, container = spec
        return container(_filled(one, device) for one in each)
    return spec[0]


def _same(x: Any, *rest: Any) -> torch.Tensor | None:
    return torch.empty_like(x) if isinstance(x, torch.Tensor) else None


def _same_float(x: Any, *rest: Any) -> torch.Tensor | None:
    return torch.empty_like(x) if x.is_floating_point() else None


def _binary(a: Any, b: Any) -> torch.Tensor | None:
    if not isinstance(b, torch.Tensor):
        fits = isinstance(a, torch.Tensor) and a.is_floating_point() and type(b) is not complex
        return torch.empty_like(a) if fits else None
    if not isinstance(a, torch.Tensor) or a.dtype is not b.dtype or not a.is_floating_point():
        return None
    if a.shape == b.shape:
        return torch.empty_like(a)
    if not a.dim() or not b.dim():
        return torch.empty_like(a if a.dim() else b)
    if a.is_contiguous() and b.is_contiguous():
        shape = _broadcast(a.shape, b.shape)
        return None if shape is None else empty_as(a, shape)
    return None


def _broadcast(a: Sequence[int], b: Sequence[int]) -> list[int] | None:
    """Return the shape that two shapes broadcast to; ``None`` where they do not."""
    found = []
    for k in range(-max(len(a), len(b)), 0):
        n, m = (a[k] if -k <= len(a) else 1), (b[k] if -k <= len(b) else 1)
        if n != m and n != 1 and m != 1:
            return None
        found.append(m if n == 1 else n)
    return found


def _channels_first(x: torch.Tensor) -> bool:
    return x.is_contiguous()


def _conv(
    x: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = (1,),
    padding: Any = (0,),
    dilation: Any = (1,),
    groups: int = 1,
) -> torch.Tensor | None:
    dims = weight.dim() - 2
    if type(padding) is str or x.dim() != weight.dim() or not _channels_first(x):
        return None
    if x.shape[1] != weight.shape[1] * groups or x.dtype is not weight.dtype:
        return None
    s, p, d = (_each(v, dims) for v in (stride, padding, dilation))
    sizes, kernel = x.shape[2:], weight.shape[2:]
    out = [(sizes[k] + 2 * p[k] - d[k] * (kernel[k] - 1) - 1) // s[k] + 1 for k in range(dims)]
    if min(out) < 1:
        return None
    return empty_as(x, [x.shape[0], weight.shape[0], *out])


def _each(value: Any, count: int) -> list[int]:
    if isinstance(value, int):
        return [value] * count
    return list(value) if len(value) == count else [value[0]] * count


def _linear(x: Any, weight: Any, bias: Any = None) -> torch.Tensor | None:
    if weight.dim() != 2 or not x.dim() or x.shape[-1] != weight.shape[1]:
        return None
    if x.dtype is not weight.dtype or (bias is not None and bias.dtype is not x.dtype):
        return None
    return empty_as(x, [*x.shape[:-1], weight.shape[0]])


def _matmul(a: Any, b: Any) -> torch.Tensor | None:
    if a.dim() < 2 or b.dim() < 2 or a.shape[-1] != b.shape[-2] or a.dtype is not b.dtype:
        return None
    batch = _broadcast(a.shape[:-2], b.shape[:-2])
    if batch is None:
        return None
    return empty_as(a, [*batch, a.shape[-2], b.shape[-1]])


def _norm(x: Any, *rest: Any) -> torch.Tensor | None:
    return torch.empty_like(x) if x.is_contiguous() and x.is_floating_point() else None


def _layer_norm(x: Any, normalized: Any, weight: Any = None, *rest: Any) -> torch.Tensor | None:
    fits = list(x.shape[-len(normalized) :]) == list(normalized)
    return _norm(x) if fits and (weight is None or weight.dtype is x.dtype) else None


def _batch_norm(x: Any, weight: Any, bias: Any, mean: Any, *rest: Any) -> torch.Tensor | None:
    fits = x.dim() > 1 and (mean is None or mean.shape[0] == x.shape[1])
    return _norm(x) if fits and (weight is None or weight.shape[0] == x.shape[1]) else None


def _softmax(x: Any, dim: int, dtype: Any = None) -> torch.Tensor | None:
    return empty_as(x, x.shape, dtype) if x.is_contiguous() and x.is_floating_point() else None


def _max_pool2d(
    x: Any, kernel: Any, stride: Any = (), padding: Any = 0, dilation: Any = 1, ceil: bool = False
) -> torch.Tensor | None:
    if ceil or x.dim() != 4 or not _channels_first(x):
        return None
    k, p, d = _each(kernel, 2), _each(padding, 2), _each(dilation, 2)
    s = _each(stride, 2) if stride else k
    out = [(x.shape[2 + i] + 2 * p[i] - d[i] * (k[i] - 1) - 1) // s[i] + 1 for i in (0, 1)]
    return empty_as(x, [*x.shape[:2], *out]) if min(out) > 0 else None


def _adaptive_avg_pool2d(x: Any, size: Any) -> torch.Tensor | None:
    if x.dim() != 4 or not _channels_first(x):
        return None
    out = [
        n if wanted is None else wanted
        for wanted, n in zip(_each(size, 2), x.shape[2:], strict=True)
    ]
    return empty_as(x, [*x.shape[:2], *out])


def _attention(q: Any, k: Any, v: Any, *rest: Any) -> torch.Tensor | None:
    if q.dim() != 4 or k.dim() != 4 or q.dtype is not k.dtype or q.shape[-1] != k.shape[-1]:
        return None
    if q.shape[:2] != k.shape[:2] or k.shape[:3] != v.shape[:3]:
        return None
    # The kernels give back a view of (batch, length, heads, size), which some models count on.
    return empty_as(q, [q.shape[0], q.shape[2], q.shape[1], v.shape[-1]]).transpose(1, 2)


def _cat(tensors: Any, dim: int = 0) -> torch.Tensor | None:
    first = tensors[0]
    if not first.dim():
        return None
    dim %= first.dim()
    total = 0
    for each in tensors:
        if each.dim() != first.dim() or each.dtype is not first.dtype or not each.is_contiguous():
            return None
        total += each.shape[dim]
        if any(
            n != m for k, (n, m) in enumerate(zip(each.shape, first.shape, strict=True)) if k != dim
        ):
            return None
    shape = list(first.shape)
    shape[dim] = total
    return empty_as(first, shape)


def _embedding(weight: Any, indices: Any, *rest: Any) -> torch.Tensor | None:
    return empty_as(weight, [*indices.shape, *weight.shape[1:]])


_BY_NAME = frozenset({"aten::_grouped_mm"})
"""Operators whose rule takes arguments by name."""

_RULES: dict[str, Rule] = {
    "aten::_grouped_mm": grouped_product,
    "aten::conv1d": _conv,
    "aten::conv2d": _conv,
    "aten::conv3d": _conv,
    "aten::linear": _linear,
    "aten::matmul": _matmul,
    "aten::batch_norm": _batch_norm,
    "aten::layer_norm": _layer_norm,
    "aten::group_norm": _norm,
    "aten::softmax": _softmax,
    "aten::max_pool2d": _max_pool2d,
    "aten::adaptive_avg_pool2d": _adaptive_avg_pool2d,
    "aten::scaled_dot_product_attention": _attention,
    "aten::cat": _cat,
    "aten::embedding": _embedding,
    "aten::clone": _same,
    **dict.fromkeys(("aten::add", "aten::sub", "aten::mul", "aten::div"), _binary),
    **dict.fromkeys(
        (
            "aten::relu",
            "aten::relu6",
            "aten::gelu",
            "aten::silu",
            "aten::sigmoid",
            "aten::hardswish",
            "aten::hardsigmoid",
            "aten::hardtanh",
            "aten::leaky_relu",
            "aten::elu",
            "aten::tanh",
            "aten::exp",
            "aten::sqrt",
            "aten::rsqrt",
            "aten::cos",
            "aten::sin",
            "aten::neg",
            "aten::mish",
            "aten::softplus",
        ),
        _same_float,
    ),
}
