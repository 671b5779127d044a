"""HRG-SSA as a kind of model, see `model.kind`."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from model.hrg_ssa.options import HrgOptions
from model.interface import Device
from model.kind import Kind, TextMode


class HrgSsaKind(Kind[HrgOptions]):
    """HRG-SSA: hybrid relational graphs and a T5 decoder; reads words, not text vectors."""

    options = HrgOptions

    def study_options(self, *, seed: int, text: TextMode, device: Device) -> HrgOptions:
        """Return the options of a row; "adapted" is the shipped PCGNet's tuned encoder."""
        words_of = Path("pcgnet") if text == "adapted" else None
        return HrgOptions(seed=seed, words_of=words_of, device=device)


KIND: Final = HrgSsaKind()
