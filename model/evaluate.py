"""How good a checkpoint is on a split: the whole-conversation form, under the stored precision.

By the model law (tests/model/test_laws.py) the worker's step gives the same answers. Every score
is causal: an answer has seen its own utterance and earlier ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor

from model.answers import Answers
from model.bootstrap import Difference, dialogue_weights, differences, resampled_scores
from model.collate import ConversationTensors, collate_conversations
from model.config import INPUTS, PcgnetConfig
from model.data import UNLABELLED, DataSource, Dialogue, Split
from model.hrg_ssa_answers import answer_talks, talks_of
from model.hrg_ssa_checkpoint import AnyCheckpoint, HrgCheckpoint
from model.pcgnet import Pcgnet
from model.predictor import CheckpointError
from model.report import Report, score
from model.scores import confusion, weighted_f1
from model.text import prepared

BATCH_DIALOGUES: Final = 64


@contextmanager
def thread_count(threads: int) -> Iterator[None]:
    """Run torch's CPU work on that many threads, then on as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def evaluate(
    checkpoint: AnyCheckpoint,
    data: DataSource,
    split: Split,
    *,
    threads: int = 1,
    encoder: Path | None = None,
) -> Report:
    """Score a checkpoint on one split of a data set; raises as `answers_of` does."""
    answers = answers_of(checkpoint, data, split, threads=threads, encoder=encoder)
    return _score(answers, checkpoint, split)


def _score(answers: Answers, checkpoint: AnyCheckpoint, split: Split) -> Report:
    fitted = checkpoint.calibration
    return score(
        answers,
        fitted,
        checkpoint.thresholds,
        checkpoint.config.labels,
        fitted_here=fitted.fitted_on == split,
    )


def compare(
    checkpoint: AnyCheckpoint,
    other: AnyCheckpoint,
    data: DataSource,
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
    checkpoint: AnyCheckpoint,
    data: DataSource,
    split: Split,
    *,
    threads: int = 1,
    encoder: Path | None = None,
) -> Answers:
    """What a checkpoint answers to a split: the one place where conversations meet its inputs.

    Sentences are heard through the checkpoint's own text encoder, whose base lies in the folder
    `encoder` (none: the installed one).

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
        if isinstance(checkpoint, HrgCheckpoint):
            talks = talks_of(checkpoint, dialogues, encoder)
            return answer_talks(checkpoint.model(), dialogues, talks)
        return answer(checkpoint.model(), prepared(checkpoint.text, dialogues, encoder))


def _check_fit(checkpoint: AnyCheckpoint, data: DataSource) -> None:
    config = checkpoint.config
    if data.labels != config.labels:
        raise CheckpointError(
            f"the checkpoint answers {', '.join(config.labels)}, the set {data.name} has "
            f"{', '.join(data.labels)}: evaluate a checkpoint trained on that set"
        )
    for name, width in data.widths.items():
        if name == "text" and checkpoint.text is not None:
            continue  # its vectors are made from the sentences
        if config.widths.get(name, 0) not in (0, width):
            raise CheckpointError(
                f"{name} vectors of {data.name} have {width} numbers, the checkpoint reads "
                f"{config.widths[name]}: evaluate a checkpoint trained on that set"
            )


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
    counts = confusion(answers.labels, answers.guess, answers.classes)
    return float(weighted_f1(counts))
