"""Every error the model raises. `ModelError` is the root."""

from __future__ import annotations

from collections.abc import Sequence


class ModelError(Exception):
    """Root of what the model raises."""


class CheckpointError(ModelError):
    """A checkpoint that cannot be used (missing, corrupt, mismatched); says what to do."""


class EncoderMissing(ModelError):
    """Raw text arrived and no sentence encoder is installed; holds the exact install line."""


class DeviceExhausted(ModelError):
    """The device ran out of memory for this batch; a smaller one may pass."""


class DeviceLost(ModelError):
    """The device is gone; the process must end."""


class NotFinite(ModelError):
    """A row's result holds NaN or Inf. `rows` are its indices in the batch."""

    def __init__(self, rows: Sequence[int]) -> None:
        super().__init__(f"the model returned NaN or Inf for batch rows {list(rows)}")
        self.rows = tuple(rows)


class RecipeError(ModelError):
    """A recipe file or a setting of it that cannot be used; says which and what would do."""


class DataError(ModelError):
    """Data that does not fit; names the file, the row or line, and both sizes or values."""


class LedgerError(ModelError):
    """A look at the test split cannot be recorded; says where and what to do."""
