"""Plan a training of HRG-SSA: configuration, recipe and data, checked before it begins."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from model.data.dataset import DataSet
from model.errors import EncoderMissing
from model.hrg_ssa.config import FELT, HrgSsaConfig
from model.hrg_ssa.recipe import HrgRecipe
from model.hrg_ssa.t5 import is_t5, t5_start
from model.serving.device import CPU, chosen_device
from model.text.encode_sentences import has_sentences
from model.text.sentence_encoder import TextEncoder, find_encoder
from model.training.loop import check_labels
from model.training.settings import changed


@dataclass(frozen=True, slots=True)
class HrgPlan:
    """What to train, from which the whole run follows."""

    data: DataSet
    config: HrgSsaConfig
    recipe: HrgRecipe
    seed: int
    command: str
    encoder: Path  # folder of the sentence encoder or T5
    text: TextEncoder | None  # a tuned encoder for the words; none: as it is in the folder
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
    words: TextEncoder | None = None,
    threads: int = 1,
    device: Literal["auto", "cpu", "cuda"] = "cpu",
    cache: Path | None = None,
) -> HrgPlan:
    """Decide the sizes that fit the data and the encoder.

    `encoder` is a folder with a sentence encoder or a T5 (none: the installed one); `words`
    is a tuned encoder to hear them through. Raises `EncoderMissing`,
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
    else:
        text = words
    config = changed(HrgSsaConfig(data.labels, **sizes), model_changes or {}, "model")
    return HrgPlan(data, config, recipe, seed, command, folder, text, start, threads, on, cache)
