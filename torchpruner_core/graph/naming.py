"""Names: which module an operator ran in, and what tensors and operators are called.

The TorchScript exporter writes scopes into node names (``/layer1/layer1.0/conv1/Conv``),
``torch.export`` into the metadata entry ``pkg.torch.onnx.name_scopes``. Both give dotted module
paths; the graph prefixes them with ``self``, as the manual does.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Set
from typing import Any

from torchpruner_core.graph.written import MODULE_KEY, WrittenNode

SCOPES_KEY = "pkg.torch.onnx.name_scopes"

ROLES: dict[str, dict[int, str]] = {
    "Conv": {1: "weight", 2: "bias"},
    "ConvTranspose": {1: "weight", 2: "bias"},
    "BatchNormalization": {1: "weight", 2: "bias", 3: "running_mean", 4: "running_var"},
    "InstanceNormalization": {1: "weight", 2: "bias"},
    "LayerNormalization": {1: "weight", 2: "bias"},
    "RMSNormalization": {1: "weight"},
    "SimplifiedLayerNormalization": {1: "weight"},
    "GroupNormalization": {1: "weight", 2: "bias"},
    "PRelu": {1: "weight"},
    "MatMul": {0: "weight", 1: "weight"},
    "Gemm": {0: "weight", 1: "weight", 2: "bias"},
    "Add": {0: "bias", 1: "bias"},
    "Mul": {0: "weight", 1: "weight"},
    "Gather": {0: "weight"},
    "LSTM": {1: "weight_ih", 2: "weight_hh", 3: "bias"},
    "GRU": {1: "weight_ih", 2: "weight_hh", 3: "bias"},
    "RNN": {1: "weight_ih", 2: "weight_hh", 3: "bias"},
    "ConvInteger": {1: "weight"},
    "MatMulInteger": {0: "weight", 1: "weight"},
    "QLinearConv": {3: "weight", 8: "bias"},
    "QLinearMatMul": {0: "weight", 3: "weight"},
    "FusedConv": {1: "weight", 2: "bias"},
    "FusedMatMul": {1: "weight"},
    "FusedGemm": {1: "weight", 2: "bias"},
    "BiasGelu": {1: "bias"},
    "FastGelu": {1: "bias"},
    "SkipLayerNormalization": {2: "weight", 3: "bias"},
    "SkipSimplifiedLayerNormalization": {2: "weight"},
    "EmbedLayerNormalization": {
        2: "word_embedding",
        3: "position_embedding",
        4: "segment_embedding",
        5: "weight",
        6: "bias",
    },
    "Attention": {1: "weight", 2: "bias"},
    "QAttention": {1: "weight", 2: "bias"},
    "MatMulNBits": {1: "weight"},
    "MatMulBnb4": {1: "weight"},
    "MatMulIntegerToFloat": {1: "weight", 6: "bias"},
    "DynamicQuantizeMatMul": {1: "weight", 4: "bias"},
    "DynamicQuantizeLSTM": {1: "weight_ih", 2: "weight_hh", 3: "bias"},
    "QGemm": {3: "weight", 6: "bias"},
    "GatherBlockQuantized": {0: "weight"},
}
"""What PyTorch calls an operator's stored inputs, for files whose exporter lost the names."""

BUFFER_ROLES = {("BatchNormalization", 3), ("BatchNormalization", 4)}

SETTINGS: dict[str, tuple[int, ...]] = {
    "Resize": (1, 2, 3),
    "Upsample": (1,),
    "Range": (0, 1, 2),
    "OneHot": (1, 2),
    "Pad": (1, 2),
    "Clip": (1, 2),
    "NonMaxSuppression": (2, 3, 4),
    **dict.fromkeys(("LSTM", "GRU", "RNN", "DynamicQuantizeLSTM"), (4, 5, 6)),
}
"""Inputs that set an operator up: what is stored for them is no parameter."""

