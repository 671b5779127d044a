"""What training any of the models has in common: epochs over whole conversations, chosen on dev.

A model's own training says what its samples, steps and answers are; here are the order, the pace,
the average of the weights, the choice of the epoch, and how a killed run goes on.
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from model.data.dataset import (
    SPLITS,
    UNLABELLED,
    DataSet,
    DataSource,
    Dialogue,
    column_statistics,
    label_counts,
)
from model.errors import DataError
from model.scoring.answers import Answers, emotion_weighted_f1
from model.scoring.calibrate import calibrate
from model.serving.calibration import Calibration, Thresholds
from model.training.losses import focal_loss
from model.training.progress import Epoch, load_progress, save_progress
from model.training.settings import Pace

if TYPE_CHECKING:
    from model.text.sentence_encoder import TextEncoder

MOST_EPOCHS: Final = 100


class Labelled(Protocol):
    """A conversation to train on."""

    @property
    def labels(self) -> Tensor: ...  # [T]


class Normalised(Protocol):
    """A model whose inputs are normalised inside."""

    def set_normalisation(self, name: str, mean: Tensor, deviation: Tensor) -> None: ...


Sample = TypeVar("Sample", bound=Labelled)
Network = TypeVar("Network", bound=nn.Module)  # all that is trained
Model = TypeVar("Model", bound=nn.Module)  # what is saved of it


@dataclass(frozen=True, slots=True)
class Trained(Generic[Model]):
    """The chosen weights and how they came about."""

    model: Model
    calibration: Calibration
    thresholds: Thresholds
    history: tuple[Epoch, ...]
    chosen: Epoch
    text: TextEncoder | None = None  # what the model's text is read through
    cut: int = 0  # sentences that were longer than the model reads


class TrainingLoop(ABC, Generic[Sample, Network, Model]):
    """The moving parts of one run; `optimiser`'s groups hold the highest rate as `peak`."""

    def __init__(
        self,
        recipe: Pace,
        network: Network,
        optimiser: torch.optim.Optimizer,
        samples: Sequence[Sample],
        *,
        classes: int,
        seed: int,
        fingerprint: str,
    ) -> None:
        self._pace, self.network, self.optimiser, self.samples = recipe, network, optimiser, samples
        self._classes = classes
        self.average = copy.deepcopy(network)
        self.rng = np.random.default_rng(seed)
        self.generator = torch.Generator().manual_seed(seed)
        self.step_number = 0
        self.history: list[Epoch] = []
        self.best: dict[str, Tensor] = {}  # the averaged weights of the best epoch
        per = steps_an_epoch(recipe, [len(sample.labels) for sample in samples])
        self.epochs = max(recipe.epochs, min(MOST_EPOCHS, math.ceil(recipe.steps_at_least / per)))
        self.steps = self.epochs * per  # about: each epoch packs its batches anew
        self.fingerprint = fingerprint

    @abstractmethod
    def loss_of(self, samples: Sequence[Sample]) -> Tensor:
        """The loss of one batch, with its graph."""

    @abstractmethod
    def answers(self) -> tuple[Model, Answers]:
        """What the averaged weights say of dev, as they would be saved."""

    def text(self) -> TextEncoder | None:
        """The chosen encoder, where one was tuned."""
        return None

    def extra(self) -> dict[str, Any]:
        """What else a run that goes on needs, by attribute."""
        return {}

    @property
    def chosen(self) -> Epoch:
        """The epoch with the best dev score so far; the first of equals."""
        return max(self.history, key=lambda epoch: (epoch.dev_weighted_f1, -epoch.number))

    @property
    def _on_cuda(self) -> bool:
        return next(self.network.parameters()).device.type == "cuda"

    def run(
        self,
        progress: Path | None,
        on_step: Callable[[float], None] | None,
        on_epoch: Callable[[Epoch], None] | None,
    ) -> Trained[Model]:
        """Train; return the chosen model with calibration and thresholds fitted on dev."""
        if progress is not None:
            self._restore(progress)
        for number in range(len(self.history) + 1, self.epochs + 1):
            if self.history and number - 1 - self.chosen.number >= self._pace.patience:
                break
            losses = []
            for samples in self._shuffled():
                losses.append(self._step(samples))
                if on_step:
                    on_step(min(1.0, self.step_number / self.steps))
            self.history.append(self._judge(number, sum(losses) / len(losses)))
            if self.chosen.number == number:
                self.best = copy.deepcopy(self.average.state_dict())
            if progress is not None:
                self._keep(progress)
            if on_epoch:
                on_epoch(self.history[-1])
        if on_step:
            on_step(1.0)
        self.average.load_state_dict(self.best)
        model, found = self.answers()
        calibration, thresholds = calibrate(
            found.emotion, found.labels, found.shift, found.shifts, self._classes
        )
        history, chosen = tuple(self.history), self.chosen
        return Trained(model, calibration, thresholds, history, chosen, self.text())

    def _judge(self, number: int, train_loss: float) -> Epoch:
        _, found = self.answers()
        loss = focal_loss(
            torch.from_numpy(found.emotion), torch.from_numpy(found.labels), gamma=0.0
        )
        return Epoch(number, train_loss, loss.item(), emotion_weighted_f1(found))

    def _shuffled(self) -> Iterator[list[Sample]]:
        """Whole conversations in a new order, added up to `batch_utterances`."""
        batch: list[Sample] = []
        for i in self.rng.permutation(len(self.samples)):
            batch.append(self.samples[i])
            if sum(len(s.labels) for s in batch) >= self._pace.batch_utterances:
                yield batch
                batch = []
        if batch:
            yield batch

    def _step(self, samples: Sequence[Sample]) -> float:
        self.network.train()
        loss = self.loss_of(samples)
        self._set_learning_rate()
        self.optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(self.network.parameters(), self._pace.clip_norm)
        self.optimiser.step()
        self.step_number += 1
        self._follow()
        return loss.item()

    def _set_learning_rate(self) -> None:
        """Linear warm-up, then a half cosine to zero."""
        done = self.step_number / self.steps
        warm = min(1.0, (self.step_number + 1) / max(1.0, self._pace.warm_up * self.steps))
        for group in self.optimiser.param_groups:
            group["lr"] = group["peak"] * warm * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))

    @torch.no_grad()
    def _follow(self) -> None:
        """Move the average towards the weights; quickly at first, when they are random."""
        decay = min(self._pace.average_decay, (self.step_number + 1) / (self.step_number + 10))
        pairs = zip(self.average.parameters(), self.network.parameters(), strict=True)
        for mean, weight in pairs:
            mean.lerp_(weight, 1 - decay)

    def _keep(self, progress: Path) -> None:
        state = {
            "fingerprint": self.fingerprint,
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "best": self.best,
            "optimiser": self.optimiser.state_dict(),
            "step": self.step_number,
            "history": [asdict(epoch) for epoch in self.history],
            "order": self.rng.bit_generator.state,
            "draws": self.generator.get_state(),
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state() if self._on_cuda else None,
            "extra": self.extra(),
        }
        save_progress(progress, state)

    def _restore(self, progress: Path) -> None:
        state = load_progress(progress, self.fingerprint)
        if state is None:
            return
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.best = state["best"]
        self.optimiser.load_state_dict(state["optimiser"])
        self.step_number = state["step"]
        self.history = [Epoch(**epoch) for epoch in state["history"]]
        self.rng.bit_generator.state = state["order"]
        self.generator.set_state(state["draws"])
        torch.set_rng_state(state["torch"])
        if state.get("cuda") is not None and self._on_cuda:
            torch.cuda.set_rng_state(state["cuda"])
        for name, value in state["extra"].items():
            setattr(self, name, value)


