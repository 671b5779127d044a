"""How good a checkpoint is on a split: the whole-conversation form, under the stored precision.

By the model law (tests/model/test_laws.py) the worker's step gives the same answers. Every score
is causal: an answer has seen its own utterance and earlier ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.calibration import shift_probability, softmax
from model.checkpoint import Calibration, Checkpoint, Thresholds
from model.collate import ConversationTensors, collate_conversations
from model.config import INPUTS, PcgnetConfig
from model.data import UNLABELLED, DataSource, Dialogue, Split
from model.pcgnet import Pcgnet
from model.predictor import CheckpointError
from model.scores import (
    Doubles,
    Interval,
    Ints,
    accuracy,
    auroc,
    average_precision,
    bootstrap,
    bootstrap_weighted_f1,
    calibration_error,
    class_f1,
    confusion,
    dialogue_weights,
    weighted_f1,
)

RESAMPLES: Final = 1000
BATCH_DIALOGUES: Final = 64


@dataclass(frozen=True, slots=True)
class Answers:
    """Logits of the labelled utterances and pairs of a split, with the truth beside them."""

    emotion: Doubles  # [N, C]
    labels: Ints  # [N]
    dialogue: Ints  # [N] number of the dialogue
    shift: Doubles  # [P, C * C]
    shifts: Ints  # [P] from * C + to
    pair_dialogue: Ints  # [P]
    dialogues: int

    @property
    def classes(self) -> int:
        return int(self.emotion.shape[1])

    @property
    def shifted(self) -> NDArray[np.bool_]:
        """Whether each pair's emotion really changed, [P]."""
        moved: NDArray[np.bool_] = self.shifts // self.classes != self.shifts % self.classes
        return moved


@dataclass(frozen=True, slots=True)
class Report:
    """The scores of one checkpoint on one split; shares between 0 and 1."""

    utterances: int
    pairs: int
    accuracy: float
    weighted_f1: Interval
    class_f1: Mapping[str, float]
    shift_base_rate: float  # share of pairs that shift
    shift_auroc: Interval
    shift_average_precision: float
    shift_c2_weighted_f1: Interval
    emotion_ece: float
    emotion_ece_raw: float  # before the temperature
    shift_ece: float
    shift_ece_raw: float
    alert_recall: float  # at the checkpoint's shift threshold
    alert_false_per_100: float  # false alarms per 100 pairs, there
    abstained: float  # share of utterances under the abstain threshold
    abstained_accuracy: float  # how often those would have been right


