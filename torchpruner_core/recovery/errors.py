"""Why a cut could not be repaired."""

from __future__ import annotations

from torchpruner_core.calibration.errors import CalibrationError


class RecoveryError(CalibrationError):
    """A cut that is not in force on the model, or a way of repairing that does not exist."""

    slug = "recovery-failed"
    title = "The cut could not be repaired"
