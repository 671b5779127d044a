"""Training settings of a PCGNet: our recipe, and the papers' own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, get_args

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

Balance = Literal["fixed", "log-sum", "uncertainty"]
BALANCES: Final[tuple[Balance, ...]] = get_args(Balance)


@dataclass(frozen=True, slots=True)
class Recipe(Pace):
    """All training settings besides the model's and the data.

    The defaults were chosen on MELD's dev split (docs/decisions.md). Batches are counted in
    utterances and the length of training has a floor in steps, so that a set of few or of long
    conversations is trained as thoroughly as others.
    """

    epochs: int = 12
    patience: int = 6
    batch_utterances: int = 300
    learning_rate: float = 3e-3
    gamma: Annotated[float, Setting("focus of the focal loss on hard utterances", least=0)] = 0.0
    smoothing: Annotated[float, SMOOTHING] = 0.1
    shift_smoothing: Annotated[
        float, Setting("label smoothing of the (from, to) pairs", "share of the target", 0, 1)
    ] = 0.0
    class_weight_power: Annotated[float, CLASS_WEIGHT_POWER] = 0.5
    shift_weight: Annotated[float, PAIR_WEIGHT] = 0.3
    moved_weight: Annotated[float, MOVED_WEIGHT] = 0.1
    contrast_weight: Annotated[
        float, Setting("weight of the contrastive loss of pairs", "times emotion's", least=0)
    ] = 0.0
    balance: Annotated[Balance, Setting("how the losses are balanced: " + ", ".join(BALANCES))] = (
        "fixed"
    )
    drop_text: Annotated[float, DROP_TEXT] = 0.05
    drop_other: Annotated[
        float,
        Setting("the same of its audio, its video, its persona, each", "share", 0, 1),
    ] = 0.1
    text_only: Annotated[float, TEXT_ONLY] = 0.15
    mixed_layers: Annotated[int, MIXED_LAYERS] = 4
    tuned_layers: Annotated[
        int, Setting("last layers of the sentence encoder that are trained", "layers", least=0)
    ] = 0
    encoder_rate: Annotated[float, Setting("highest learning rate of those layers", least=0)] = 2e-4
    text_weight: Annotated[
        float,
        Setting(
            "weight of the loss of a head on the text alone, while the encoder is trained",
            "times emotion's",
            least=0,
        ),
    ] = 0.5

    def __post_init__(self) -> None:
        Pace.__post_init__(self)  # no super(): dataclass(slots=True) creates the class twice
        if self.balance not in BALANCES:
            raise ValueError(f"balance must be one of {', '.join(BALANCES)}")


# Changes while the encoder is tuned: more and smaller steps, fewer epochs.
ADAPTED: Final[Mapping[str, Any]] = {
    "epochs": 5,
    "batch_utterances": 80,
    "learning_rate": 2e-3,
    "steps_at_least": 500,
    "tuned_layers": 3,
}
# The published training (docs/models.md A5, A6), on a preset's sizes.
_PAPER: Final[Mapping[str, Any]] = {
    "patience": 50,
    "learning_rate": 1e-4,
    "weight_decay": 1e-4,
    "warm_up": 0.0,
    "average_decay": 0.0,
    "gamma": 0.5,
    "smoothing": 0.0,
    "shift_weight": 1.0,
    "moved_weight": 0.0,
    "contrast_weight": 1.0,
    "balance": "log-sum",
    "drop_text": 0.0,
    "drop_other": 0.0,
    "text_only": 0.0,
}
PAPER: Final[Mapping[str, Mapping[str, Any]]] = {
    "meld": {**_PAPER, "epochs": 30, "class_weight_power": 0.0},
    "iemocap": {**_PAPER, "epochs": 140, "class_weight_power": 1.0, "batch_utterances": 1550},
}


def recipe_for(text: TextMode, changes: Mapping[str, Any], preset: str | None = None) -> Recipe:
    """Return the recipe for a text mode, or the published one of a preset, with `changes`.

    A tuned encoder keeps the steps it needs. Raises `RecipeError`.
    """
    published = {} if preset is None else PAPER[preset]
    adapted = ADAPTED if text == "adapted" else {}
    return changed(Recipe(), {**published, **adapted, **changes}, "recipe")
