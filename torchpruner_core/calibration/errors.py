"""Why a model could not be observed over batches.

::

    CalibrationError
    ├── BatchError                  a batch that the model does not take, or no batch at all
    ├── NotFiniteError              NaN or infinity in a batch, a gradient, or what a weight reads
    ├── UnscorableModelError        the model has nothing that this importance could judge
    └── CalibrationCancelledError   the caller's ``progress`` returned ``False``
"""

from __future__ import annotations

from torchpruner_core.errors import TorchPrunerError


class CalibrationError(TorchPrunerError):
    """A model could not be observed over batches."""

    slug = "calibration-failed"
    title = "The model could not be observed"


class BatchError(CalibrationError):
    """A batch that the model does not take, or no batch at all."""

    slug = "invalid-batches"
    title = "The batches do not fit the model"


class NotFiniteError(CalibrationError):
    """NaN or infinity in a batch, in a gradient, or in what a weight reads."""

    slug = "not-finite"
    title = "The data hold numbers that are not finite"


class UnscorableModelError(CalibrationError):
    """The model has nothing that this importance could judge."""

    slug = "unscorable-model"
    title = "This importance does not fit the model"


class CalibrationCancelledError(CalibrationError):
    """The caller's ``progress`` returned ``False``: nothing was changed."""

    slug = "calibration-cancelled"
    title = "The run was cancelled"
