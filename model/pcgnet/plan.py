"""Plan a training of PCGNet: configuration, recipe and data, checked before anything is trained."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from model.data.dataset import DataSet
from model.errors import EncoderMissing
from model.kind import Plan
from model.pcgnet.card import model_card
from model.pcgnet.checkpoint import NAME
from model.pcgnet.config import PcgnetConfig
from model.pcgnet.config import preset as papers_sizes
from model.pcgnet.model import Pcgnet
from model.pcgnet.options import PcgnetOptions
from model.pcgnet.recipe import Recipe, paper_recipe, recipe_for
from model.pcgnet.train import fitting_config, train
from model.scoring.report import Report
from model.text.encode_sentences import has_sentences, with_encoded_text
from model.text.sentence_encoder import find_encoder, frozen_encoder
from model.training.loop import Trained, check_labels
from model.training.options import Run
from model.training.progress import Listener
from model.training.settings import changed, changes_of


@dataclass(frozen=True, slots=True)
class PcgnetPlan(Plan):
    """What to train of PCGNet; without an `encoder`, on the set's text vectors."""

    kind: ClassVar = NAME
    config: PcgnetConfig
    recipe: Recipe
    network: type[Pcgnet] = Pcgnet

    def train(self, progress: Path, listener: Listener) -> Trained[Pcgnet]:
        """Train; a sentence encoder that was not tuned is named with what was trained."""
        trained = train(
            self.data,
            self.config,
            self.recipe,
            seed=self.seed,
            threads=self.threads,
            encoder=self.encoder,
            network=self.network,
            progress=progress,
            on_step=listener.on_share,
            on_epoch=listener.on_epoch,
        )
        if trained.text is None and self.encoder is not None:
            text = frozen_encoder(self.encoder, self.recipe.mixed_layers)
            trained = replace(trained, text=text)
        return trained

    def extractors(self, trained: Trained[Pcgnet]) -> Mapping[str, str]:
        """Return the set's, but for text that is encoded here."""
        own = {} if trained.text is None else {"text": trained.text.extractor}
        return {**self.data.extractors, **own}

    def card(self, trained: Trained[Pcgnet], report: Report) -> str:
        return model_card(self, trained, report)


def plan(data: DataSet, options: PcgnetOptions, run: Run) -> PcgnetPlan:
    """Decide how text comes in, and the sizes that fit the data; encode it where it is frozen.

    No option `text` chooses: sentences are best heard by a tuned encoder, sets without sentences by
    their vectors. Raises `EncoderMissing`, `RecipeError` or `DataError`.
    """
    of_recipe, of_model = changes_of(options, run, Recipe, PcgnetConfig)
    if options.hidden is not None:
        of_model["hidden"] = options.hidden
    if options.bidirectional:
        of_model["research"] = ("bidirectional",)
    listener = run.listener or Listener()
    check_labels(data)
    mode = options.text or ("adapted" if has_sentences(data.split("train")) else "vectors")
    folder = None if mode == "vectors" else find_encoder(options.encoder)
    recipe = (
        recipe_for(mode, of_recipe)
        if options.preset is None
        else paper_recipe(options.preset, mode, of_recipe)
    )
    if folder is not None:
        if not has_sentences(data.split("train")):
            raise EncoderMissing(f"{data.name} has no sentences: use --text vectors")
        if mode == "frozen":
            listener.on_phase("encoding")
            whole = frozen_encoder(folder, recipe.mixed_layers)
            data = with_encoded_text(
                data, whole, folder, cache=run.cache, on_share=listener.on_share
            )
        else:
            width = _width(folder)
            data = replace(data, widths={**data.widths, "text": width})
    fitting = fitting_config(data)
    if options.preset is not None:
        fitting = papers_sizes(options.preset, labels=data.labels, sentiment={}, **fitting.widths)
    config = changed(fitting, of_model, "model")
    return PcgnetPlan(data, config, recipe, options.seed, run.command, folder, options.threads)


def _width(folder: Path) -> int:
    return int(json.loads((folder / "config.json").read_text("utf-8"))["hidden_size"])
