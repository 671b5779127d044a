"""How an HRG-SSA is trained: everything that is neither the model's sizes nor the data."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HrgRecipe:
    """The defaults were chosen on MELD's dev split (docs/decisions.md)."""

    epochs: int = 4
    steps_at_least: int = 240  # a small set is gone through more often
    patience: int = 3  # epochs without a better dev score after which training stops
    batch_utterances: int = 100  # whole conversations are added up to it
    learning_rate: float = 5e-4
    weight_decay: float = 1e-2
    warm_up: float = 0.1  # share of the steps
    clip_norm: float = 1.0
    average_decay: float = 0.99  # of the exponential average of the weights
    smoothing: float = 0.1  # of the emotion labels
    class_weight_power: float = 0.5  # weight of a class = (1 / its share) ** power
    sentence_weight: float = 0.3  # of the cross-entropy of the whole label sentence, without pads
    shift_weight: float = 0.3
    moved_weight: float = 0.1
    psa_weight: float = 0.05
    msa_weight: float = 0.05
    own_history: float = 1.0  # share of past labels that are the model's own, after the ramp
    ramp: float = 0.0  # share of the steps until then: scheduled sampling
    untold: float = 0.3  # share of past utterances whose label is not told: words must do
    drop_text: float = 0.05  # chance that an utterance loses it while training
    drop_other: float = 0.1  # ... its audio, its video, each
    text_only: float = 0.15  # chance that a whole conversation comes with text alone
    mixed_layers: int = 4  # of the sentence encoder, averaged
    new_only: float = 0.5  # share of the steps in which a pretrained decoder is not trained yet

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_utterances", "patience", "mixed_layers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")
        for name in ("own_history", "untold", "new_only"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a share, not {getattr(self, name)}")
