"""Score checkpoints on a split: whole conversations at once, under the stored precision.

By the model law (tests/model/pcgnet/test_laws.py) the worker's step gives the same answers. Every
score is causal: an answer has seen its own utterance and earlier ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from model.checkpoint_files import LoadedCheckpoint
from model.data.dataset import UNLABELLED, DataSet, Dialogue, Split
from model.errors import CheckpointError
from model.scoring.answers import BATCH_DIALOGUES, Answers
from model.scoring.bootstrap import Difference, dialogue_weights, differences, resampled_scores
from model.scoring.calibrate import emotion_probabilities, softmax
from model.scoring.report import Report, score
from model.scoring.scores import Doubles
from model.serving.device import thread_count


def evaluate(
    checkpoint: LoadedCheckpoint,
    data: DataSet,
    split: Split,
    *,
    threads: int = 1,
    encoder: Path | None = None,
) -> Report:
    """Score a checkpoint on one split of a data set; raises as `answers_of` does."""
    answers = answers_of(checkpoint, data, split, threads=threads, encoder=encoder)
    return _score(answers, checkpoint, split)


def _score(answers: Answers, checkpoint: LoadedCheckpoint, split: Split) -> Report:
    fitted = checkpoint.calibration
    return score(
        answers,
        fitted,
        checkpoint.thresholds,
        checkpoint.config.labels,
        fitted_here=fitted.fitted_on == split,
    )


def compare(
    checkpoint: LoadedCheckpoint,
    other: LoadedCheckpoint,
    data: DataSet,
    split: Split,
    *,
    threads: int = 1,
    encoder: Path | None = None,
) -> tuple[Report, Report, tuple[Difference, ...]]:
    """Score two checkpoints on the same split, and their differences on the same resamples.

    They may read different inputs; raises `CheckpointError` when they answer different labels.
    """
    if checkpoint.config.labels != other.config.labels:
        raise CheckpointError(
            f"the checkpoints answer different labels ({', '.join(checkpoint.config.labels)} and "
            f"{', '.join(other.config.labels)}): compare two that were trained on one set"
        )
    both = [
        (c, answers_of(c, data, split, threads=threads, encoder=encoder))
        for c in (checkpoint, other)
    ]
    drawn = dialogue_weights(both[0][1].dialogues)
    one, two = (resampled_scores(answers, c.calibration, drawn) for c, answers in both)
    first, second = (_score(answers, c, split) for c, answers in both)
    return first, second, differences(one, two)


def answers_of(
    checkpoint: LoadedCheckpoint,
    data: DataSet,
    split: Split,
    *,
    threads: int = 1,
    encoder: Path | None = None,
) -> Answers:
    """Return a checkpoint's answers to a split.

    Sentences are read through the checkpoint's own text encoder, whose base is in the folder
    `encoder` (None: the installed one).

    Raises `CheckpointError` when the set's labels or vector widths are not the checkpoint's, or
    when nothing in the split is labelled.
    """
    _check_fit(checkpoint, data)
    dialogues = data.split(split)
    if not any((d.labels != UNLABELLED).any() for d in dialogues):
        raise CheckpointError(
            f"the {split} split of {data.name} has no labelled utterance to score: "
            "choose another with --split"
        )
    with thread_count(threads):
        return checkpoint.answers(dialogues, encoder)


def _check_fit(checkpoint: LoadedCheckpoint, data: DataSet) -> None:
    config = checkpoint.config
    if data.labels != config.labels:
        raise CheckpointError(
            f"the checkpoint answers {', '.join(config.labels)}, the set {data.name} has "
            f"{', '.join(data.labels)}: evaluate a checkpoint trained on that set"
        )
    for name, width in data.widths.items():
        if name == "text" and checkpoint.text is not None:
            continue  # encoded from the sentences
        if config.widths.get(name, 0) not in (0, width):
            raise CheckpointError(
                f"{name} vectors of {data.name} have {width} numbers, the checkpoint reads "
                f"{config.widths[name]}: evaluate a checkpoint trained on that set"
            )


@dataclass(frozen=True, slots=True)
class StatedAnswer:
    """The answer to one utterance, labelled or not, as a worker states it."""

    dialogue: Dialogue
    place: int  # of the utterance in it
    probabilities: Doubles  # [C]
    shift: tuple[tuple[float, ...], float] | None  # (from, to) cells [C * C], P(shift); or first


def stated_answers(
    checkpoint: LoadedCheckpoint,
    data: DataSet,
    split: Split,
    *,
    threads: int = 1,
    encoder: Path | None = None,
) -> Iterator[StatedAnswer]:
    """Yield the answer to every utterance of a split, in its order; raises as `answers_of` does.

    Those to labelled utterances are what `evaluate` scores.
    """
    _check_fit(checkpoint, data)
    calibration, dialogues = checkpoint.calibration, data.split(split)
    for start in range(0, len(dialogues), BATCH_DIALOGUES):
        part = dialogues[start : start + BATCH_DIALOGUES]
        with thread_count(threads), torch.no_grad():
            out = checkpoint.whole(part, encoder, None)
        emotion = emotion_probabilities(out.emotion.cpu().double().numpy(), calibration)
        cells = softmax(out.shift.cpu().double().numpy(), calibration.shift).tolist()
        pair_of = {int(now): pair for pair, now in enumerate(out.pairs[:, 1])}
        places = ((dialogue, place) for dialogue in part for place in range(len(dialogue)))
        for i, (dialogue, place) in enumerate(places):
            pair = pair_of.get(i)
            shift = None if pair is None else calibration.stated_shift(cells[pair])
            yield StatedAnswer(dialogue, place, emotion[i], shift)
