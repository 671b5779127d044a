"""What a model answered on a split, with the truth beside it: all that scores are computed from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.scoring.scores import Doubles, Ints, confusion, is_shift, weighted_f1


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
    def guess(self) -> Ints:
        """The class answered for each utterance, [N]."""
        guess: Ints = self.emotion.argmax(1)
        return guess

    @property
    def right(self) -> NDArray[np.bool_]:
        """Whether it is the true one, [N]."""
        hits: NDArray[np.bool_] = self.guess == self.labels
        return hits

    @property
    def shifted(self) -> NDArray[np.bool_]:
        """Whether each pair's emotion really changed, [P]."""
        return is_shift(self.shifts, self.classes)


def emotion_weighted_f1(answers: Answers) -> float:
    """Weighted F1 alone: what training selects on."""
    counts = confusion(answers.labels, answers.guess, answers.classes)
    return float(weighted_f1(counts))
