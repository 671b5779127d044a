"""Parallel conversations that a benchmark predicts and times."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from model.interface import Predictor, Turn
from state.window import Window

Clock = Callable[[], float]
Timed = TypeVar("Timed", bound=Predictor)


@dataclass
class TimedConversations(Generic[Timed]):
    """A predictor, and the window of each conversation."""

    predictor: Timed
    windows: list[Window]

    def predict(self, turns: Sequence[Turn], clock: Clock) -> float:
        """Predict one utterance of each conversation; return the seconds that it took."""
        begun = clock()
        answers = self.predictor.predict(turns)
        seconds = clock() - begun
        self.windows = [
            turn.window.push(
                self.predictor.spec.recurrence,
                answer.applied,
                utterance_id="u",
                speaker_id=turn.speaker_id,
            )[0]
            for turn, answer in zip(turns, answers, strict=True)
        ]
        return seconds
