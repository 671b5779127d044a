"""The plan of an HRG-SSA training: configuration, recipe and data, checked before it starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from model.checkpoint_files import text_encoder_of
from model.data.dataset import DataSet, sentiment_of
from model.errors import EncoderMissing
from model.hrg_ssa.checkpoint import NAME
from model.hrg_ssa.config import FELT, HrgSsaConfig
from model.hrg_ssa.kind import HrgOptions
from model.hrg_ssa.model import HrgSsa
from model.hrg_ssa.recipe import HrgRecipe
from model.hrg_ssa.t5 import is_t5, t5_start
from model.hrg_ssa.train import Training
from model.kind import Plan
from model.scoring.report import Report
from model.serving.device import CPU, chosen_device, device_errors, thread_count
from model.text.encode_sentences import has_sentences
from model.text.sentence_encoder import TextEncoder, content_key, find_encoder
from model.text.token_encoder import TokenEncoder
from model.training.loop import Trained, check_labels
from model.training.options import Run
from model.training.progress import Listener
from model.training.settings import changed, changes_of


@dataclass(frozen=True, slots=True)
class HrgPlan(Plan):
    """A training of HRG-SSA."""

    kind: ClassVar = NAME
    config: HrgSsaConfig
    recipe: HrgRecipe
    encoder: Path  # folder of the sentence encoder or T5
    text: TextEncoder | None  # a tuned encoder for the words; none: as it is in the folder
    start: Mapping[str, Tensor]  # weights of a pretrained decoder
    device: torch.device = CPU
    cache: Path | None = None
    network: type[HrgSsa] = HrgSsa

    def further_settings(self) -> tuple[str, ...]:
        """Return the tuned encoder of the words, and the device: on a GPU last bits differ."""
        words = "" if self.text is None else content_key(self.text, ())
        return words, self.device.type

    def train(
        self, progress: Path | None = None, listener: Listener = Listener()
    ) -> Trained[HrgSsa]:
        """Train on the token states of the encoder."""
        words = TokenEncoder.load(
            self.encoder,
            self.text,
            layers=self.recipe.mixed_layers,
            most_tokens=self.config.most_tokens,
        )
        devices = [] if self.device.type == "cpu" else [self.device]
        with torch.random.fork_rng(devices=devices), thread_count(self.threads), device_errors():
            torch.manual_seed(self.seed)
            training = Training(
                self.data, self.config, self.recipe, self.seed, words, self.cache, self.start,
                self.device, self.network,
            )  # fmt: skip
            trained = training.run(progress, listener)
            return replace(trained, model=trained.model.cpu(), text=words.text, cut=words.cut)

    def card(self, trained: Trained[HrgSsa], report: Report) -> str:
        config, text = trained.model.config, trained.text
        assert text is not None, "words are always read through an encoder"
        sizes = {k: v for k, v in asdict(config).items() if isinstance(v, int | float | tuple)}
        sizes.pop("labels"), sizes.pop("research")
        words = (
            f"Words are heard through {text.name} as it is (the installed package or folder whose "
            f"digest begins {text.base[:12]}; not in the checkpoint)."
        )
        if text.delta:
            words = (
                f"Words are heard through {text.name}, of which the upper layers were tuned with "
                "another model of the project on the same train split (`encoder.safetensors` holds "
                "what was added to them, 8 bits a weight; the rest is of the installed package, "
                f"digest {text.base[:12]})."
            )
        return self.filled_card(
            Path(__file__).with_name("card.md"),
            trained,
            report,
            widths={**config.widths, "text": "words"},
            settings={**asdict(self.recipe), **sizes},
            width=config.width,
            pooled=config.pooled,
            most_tokens=config.most_tokens,
            cut=trained.cut,
            words=words,
        )


def plan(data: DataSet, options: HrgOptions, run: Run) -> HrgPlan:
    """Decide the sizes that fit the data and the encoder.

    The option `encoder` is a folder with a sentence encoder or a T5. Raises `EncoderMissing`,
    `RecipeError`, `LabelWordsError`, `CheckpointError`, `DataError`, or `ModelError` where
    there is no such device.
    """
    of_recipe, of_model = changes_of(options, run, HrgRecipe, HrgSsaConfig)
    words = text_encoder_of(options.words_of) if options.words_of else None
    check_labels(data)
    if not has_sentences(data.split("train")):
        raise EncoderMissing(f"{data.name} has no sentences: HRG-SSA reads words, not text vectors")
    device = chosen_device(options.device)
    recipe = changed(HrgRecipe(), of_recipe, "recipe")
    folder, text = find_encoder(options.encoder), None
    sizes: dict[str, Any] = {name: data.widths.get(name, 0) for name in FELT}
    start: Mapping[str, Tensor] = {}
    if is_t5(folder):
        recipe = changed(recipe, {"mixed_layers": 1}, "recipe")
        t5 = t5_start(folder, data.labels)
        sizes |= t5.sizes | {"words": t5.words}
        start = t5.weights
    else:
        text = words
    sizes["sentiment"] = sentiment_of(data.labels, data.sentiment)
    config = changed(HrgSsaConfig(data.labels, **sizes), of_model, "model")
    return HrgPlan(
        data, config, recipe, options.seed, run.command, folder, options.threads, text, start,
        device, run.cache,
    )  # fmt: skip


def settings(options: HrgOptions) -> tuple[HrgRecipe, HrgSsaConfig]:
    """Return what these options train with, before data set and encoder decide labels and widths.

    Raises `RecipeError`.
    """
    of_recipe, of_model = changes_of(options, Run(command=""), HrgRecipe, HrgSsaConfig)
    any_labels = ("one", "another")
    return (
        changed(HrgRecipe(), of_recipe, "recipe"),
        changed(HrgSsaConfig(any_labels), of_model, "model"),
    )
