"""Score checkpoints on a split: whole conversations at once, under the stored precision.

By the model law (tests/model/pcgnet/test_laws.py) the worker's step gives the same answers. Every
score is causal: an answer has seen its own utterance and earlier ones.
"""

from __future__ import annotations

from pathlib import Path

from model.checkpoint_files import LoadedCheckpoint
from model.data.dataset import UNLABELLED, DataSet, Split
from model.errors import CheckpointError
from model.scoring.answers import Answers
from model.scoring.bootstrap import Difference, dialogue_weights, differences, resampled_scores
from model.scoring.report import Report, score
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
