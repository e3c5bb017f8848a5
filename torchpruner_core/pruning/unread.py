"""State that the graph never read: auxiliary heads, mask tokens, observers.

A graph shows what runs in evaluation mode. Parameters and buffers of parts that run in training alone
have the sizes of what is cut beside them all the same, and crash later if they stay behind. Where a
graph in training mode reads them, it tells how they follow; what nothing reads is named in a warning.
"""

from __future__ import annotations

import contextlib
import warnings
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn

from torchpruner_core.analysis.solved_graph import SolvedGraph
from torchpruner_core.cut_result import AxisCuts, CutRequest, CutResult, TensorSpec
from torchpruner_core.errors import StaleStateWarning, TorchPrunerError
from torchpruner_core.exporting import export
from torchpruner_core.exporting.structures import arranged, flatten_outputs, specs_of
from torchpruner_core.importing.solving import solve_onnx
from torchpruner_core.pruning.tensors.targets import LocalModel, own_tensors, split_name

SHOWN = 8
"""So many names are spelled out in a warning."""


_never_read: weakref.WeakKeyDictionary[nn.Module, set[str]] = weakref.WeakKeyDictionary()
"""What the training graph of each model did not read either, so that it is asked once."""


@dataclass(frozen=True)
class Followed:
    """What a graph in training mode adds to a cut, and what stays unread."""

    terminal: dict[str, AxisCuts] = field(default_factory=dict)
    operator: dict[str, Any] = field(default_factory=dict)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    left: tuple[str, ...] = ()

    def joined(self, cut: CutResult) -> CutResult:
        """Return the cut with what follows it."""
        if not self.terminal:
            return cut
        return replace(
            cut,
            terminal={**cut.terminal, **self.terminal},
            operator={**cut.operator, **self.operator},
            shapes={**cut.shapes, **self.shapes} if cut.shapes else cut.shapes,
        )


def follow_unread(root: nn.Module, cut: CutResult, inputs: Any = None) -> Followed:
    """Return how the state beside ``cut`` that its graph never read follows it.

    ``left`` names what has an axis as long as one that is cut near it, and that no graph in training
    mode reads either.
    """
    local = LocalModel(root)
    followed = _shown_in_training(root, local, cut, inputs)
    statistics = _statistics(followed.left, local, cut)
    return replace(
        followed,
        terminal={**followed.terminal, **statistics},
        shapes={**followed.shapes, **{name: _shape(local, name) for name in statistics}},
        left=tuple(name for name in followed.left if name not in statistics),
    )


def _statistics(left: Sequence[str], local: LocalModel, cut: CutResult) -> dict[str, AxisCuts]:
    """Return how buffers follow that an observer keeps beside others, all of which are cut alike.

    PyTorch's fused observers read their ranges within one function, where no graph shows them.
    """
    found: dict[str, AxisCuts] = {}
    for name in left:
        owner = _neighbourhood(name, local, cut)
        if any(True for _ in local.modules[owner].parameters()):
            continue
        beside = {n: axes for n, axes in cut.terminal.items() if n.startswith(f"{owner}.")}
        shapes = {_shape(local, n) for n in beside}
        gone = {tuple(axes[0].tolist()) for axes in beside.values() if axes[0] is not None}
        if len(gone) == 1 and shapes == {_shape(local, name)} and local.tensors[name].dim() == 1:
            found[name] = list(next(iter(beside.values())))
    return found


def _shown_in_training(root: nn.Module, local: LocalModel, cut: CutResult, inputs: Any) -> Followed:
    fitting = [name for name in cut.unread if _fits(name, "self", local, cut)]
    beside = [name for name in fitting if _fits(name, _neighbourhood(name, local, cut), local, cut)]
    if set(fitting) <= _never_read.get(root, set()):
        return Followed(left=tuple(beside))
    graph = _training_graph(root, cut, inputs)
    read = set() if graph is None else graph.nodes.keys() - set(graph.unread)
    _never_read.setdefault(root, set()).update(set(cut.unread) - read)
    more = None if graph is None or not read & set(fitting) else _closure(graph, cut, local)
    if graph is None or more is None:
        return Followed(left=tuple(beside))
    owners = {split_name(name)[0] for name in more.terminal if name not in cut.terminal}
    return Followed(
        terminal={name: axes for name, axes in more.terminal.items() if name not in cut.terminal},
        operator={
            name: change
            for name, change in more.operator.items()
            if name not in cut.operator and name.rpartition(".")[0] in owners
        },
        shapes={name: graph.nodes[name].shape for name in more.terminal},
        left=tuple(name for name in beside if name not in read),
    )


def warn_of(left: tuple[str, ...]) -> None:
    """Warn of state that stays as it is."""
    if left:
        more = f" and {len(left) - SHOWN} more" if len(left) > SHOWN else ""
        warnings.warn(
            f"{', '.join(left[:SHOWN])}{more} stays as it is: no graph of this model reads it, and it has "
            "an axis as long as one that was cut beside it. If a run with other arguments, or in "
            "training, reads it, shorten it by hand (torchpruner_core.module_pruner.set_cut_tensor), or "
            "analyse a graph that was built with those arguments",
            StaleStateWarning,
            stacklevel=4,
        )


