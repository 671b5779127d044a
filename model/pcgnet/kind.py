"""PCGNet as the rest of the project uses it, see `model.kind`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from model.interface import Device, Predictor, ServingOptions
from model.kind import Kind, TextMode
from model.pcgnet.options import PcgnetOptions
from model.training.options import Run

if TYPE_CHECKING:  # they import torch
    from model.data.dataset import DataSet
    from model.pcgnet.checkpoint import Checkpoint
    from model.pcgnet.plan import PcgnetPlan
    from model.pcgnet.recipe import Recipe


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
