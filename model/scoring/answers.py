"""A model's answers to a split with the true labels: the input of all scores."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from model.data.dataset import UNLABELLED, Dialogue
from model.scoring.scores import Doubles, Ints, is_shift, tally, weighted_f1

if TYPE_CHECKING:
    from torch import Tensor

BATCH_DIALOGUES: Final = 64
# dialogues, then emotion [N, C], shift [P, C * C] and pairs [P, 2] of them
Logits = tuple[Sequence[Dialogue], Doubles, Doubles, Ints]


class WholeLogits(Protocol):
    """A model's answers to whole conversations."""

    @property
    def emotion(self) -> Tensor: ...  # [N, C]
    @property
    def shift(self) -> Tensor: ...  # [P, C * C], row = speaker's previous emotion
    @property
    def pairs(self) -> Tensor: ...  # [P, 2] (previous, this) utterance


@dataclass(frozen=True, slots=True)
class Answers:
    """Logits of the labelled utterances and pairs of a split, with the true ones."""

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
    def guess(self) -> Ints:
        """The class answered for each utterance, [N]."""
        guess: Ints = self.emotion.argmax(1)
        return guess

    @property
    def right(self) -> NDArray[np.bool_]:
        """True where the guess is the true class, [N]."""
        hits: NDArray[np.bool_] = self.guess == self.labels
        return hits

    @property
    def shifted(self) -> NDArray[np.bool_]:
        """True where a pair's true emotion changed, [P]."""
        return is_shift(self.shifts, self.classes)


def answers_to(
    dialogues: Sequence[Dialogue], classes: int, run: Callable[[slice], WholeLogits]
) -> Answers:
    """Run a model over whole dialogues, `BATCH_DIALOGUES` at a time; return what can be scored.

    `run` answers the dialogues of a slice. Utterances without a label are part of the conversation
    and are not scored.
    """

    def logits() -> Iterator[Logits]:
        for start in range(0, len(dialogues), BATCH_DIALOGUES):
            chosen = slice(start, start + BATCH_DIALOGUES)
            out = run(chosen)
            emotion, shift = (x.cpu().double().numpy() for x in (out.emotion, out.shift))
            yield dialogues[chosen], emotion, shift, out.pairs.cpu().numpy()

    return labelled_answers(logits(), classes)


def labelled_answers(parts: Iterable[Logits], classes: int) -> Answers:
    """Join the logits of a split's parts; only labelled utterances and pairs are returned."""
    columns: list[tuple[NDArray[Any], ...]] = []  # in the order of the fields of `Answers`
    dialogues = 0
    for part, emotions, joints, pairs in parts:
        truth = np.concatenate([d.labels for d in part])
        number = np.repeat(np.arange(dialogues, dialogues + len(part)), [len(d) for d in part])
        before, now = truth[pairs[:, 0]], truth[pairs[:, 1]]
        known, both = truth != UNLABELLED, (before != UNLABELLED) & (now != UNLABELLED)
        utterances = emotions[known], truth[known], number[known]
        moves = (before * classes + now)[both]
        columns.append((*utterances, joints[both], moves, number[pairs[:, 1]][both]))
        dialogues += len(part)
    whole = map(np.concatenate, zip(*columns, strict=True))
    emotion, labels, owner, shift, shifts, pair_owner = whole
    return Answers(emotion, labels, owner, shift, shifts, pair_owner, dialogues)


def emotion_weighted_f1(answers: Answers) -> float:
    """Return the weighted F1, on which training selects."""
    return float(weighted_f1(tally(answers.labels, answers.guess, answers.classes)))
