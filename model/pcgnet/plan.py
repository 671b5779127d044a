"""Plan a training of PCGNet: configuration, recipe and data, checked before anything is trained."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from model.data.dataset import DataSet
from model.errors import EncoderMissing
from model.pcgnet.config import PcgnetConfig
from model.pcgnet.config import preset as papers_sizes
from model.pcgnet.recipe import Recipe, TextMode, changed_config, paper_recipe, recipe_for
from model.pcgnet.train import fitting_config
from model.text.encode_sentences import frozen_encoder, has_sentences, with_encoded_text
from model.text.sentence_encoder import find_encoder
from model.training.loop import Listener, check_labels


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


def _width(folder: Path) -> int:
    return int(json.loads((folder / "config.json").read_text("utf-8"))["hidden_size"])
