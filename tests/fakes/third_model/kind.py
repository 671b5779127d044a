"""The interface of a third model's folder, see `model.kind`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

from model.interface import Predictor, ServingOptions
from model.kind import Kind, TextMode
from model.training.options import Option, Run, TrainingOptions

if TYPE_CHECKING:
    from model.data.dataset import DataSet
    from tests.fakes.third_model.model import (
        CountingCheckpoint,
        CountingConfig,
        CountingPlan,
        Recipe,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class CountingOptions(TrainingOptions):
    memory: Annotated[float, Option("share of the past that is remembered", before="threads")] = 0.5


class CountingKind(Kind[CountingOptions]):
    """Word counts, half remembered."""

    options = CountingOptions

    def load_checkpoint(self, folder: Path) -> CountingCheckpoint:
        from tests.fakes.third_model.model import load

        return load(folder)

    def load_predictor(self, folder: Path, serving: ServingOptions) -> Predictor:
        from model.serving.device import overridden
        from tests.fakes.third_model.model import CountingPredictor, load

        checkpoint = load(folder)
        recurrence = overridden(checkpoint.config.recurrence, serving)
        return CountingPredictor(
            replace(checkpoint, config=replace(checkpoint.config, recurrence=recurrence))
        )

    def plan(self, data: DataSet, options: CountingOptions, run: Run) -> CountingPlan:
        from model.training.settings import changed, changes_of
        from tests.fakes.third_model.model import CountingConfig, CountingPlan, Recipe

        of_recipe, of_model = changes_of(options, run, Recipe, CountingConfig)
        config = changed(CountingConfig(data.labels, options.memory), of_model, "model")
        recipe = changed(Recipe(), of_recipe, "recipe")
        return CountingPlan(data, config, recipe, options.seed, run.command, None, options.threads)

    def settings(self, options: CountingOptions) -> tuple[Recipe, CountingConfig]:
        from tests.fakes.third_model.model import CountingConfig, Recipe

        return Recipe(), CountingConfig(("one", "another"), options.memory)

    def recipe(self, text: TextMode, changes: Mapping[str, Any]) -> Recipe:
        from model.training.settings import changed
        from tests.fakes.third_model.model import Recipe

        return changed(Recipe(), changes, "recipe")


KIND: Final = CountingKind()
