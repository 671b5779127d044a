"""PCGNet as the rest of the project uses it, see `model.kind`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final, Literal

from model.interface import Device
from model.kind import Kind, TextMode
from model.training.options import Option, TrainingOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class PcgnetOptions(TrainingOptions):
    """The options of `emotrack train pcgnet`."""

    text: Annotated[
        TextMode | None,
        Option(
            "tune the sentence encoder with the graph, use it as it is, or use the set's text "
            "vectors (default: adapted where there are sentences)",
            before="folds",
        ),
    ] = None
    preset: Annotated[
        Literal["meld", "iemocap"] | None,
        Option("the paper's sizes and training instead of ours", before="folds"),
    ] = None
    bidirectional: Annotated[
        bool, Option("research twin that hears the future", before="folds")
    ] = False
    hidden: Annotated[int | None, Option("hidden width H (128)", least=4, before="window")] = None


class PcgnetKind(Kind[PcgnetOptions]):
    """PCGNet: persona graph, cross-task graph, emotion shift; trained on a CPU within minutes."""

    options = PcgnetOptions

    def study_options(self, *, seed: int, text: TextMode, device: Device) -> PcgnetOptions:
        return PcgnetOptions(seed=seed, text=text)


KIND: Final = PcgnetKind()
