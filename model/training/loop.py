"""The training loop of all models: epochs over whole conversations, the best one on dev chosen.

A model's own training derives its samples, loss and answers; here are the order, the pace, the
average of the weights, the choice of the epoch, and resuming a killed run.
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from model.data.content import content_digest
from model.data.dataset import (
    SPLITS,
    UNLABELLED,
    DataSet,
    Dialogue,
    column_statistics,
    label_counts,
)
from model.errors import DataError
from model.interface import INPUTS
from model.scoring.answers import Answers, emotion_weighted_f1
from model.scoring.calibrate import calibrate
from model.serving.calibration import Calibration, Thresholds
from model.training.losses import focal_loss
from model.training.progress import (
    Epoch,
    Listener,
    load_progress,
    save_progress,
    write_epochs,
)
from model.training.settings import Pace

if TYPE_CHECKING:
    from model.text.sentence_encoder import TextEncoder

MOST_EPOCHS: Final = 100


class Labelled(Protocol):
    """A conversation to train on."""

    @property
    def labels(self) -> Tensor: ...  # [T]


Sample = TypeVar("Sample", bound=Labelled)
Network = TypeVar("Network", bound=nn.Module)  # everything that is trained
Model = TypeVar("Model", bound=nn.Module)  # the part that is saved


@dataclass(frozen=True, slots=True)
class Trained(Generic[Model]):
    """The chosen weights, what was fitted with them, and their history."""

    model: Model
    calibration: Calibration
    thresholds: Thresholds
    history: tuple[Epoch, ...]
    chosen: Epoch
    text: TextEncoder | None = None  # the encoder of the model's text vectors
    cut: int = 0  # sentences that were longer than the model reads


class TrainingLoop(ABC, Generic[Sample, Network, Model]):
    """The state of one run on the sets that it learns from; the test split is never read."""

    def __init__(
        self,
        data: DataSet,
        config: Any,
        recipe: Any,
        seed: int,
        *,
        network: Network,
        groups: Sequence[dict[str, Any]],
        samples: Sequence[Sample],
    ) -> None:
        """Begin with the model's settings, a `Pace`, and the groups of `decaying`."""
        self.config, self.recipe, self.network, self.samples = config, recipe, network, samples
        self.dev = data.split("dev")
        self.optimiser = torch.optim.AdamW(groups, lr=recipe.learning_rate)
        self.average = copy.deepcopy(network)
        self.rng = np.random.default_rng(seed)
        self.generator = torch.Generator().manual_seed(seed)
        self.step_number = 0
        self.history: list[Epoch] = []
        self.best: dict[str, Tensor] = {}  # the averaged weights of the best epoch
        utterances = sum(len(sample.labels) for sample in samples)
        overshoot = utterances / len(samples) / 2  # of a batch: half a conversation
        per = max(1, math.ceil(utterances / (recipe.batch_utterances + overshoot)))
        self.epochs = max(recipe.epochs, min(MOST_EPOCHS, math.ceil(recipe.steps_at_least / per)))
        self.steps = self.epochs * per  # about: each epoch packs its batches again
        self.fingerprint = repr((content_digest(data), seed, asdict(config), recipe))

    @abstractmethod
    def loss_of(self, samples: Sequence[Sample]) -> Tensor:
        """Return the loss of one batch, with its gradient graph."""

    @abstractmethod
    def answers(self) -> tuple[Model, Answers]:
        """Return the averaged weights as they would be saved, and their answers to dev."""

    def extra(self) -> dict[str, Any]:
        """Return further state that a resumed run needs, by attribute name."""
        return {}

    @property
    def chosen(self) -> Epoch:
        """The epoch with the best dev score so far; the first of equals."""
        return max(self.history, key=lambda epoch: (epoch.dev_weighted_f1, -epoch.number))

    @property
    def _on_cuda(self) -> bool:
        return next(self.network.parameters()).device.type == "cuda"

    def run(self, progress: Path | None, listener: Listener) -> Trained[Model]:
        """Train; return the chosen model with calibration and thresholds fitted on dev."""
        if progress is not None:
            self._restore(progress)
        listener.on_begin(self.epochs, tuple(self.history))
        for number in range(len(self.history) + 1, self.epochs + 1):
            if self.history and number - 1 - self.chosen.number >= self.recipe.patience:
                break
            losses = []
            for samples in self._shuffled():
                losses.append(self._step(samples))
                listener.on_share(min(1.0, self.step_number / self.steps))
            _, on_dev = self.answers()
            logits, labels = torch.from_numpy(on_dev.emotion), torch.from_numpy(on_dev.labels)
            dev_loss = focal_loss(logits, labels, gamma=0.0).item()
            score = emotion_weighted_f1(on_dev)
            self.history.append(Epoch(number, sum(losses) / len(losses), dev_loss, score))
            if self.chosen.number == number:
                self.best = copy.deepcopy(self.average.state_dict())
            if progress is not None:
                self._save(progress)
                write_epochs(progress.parent, self.history)
            listener.on_epoch(self.history[-1])
        listener.on_share(1.0)
        self.average.load_state_dict(self.best)
        model, on_dev = self.answers()
        calibration, thresholds = calibrate(
            on_dev.emotion, on_dev.labels, on_dev.shift, on_dev.shifts, self.config.classes
        )
        return Trained(model, calibration, thresholds, tuple(self.history), self.chosen)

    def _shuffled(self) -> Iterator[list[Sample]]:
        """Yield batches of whole conversations in a new order, of `batch_utterances` or more."""
        batch: list[Sample] = []
        for i in self.rng.permutation(len(self.samples)):
            batch.append(self.samples[i])
            if sum(len(s.labels) for s in batch) >= self.recipe.batch_utterances:
                yield batch
                batch = []
        if batch:
            yield batch

    def _step(self, samples: Sequence[Sample]) -> float:
        self.network.train()
        loss = self.loss_of(samples)
        # Linear warm-up, then a half cosine to zero.
        done = self.step_number / self.steps
        warm = min(1.0, (self.step_number + 1) / max(1.0, self.recipe.warm_up * self.steps))
        for group in self.optimiser.param_groups:
            group["lr"] = group["peak"] * warm * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
        self.optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(self.network.parameters(), self.recipe.clip_norm)
        self.optimiser.step()
        self.step_number += 1
        self._follow()
        return loss.item()

    @torch.no_grad()
    def _follow(self) -> None:
        """Move the average towards the weights; quickly at first, when they are random."""
        decay = min(self.recipe.average_decay, (self.step_number + 1) / (self.step_number + 10))
        pairs = zip(self.average.parameters(), self.network.parameters(), strict=True)
        for mean, weight in pairs:
            mean.lerp_(weight, 1 - decay)

    def _save(self, progress: Path) -> None:
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