SCALES: dict[str, tuple[int, ...]] = {
    "QuantizeLinear": (1, 2),
    "DequantizeLinear": (1, 2),
    "QLinearConv": (1, 2, 4, 5, 6, 7),
    "QLinearMatMul": (1, 2, 4, 5, 6, 7),
    "ConvInteger": (2, 3),
    "MatMulInteger": (2, 3),
    "MatMulIntegerToFloat": (2, 3, 4, 5),
    "DynamicQuantizeMatMul": (2, 3),
    "DynamicQuantizeLSTM": (8, 9, 10, 11),
    "MatMulNBits": (2, 3),
    "MatMulBnb4": (2,),
    "QAttention": (3, 4, 6, 7),
    "QGemm": (1, 2, 4, 5, 7, 8),
    "GatherBlockQuantized": (2, 3),
}
"""Scales and zero points of quantised tensors: stored beside the weights, and no parameters."""

PASSED_ON = frozenset(
    {
        *("Identity", "Transpose", "Reshape", "Cast", "DequantizeLinear", "QuantizeLinear"),
        *("Squeeze", "Unsqueeze", "Flatten", "CastLike", "Expand"),
    }
)
"""Operators behind which a stored tensor is the same parameter: what reads their output says its role."""


_GENERATED = re.compile(
    r"::|^\d+$|^_?val_|^lifted_tensor|(^|/)_?[Cc]onst(ant)?(_\w+)?(\.\d+)?(:\d+)?$|^const_fold_opt__"
    r"|ReadVariableOp|^p2o\.|^auto\.|^(Add|Mul|MatMul|Gemm|Conv|Transpose|Reshape)_\d+"
)


def self_name(path: str) -> str:
    """Return a dotted path as the graph names it.

    >>> self_name("conv1.weight"), self_name("")
    ('self.conv1.weight', 'self')
    """
    return f"self.{path}" if path else "self"


def is_generated(name: str) -> bool:
    """Return whether an exporter made ``name`` up (``onnx::Conv_193``, ``val_7``, ``42``)."""
    return not name.endswith((".weight", ".bias")) and _GENERATED.search(name) is not None


def dotted(name: str) -> str:
    """Return a stored tensor's name as a dotted path; TensorFlow's converter writes slashes.

    >>> dotted("model/dense/kernel:0"), dotted("conv1.weight")
    ('model.dense.kernel', 'conv1.weight')
    """
    if "/" not in name:
        return name
    plain = name[: -len(":0")] if name.endswith(":0") else name
    return ".".join(part for part in plain.split("/") if part)


def prefixes(paths: Iterable[str]) -> set[str]:
    """Return every module path that contains one of ``paths``, the root ``''`` included."""
    found = {""}
    for path in paths:
        while path and path not in found:
            found.add(path)
            path = path.rpartition(".")[0]
    return found


def innermost_scope(scopes: str) -> str:
    """Return the module path from the list of scopes that ``torch.export`` writes.

    The list is a literal and ends with the node's own name; the root's name is empty.

    >>> innermost_scope("['', 'layer1', 'layer1.0', 'conv2d']"), innermost_scope("['', 'add']")
    ('layer1.0', '')
    """
    names = scopes.strip("[]").replace('"', "'")[1:-1].split("', '")
    return names[-2] if len(names) > 1 else ""


def module_path(node: Any, known: Set[str]) -> str:
    """Return the dotted path of the module that a node ran in, ``''`` for the root."""
    if type(node) is WrittenNode:
        return node.module
    for entry in node.metadata_props:
        if entry.key == MODULE_KEY:
            path: str = entry.value
            return path
        if entry.key == SCOPES_KEY:
            return innermost_scope(entry.value)
    if "/" not in node.name:
        return ""
    path = ""
    parts = node.name.split("/")[:-1]
    for part in parts[1:] if not parts[0] else parts:
        joined = f"{path}.{part}" if path else part
        if joined in known:
            path = joined
        elif part in known:
            path = part
        else:
            path = _continued(path, part) or joined
    return path


