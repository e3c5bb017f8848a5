"""Torch-Pruning's own way to the same cost: its ratio, bisected, in each of its three scopes."""

from __future__ import annotations

import copy
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

SCOPES = {
    "local": {"global_pruning": False},
    "global": {"global_pruning": True},
    "isomorphic": {"global_pruning": True, "isomorphic": True},
}
"""Torch-Pruning's arguments by the name of the scope."""

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


def pruned(model: nn.Module, example: torch.Tensor, scope: str, ratio: float) -> nn.Module:
    """Return a copy that Torch-Pruning cut by ``ratio``, its heads patched as its examples do.

    Scores are group magnitudes (L2), as ours. Raises :class:`PeerFailedError`.
    """
    import torch_pruning

    subject = copy.deepcopy(model).eval()
    attention = _attention(subject)
    last = [m for m in subject.modules() if isinstance(m, nn.Linear)][-1]
    try:
        with _alarm(PATIENCE):
            pruner = torch_pruning.pruner.BasePruner(
                subject,
                example,
                importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
                pruning_ratio=ratio,
                ignored_layers=[last],
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


def to_cost(model: nn.Module, example: torch.Tensor, scope: str, target: float) -> nn.Module:
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
            subject = pruned(model, example, scope, ratio)
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
        names = ("q_proj", "k_proj", "v_proj") if hasattr(module, "q_proj") else ("q", "k", "v")
        layers = [
            layer for name in names if isinstance(layer := getattr(module, name, None), nn.Linear)
        ]
        if hasattr(module, "head_dim") and len(layers) == len(names):
            size: int = module.head_dim
            found.append((module, {layer: layer.out_features // size for layer in layers}))
    return found


def _patch(module: Any, heads: list[int]) -> None:
    if hasattr(module, "num_key_value_groups"):
        module.num_key_value_groups = heads[0] // heads[1]
