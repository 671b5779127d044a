"""What PCGNet offers the rest of the project, see `model.kind`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from model.interface import Device, Predictor, ServingOptions
from model.kind import Kind, Option, Run, TextMode, TrainingOptions

if TYPE_CHECKING:  # torch comes with them
    from model.data.dataset import DataSet
    from model.pcgnet.checkpoint import Checkpoint
    from model.pcgnet.plan import PcgnetPlan
    from model.pcgnet.recipe import Recipe


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

    def load_checkpoint(self, folder: Path) -> Checkpoint:
        from model.pcgnet.checkpoint import load_checkpoint

        return load_checkpoint(folder)

    def load_predictor(self, folder: Path, serving: ServingOptions) -> Predictor:
        from model.pcgnet.predictor import PcgnetPredictor

        return PcgnetPredictor.load(folder, serving)

    def plan(self, data: DataSet, options: PcgnetOptions, run: Run) -> PcgnetPlan:
        from model.pcgnet.plan import plan

        return plan(data, options, run)

    def recipe(self, text: TextMode, changes: Mapping[str, Any]) -> Recipe:
        from model.pcgnet.recipe import recipe_for

        return recipe_for(text, changes)

    def study_options(self, *, seed: int, text: TextMode, device: Device) -> PcgnetOptions:
        return PcgnetOptions(seed=seed, text=text)


KIND: Final = PcgnetKind()
