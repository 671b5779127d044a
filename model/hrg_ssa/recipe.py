"""Training settings of an HRG-SSA, other than the model's sizes and the data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from model.kind import TextMode
from model.training.settings import Pace, changed


@dataclass(frozen=True, slots=True)
class HrgRecipe(Pace):
    """The defaults were chosen on MELD's dev split (docs/decisions.md)."""

    epochs: int = 4
    patience: int = 3
    batch_utterances: int = 100
    learning_rate: float = 5e-4
    smoothing: float = 0.1  # of the emotion labels
    class_weight_power: float = 0.5  # weight of a class = (1 / its share) ** power
    sentence_weight: float = 0.3  # of the cross-entropy of the whole label sentence, without pads
    shift_weight: float = 0.3
    moved_weight: float = 0.1
    psa_weight: float = 0.05
    msa_weight: float = 0.05
    own_history: float = 1.0  # share of past labels that are the model's own, after the ramp
    ramp: float = 0.0  # share of the steps until then: scheduled sampling
    untold: float = 0.3  # share of past utterances whose label is left out: words must do
    drop_text: float = 0.05  # chance that an utterance loses its text while training
    drop_other: float = 0.1  # ... its audio, its video, each
    text_only: float = 0.15  # chance that a whole conversation comes with text alone
    mixed_layers: int = 4  # of the sentence encoder, averaged
    new_only: float = 0.5  # share of the steps in which a pretrained decoder is not trained yet

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
