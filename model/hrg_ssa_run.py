"""A whole training run of an HRG-SSA, from conversations to a folder: as `model.run` for PCGNet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from model.checkpoint import find_checkpoint, write_card
from model.data import DataSet
from model.device import CPU, chosen_device
from model.encoder import TextEncoder, find_encoder
from model.evaluate import evaluate
from model.hrg_ssa_card import hrg_model_card
from model.hrg_ssa_checkpoint import load_any, load_hrg_checkpoint, save_hrg_checkpoint
from model.hrg_ssa_config import FELT, HrgSsaConfig
from model.hrg_ssa_recipe import HrgRecipe
from model.hrg_ssa_train import train_hrg_ssa
from model.pictures import learning_curves
from model.predictor import CheckpointError, EncoderMissing
from model.recipe import changed
from model.run import PROGRESS, Listener, Outcome, check_labels
from model.t5_backbone import is_t5, t5_start
from model.text import has_sentences
from model.token_encoder import TokenEncoder


@dataclass(frozen=True, slots=True)
class HrgPlan:
    """What to train, from which the whole run follows."""

    data: DataSet
    config: HrgSsaConfig
    recipe: HrgRecipe
    seed: int
    command: str
    encoder: Path  # folder of the sentence encoder or T5
    text: (
        TextEncoder | None
    )  # a tuned encoder to hear words through; none: as it lies in the folder
    start: Mapping[str, Tensor]  # weights of a pretrained decoder
    threads: int = 1
    device: torch.device = CPU
    cache: Path | None = None


def plan_hrg_ssa(
    data: DataSet,
    *,
    seed: int,
    command: str,
    recipe_changes: Mapping[str, Any] | None = None,
    model_changes: Mapping[str, Any] | None = None,
    encoder: Path | None = None,
    words_of: Path | None = None,
    threads: int = 1,
    device: Literal["auto", "cpu", "cuda"] = "cpu",
    cache: Path | None = None,
) -> HrgPlan:
    """Decide the sizes that fit the data and the encoder.

    `encoder` is a folder with a sentence encoder or a T5 (none: the installed one); `words_of`
    names a checkpoint whose tuned encoder the words are heard through. Raises `EncoderMissing`,
    `RecipeError`, `LabelWordsError`, `CheckpointError`, `DataError`, or `ModelError` where
    there is no such device.
    """
    check_labels(data)
    if not has_sentences(data.split("train")):
        raise EncoderMissing(f"{data.name} has no sentences: HRG-SSA reads words, not text vectors")
    on = chosen_device(device)
    recipe = changed(HrgRecipe(), recipe_changes or {}, "recipe")
    folder, text = find_encoder(encoder), None
    sizes: dict[str, Any] = {name: data.widths.get(name, 0) for name in FELT}
    start: Mapping[str, Tensor] = {}
    if is_t5(folder):
        recipe = changed(recipe, {"mixed_layers": 1}, "recipe")
        found = t5_start(folder, data.labels)
        sizes |= found.sizes | {"words": found.words}
        start = found.weights
    elif words_of is not None:
        text = load_any(find_checkpoint(words_of)).text
        if text is None:
            raise CheckpointError(
                f"checkpoint {words_of} has no text encoder to hear words through"
            )
    config = changed(HrgSsaConfig(data.labels, **sizes), model_changes or {}, "model")
    return HrgPlan(data, config, recipe, seed, command, folder, text, start, threads, on, cache)


def carry_out_hrg_ssa(chosen: HrgPlan, folder: Path, listener: Listener | None = None) -> Outcome:
    """Train, save the checkpoint with its card and learning curves; score what was saved on dev.

    A run that was killed goes on from its last epoch when it is carried out again.
    """
    listener = listener or Listener()
    words = TokenEncoder.load(
        chosen.encoder,
        chosen.text,
        layers=chosen.recipe.mixed_layers,
        most_tokens=chosen.config.most_tokens,
    )
    listener.on_phase("training")
    trained = train_hrg_ssa(
        chosen.data,
        chosen.config,
        chosen.recipe,
        encoder=words,
        start=chosen.start,
        seed=chosen.seed,
        threads=chosen.threads,
        device=chosen.device,
        cache=chosen.cache,
        progress=folder / PROGRESS,
        on_step=listener.on_share,
        on_epoch=listener.on_epoch,
    )
    data = chosen.data
    felt: dict[str, str] = {name: data.extractors[name] for name in FELT if name in data.extractors}
    extractors: dict[str, str] = {"text": trained.text.extractor, **felt}

    digest = save_hrg_checkpoint(
        folder,
        trained.model,
        calibration=trained.calibration,
        thresholds=trained.thresholds,
        extractors=extractors,
        card="",  # it tells the scores of what is saved here
        text=trained.text,
    )
    report = evaluate(
        load_hrg_checkpoint(folder), data, "dev", threads=chosen.threads, encoder=chosen.encoder
    )
    card = hrg_model_card(
        trained,
        report,
        data=data.name,
        extractors=extractors,
        recipe=chosen.recipe,
        seed=chosen.seed,
        command=chosen.command,
    )
    write_card(folder, card)
    learning_curves(trained.history, folder / "learning-curves.png")
    return Outcome(folder, digest, report, trained)
