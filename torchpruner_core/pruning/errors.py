"""Why a cut cannot be replayed on a local model.

::

    ReplayError                          (torchpruner_core.errors)
    ├── CutMismatchError                 a name, a shape or an index does not fit the model
    ├── UnsupportedModuleError           a wrapper or a parametrised tensor that cannot be cut in place
    ├── ModulePrunerError                a module pruner refused, failed or left a tensor wrong
    ├── LiteralInForwardError            ``forward()`` holds a constant that the cut must change
    ├── ContextMismatchError             a context is of another cut, another model or another turn
    ├── OptimizerStateError              a state tensor whose axes cannot be told
    ├── MergeError                       two cuts overlap in a way their results alone cannot join
    └── UnknownObjectError               a model has no object of that name

All of them are raised before anything is changed, or after everything was put back.
"""

from __future__ import annotations

from torchpruner_core.errors import ReplayError

__all__ = [
    "ContextMismatchError",
    "CutMismatchError",
    "LiteralInForwardError",
    "MergeError",
    "ModulePrunerError",
    "OptimizerStateError",
    "ReplayError",
    "UnknownObjectError",
    "UnsupportedModuleError",
]


class CutMismatchError(ReplayError):
    """A name, a shape or an index of the cut does not fit the model."""

    slug = "cut-mismatch"
    title = "The cut was made for another model"


class UnsupportedModuleError(ReplayError):
    """A wrapper or a parametrised tensor that cannot be cut in place."""

    slug = "unsupported-module"
    title = "This module cannot be cut in place"


class ModulePrunerError(ReplayError):
    """A module pruner refused, failed, or left a tensor in another shape than the cut asks for."""

    slug = "module-pruner-failed"
    title = "A module pruner failed"


class LiteralInForwardError(ReplayError):
    """``forward()`` holds a constant that the cut must change and that no attribute explains."""

    slug = "literal-in-forward"
    title = "A constant in forward() must change"


class ContextMismatchError(ReplayError):
    """The context is of another cut, of another model, or a later cut must be undone first."""

    slug = "context-mismatch"
    title = "The context does not belong here"


class OptimizerStateError(ReplayError):
    """An optimizer state tensor whose axes cannot be matched with its parameter's."""

    slug = "optimizer-state"
    title = "The optimizer state cannot be cut"


class MergeError(ReplayError):
    """Two cuts overlap in a way that their results alone cannot join."""

    slug = "merge-conflict"
    title = "The cuts cannot be merged"


class UnknownObjectError(ReplayError, LookupError):
    """A model has no object of that name."""

    slug = "unknown-object"
    title = "There is no such object"
