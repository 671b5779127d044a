"""Simple models on the same vectors: the least that a graph has to beat.

majority   the train split's class frequencies for every utterance and pair
logistic   logistic regression on one utterance's vectors; a pair as two independent utterances
markov     logistic, and each speaker's emotions as a Markov chain counted on train (forward filter)
gru        a causal GRU over the conversation's concatenated vectors, heads for both tasks

Each is trained on train; the strength of the penalty, the epoch and the calibration are chosen on
dev; only the requested split is answered.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.data.dataset import (
    UNLABELLED,
    DataSet,
    Dialogue,
    Split,
    column_statistics,
    label_counts,
    speaker_pairs,
)
from model.errors import DataError
from model.interface import DEFAULT_KIND, INPUTS
from model.registry import kind_named
from model.scoring.answers import Answers, emotion_weighted_f1, labelled_answers
from model.scoring.calibrate import calibrate
from model.scoring.report import Report, score
from model.scoring.scores import Doubles, Ints
from model.serving.calibration import Calibration, Thresholds
from model.serving.device import thread_count
from model.text.encode_sentences import has_sentences, with_encoded_text
from model.text.sentence_encoder import OnShare, find_encoder, frozen_encoder

BaselineName = Literal["majority", "logistic", "markov", "gru"]
INVERSE_PENALTIES: Final = (0.01, 0.03, 0.1, 0.3, 1.0)
CLIP: Final = 5.0  # deviations, as the graph's inputs
HIDDEN: Final = 128
EPOCHS: Final = 15
BATCH: Final = 32
LEARNING_RATE: Final = 1e-3
DROPOUT: Final = 0.5

Logits = tuple[Doubles, Doubles]  # emotion [T, C], pairs [P, C * C]
Answering = Callable[[Dialogue], Logits]


@dataclass(frozen=True, slots=True)
class Baseline:
    """A fitted baseline's answers to one split, with what was fitted on dev."""

    answers: Answers
    calibration: Calibration
    thresholds: Thresholds
    settings: str  # what dev chose, in words
    split: Split

    def report(self, labels: Sequence[str]) -> Report:
        """Score it as a checkpoint is scored."""
        here = self.split == "dev"
        return score(self.answers, self.calibration, self.thresholds, labels, fitted_here=here)


def with_sentences(
    data: DataSet,
    splits: Collection[Split],
    *,
    encoder: Path | None = None,
    cache: Path | None = None,
    on_share: OnShare | None = None,
) -> DataSet:
    """Return the set with the vectors of its sentences that the study's baselines read.

    They are those of PCGNet on frozen text: the mean of the encoder's last layers. A set without
    sentences keeps its own vectors. Only `splits` are read; `encoder` and `cache` are as in
    `model.text.encode_sentences`. Raises `EncoderMissing`.
    """
    if not has_sentences(data.split("train")):
        return data
    recipe: Any = kind_named(DEFAULT_KIND).recipe("frozen", {})
    folder = find_encoder(encoder)
    text = frozen_encoder(folder, recipe.mixed_layers)
    some = set(splits)
    return with_encoded_text(data, text, folder, splits=some, cache=cache, on_share=on_share)


def fit_baseline(
    name: BaselineName,
    data: DataSet,
    split: Split,
    *,
    seed: int = 0,
    threads: int = 1,
    inputs: Sequence[str] = INPUTS,
) -> Baseline:
    """Fit a baseline on the vectors named in `inputs` and answer `split`; equal seeds agree.

    Raises `DataError` when a split it needs has no labelled utterance.
    """
    needed: tuple[Split, ...] = ("train", "dev", split)
    for part in needed:
        if not any((d.labels != UNLABELLED).any() for d in data.split(part)):
            raise DataError(
                f"a baseline needs labelled utterances in the {part} split of {data.name}"
            )
    fit = {"majority": _majority, "logistic": _logistic, "markov": _markov, "gru": _gru}[name]
    with torch.random.fork_rng(devices=[]), thread_count(threads):
        torch.manual_seed(seed)
        train = data.split("train")
        if name != "majority":
            _require_vectors(name, data, inputs)
        rows = _reader(train, [m for m in INPUTS if m in inputs])
        task = _Task(train, data.split("dev"), len(data.labels), rows, seed)
        answering, settings = fit(task)
        dev = _answers(answering, task.dev, task.classes)
        calibration, points = calibrate(dev.emotion, dev.labels, dev.shift, dev.shifts, dev.classes)
        answers = dev
        if split != "dev":
            answers = _answers(answering, data.split(split), task.classes)
    return Baseline(answers, calibration, points, settings, split)


