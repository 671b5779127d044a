"""HRG-SSA as a kind of model, see `model.kind`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

from model.interface import Device
from model.kind import Kind, TextMode
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


class HrgSsaKind(Kind[HrgOptions]):
    """HRG-SSA: hybrid relational graphs and a T5 decoder; reads words, not text vectors."""

    options = HrgOptions

    def study_options(self, *, seed: int, text: TextMode, device: Device) -> HrgOptions:
        """Return the options of a row; "adapted" is the shipped PCGNet's tuned encoder."""
        words_of = Path("pcgnet") if text == "adapted" else None
        return HrgOptions(seed=seed, words_of=words_of, device=device)


KIND: Final = HrgSsaKind()
