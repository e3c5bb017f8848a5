"""What stops a recording."""

from __future__ import annotations

from torchpruner_core.errors import ExportError


class CaptureError(ExportError):
    """The run cannot be recorded; another entrance may still take the model."""


class ValuesNeeded(BaseException):
    """Python code asked for the contents of a tensor that the quick run does not compute.

    No ``Exception``: a forward that catches its own errors must not catch this.
    """
