"""HRG-SSA as a kind of model, see `model.kind`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from model.hrg_ssa.options import HrgOptions
from model.interface import Device, Predictor, ServingOptions
from model.kind import Kind, TextMode
from model.training.options import Run

if TYPE_CHECKING:  # torch comes with them
    from model.data.dataset import DataSet
    from model.hrg_ssa.checkpoint import HrgCheckpoint
    from model.hrg_ssa.plan import HrgPlan
    from model.hrg_ssa.recipe import HrgRecipe


class HrgSsaKind(Kind[HrgOptions]):
    """HRG-SSA: hybrid relational graphs and a T5 decoder; reads words, not text vectors."""

    options = HrgOptions

    def load_checkpoint(self, folder: Path) -> HrgCheckpoint:
        from model.hrg_ssa.checkpoint import load_hrg_checkpoint

        return load_hrg_checkpoint(folder)

    def load_predictor(self, folder: Path, serving: ServingOptions) -> Predictor:
        from model.hrg_ssa.predictor import HrgSsaPredictor

        return HrgSsaPredictor.load(folder, serving)

    def plan(self, data: DataSet, options: HrgOptions, run: Run) -> HrgPlan:
        from model.hrg_ssa.plan import plan_hrg_ssa

        return plan_hrg_ssa(data, options, run)

    def recipe(self, text: TextMode, changes: Mapping[str, Any]) -> HrgRecipe:
        from model.hrg_ssa.recipe import HrgRecipe
        from model.training.settings import changed

        return changed(HrgRecipe(), changes, "recipe")

    def study_options(self, *, seed: int, text: TextMode, device: Device) -> HrgOptions:
        """Return the options of a row; "adapted" is the shipped PCGNet's tuned encoder."""
        words_of = Path("pcgnet") if text == "adapted" else None
        return HrgOptions(seed=seed, words_of=words_of, device=device)


KIND: Final = HrgSsaKind()
