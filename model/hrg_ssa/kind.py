"""What HRG-SSA offers the rest of the project, see `model.kind`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

from model.interface import Device, Predictor, ServingOptions
from model.kind import Kind, Option, Run, TextMode, TrainingOptions

if TYPE_CHECKING:  # torch comes with them
    from model.data.dataset import DataSet
    from model.hrg_ssa.checkpoint import HrgCheckpoint
    from model.hrg_ssa.plan import HrgPlan
    from model.hrg_ssa.recipe import HrgRecipe


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
    """HRG-SSA: hybrid relational graphs and a T5 decoder; hears words, not text vectors."""

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
