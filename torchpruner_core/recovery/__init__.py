"""Recovery without training: what the removed slices did is given to those that stay, from
unlabelled batches.
"""

# ruff: noqa: F401  (the imports under TYPE_CHECKING give the lazy names their types)

from __future__ import annotations

from typing import TYPE_CHECKING

from torchpruner_core.lazy import lazy_names

_PUBLIC = {"recover": "recover", "Recovery": "recover", "RecoveryError": "errors"}

__all__ = sorted([*_PUBLIC])

__getattr__, __dir__ = lazy_names(__name__, _PUBLIC)

if TYPE_CHECKING:
    from torchpruner_core.recovery.errors import RecoveryError
    from torchpruner_core.recovery.recover import Recovery, recover
