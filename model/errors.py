"""Every error the model raises. `ModelError` is the root."""

from __future__ import annotations

from collections.abc import Sequence


class ModelError(Exception):
    """Root of the errors that the model raises."""


class CheckpointError(ModelError):
    """A checkpoint that cannot be used (missing, corrupt, mismatched), with the cure."""


class EncoderMissing(ModelError):
    """Raw text arrived and no sentence encoder is installed; names the install command."""


class DeviceExhausted(ModelError):
    """The device ran out of memory for this batch; a smaller one may pass."""


class DeviceLost(ModelError):
    """The device failed; the process must end."""


class NotFinite(ModelError):
    """A row's result holds NaN or Inf. `rows` are its indices in the batch."""

    def __init__(self, rows: Sequence[int]) -> None:
        super().__init__(f"the model returned NaN or Inf for batch rows {list(rows)}")
        self.rows = tuple(rows)


class RecipeError(ModelError):
    """A recipe file or setting that cannot be used, with what would be accepted."""


class DataError(ModelError):
    """Data that does not fit; names the file, the row or line, and both sizes or values."""


class LedgerError(ModelError):
    """A use of the test split that cannot be recorded; says where, and the cure."""
