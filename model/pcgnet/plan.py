"""Plan a training of PCGNet: configuration, recipe and data, checked before anything is trained."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch

from model.data.dataset import DataSet
from model.errors import EncoderMissing
from model.kind import Plan
from model.pcgnet.checkpoint import NAME
from model.pcgnet.config import PcgnetConfig, preset
from model.pcgnet.kind import PcgnetOptions
from model.pcgnet.model import Pcgnet
from model.pcgnet.recipe import Recipe, recipe_for
from model.pcgnet.train import Training, fitting_config
from model.scoring.report import Report
from model.serving.device import thread_count
from model.text.encode_sentences import has_sentences, with_encoded_text
from model.text.sentence_encoder import find_encoder, frozen_encoder
from model.training.loop import Trained, check_labels
from model.training.options import Run
from model.training.progress import Listener
from model.training.settings import changed, changes_of


@dataclass(frozen=True, slots=True)
class PcgnetPlan(Plan):
    """A plan of PCGNet; without an `encoder`, on the set's text vectors."""

    kind: ClassVar = NAME
    config: PcgnetConfig
    recipe: Recipe
    network: type[Pcgnet] = Pcgnet
    cache: Path | None = None

    def train(
        self, progress: Path | None = None, listener: Listener = Listener()
    ) -> Trained[Pcgnet]:
        data, text = self.data, None
        if self.encoder is not None and not self.recipe.tuned_layers:
            listener.on_phase("encoding")
            text = frozen_encoder(self.encoder, self.recipe.mixed_layers)
            data = with_encoded_text(
                data, text, self.encoder, cache=self.cache, on_share=listener.on_share
            )
            listener.on_phase("training")
        with torch.random.fork_rng(devices=[]), thread_count(self.threads):
            torch.manual_seed(self.seed)
            training = Training(
                data, self.config, self.recipe, self.seed, self.encoder, self.network
            )
            trained = training.run(progress, listener)
        if training.average.encoder is not None:
            text = training.average.encoder.text_encoder()
        return replace(trained, text=text)

    def card(self, trained: Trained[Pcgnet], report: Report) -> str:
        config = trained.model.config
        dropouts = {name: value for name, value in asdict(config).items() if "dropout" in name}
        words = "Raw text is encoded by the worker with the sentence encoder named above."
        if trained.text is not None and trained.text.delta:
            words = (
                f"Raw text is encoded by the worker with {trained.text.name}, of which the last "
                f"{self.recipe.tuned_layers} layers were tuned with this model on the same train "
                "split (`encoder.safetensors` holds what was added to them, 8 bits a weight; the "
                "rest is from the installed package). A sentence's vector is the mean over its "
                f"tokens and over the last {trained.text.layers} layers, scaled to length 1. "
                "Vectors of the untuned encoder are refused."
            )
        return self.filled_card(
            Path(__file__).with_name("card.md"),
            trained,
            report,
            widths=config.widths,
            settings=asdict(self.recipe) | dropouts,
            hidden=config.hidden,
            words=words,
        )


def plan(data: DataSet, options: PcgnetOptions, run: Run) -> PcgnetPlan:
    """Choose the text mode and the sizes that fit the data; nothing is encoded yet.

    Without the option `text`, sets with sentences tune the encoder and others use their vectors.
    Raises `EncoderMissing`, `RecipeError` or `DataError`.
    """
    recipe_changes, model_changes = _changes(options, run)
    check_labels(data)
    sentences = has_sentences(data.split("train"))
    mode = options.text or ("adapted" if sentences else "vectors")
    folder = None if mode == "vectors" else find_encoder(options.encoder)
    recipe = recipe_for(mode, recipe_changes, options.preset)
    if folder is not None:
        if not sentences:
            raise EncoderMissing(f"{data.name} has no sentences: use --text vectors")
        width = json.loads((folder / "config.json").read_text("utf-8"))["hidden_size"]
        data = replace(data, widths={**data.widths, "text": int(width)})
    fitting = fitting_config(data)
    if options.preset is not None:
        fitting = preset(
            options.preset, labels=data.labels, sentiment=fitting.sentiment, **fitting.widths
        )
    config = changed(fitting, model_changes, "model")
    return PcgnetPlan(
        data, config, recipe, options.seed, run.command, folder, options.threads, cache=run.cache
    )


def settings(options: PcgnetOptions) -> tuple[Recipe, PcgnetConfig]:
    """Return what these options train with, before a data set decides labels and widths.

    Without the option `text`, as for a set with sentences. Raises `RecipeError`.
    """
    recipe_changes, model_changes = _changes(options, Run(command=""))
    recipe = recipe_for(options.text or "adapted", recipe_changes, options.preset)
    any_set = DataSet("", ("one", "another"), {}, {}, {})
    fitting = fitting_config(any_set)
    if options.preset is not None:
        fitting = preset(options.preset, labels=any_set.labels, sentiment={})
    return recipe, changed(fitting, model_changes, "model")


def _changes(options: PcgnetOptions, run: Run) -> tuple[dict[str, Any], dict[str, Any]]:
    recipe_changes, model_changes = changes_of(options, run, Recipe, PcgnetConfig)
    if options.hidden is not None:
        model_changes["hidden"] = options.hidden
    if options.bidirectional:
        model_changes["research"] = ("bidirectional",)
    return recipe_changes, model_changes
