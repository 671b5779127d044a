"""PCGNet as the rest of the project uses it, see `model.kind`."""

from __future__ import annotations

from typing import Final

from model.interface import Device
from model.kind import Kind, TextMode
from model.pcgnet.options import PcgnetOptions


class PcgnetKind(Kind[PcgnetOptions]):
    """PCGNet: persona graph, cross-task graph, emotion shift; trained on a CPU within minutes."""

    options = PcgnetOptions

    def study_options(self, *, seed: int, text: TextMode, device: Device) -> PcgnetOptions:
        return PcgnetOptions(seed=seed, text=text)


KIND: Final = PcgnetKind()
