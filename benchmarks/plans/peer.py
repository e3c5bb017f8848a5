"""Torch-Pruning's own way to the same cost: its ratio, bisected, in each of its three scopes."""

from __future__ import annotations

import copy
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from torchpruner_core.errors import TorchPrunerError

SCOPES = {
    "local": {"global_pruning": False},
    "global": {"global_pruning": True},
    "isomorphic": {"global_pruning": True, "isomorphic": True},
}
"""Torch-Pruning's arguments by the name of the scope."""

PROJECTIONS = (("q_proj", "k_proj", "v_proj"), ("query", "key", "value"), ("q", "k", "v"))
"""What attentions call their layers."""

PATIENCE = 60
"""Seconds that one of its cuts may take: some enumerations do not end."""

STEPS = 9


class PeerFailedError(Exception):
    """Torch-Pruning raised, did not end, or left a model that does not run."""


def macs(model: nn.Module, example: torch.Tensor) -> int:
    """Return the multiply-accumulates of one forward pass."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(example)
    return int(counter.get_total_flops()) // 2


def output_layers(model: nn.Module, graph: Any) -> list[str]:
    """Return the layers whose output channels are the model's own, which a person tells it to ignore."""
    found = []
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            try:
                cut = graph.solved.cut_analysis(f"self.{name}.weight", [0], 0)
            except TorchPrunerError:
                found.append(name)
                continue
            if cut.touches_outputs:
                found.append(name)
    return found


def pruned(
    model: nn.Module, example: torch.Tensor, scope: str, ratio: float, ignored: Sequence[str]
) -> nn.Module:
    """Return a copy that Torch-Pruning cut by ``ratio``, its heads patched as its examples do.

    Scores are group magnitudes (L2), as ours. Raises :class:`PeerFailedError`.
    """
    import torch_pruning

    subject = copy.deepcopy(model).eval()
    attention = _attention(subject)
    try:
        with _alarm(PATIENCE):
            pruner = torch_pruning.pruner.BasePruner(
                subject,
                example,
                importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
                pruning_ratio=ratio,
                ignored_layers=[subject.get_submodule(name) for name in ignored],
                num_heads={
                    layer: heads for entry in attention for layer, heads in entry[1].items()
                },
                prune_num_heads=bool(attention),
                prune_head_dims=False,
                head_pruning_ratio=ratio,
                root_module_types=[nn.Conv2d, nn.Linear],
                **SCOPES[scope],
            )
            pruner.step()
            for module, layers in attention:
                _patch(module, [pruner.num_heads[layer] for layer in layers])
            with torch.no_grad():
                subject(example)
    except Exception as error:
        raise PeerFailedError(f"{type(error).__name__}: {str(error)[:120]}") from error
    return subject


def to_cost(
    model: nn.Module, example: torch.Tensor, scope: str, target: float, ignored: Sequence[str]
) -> nn.Module:
    """Return what Torch-Pruning gives at the ratio whose cost is nearest to ``target`` of the original's.

    Raises :class:`PeerFailedError` where no ratio gives a model that runs.
    """
    whole = macs(model, example)
    low, high = 0.0, 1.0 - target / 4
    best: tuple[float, nn.Module] | None = None
    failure: PeerFailedError | None = None
    for _ in range(STEPS):
        ratio = (low + high) / 2
        try:
            subject = pruned(model, example, scope, ratio, ignored)
        except PeerFailedError as error:
            failure, high = error, ratio
            if "PatienceError" in str(error):
                break
            continue
        share = macs(subject, example) / whole
        if best is None or abs(share - target) < abs(best[0] - target):
            best = (share, subject)
        if share > target:
            low = ratio
        else:
            high = ratio
    if best is None:
        raise failure or PeerFailedError("no ratio gave a model")
    return best[1]


class PatienceError(Exception):
    """The peer's cut took longer than it may."""


@contextmanager
def _alarm(seconds: int) -> Iterator[None]:
    def stop(number: int, frame: Any) -> None:
        raise PatienceError(f"not finished in {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _attention(model: nn.Module) -> list[tuple[nn.Module, dict[nn.Module, int]]]:
    """Return each attention with its projections and how many heads each of these has."""
    found: list[tuple[nn.Module, dict[nn.Module, int]]] = []
    for module in model.modules():
        for names in PROJECTIONS:
            layers = [
                layer
                for name in names
                if isinstance(layer := getattr(module, name, None), nn.Linear)
            ]
            size = getattr(module, "head_dim", getattr(module, "attention_head_size", None))
            if size is None or len(layers) != len(names):
                continue
            found.append((module, {layer: layer.out_features // size for layer in layers}))
    return found


def _patch(module: Any, heads: list[int]) -> None:
    if hasattr(module, "num_key_value_groups"):
        module.num_key_value_groups = heads[0] // heads[1]
    if hasattr(module, "all_head_size"):
        module.num_attention_heads = heads[0]
        module.all_head_size = heads[0] * module.attention_head_size
