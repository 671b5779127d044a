"""Train a causal PCGNet on labelled conversations: one seed, chosen on dev, deterministic.

The test split is never asked for. What is returned is the exponential average of the weights at
the epoch with the best dev weighted F1, rounded to float16 as a checkpoint stores them.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from model.calibration import calibrate
from model.checkpoint import Calibration, Thresholds
from model.collate import Batch, ConversationTensors, collate_conversations
from model.config import INPUTS, PcgnetConfig
from model.data import DataSource, Dialogue, column_statistics, label_counts
from model.evaluate import answer, conversation_tensors, emotion_weighted_f1, thread_count
from model.losses import (
    balanced,
    focal_loss,
    moved_loss,
    shift_contrast,
    shift_labels,
    shift_loss,
    weighted,
)
from model.pcgnet import Pcgnet, WholeOutput
from state.window import Recurrence

TEXT: Final = INPUTS.index("text")


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything about training that is neither the model nor the data.

    The defaults were chosen on MELD's dev split, one or two seeds each (docs/decisions.md).
    """

    epochs: int = 12
    batch_dialogues: int = 32
    learning_rate: float = 3e-3
    weight_decay: float = 1e-2
    warm_up_steps: int = 50
    clip_norm: float = 1.0
    average_decay: float = 0.99  # of the exponential average of the weights
    gamma: float = 0.0  # of the focal loss
    smoothing: float = 0.1  # of the emotion labels
    shift_smoothing: float = 0.0  # of the (from, to) labels
    class_weight_power: float = 0.5  # weight of a class = (1 / its share) ** power
    shift_weight: float = 0.3
    moved_weight: float = 0.1
    contrast_weight: float = 0.0
    balance: bool = False  # divide each loss by its own size, so that weights are shares of pull
    drop_text: float = 0.05  # chance that an utterance loses it while training
    drop_other: float = 0.1  # ... its audio, its video, its persona, each
    text_only: float = 0.15  # chance that a whole conversation comes with text alone


@dataclass(frozen=True, slots=True)
class Epoch:
    """What one epoch left behind, on dev; the weighted F1 is what is selected on."""

    number: int
    train_loss: float
    dev_loss: float  # emotion cross-entropy
    dev_weighted_f1: float


@dataclass(frozen=True, slots=True)
class Trained:
    """The chosen weights and how they came about."""

    model: Pcgnet
    calibration: Calibration
    thresholds: Thresholds
    history: tuple[Epoch, ...]
    chosen: Epoch


@dataclass(frozen=True, slots=True)
class _Sample:
    tensors: ConversationTensors
    labels: Tensor  # [T]


def train(
    data: DataSource,
    config: PcgnetConfig,
    recipe: Recipe,
    *,
    seed: int,
    threads: int = 1,
    on_step: Callable[[float], None] | None = None,
    on_epoch: Callable[[Epoch], None] | None = None,
) -> Trained:
    """Train on `data.split("train")`, choose the epoch on `data.split("dev")`.

    `on_step` hears the share done (0..1], `on_epoch` each epoch. Equal arguments give equal bytes
    on one machine and thread count. torch's global generator and threads are left as they were.
    """
    with torch.random.fork_rng(devices=[]), thread_count(threads):
        torch.manual_seed(seed)
        return _Training(data, config, recipe, seed).run(on_step, on_epoch)


def fitting_config(
    data: DataSource, *, hidden: int = 128, window: int = 10, input_dropout: float = 0.4
) -> PcgnetConfig:
    """The model that fits a data set's labels and vector widths; what it lacks gets width 0."""
    widths = data.widths
    return PcgnetConfig(
        labels=data.labels,
        text=widths.get("text", 0),
        audio=widths.get("audio", 0),
        video=widths.get("video", 0),
        persona=widths.get("persona", 5),  # a set without personas: never present
        hidden=hidden,
        input_dropout=input_dropout,
        recurrence=Recurrence(window=window),
    )


