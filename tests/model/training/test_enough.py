"""A set with too little of something is warned of before it is trained on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from model.data.dataset import UNLABELLED
from model.training.enough import shifts_in, warnings_of
from tests.fakes.conversations import generated_conversations

LARGE = generated_conversations(120, seed=3)


def test_a_set_of_some_size_is_warned_of_nothing() -> None:
    assert warnings_of(LARGE) == []
    assert shifts_in(LARGE) >= 20


def test_a_tiny_dev_split_is_told_with_what_it_cannot_choose() -> None:
    tiny = replace(LARGE, dialogues={**LARGE.dialogues, "dev": LARGE.split("dev")[:1]})
    few, shifts = warnings_of(tiny)
    assert "dev has 1 dialogue:" in few
    assert "fallback 0.5" in shifts and "emotrack thresholds" in shifts


def test_a_label_that_only_dev_has_is_named() -> None:
    train = [
        replace(d, labels=np.where(d.labels == 2, UNLABELLED, d.labels))
        for d in LARGE.split("train")
    ]
    said = warnings_of(replace(LARGE, dialogues={**LARGE.dialogues, "train": tuple(train)}))
    assert said and "no train utterance is fear" in said[0]
    one = [replace(d, labels=np.zeros_like(d.labels)) for d in LARGE.split("train")]
    said = warnings_of(replace(LARGE, dialogues={**LARGE.dialogues, "train": tuple(one)}))
    assert any("every labelled train utterance is neutral" in sentence for sentence in said)


def test_unlabelled_utterances_are_no_shifts() -> None:
    silent = [replace(d, labels=np.full_like(d.labels, UNLABELLED)) for d in LARGE.split("dev")]
    assert shifts_in(replace(LARGE, dialogues={**LARGE.dialogues, "dev": tuple(silent)})) == 0
