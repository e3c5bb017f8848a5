"""Replaying a cut on a local ``nn.Module``, its optimizer included, and undoing it.

Imported name by name where first used, so that a pruner and this package may import each other.
"""

# ruff: noqa: F401  (the imports under TYPE_CHECKING give the lazy names their types)

from __future__ import annotations

from typing import TYPE_CHECKING

from torchpruner_core.lazy import lazy_names

_PUBLIC = {
    "set_cut": "cut",
    "recovery_cut": "cut",
    "set_zero": "zero",
    "recovery_zero": "zero",
    "merge_cut_dict": "cut_dict",
    "set_cut_optimizer": "optimizer",
    "recovery_optimizer": "optimizer",
    "verify_cut": "oracle",
    "VerifyReport": "oracle",
    "CutContext": "context",
}

__all__ = sorted([*_PUBLIC])

if TYPE_CHECKING:
    from torchpruner_core.pruning.context import CutContext
    from torchpruner_core.pruning.cut import recovery_cut, set_cut
    from torchpruner_core.pruning.cut_dict import merge_cut_dict
    from torchpruner_core.pruning.optimizer import recovery_optimizer, set_cut_optimizer
    from torchpruner_core.pruning.oracle import VerifyReport, verify_cut
    from torchpruner_core.pruning.zero import recovery_zero, set_zero


__getattr__, __dir__ = lazy_names(__name__, _PUBLIC)
