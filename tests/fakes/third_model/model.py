"""A model as small as can be: counts words by label, and half remembers what came before."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import ClassVar
from zlib import crc32

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from model.checkpoint_files import LoadedCheckpoint, read_checkpoint
from model.data.dataset import Dialogue, sentiment_of
from model.interface import ModelInfo, Prediction, Turn
from model.kind import Plan
from model.scoring.answers import Answers, answers_to
from model.scoring.calibrate import calibrate
from model.scoring.report import Report
from model.training.loop import Trained
from model.training.progress import Epoch, Listener
from state.window import Applied, ArraySpec, Recurrence, StateSpec

Floats = NDArray[np.float32]
BUCKETS = 64


@dataclass(frozen=True)
class CountingConfig:
    labels: tuple[str, ...]
    memory: float = 0.5
    recurrence: Recurrence = field(default_factory=Recurrence)

    @property
    def sentiment(self) -> Mapping[str, str]:
        return sentiment_of(self.labels)

    @property
    def classes(self) -> int:
        return len(self.labels)

    @property
    def widths(self) -> Mapping[str, int]:
        return {}


class Counting(nn.Module):
    def __init__(self, config: CountingConfig, scores: torch.Tensor) -> None:
        super().__init__()
        self.config = config
        self.scores: torch.Tensor  # [buckets, C] log odds of a label by a word's bucket
        self.register_buffer("scores", scores)

    def step(self, text: str, before: Floats) -> Floats:
        """Logits [C] of an utterance: its words, and a part of what came before."""
        table = self.scores.numpy()
        words = sum((table[bucket(word)] for word in text.split()), np.zeros(len(before), "f4"))
        logits: Floats = (self.config.memory * before + words).astype("f4")
        return logits


def bucket(word: str) -> int:
    return crc32(word.encode()) % BUCKETS


@dataclass(frozen=True)
class WholeLogits:
    emotion: torch.Tensor
    shift: torch.Tensor
    pairs: torch.Tensor


def whole(model: Counting, dialogues: Sequence[Dialogue]) -> WholeLogits:
    emotion: list[Floats] = []
    pairs: list[tuple[int, int]] = []
    for dialogue in dialogues:
        state, last = np.zeros(model.config.classes, "f4"), dict[str, int]()
        for speaker, sentence in zip(dialogue.speakers, dialogue.sentences, strict=True):
            state = model.step(sentence, state)
            if speaker in last:
                pairs.append((last[speaker], len(emotion)))
            last[speaker] = len(emotion)
            emotion.append(state)
    shift = [np.add.outer(emotion[a], emotion[b]).ravel() for a, b in pairs]
    return WholeLogits(
        torch.tensor(np.array(emotion)), torch.tensor(np.array(shift)), torch.tensor(pairs)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class CountingCheckpoint(LoadedCheckpoint):
    config: CountingConfig

    def model(self) -> Counting:
        return Counting(self.config, self.weights["scores"])

    def answers(self, dialogues: Sequence[Dialogue], encoder: Path | None) -> Answers:
        def run(part: slice) -> WholeLogits:
            return whole(self.model(), dialogues[part])

        return answers_to(dialogues, self.config.classes, run)

    def whole(
        self, dialogues: Sequence[Dialogue], encoder: Path | None, labels: Sequence[int] | None
    ) -> WholeLogits:
        return whole(self.model(), dialogues)


def load(folder: Path) -> CountingCheckpoint:
    return read_checkpoint(folder, CountingCheckpoint, CountingConfig)


@dataclass(frozen=True)
class Recipe:
    epochs: int = 1
    steps_at_least: int = 1
    smoothing: float = 1.0


@dataclass(frozen=True, slots=True)
class CountingPlan(Plan):
    kind: ClassVar = "counting"

    def train(
        self, progress: Path | None = None, listener: Listener = Listener()
    ) -> Trained[Counting]:
        counts = np.full((BUCKETS, self.config.classes), self.recipe.smoothing, "f4")
        for dialogue in self.data.split("train"):
            for sentence, label in zip(dialogue.sentences, dialogue.labels, strict=True):
                for word in sentence.split():
                    counts[bucket(word), label] += 1
        odds = np.log(counts / counts.sum(1, keepdims=True))
        model = Counting(self.config, torch.from_numpy(odds).half().float())
        dev = self.data.split("dev")
        found = answers_to(dev, self.config.classes, lambda part: whole(model, dev[part]))
        fitted = calibrate(
            found.emotion, found.labels, found.shift, found.shifts, self.config.classes
        )
        epoch = Epoch(1, 0.0, 0.0, 0.0)
        return Trained(model, *fitted, (epoch,), epoch)

    def card(self, trained: Trained[Counting], report: Report) -> str:
        return f"# Word counts of {self.data.name}\n\n`{self.command}`\n"


@dataclass
class CountingPredictor:
    checkpoint: CountingCheckpoint
    device: str = "cpu"

    def __post_init__(self) -> None:
        self._model = self.checkpoint.model()
        self._judge = self.checkpoint.judge()

    @property
    def info(self) -> ModelInfo:
        return self.checkpoint.info({}, frozenset())

    @property
    def spec(self) -> StateSpec:
        classes, recurrence = self.checkpoint.config.classes, self.checkpoint.config.recurrence
        return StateSpec(
            utterance=(ArraySpec("said", (1,), "float32"),),
            conversation=(ArraySpec("state", (classes,), "float32"),),
            speaker=(ArraySpec("last", (classes,), "float32"),),
            recurrence=recurrence,
            model_digest=self.checkpoint.digest,
        )

    def warm_up(self) -> None:
        """Nothing is cold here."""

    def can_encode_text(self) -> bool:
        return True

    def device_memory_bytes(self) -> int:
        return 0

    def predict(self, turns: Sequence[Turn]) -> list[Prediction]:
        return [self._one(turn) for turn in turns]

    def begin(self, turns: Sequence[Turn]) -> Callable[[], list[Prediction]]:
        return partial(self.predict, turns)

    def _one(self, turn: Turn) -> Prediction:
        fitted, arrays = self.checkpoint.calibration, turn.window.arrays
        blank = np.zeros(self.checkpoint.config.classes, "f4")
        now = self._model.step(turn.text or "", blank if arrays is None else arrays.view("f4"))
        known = turn.window.speakers.get(turn.speaker_id)
        shift = probability = None
        if known is not None:
            cells = softmax(np.add.outer(known.arrays.view("f4"), now).ravel() / fitted.shift)
            shift, probability = fitted.stated_shift(cells)
        stored = now.view(np.uint8)
        return Prediction(
            probabilities=fitted.stated(softmax(now / fitted.emotion)),
            shift=shift,
            shift_probability=probability,
            modalities_used=("text",) if turn.text else (),
            applied=Applied(stored[:4].copy(), stored.copy(), stored.copy()),
            doubt=None if self._judge is None else self._judge.doubt(turn.text, turn.language),
        )


def softmax(logits: Floats) -> list[float]:
    values = np.exp(logits.astype("f8") - logits.max())
    found: list[float] = (values / values.sum()).tolist()
    return found
