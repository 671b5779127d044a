"""Sentences on a set that has too little to be learned or judged."""

from __future__ import annotations

import numpy as np

from model.data.dataset import UNLABELLED, DataSet, label_counts, speaker_pairs
from model.scoring.bootstrap import LEAST_DIALOGUES
from model.scoring.calibrate import LEAST_SHIFTS
from model.serving.calibration import Thresholds


def warnings_of(data: DataSet) -> list[str]:
    """Return what a person who trains on this set should know; both splits have labels."""
    classes, dev = len(data.labels), data.split("dev")
    train, here = (label_counts(part, classes) for part in (data.split("train"), dev))
    said = []
    unknown = [data.labels[i] for i in np.flatnonzero((train == 0) & (here > 0))]
    if unknown:
        said.append(
            f"no train utterance is {' or '.join(unknown)}, dev has some: no model can learn it; "
            "label more, or deal the conversations out with another --seed"
        )
    if np.count_nonzero(train) == 1:
        only = data.labels[int(train.argmax())]
        said.append(f"every labelled train utterance is {only}: there is nothing to tell apart")
    if len(dev) < LEAST_DIALOGUES:
        said.append(
            f"dev has {_count(len(dev), 'dialogue')}: the epoch and the calibration are chosen on "
            f"few; an interval needs {LEAST_DIALOGUES}"
        )
    shifts = shifts_in(data)
    if shifts < LEAST_SHIFTS:
        said.append(
            f"dev has {_count(shifts, 'shift')}, fewer than {LEAST_SHIFTS}: no alert threshold can "
            f"be chosen, it is the fallback {Thresholds().shift:g}; `emotrack thresholds` sets "
            "another"
        )
    return [f"warning: {sentence}" for sentence in said]


def shifts_in(data: DataSet) -> int:
    """Return how often a speaker's labelled emotion on dev differs from the one before."""
    count = 0
    for dialogue in data.split("dev"):
        before, now = dialogue.labels[speaker_pairs(dialogue)].T
        known = (before != UNLABELLED) & (now != UNLABELLED)
        count += int(((before != now) & known).sum())
    return count


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