@contextmanager
def thread_count(threads: int) -> Iterator[None]:
    """Run torch's CPU work on that many threads, then on as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def evaluate(checkpoint: Checkpoint, data: DataSource, split: Split, *, threads: int = 1) -> Report:
    """Score a checkpoint on one split of a data set.

    Raises `CheckpointError` when the set's labels or vector widths are not the checkpoint's.
    """
    config = checkpoint.config
    if data.labels != config.labels:
        raise CheckpointError(
            f"the checkpoint answers {', '.join(config.labels)}, the set {data.name} has "
            f"{', '.join(data.labels)}: evaluate a checkpoint trained on that set"
        )
    for name, width in data.widths.items():
        if config.widths[name] not in (0, width):
            raise CheckpointError(
                f"{name} vectors of {data.name} have {width} numbers, the checkpoint reads "
                f"{config.widths[name]}: evaluate a checkpoint trained on that set"
            )
    with thread_count(threads):
        answers = answer(checkpoint.model(), data.split(split))
    return score(answers, checkpoint.calibration, checkpoint.thresholds, config.labels)


def conversation_tensors(dialogue: Dialogue, config: PcgnetConfig) -> ConversationTensors:
    """A dialogue as the model reads it; an input the set or the model lacks is never present.

    Raises ValueError when a vector's width is not the model's.
    """
    present = torch.from_numpy(dialogue.present.copy())
    columns: dict[str, Tensor] = {}
    for i, name in enumerate(INPUTS):
        width = config.widths[name]
        if name in dialogue.features and width:
            columns[name] = torch.from_numpy(dialogue.features[name])
        else:
            columns[name] = torch.zeros(len(dialogue), width)
            present[:, i] = False
    return ConversationTensors(present=present, speakers=dialogue.speakers, **columns)


@torch.no_grad()
def answer(model: Pcgnet, dialogues: Sequence[Dialogue], *, rounding: bool = True) -> Answers:
    """Run `model` over whole dialogues; utterances without a label are heard but not scored."""
    training = model.training
    model.eval()
    emotion, shift, labels, shifts, owner, pair_owner = [], [], [], [], [], []
    classes = model.config.classes
    for start in range(0, len(dialogues), BATCH_DIALOGUES):
        part = dialogues[start : start + BATCH_DIALOGUES]
        tensors = [conversation_tensors(d, model.config) for d in part]
        batch = collate_conversations(tensors, model.config)
        out = model(batch, rounding=rounding)
        truth = np.concatenate([d.labels for d in part])
        number = batch.conversation.numpy() + start
        before, now = truth[out.pairs[:, 0].numpy()], truth[out.pairs[:, 1].numpy()]
        known, both = truth != UNLABELLED, (before != UNLABELLED) & (now != UNLABELLED)
        emotion.append(out.emotion.double().numpy()[known])
        labels.append(truth[known])
        owner.append(number[known])
        shift.append(out.shift.double().numpy()[both])
        shifts.append((before * classes + now)[both])
        pair_owner.append(number[out.pairs[:, 1].numpy()][both])
    model.train(training)
    return Answers(
        emotion=np.concatenate(emotion),
        labels=np.concatenate(labels),
        dialogue=np.concatenate(owner),
        shift=np.concatenate(shift),
        shifts=np.concatenate(shifts),
        pair_dialogue=np.concatenate(pair_owner),
        dialogues=len(dialogues),
    )


def emotion_weighted_f1(answers: Answers) -> float:
    """Weighted F1 alone: what training selects on."""
    counts = confusion(answers.labels, answers.emotion.argmax(1), answers.classes)
    return float(weighted_f1(counts))


def score(
    answers: Answers,
    calibration: Calibration,
    thresholds: Thresholds,
    labels: Sequence[str],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Report:
    """Score answers; intervals are 95 % bootstrap intervals over whole dialogues."""
    drawn = dialogue_weights(answers.dialogues, resamples=resamples, seed=seed)
    classes, shifted = answers.classes, answers.shifted
    guess = answers.emotion.argmax(1)
    counts = confusion(answers.labels, guess, classes)
    stated = softmax(answers.emotion, calibration.emotion).max(1)
    raw = softmax(answers.emotion).max(1)
    moved = shift_probability(answers.shift, classes, calibration.shift)
    moved_raw = shift_probability(answers.shift, classes)
    right = guess == answers.labels
    unsure = stated < thresholds.abstain_below
    alerts = moved >= thresholds.shift
    return Report(
        utterances=len(guess),
        pairs=len(shifted),
        accuracy=accuracy(counts),
        weighted_f1=bootstrap_weighted_f1(answers.labels, guess, answers.dialogue, classes, drawn),
        class_f1=dict(zip(labels, class_f1(counts).tolist(), strict=True)),
        shift_base_rate=_mean(shifted),
        shift_auroc=bootstrap(
            lambda weight: auroc(shifted, moved, weight), answers.pair_dialogue, drawn
        ),
        shift_average_precision=average_precision(shifted, moved),
        shift_c2_weighted_f1=bootstrap_weighted_f1(
            answers.shifts,
            answers.shift.argmax(1),
            answers.pair_dialogue,
            classes * classes,
            drawn,
        ),
        emotion_ece=calibration_error(stated, right),
        emotion_ece_raw=calibration_error(raw, right),
        shift_ece=calibration_error(moved, shifted),
        shift_ece_raw=calibration_error(moved_raw, shifted),
        alert_recall=_mean(alerts[shifted]),
        alert_false_per_100=100 * _mean(alerts & ~shifted),
        abstained=_mean(unsure),
        abstained_accuracy=_mean(right[unsure]),
    )


def _mean(values: NDArray[np.bool_]) -> float:
    return float(values.mean()) if len(values) else float("nan")


def goal_rows(report: Report) -> dict[str, dict[str, Any]]:
    """The report as rows of goals.md (A1, A4, A5), in percent where the goal is."""
    f1, c2, area = report.weighted_f1, report.shift_c2_weighted_f1, report.shift_auroc
    base = f"{100 * report.shift_base_rate:.1f} % of {report.pairs} pairs shift"
    size = f"{report.utterances} utterances"

    def row(value: float, unit: str, first: float, aim: float, reference: str) -> dict[str, Any]:
        return {
            "value": round(value, 4), "unit": unit, "first": first, "aim": aim,
            "reference": reference,
        }  # fmt: skip

    return {
        "A1": row(
            100 * f1.value, "wF1 %", 58.5, 60.0, f"logistic regression, MELD test: 57.7; {size}"
        )
        | {"ci95": [round(100 * f1.low, 2), round(100 * f1.high, 2)]}
        | {"accuracy": round(100 * report.accuracy, 2)}
        | {"class_f1": {k: round(100 * v, 2) for k, v in report.class_f1.items()}},
        "A4_auroc": row(area.value, "AUROC", 0.72, 0.75, base)
        | {"ci95": [round(area.low, 4), round(area.high, 4)]}
        | {"average_precision": round(report.shift_average_precision, 4)}
        | {"alert_recall": round(report.alert_recall, 4)}
        | {"alert_false_per_100_pairs": round(report.alert_false_per_100, 2)},
        "A4_c2_wf1": row(100 * c2.value, "wF1 %", 36.0, 38.0, base)
        | {"ci95": [round(100 * c2.low, 2), round(100 * c2.high, 2)]},
        "A5_emotion": row(100 * report.emotion_ece, "ECE %", 3.0, 2.0, size)
        | {"raw": round(100 * report.emotion_ece_raw, 2)}
        | {"abstained_share": round(report.abstained, 4)}
        | {"abstained_accuracy": round(report.abstained_accuracy, 4)},
        "A5_shift": row(100 * report.shift_ece, "ECE %", 3.0, 2.0, base)
        | {"raw": round(100 * report.shift_ece_raw, 2)},
    }