def _require_vectors(name: BaselineName, data: DataSet, inputs: Sequence[str]) -> None:
    """Raise `DataError` where there is nothing to read, or one label only to learn."""
    if not set(column_statistics(data.split("train"))) & set(inputs):
        raise DataError(
            f"{name} reads vectors, and {data.name} has none of {', '.join(inputs)}, nor sentences "
            "in most utterances: `emotrack baseline majority` needs neither"
        )
    known = np.flatnonzero(label_counts(data.split("train"), len(data.labels)))
    if len(known) < 2:
        raise DataError(
            f"every labelled utterance in the train split of {data.name} is "
            f"{data.labels[known[0]]}: {name} needs two labels there; label more conversations, or "
            "move some to train"
        )


@dataclass(frozen=True, slots=True)
class _Task:
    """The splits a baseline may learn from, and how it reads an utterance."""

    train: Sequence[Dialogue]
    dev: Sequence[Dialogue]
    classes: int
    rows: Callable[[Dialogue], Doubles]
    seed: int


def _reader(train: Sequence[Dialogue], inputs: Sequence[str]) -> Callable[[Dialogue], Doubles]:
    """Return a function to vectors [T, D] of a dialogue, with the presence of each input.

    Vectors are in deviations from the train split's mean, 0 where absent.
    """
    statistics = column_statistics(train)

    def rows(dialogue: Dialogue) -> Doubles:
        columns = []
        for name in inputs:
            if name in statistics and name in dialogue.features:
                mean, deviation = statistics[name]
                present = dialogue.present[:, [INPUTS.index(name)]]
                centred = np.clip((dialogue.features[name] - mean) / deviation, -CLIP, CLIP)
                columns += [np.where(present, centred, 0.0), present]
        return np.concatenate(columns, axis=1).astype(np.float64)

    return rows


def _log_frequencies(task: _Task) -> tuple[Doubles, Doubles]:
    """Return the logarithms of train's counts, plus one, of classes [C] and of pairs [C * C]."""
    shifts = np.concatenate([_shifts(d, task.classes) for d in task.train])
    pairs = np.bincount(shifts[shifts >= 0], minlength=task.classes**2)
    return np.log(label_counts(task.train, task.classes) + 1.0), np.log(pairs + 1.0)


def _majority(task: _Task) -> tuple[Answering, str]:
    emotion, pairs = _log_frequencies(task)

    def answering(dialogue: Dialogue) -> Logits:
        count = len(speaker_pairs(dialogue))
        return np.tile(emotion, (len(dialogue), 1)), np.tile(pairs, (count, 1))

    return answering, "class frequencies of train"


def _logistic(task: _Task) -> tuple[Answering, str]:
    from sklearn.linear_model import LogisticRegression

    truth = np.concatenate([d.labels for d in task.train])
    known = truth != UNLABELLED
    rows = np.concatenate([task.rows(d) for d in task.train])[known]

    def fitted(strength: float) -> tuple[Answering, str]:
        model = LogisticRegression(C=strength, max_iter=2000, random_state=task.seed)
        with warnings.catch_warnings():  # of many labels that few utterances have
            warnings.filterwarnings("ignore", "The number of unique classes", UserWarning)
            model.fit(rows, truth[known])
        answering = _independent(task, model.predict_log_proba, model.classes_)
        return answering, f"inverse penalty {strength:g}"

    return max(
        map(fitted, INVERSE_PENALTIES),
        key=lambda fit: emotion_weighted_f1(_answers(fit[0], task.dev, task.classes)),
    )


def _independent(task: _Task, log_proba: Callable[[Doubles], Doubles], seen: Ints) -> Answering:
    """Answer utterances one by one; a pair's (from, to) as if both were independent."""

    def answering(dialogue: Dialogue) -> Logits:
        emotion = np.full((len(dialogue), task.classes), -30.0)  # a class train never shows
        emotion[:, seen] = np.maximum(log_proba(task.rows(dialogue)), -30.0)
        before, now = speaker_pairs(dialogue).T
        joint = emotion[before][:, :, None] + emotion[now][:, None, :]
        return emotion, joint.reshape(len(now), task.classes**2)

    return answering


