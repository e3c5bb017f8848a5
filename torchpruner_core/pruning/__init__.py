"""Replaying a cut on a local ``nn.Module``, its optimizer included, and undoing it.

Rooms, each importing only what stands before it: ``tensors`` (slices taken out of tensors, and put back),
``module_pruners`` (how each class of module follows), ``change_list`` (what a cut will do to one model),
``forward`` (a forward run in rehearsal and what it shows), then the verbs: ``cut``, ``zero``, ``optimizer``,
``oracle``. Names are imported where first used, so that this package costs nothing before.
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
    from torchpruner_core.pruning.optimizer import recovery_optimizer, set_cut_optimizer
    from torchpruner_core.pruning.oracle import VerifyReport, verify_cut
    from torchpruner_core.pruning.zero import recovery_zero, set_zero


__getattr__, __dir__ = lazy_names(__name__, _PUBLIC)