class Scopes:
    """Where each operator ran.

    A trace names a module that a ``forward()`` takes out of a list by its name in the list: layer
    3 of ``encoder.layers`` is ``3``. The parameters that are read there tell the rest of the path;
    operators without any follow those around them.
    """

    def __init__(
        self, nodes: Iterable[Any], known: Set[str], owner: Callable[[str], str | None]
    ) -> None:
        """``owner`` returns the module path that a stored tensor's name holds, else ``None``."""
        self._known = known
        self._found: dict[str, str] = {}
        waiting: dict[str, list[tuple[str, str]]] = {}
        places: dict[str, str] = {}
        for node in nodes:
            raw = module_path(node, known)
            if not raw or raw in known or not node.output:
                continue
            first = raw.partition(".")[0]
            owners = [path for path in map(owner, node.input) if path]
            for path in owners:
                found = aligned(raw, path)
                if found:
                    places.update(found)
                    for key, other in waiting.pop(first, ()):
                        self._found[key] = _placed(other, places)
                    break
            placed = _placed(raw, places)
            if owners and not any(f"{path}.".startswith(f"{placed}.") for path in owners):
                # A module that is called from several places has one name, which its parameters say.
                self._found[node.output[0]] = owners[0]
            elif first in places:
                self._found[node.output[0]] = placed
            else:
                waiting.setdefault(first, []).append((node.output[0], raw))

    def path(self, node: Any) -> str:
        """Return the dotted path of the module that a protobuf node ran in."""
        found = self._found.get(node.output[0]) if node.output else None
        return found or module_path(node, self._known)


def aligned(raw: str, path: str) -> dict[str, str]:
    """Return where ``raw`` and each path that contains it are, if ``path`` is ``raw`` with parts left out.

    >>> aligned("0.conv", "stages.0.conv")
    {'0': 'stages.0', '0.conv': 'stages.0.conv'}
    >>> aligned("0.conv", "stages.1.conv")
    {}
    """
    names, parts = path.split("."), raw.split(".")
    if names[-1] != parts[-1]:
        return {}
    found: dict[str, str] = {}
    end = len(names)
    for k in range(len(parts), 0, -1):
        while end and names[end - 1] != parts[k - 1]:
            end -= 1
        if not end:
            return {}
        found[".".join(parts[:k])] = ".".join(names[:end])
        end -= 1
    return dict(reversed(found.items()))


def _placed(raw: str, places: dict[str, str]) -> str:
    """Return ``raw`` with its longest known beginning replaced by where that is."""
    parts = raw.split(".")
    for k in range(len(parts), 0, -1):
        place = places.get(".".join(parts[:k]))
        if place is not None:
            return ".".join([place, *parts[k:]])
    return raw


def _continued(path: str, part: str) -> str | None:
    """Return the path that ``part`` continues, where it repeats the end of ``path``.

    >>> _continued("features.1.conv.0", "conv.0.0"), _continued("layer1", "conv1")
    ('features.1.conv.0.0', None)
    """
    names = path.split(".")
    for start in range(len(names)):
        if part.startswith(".".join(names[start:]) + "."):
            return ".".join([*names[:start], part])
    return None


class Names:
    """Unique names of one kind: a second ``a`` becomes ``a_1``."""

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self._count: dict[str, int] = {}
        self._taken = set(taken)
        self._number = 0

    def unique(self, name: str) -> str:
        """Return ``name``, with a number behind it where it is taken."""
        candidate = name
        while candidate in self._taken:
            self._count[name] = self._count.get(name, 0) + 1
            candidate = f"{name}_{self._count[name]}"
        self._taken.add(candidate)
        return candidate

    def number(self) -> str:
        """Return the next free number as a name."""
        while str(self._number) in self._taken:
            self._number += 1
        self._taken.add(str(self._number))
        return str(self._number)
