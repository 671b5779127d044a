"""A whole training run: sentences encoded, a model trained, and its folder written.

What `emotrack train` and the accuracy tables share.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model.card import model_card
from model.checkpoint import load_checkpoint, save_checkpoint, write_card
from model.config import PcgnetConfig
from model.config import preset as papers_sizes
from model.data import SPLITS, UNLABELLED, DataError, DataSet
from model.encoder import TextEncoder, find_encoder
from model.evaluate import evaluate
from model.pictures import learning_curves
from model.predictor import EncoderMissing
from model.recipe import Recipe, TextMode, changed_config, paper_recipe, recipe_for
from model.report import Report
from model.text import frozen_encoder, has_sentences, with_encoded_text
from model.train import Trained, fitting_config, train
from model.training_loop import Epoch

if TYPE_CHECKING:
    from model.hrg_ssa_train import HrgTrained

PROGRESS = "progress.pt"


@dataclass(frozen=True, slots=True)
class Plan:
    """What to train, from which the whole run follows."""

    data: DataSet
    text: TextMode
    config: PcgnetConfig
    recipe: Recipe
    seed: int
    command: str
    encoder: Path | None = None  # folder of the sentence encoder; none: text vectors of the set
    threads: int = 1
    cache: Path | None = None  # folder for encoded sentences


@dataclass(frozen=True, slots=True)
class Listener:
    """Who hears how far a run is."""

    on_phase: Callable[[str], None] = lambda _: None
    on_share: Callable[[float], None] = lambda _: None
    on_epoch: Callable[[Epoch], None] = lambda _: None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run left in its folder."""

    folder: Path
    digest: str
    report: Report  # of dev
    trained: Trained | HrgTrained = field(repr=False)


def plan(
    data: DataSet,
    *,
    seed: int,
    command: str,
    text: TextMode | None = None,
    preset: str | None = None,
    recipe_changes: Mapping[str, Any] | None = None,
    model_changes: Mapping[str, Any] | None = None,
    encoder: Path | None = None,
    threads: int = 1,
    cache: Path | None = None,
    listener: Listener | None = None,
) -> Plan:
    """Decide how text comes in, and the sizes that fit the data; encode it where it is frozen.

    `text` None chooses: sentences are best heard by a tuned encoder, sets without sentences by
    their vectors. Raises `EncoderMissing`, `RecipeError` or `DataError`.
    """
    listener = listener or Listener()
    check_labels(data)
    mode = text or ("adapted" if has_sentences(data.split("train")) else "vectors")
    folder = None if mode == "vectors" else find_encoder(encoder)
    recipe = (
        recipe_for(mode, recipe_changes)
        if preset is None
        else paper_recipe(preset, mode, recipe_changes)
    )
    if folder is not None:
        if not has_sentences(data.split("train")):
            raise EncoderMissing(f"{data.name} has no sentences: use --text vectors")
        if mode == "frozen":
            listener.on_phase("encoding")
            whole = frozen_encoder(folder, recipe.mixed_layers)
            data = with_encoded_text(data, whole, folder, cache=cache, on_share=listener.on_share)
        else:
            width = _width(folder)
            data = replace(data, widths={**data.widths, "text": width})
    fitting = fitting_config(data)
    if preset is not None:
        fitting = papers_sizes(preset, labels=data.labels, sentiment={}, **fitting.widths)
    config = changed_config(fitting, model_changes or {})
    return Plan(data, mode, config, recipe, seed, command, folder, threads, cache)


def carry_out(chosen: Plan, folder: Path, listener: Listener | None = None) -> Outcome:
    """Train, save the checkpoint with its card and learning curves; score what was saved on dev.

    A run that was killed goes on from its last epoch when it is carried out again.
    """
    listener = listener or Listener()
    listener.on_phase("training")
    trained = train(
        chosen.data,
        chosen.config,
        chosen.recipe,
        seed=chosen.seed,
        threads=chosen.threads,
        encoder=chosen.encoder,
        progress=folder / PROGRESS,
        on_step=listener.on_share,
        on_epoch=listener.on_epoch,
    )
    text = _text_encoder(chosen, trained)
    data = chosen.data
    if text is not None:
        data = replace(data, extractors={**data.extractors, "text": text.extractor})

    digest = save_checkpoint(
        folder,
        trained.model,
        calibration=trained.calibration,
        thresholds=trained.thresholds,
        extractors=data.extractors,
        card="",  # it tells the scores of what is saved here
        text=text,
    )
    report = evaluate(
        load_checkpoint(folder), data, "dev", threads=chosen.threads, encoder=chosen.encoder
    )
    card = model_card(
        trained,
        report,
        data=data.name,
        extractors=data.extractors,
        recipe=chosen.recipe,
        seed=chosen.seed,
        command=chosen.command,
    )
    write_card(folder, card)
    learning_curves(trained.history, folder / "learning-curves.png")
    return Outcome(folder, digest, report, trained)


def finished(folder: Path) -> None:
    """Drop what only a run that goes on needs."""
    (folder / PROGRESS).unlink(missing_ok=True)


def _text_encoder(chosen: Plan, trained: Trained) -> TextEncoder | None:
    if trained.text is not None or chosen.encoder is None:
        return trained.text
    return frozen_encoder(chosen.encoder, chosen.recipe.mixed_layers)


def check_labels(data: DataSet) -> None:
    """Raise `DataError` where a split that training reads has no label."""
    for split in SPLITS[:2]:
        dialogues = data.split(split)
        if not any((d.labels != UNLABELLED).any() for d in dialogues):
            raise DataError(
                f"the {split} split of {data.name} has no labelled utterance: label some "
                "conversations of it"
            )


def _width(folder: Path) -> int:
    return int(json.loads((folder / "config.json").read_text("utf-8"))["hidden_size"])