def _markov(task: _Task) -> tuple[Answering, str]:
    alone, settings = _logistic(task)
    prior, pair_counts = _log_frequencies(task)
    prior -= np.logaddexp.reduce(prior)
    moves = pair_counts.reshape(task.classes, task.classes)
    moves -= np.logaddexp.reduce(moves, axis=1, keepdims=True)

    def answering(dialogue: Dialogue) -> Logits:
        belief = alone(dialogue)[0]  # [T, C]; then after all the speaker's utterances so far
        evidence = belief - prior
        pairs = speaker_pairs(dialogue)
        joint = np.empty((len(pairs), task.classes, task.classes))
        for pair, (before, now) in enumerate(pairs.tolist()):  # in the order they are spoken
            score = belief[before][:, None] + moves + evidence[now]
            joint[pair] = score - np.logaddexp.reduce(score, axis=None)
            belief[now] = np.logaddexp.reduce(joint[pair])
        return belief, joint.reshape(len(pairs), task.classes**2)

    return answering, f"{settings}, transitions of train"


class _Gru(nn.Module):
    """A causal GRU; answers each utterance, and each pair from the states at both its ends."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.gru = nn.GRU(width, HIDDEN, batch_first=True)
        self.emotion = nn.Linear(HIDDEN + width, classes)
        self.pair = nn.Linear(2 * HIDDEN, classes * classes)

    def forward(self, rows: Tensor, pairs: Tensor) -> tuple[Tensor, Tensor]:
        """Answer one conversation: rows [T, D], pairs [P, 2] -> [T, C], [P, C * C]."""
        rows = F.dropout(rows, DROPOUT, self.training)
        state = F.dropout(self.gru(rows[None])[0][0], DROPOUT, self.training)  # [T, HIDDEN]
        return self.emotion(torch.cat((state, rows), 1)), self.pair(state[pairs].flatten(1))


def _gru(task: _Task) -> tuple[Answering, str]:
    model = _Gru(task.rows(task.train[0]).shape[1], task.classes)
    optimiser = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=1e-2)
    rng = np.random.default_rng(task.seed)
    samples = [_sample(d, task) for d in task.train]
    best: tuple[float, int, dict[str, Tensor]] = (-1.0, 0, {})
    for epoch in range(1, EPOCHS + 1):
        model.train()
        order = rng.permutation(len(samples))
        for start in range(0, len(order), BATCH):
            optimiser.zero_grad()
            losses = [_loss(model, *samples[i]) for i in order[start : start + BATCH]]
            torch.autograd.backward(torch.stack(losses).sum() / BATCH)
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
        reached = emotion_weighted_f1(_answers(_evaluating(model, task), task.dev, task.classes))
        if reached > best[0]:
            best = reached, epoch, copy.deepcopy(model.state_dict())
    model.load_state_dict(best[2])
    return _evaluating(model, task), f"epoch {best[1]} of {EPOCHS}, {HIDDEN} units"


def _sample(dialogue: Dialogue, task: _Task) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    rows = torch.from_numpy(task.rows(dialogue)).float()
    pairs = torch.from_numpy(speaker_pairs(dialogue))
    shifts = torch.from_numpy(_shifts(dialogue, task.classes))
    return rows, pairs, torch.from_numpy(dialogue.labels), shifts


def _loss(model: _Gru, rows: Tensor, pairs: Tensor, labels: Tensor, shifts: Tensor) -> Tensor:
    emotion, joint = model(rows, pairs)
    sums = [
        F.cross_entropy(emotion, labels, ignore_index=UNLABELLED, reduction="sum"),
        F.cross_entropy(joint, shifts, ignore_index=UNLABELLED, reduction="sum"),
    ]
    return torch.stack(sums).sum() / len(labels)


def _evaluating(model: _Gru, task: _Task) -> Answering:
    @torch.no_grad()
    def answering(dialogue: Dialogue) -> Logits:
        model.eval()
        rows, pairs, _, _ = _sample(dialogue, task)
        emotion, joint = model(rows, pairs)
        return emotion.double().numpy(), joint.double().numpy()

    return answering


def _shifts(dialogue: Dialogue, classes: int) -> Ints:
    """Return from * C + to of each pair [P], UNLABELLED where an end has no label."""
    before, now = dialogue.labels[speaker_pairs(dialogue)].T
    known = (before != UNLABELLED) & (now != UNLABELLED)
    return np.where(known, before * classes + now, UNLABELLED)


def _answers(answering: Answering, dialogues: Sequence[Dialogue], classes: int) -> Answers:
    parts = (((d,), *answering(d), speaker_pairs(d)) for d in dialogues)
    return labelled_answers(parts, classes)