class _Training:
    """The moving parts of one run."""

    def __init__(self, data: DataSource, config: PcgnetConfig, recipe: Recipe, seed: int) -> None:
        dialogues = data.split("train")
        self.dev = data.split("dev")
        self.config, self.recipe = config, recipe
        self.samples = [_sample(d, config) for d in dialogues]
        self.model = Pcgnet(config)
        normalise_inputs(self.model, dialogues)
        self.average = copy.deepcopy(self.model)
        self.optimiser = _optimiser(self.model, recipe)
        self.class_weight = _class_weight(dialogues, config.classes, recipe.class_weight_power)
        self.rng = np.random.default_rng(seed)
        self.generator = torch.Generator().manual_seed(seed)
        self.step_number = 0

    @property
    def steps(self) -> int:
        return self.recipe.epochs * math.ceil(len(self.samples) / self.recipe.batch_dialogues)

    def run(
        self,
        on_step: Callable[[float], None] | None,
        on_epoch: Callable[[Epoch], None] | None,
    ) -> Trained:
        history: list[Epoch] = []
        best: tuple[Epoch, Pcgnet] | None = None
        for number in range(1, self.recipe.epochs + 1):
            losses = []
            for samples in self._shuffled():
                losses.append(self._step(samples))
                if on_step:
                    on_step(self.step_number / self.steps)
            candidate = as_saved(self.average)
            epoch = self._judge(candidate, number, sum(losses) / len(losses))
            history.append(epoch)
            if best is None or epoch.dev_weighted_f1 > best[0].dev_weighted_f1:
                best = epoch, candidate
            if on_epoch:
                on_epoch(epoch)
        if best is None:
            raise ValueError("a recipe needs at least one epoch")
        return self._calibrated(best[1], best[0], tuple(history))

    def _calibrated(self, model: Pcgnet, chosen: Epoch, history: tuple[Epoch, ...]) -> Trained:
        """Fit temperatures and thresholds on dev; the diagonal's bias goes into the shift head."""
        found, classes = answer(model, self.dev), self.config.classes
        calibration, thresholds, bias = calibrate(
            found.emotion, found.labels, found.shift, found.shifts, classes
        )
        with torch.no_grad():
            model.shift_head.bias[:: classes + 1] += bias
        return Trained(model, calibration, thresholds, history, chosen)

    def _judge(self, candidate: Pcgnet, number: int, train_loss: float) -> Epoch:
        found = answer(candidate, self.dev)
        loss = focal_loss(
            torch.from_numpy(found.emotion), torch.from_numpy(found.labels), gamma=0.0
        )
        return Epoch(number, train_loss, loss.item(), emotion_weighted_f1(found))

    def _shuffled(self) -> Iterator[list[_Sample]]:
        order = self.rng.permutation(len(self.samples))
        size = self.recipe.batch_dialogues
        for start in range(0, len(order), size):
            yield [self.samples[i] for i in order[start : start + size]]

    def _step(self, samples: Sequence[_Sample]) -> float:
        batch = collate_conversations([s.tensors for s in samples], self.config)
        batch = replace(batch, present=self._thinned(batch))
        self.model.train()
        out = self.model(batch)
        loss = self._loss(out, torch.cat([s.labels for s in samples]))
        self._set_learning_rate()
        self.optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip_norm)
        self.optimiser.step()
        self.step_number += 1
        self._follow()
        return loss.item()

    def _loss(self, out: WholeOutput, labels: Tensor) -> Tensor:
        r, classes = self.recipe, self.config.classes
        shifts = shift_labels(labels, out.pairs, classes)
        weights = {"emotion": 1.0, "shift": r.shift_weight, "moved": r.moved_weight}
        losses = {
            "emotion": focal_loss(
                out.emotion,
                labels,
                gamma=r.gamma,
                class_weight=self.class_weight,
                smoothing=r.smoothing,
            ),
            "shift": shift_loss(out.shift, shifts, smoothing=r.shift_smoothing),
            "moved": moved_loss(out.shift, shifts, classes),
        }
        if r.contrast_weight:
            weights["contrast"] = r.contrast_weight
            losses["contrast"] = shift_contrast(
                out.pair_vectors, shifts, classes=classes, generator=self.generator
            )
        return (balanced if r.balance else weighted)(losses, weights)

    def _thinned(self, batch: Batch) -> Tensor:
        """Take inputs away at random, so that any subset is an answerable one: [N, 4] bool."""
        r = self.recipe
        chance = torch.full(batch.present.shape, r.drop_other)
        chance[:, TEXT] = r.drop_text
        kept = torch.rand(batch.present.shape, generator=self.generator) >= chance
        conversations = int(batch.conversation[-1]) + 1
        text_only = torch.rand(conversations, generator=self.generator) < r.text_only
        others = torch.ones(len(INPUTS), dtype=torch.bool)
        others[TEXT] = False
        kept &= ~(text_only[batch.conversation][:, None] & others)
        return batch.present & kept

    def _set_learning_rate(self) -> None:
        """Linear warm-up, then a half cosine to zero."""
        warm = min(1.0, (self.step_number + 1) / max(1, self.recipe.warm_up_steps))
        fall = 0.5 * (1 + math.cos(math.pi * self.step_number / self.steps))
        for group in self.optimiser.param_groups:
            group["lr"] = self.recipe.learning_rate * warm * fall

    @torch.no_grad()
    def _follow(self) -> None:
        """Move the average towards the weights; quickly at first, when they are random."""
        decay = min(self.recipe.average_decay, (self.step_number + 1) / (self.step_number + 10))
        for mean, weight in zip(self.average.parameters(), self.model.parameters(), strict=True):
            mean.lerp_(weight, 1 - decay)


def normalise_inputs(model: Pcgnet, dialogues: Sequence[Dialogue]) -> None:
    """Set the model's input normalisation from the train split's present rows."""
    for name, (mean, deviation) in column_statistics(dialogues).items():
        if model.config.widths[name]:
            model.set_normalisation(name, torch.from_numpy(mean), torch.from_numpy(deviation))


def as_saved(model: Pcgnet) -> Pcgnet:
    """A copy whose weights are float16 numbers, as a checkpoint stores them."""
    saved = copy.deepcopy(model).eval()
    with torch.no_grad():
        for parameter in saved.parameters():
            parameter.copy_(parameter.half().float())
    return saved


def _sample(dialogue: Dialogue, config: PcgnetConfig) -> _Sample:
    return _Sample(conversation_tensors(dialogue, config), torch.from_numpy(dialogue.labels))


def _optimiser(model: Pcgnet, recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW that decays matrices only: biases, gates and learned vectors are left alone."""
    matrices = [p for p in model.parameters() if p.ndim >= 2 and min(p.shape[-2:]) > 1]
    rest = [p for p in model.parameters() if not (p.ndim >= 2 and min(p.shape[-2:]) > 1)]
    groups: list[dict[str, Any]] = [
        {"params": matrices, "weight_decay": recipe.weight_decay},
        {"params": rest},
    ]
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, weight_decay=0.0)


def _class_weight(dialogues: Sequence[Dialogue], classes: int, power: float) -> Tensor | None:
    if not power:
        return None
    counts = np.maximum(label_counts(dialogues, classes), 1)
    weight = (counts.sum() / counts) ** power
    return torch.from_numpy(weight / weight.mean()).float()