def require_labels(data: DataSource) -> None:
    """Raise ValueError for a split, of those that training reads, without a labelled utterance."""
    for split in ("train", "dev"):
        if not any((d.labels != UNLABELLED).any() for d in data.split(split)):
            raise ValueError(f"the {split} split of {data.name} has no labelled utterance")


def steps_an_epoch(recipe: Pace, lengths: Sequence[int]) -> int:
    """About how many: batches overshoot by half a conversation."""
    overshoot = sum(lengths) / len(lengths) / 2
    return max(1, math.ceil(sum(lengths) / (recipe.batch_utterances + overshoot)))


def normalise(
    model: Normalised,
    widths: Mapping[str, int],
    dialogues: Sequence[Dialogue],
    names: Sequence[str],
) -> None:
    """Set a model's input normalisation from the train split's present rows."""
    for name, (mean, deviation) in column_statistics(dialogues).items():
        if name in names and widths[name]:
            model.set_normalisation(name, torch.from_numpy(mean), torch.from_numpy(deviation))


def as_saved(model: Model) -> Model:
    """A copy whose weights are float16 numbers, as a checkpoint stores them."""
    saved = copy.deepcopy(model).eval()
    with torch.no_grad():
        for parameter in saved.parameters():
            parameter.copy_(parameter.half().float())
    return saved


def class_weight(dialogues: Sequence[Dialogue], classes: int, power: float) -> Tensor | None:
    """(1 / a class's share) ** power, one in the mean, [C]; None where `power` is 0."""
    if not power:
        return None
    counts = np.maximum(label_counts(dialogues, classes), 1)
    weight = (counts.sum() / counts) ** power
    return torch.from_numpy(weight / weight.mean()).float()


def check_labels(data: DataSet) -> None:
    """Raise `DataError` where a split that training reads has no label."""
    for split in SPLITS[:2]:
        dialogues = data.split(split)
        if not any((d.labels != UNLABELLED).any() for d in dialogues):
            raise DataError(
                f"the {split} split of {data.name} has no labelled utterance: label some "
                "conversations of it"
            )
