"""Every error the library raises on purpose.

::

    TorchPrunerError
    ├── GraphError                 a model did not become a graph
    │   ├── ExportError            the exporter refused the program
    │   ├── InvalidModelError      the bytes are not the model they claim to be
    │   ├── InputSpecError         the input names, shapes or dtypes do not fit the model
    │   ├── UnsupportedModelError  a valid model, of a kind this library cannot read
    │   └── GraphTooLargeError     more slices than the caller allows
    ├── CutError                   a cut cannot be made
    │   ├── UnknownNodeError       no node of that name; a KeyError too
    │   ├── UnknownModuleError     no module of that name; a KeyError too
    │   ├── CutDimError            the axis does not exist
    │   ├── CutIndexError          the indices are empty, repeated, out of range or not integers
    │   ├── EmptyAxisError         nothing would be left of an axis
    │   ├── OpaqueAxisError        the cut reaches an axis that no rule can shorten
    │   ├── AmbiguousCutError      ``strict``: the request is not aligned to blocks or strides
    │   └── ProtectedIOError       ``protect_io``: the cut reaches a graph input or output
    ├── PlanError                  a plan cannot be made, or not read (see ``planning.errors``)
    └── ReplayError                a cut does not fit a local model
        ├── CutMismatchError       a name, a shape or an index does not fit the model
        ├── UnsupportedModuleError a wrapper or a parametrised tensor that cannot be cut in place
        ├── ModulePrunerError      a module pruner refused, failed or left a tensor wrong
        ├── LiteralInForwardError  ``forward()`` holds a constant that the cut must change
        ├── ContextMismatchError   a context is of another cut, another model or another turn
        ├── OptimizerStateError    a state tensor whose axes cannot be told
        ├── MergeError             two cuts overlap in a way their results alone cannot join
        ├── StaleGraphError        a backward pass of a forward that ran before a cut
        ├── VerificationError      ``verify=True``: the pruned model differs from the masked one
        └── UnknownObjectError     a model has no object of that name

A ``ReplayError`` is raised before anything is changed, or after everything was put back; only a
``StaleGraphError`` comes later, out of the ``backward()`` it is about.

A :class:`StaleStateWarning` tells of what may be left behind: a parameter that no graph read, an attribute
that repeats a size and may or may not have to follow.

Each carries the names a person needs as attributes, and ``to_problem()`` gives them in the form of
RFC 9457 (``application/problem+json``), with a ``type`` slug that does not change between versions.
"""

from __future__ import annotations

from typing import Any, ClassVar


class TorchPrunerError(Exception):
    """Base of every error of this library.

    ``fields`` are the names behind the sentence: operator, module, axis, expected, received.
    """

    slug: ClassVar[str] = "error"
    title: ClassVar[str] = "The request failed"

    def __init__(self, detail: str, **fields: Any) -> None:
        super().__init__(detail)
        self.detail = detail
        self.fields = fields

    def __str__(self) -> str:
        return self.detail  # a KeyError's own would show it in quotes

    def to_problem(self) -> dict[str, Any]:
        """Return the error as RFC 9457 members: ``type``, ``title``, ``detail`` and the fields."""
        return {"type": self.slug, "title": self.title, "detail": self.detail, **self.fields}


class StaleStateWarning(UserWarning):
    """Something of a model is outside what its graph shows, and may be left behind by a cut."""


class ChangedStatisticsWarning(UserWarning):
    """Normalisations compute over fewer slices after a cut: valid, and not equal to the masked model."""


class FixedSizesWarning(UserWarning):
    """A pruned ONNX model holds for the input sizes of its analysis, and the original held for others."""


class GraphError(TorchPrunerError):
    """A model did not become a graph."""

    slug = "graph-error"
    title = "The graph could not be built"


class ExportError(GraphError):
    """The exporter refused the program."""

    slug = "export-failed"
    title = "The model could not be exported to ONNX"


class InvalidModelError(GraphError):
    """The bytes are not the model they claim to be."""

    slug = "invalid-model"
    title = "The file is not a valid model"


class InputSpecError(GraphError):
    """The input names, shapes or dtypes do not fit the model."""

    slug = "invalid-inputs"
    title = "The inputs do not fit the model"


class UnsupportedModelError(GraphError):
    """A valid model of a kind this library cannot read."""

    slug = "unsupported-model"
    title = "This kind of model is not supported"


class GraphTooLargeError(GraphError):
    """A graph with more slices than the caller allows; nothing of that size was made yet."""

    slug = "graph-too-large"
    title = "The model's axes are too long"


class CutError(TorchPrunerError):
    """A cut cannot be made."""

    slug = "cut-error"
    title = "The cut cannot be made"


class UnknownNodeError(CutError, KeyError):
    """No node, or no operator, of that name."""

    slug = "unknown-node"
    title = "There is no such node"


class UnknownModuleError(CutError, KeyError):
    """No module of that name."""

    slug = "unknown-module"
    title = "There is no such module"


class CutDimError(CutError):
    """The axis does not exist."""

    slug = "invalid-dim"
    title = "The axis does not exist"


class CutIndexError(CutError):
    """The indices are empty, repeated, out of range or not integers."""

    slug = "invalid-index"
    title = "The indices are not valid"


class EmptyAxisError(CutError):
    """Nothing would be left of an axis."""

    slug = "empty-axis"
    title = "The cut would remove a whole axis"


class OpaqueAxisError(CutError):
    """The cut reaches an axis that no rule can shorten."""

    slug = "opaque-axis"
    title = "The cut reaches an axis that cannot be pruned"


class AmbiguousCutError(CutError):
    """``strict`` was asked and the request is not aligned to whole blocks or whole strides."""

    slug = "ambiguous-cut"
    title = "The request is not aligned to blocks or strides"


class ProtectedIOError(CutError):
    """``protect_io`` was asked and the cut reaches a graph input or output."""

    slug = "protected-io"
    title = "The cut reaches a graph input or output"


class ReplayError(TorchPrunerError):
    """A cut does not fit a local model."""

    slug = "replay-error"
    title = "The cut does not fit the model"


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


class StaleGraphError(ReplayError, RuntimeError):
    """``backward()`` was called on a graph that was recorded before a cut changed its parameters."""

    slug = "stale-graph"
    title = "The backward pass belongs to a forward before the cut"


class VerificationError(ReplayError):
    """``verify=True`` was asked, and the pruned model does not give what the masked one gives."""

    slug = "verification-failed"
    title = "The pruned model differs from the masked one"


class UnknownObjectError(ReplayError, LookupError):
    """A model has no object of that name."""

    slug = "unknown-object"
    title = "There is no such object"


class PlanError(TorchPrunerError):
    """A plan cannot be made, or not read."""

    slug = "plan-error"
    title = "The plan cannot be made"