def normalise_inputs(
    model: nn.Module, dialogues: Sequence[Dialogue], names: Sequence[str] = INPUTS
) -> None:
    """Set a model's input normalisation from the train split's present rows."""
    for name, (mean, deviation) in column_statistics(dialogues).items():
        if name in names and len(model.get_buffer(f"{name}_mean")):
            set_normalisation(model, name, torch.from_numpy(mean), torch.from_numpy(deviation))


def set_normalisation(model: nn.Module, name: str, mean: Tensor, deviation: Tensor) -> None:
    """Set the mean and the standard deviation [width], above 0, of an input's raw values."""
    model.get_buffer(f"{name}_mean").copy_(mean)
    model.get_buffer(f"{name}_scale").copy_(1 / deviation)


def decaying(
    parameters: Iterable[tuple[str, Tensor]],
    matrix: Callable[[str, Tensor], bool],
    recipe: Pace,
    peak: float,
) -> list[dict[str, Any]]:
    """Return groups of an AdamW whose highest rate is `peak`: only matrices decay."""
    parts: dict[bool, list[Tensor]] = {True: [], False: []}
    for name, parameter in parameters:
        parts[matrix(name, parameter)].append(parameter)
    return [
        {"params": part, "weight_decay": recipe.weight_decay * decays, "peak": peak}
        for decays, part in parts.items()
        if part
    ]


def as_saved(model: Model) -> Model:
    """Return a copy with the weights rounded to float16, as a checkpoint stores them."""
    saved = copy.deepcopy(model).eval()
    with torch.no_grad():
        for parameter in saved.parameters():
            parameter.copy_(parameter.half().float())
    return saved


def class_weight(dialogues: Sequence[Dialogue], classes: int, power: float) -> Tensor | None:
    """Return (1 / a class's share) ** power, 1 in the mean: [C]; None where `power` is 0."""
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
