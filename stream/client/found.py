"""The ends of published utterances, as data and in sentences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from stream.errors import Unanswered

_SHOWN: Final = 10  # ids and sentences in a line for people


class Id(NamedTuple):
    """The ids of one utterance."""

    conversation_id: str
    utterance_id: str


class Letter(NamedTuple):
    """A dead letter's reason and sentence."""

    reason: str
    sentence: str


@dataclass
class Found:
    """The ends of the utterances that were sent."""

    sent: int
    group: str
    predicted: int = 0
    abstained: Counter[str] = field(default_factory=Counter)  # by reason
    flags: Counter[str] = field(default_factory=Counter)
    dead_letters: dict[str, list[tuple[Id, str]]] = field(default_factory=dict)  # by reason
    duplicates: list[Id] = field(default_factory=list)
    waiting: list[Id] = field(default_factory=list)  # not committed in time

    @property
    def answered(self) -> int:
        return self.predicted + self.abstained.total()

    @property
    def complete(self) -> bool:
        """True when every utterance has a prediction."""
        return self.answered == self.sent

    def data(self) -> dict[str, Any]:
        """Return all of it as plain data, for JSON."""
        return {
            "sent": self.sent,
            "predicted": self.predicted,
            "abstained": dict(self.abstained),
            "flags": dict(self.flags),
            "dead_lettered": {
                reason: [{**one._asdict(), "sentence": sentence} for one, sentence in letters]
                for reason, letters in self.dead_letters.items()
            },
            "duplicates": [one._asdict() for one in self.duplicates],
            "waiting": [one._asdict() for one in self.waiting],
        }

    def lines(self) -> list[str]:
        """Return it in sentences, one a line."""
        reasons = ", ".join(f"{name} {count}" for name, count in self.abstained.most_common())
        lines = [f"answered {self.answered} of {self.sent}"]
        if reasons:
            lines[0] += f", abstained: {reasons}"
        if self.flags:
            flags = ", ".join(f"{name} {count}" for name, count in self.flags.most_common())
            lines.append(f"flagged: {flags}")
        for reason, letters in self.dead_letters.items():
            lines.append(f"dead-lettered {len(letters)}, {reason}:")
            first = {sentence: one for one, sentence in reversed(letters)}
            lines += [
                f"  {one.utterance_id!r} of {one.conversation_id!r}: {sentence}"
                for sentence, one in list(first.items())[-_SHOWN:][::-1]
            ]
        if self.duplicates:
            lines.append(
                f"duplicates {len(self.duplicates)}: their conversations had these ids before, so "
                f"they got no answer: {_listed(self.duplicates)}"
            )
        if self.waiting:
            lines.append(
                f"not read yet {len(self.waiting)}: group {self.group} has not committed them. Is "
                f"a worker running (emotrack serve), and is {self.group} its EMOTRACK_GROUP? "
                f"{_listed(self.waiting)}"
            )
        return lines

    def require_complete(self) -> None:
        """Raise `Unanswered` unless every utterance has a prediction."""
        if not self.complete:
            dead = sum(map(len, self.dead_letters.values()))
            raise Unanswered(
                f"{self.sent - self.answered} of {self.sent} utterances have no answer: {dead} "
                f"dead-lettered, {len(self.duplicates)} duplicates, "
                f"{len(self.waiting)} not read yet"
            )


def _listed(ids: Iterable[Id]) -> str:
    """Return the first ids, by conversation."""
    by_conversation: dict[str, list[str]] = {}
    for one in ids:
        by_conversation.setdefault(one.conversation_id, []).append(one.utterance_id)
    parts = []
    for conversation, names in list(by_conversation.items())[:_SHOWN]:
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        parts.append(f"{', '.join(map(repr, names[:_SHOWN]))}{more} of {conversation!r}")
    if len(by_conversation) > _SHOWN:
        parts.append(f"and of {len(by_conversation) - _SHOWN} conversations more")
    return "; ".join(parts)