def warn_of_training(failure: str) -> None:
    """Warn that a forward in training mode, which takes another path, does not follow the cut."""
    if failure:
        warnings.warn(
            f"the pruned model runs in evaluation mode and fails in training mode ({failure}): what it does "
            "in training alone ties slices that the analysed graph did not show. Undo the cut before you "
            "train, and cut what is tied together (cut_analysis_many)",
            StaleStateWarning,
            stacklevel=4,
        )


def _neighbourhood(name: str, local: LocalModel, cut: CutResult) -> str:
    """Return the module whose forward reads unread state, if any does.

    That is the module that holds it; where all in that module is unread, the one around it. A list
    of modules has no forward.
    """
    unread = set(cut.unread)
    owner = split_name(name)[0]
    while owner != "self" and (
        isinstance(local.modules[owner], (nn.ModuleList, nn.ModuleDict))
        or _holds_only(local.modules[owner], owner, unread)
    ):
        owner = owner.rpartition(".")[0]
    return owner


def _fits(name: str, owner: str, local: LocalModel, cut: CutResult) -> bool:
    """Tell whether unread state has an axis as long as one that is cut in the module ``owner``."""
    tensor = local.tensors.get(name)
    if tensor is None or name in cut.terminal or tensor.dim() == 0:
        return False
    sizes: set[int] = set()
    for cuts in (cut.terminal, cut.iner):
        for other, axes in cuts.items():
            if other.startswith(f"{owner}."):
                shape = cut.shapes.get(other) or _shape(local, other)
                sizes.update(s for s, gone in zip(shape, axes, strict=False) if gone is not None)
    return any(size > 1 and size in sizes for size in tensor.shape)


def _shape(local: LocalModel, name: str) -> tuple[int, ...]:
    tensor = local.tensors.get(name)
    return () if tensor is None else tuple(tensor.shape)


def _holds_only(module: nn.Module, name: str, unread: set[str]) -> bool:
    """Tell whether all state of a module and of those below it is unread, scalars aside."""
    for path, inner in module.named_modules():
        prefix = f"{name}.{path}" if path else name
        for attribute, tensor in own_tensors(inner):
            if tensor.dim() and f"{prefix}.{attribute}" not in unread:
                return False
    return True


def _training_graph(root: nn.Module, cut: CutResult, inputs: Any) -> SolvedGraph | None:
    with _showing_all(root, cut):
        for given in _inputs(cut, inputs):
            try:
                program = export(root, given, training=True)
                return solve_onnx(program.weightless())
            except TorchPrunerError:
                continue  # a batch of one has no statistics; two of them may have
    return None


@contextlib.contextmanager
def _showing_all(root: nn.Module, cut: CutResult) -> Iterator[None]:
    """Let a model return, beside its outputs, what the modules with unread state give.

    An auxiliary head may leave its result in an attribute, for the loss to find there; an exporter
    drops what no output depends on.
    """
    modules = LocalModel(root).modules
    owners = {id(modules[owner]): modules[owner] for owner in _owners(cut) if owner in modules}
    given: list[Any] = []

    def begin(module: nn.Module, args: Any) -> None:
        given.clear()

    def keep(module: nn.Module, args: Any, result: Any) -> None:
        given.extend(flatten_outputs(result))

    def show(module: nn.Module, args: Any, result: Any) -> Any:
        return [*flatten_outputs(result), *given]

    handles = [root.register_forward_pre_hook(begin, prepend=True)]
    handles += [m.register_forward_hook(keep) for m in owners.values() if m is not root]
    handles.append(root.register_forward_hook(show))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _owners(cut: CutResult) -> set[str]:
    return {split_name(name)[0] for name in cut.unread}


def _inputs(cut: CutResult, inputs: Any) -> Iterator[Any]:
    if inputs is not None:
        yield arranged(inputs)
    if not cut.inputs:
        return
    yield list(cut.inputs)
    specs = specs_of(list(cut.inputs))
    batches = {spec.shape[:1] for spec in cut.inputs}
    if specs is not None and len(batches) == 1 and batches != {()}:
        yield [
            TensorSpec(spec.name, (2 * spec.shape[0], *spec.shape[1:]), spec.dtype)
            for spec in cut.inputs
        ]


def _closure(graph: SolvedGraph, cut: CutResult, local: LocalModel) -> CutResult | None:
    """Return what ``cut`` means in another graph of the model, if it takes nothing else that was read."""
    requests = [
        CutRequest(name, axis, tuple(indices.tolist()))
        for name, axes in cut.terminal.items()
        if name in graph.nodes and name in local.tensors
        for axis, indices in enumerate(axes)
        if indices is not None and len(indices)
    ]
    try:
        found = graph.cut_analysis_many(requests)
    except TorchPrunerError:
        return None
    unread = set(cut.unread)
    for name, axes in found.terminal.items():
        if name in cut.terminal:
            if not _same(axes, cut.terminal[name]):
                return None
        elif name not in unread or name not in local.tensors:
            return None
    return found


def _same(a: AxisCuts, b: AxisCuts) -> bool:
    return all(
        (x is None or not len(x)) == (y is None or not len(y))
        and (x is None or y is None or list(x) == list(y))
        for x, y in zip(a, b, strict=True)
    )
