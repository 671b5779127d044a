"""Names of the four topics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

DEFAULT_PREFIX: Final = "emotrack."


@dataclass(frozen=True, slots=True)
class TopicNames:
    """The names of the four topics under one prefix."""

    prefix: str = DEFAULT_PREFIX

    @property
    def utterances(self) -> str:
        return self.prefix + "utterances"

    @property
    def predictions(self) -> str:
        return self.prefix + "predictions"

    @property
    def shift_alerts(self) -> str:
        return self.prefix + "shift-alerts"

    @property
    def dead_letters(self) -> str:
        return self.prefix + "dead-letters"
