"""The options of `emotrack train hrg-ssa`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from model.interface import Device
from model.training.options import Option, TrainingOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class HrgOptions(TrainingOptions):
    """The options of `emotrack train hrg-ssa`."""

    words_of: Annotated[
        Path | None,
        Option("hear words through this checkpoint's tuned encoder (or pcgnet)", before="threads"),
    ] = None
    device: Annotated[
        Device, Option("where it is trained; on a GPU equal runs differ in their last bits")
    ] = "cpu"
