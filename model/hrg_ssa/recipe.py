"""Training settings of an HRG-SSA, other than the model's sizes and the data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from model.kind import TextMode
from model.training.setting import Setting
from model.training.settings import (
    CLASS_WEIGHT_POWER,
    DROP_TEXT,
    MIXED_LAYERS,
    MOVED_WEIGHT,
    PAIR_WEIGHT,
    SMOOTHING,
    TEXT_ONLY,
    Pace,
    changed,
)


@dataclass(frozen=True, slots=True)
class HrgRecipe(Pace):
    """The defaults were chosen on MELD's dev split (docs/decisions.md)."""

    epochs: int = 4
    patience: int = 3
    batch_utterances: int = 100
    learning_rate: float = 5e-4
    smoothing: Annotated[float, SMOOTHING] = 0.1
    class_weight_power: Annotated[float, CLASS_WEIGHT_POWER] = 0.5
    sentence_weight: Annotated[
        float, Setting("weight of the loss of the whole label sentence", "times emotion's", least=0)
    ] = 0.3
    shift_weight: Annotated[float, PAIR_WEIGHT] = 0.3
    moved_weight: Annotated[float, MOVED_WEIGHT] = 0.1
    psa_weight: Annotated[
        float, Setting("weight of the primary sentiment alignment", "times emotion's", least=0)
    ] = 0.05
    msa_weight: Annotated[
        float, Setting("weight of the multimodal semantic alignment", "times emotion's", least=0)
    ] = 0.05
    own_history: Annotated[
        float, Setting("past labels that are the model's own, after the ramp", "share", 0, 1)
    ] = 1.0
    ramp: Annotated[
        float,
        Setting("until then that share grows: scheduled sampling", "share of the steps", 0, 1),
    ] = 0.0
    untold: Annotated[
        float, Setting("past utterances whose label is left out: words must do", "share", 0, 1)
    ] = 0.3
    drop_text: Annotated[float, DROP_TEXT] = 0.05
    drop_other: Annotated[
        float, Setting("the same of its audio and its video, each", "share", 0, 1)
    ] = 0.1
    text_only: Annotated[float, TEXT_ONLY] = 0.15
    mixed_layers: Annotated[int, MIXED_LAYERS] = 4
    new_only: Annotated[
        float,
        Setting("in which a pretrained decoder is not trained yet", "share of the steps", 0, 1),
    ] = 0.5

    def __post_init__(self) -> None:
        Pace.__post_init__(self)  # no super(): a class with slots is made twice
        if self.mixed_layers < 1:
            raise ValueError("mixed_layers must be at least 1")
        for name in ("own_history", "untold", "new_only"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a share, not {getattr(self, name)}")


def recipe_for(text: TextMode, changes: Mapping[str, Any]) -> HrgRecipe:
    """Return the recipe with `changes`, the same for every text mode. Raises `RecipeError`."""
    return changed(HrgRecipe(), changes, "recipe")
