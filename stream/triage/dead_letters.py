"""Choice, counts and descriptions of dead letters. Pure.

A letter's id is topic-partition-offset of its record, so a letter written twice is one letter.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from stream.events.cloudevents import utc
from stream.events.dead_letter import UNREADABLE, Letter

By = Literal["reason", "hour", "day"]
PREVIEW_CHARS: Final = 500


@dataclass(frozen=True, slots=True)
class Choice:
    """A filter of letters; an empty choice takes all."""

    ids: frozenset[str] = frozenset()
    reasons: frozenset[str] = frozenset()
    since_ms: int | None = None  # by when they were written
    until_ms: int | None = None

    def takes(self, letter: Letter) -> bool:
        """Return true if the letter passes every filter."""
        return (
            (not self.ids or letter.id in self.ids)
            and (not self.reasons or letter.reason in self.reasons)
            and (self.since_ms is None or letter.time_ms >= self.since_ms)
            and (self.until_ms is None or letter.time_ms < self.until_ms)
        )


@dataclass(slots=True)
class Pile:
    """Letters of one reason, hour or day."""

    letters: int = 0
    repeats: int = 0  # the same letter written again after a crash
    again: int = 0  # letters of records that had been requeued before
    first_ms: int = 0
    last_ms: int = 0
    reasons: Counter[str] = field(default_factory=Counter)


def count_letters(letters: Iterable[Letter], by: By) -> dict[str, Pile]:
    """Return the piles of letters as read from the topic, by reason, hour or day (UTC)."""
    piles: dict[str, Pile] = {}
    seen: set[str] = set()
    for letter in letters:
        at = utc(letter.time_ms)
        names = {"reason": letter.reason, "hour": f"{at:%Y-%m-%d %H:00}", "day": f"{at:%Y-%m-%d}"}
        pile = piles.setdefault(names[by], Pile(first_ms=letter.time_ms))
        if letter.id in seen:
            pile.repeats += 1
            continue
        seen.add(letter.id)
        pile.letters += 1
        pile.again += bool(letter.requeued)
        pile.reasons[letter.reason] += 1
        pile.first_ms = min(pile.first_ms, letter.time_ms)
        pile.last_ms = max(pile.last_ms, letter.time_ms)
    return piles


def cannot_requeue(letter: Letter, topic: str) -> str | None:
    """Return the reason a letter cannot be sent again, in a sentence; None if it can."""
    if letter.topic != topic:
        return f"its record came from {letter.topic}, this prefix's topic is {topic}"
    if letter.omitted:
        return (
            f"it holds its record by reference only, without {' and '.join(letter.omitted)}: too "
            f"large; read {letter.topic}-{letter.partition}@{letter.offset} while retention still "
            "has it, and publish it again in smaller parts"
        )
    if UNREADABLE in letter.headers:
        return "its header names were no UTF-8 and are lost: publish it again"
    return None


def in_log_order(letters: Iterable[Letter]) -> list[Letter]:
    """Return each letter once, in the order of their records in the log."""
    first: dict[str, Letter] = {}
    for letter in letters:
        first.setdefault(letter.id, letter)
    return sorted(first.values(), key=lambda letter: (letter.partition, letter.offset))


def shape(value: bytes | None) -> str:
    """Describe a body by the fields of its object, their types and sizes: none of its text."""
    if value is None:
        return "no body"
    try:
        body = json.loads(value)
    except (ValueError, RecursionError):
        return f"{len(value)} bytes, no JSON"
    return f"{len(value)} bytes of JSON: {_shape(body)}"


def _shape(body: Any, depth: int = 2) -> str:
    if isinstance(body, dict) and depth:
        fields = [f"{name[:40]}: {_shape(inner, depth - 1)}" for name, inner in body.items()]
        return "{" + ", ".join(fields[:40]) + "}"
    if isinstance(body, (dict, list, str)):
        return f"{type(body).__name__}({len(body)})"
    return type(body).__name__


def preview(value: bytes | None) -> str:
    """Return the beginning of a body: as text if it is UTF-8, else in hexadecimal."""
    if value is None:
        return ""
    text = value.decode(errors="replace")
    if "�" in text[:PREVIEW_CHARS]:
        return value[: PREVIEW_CHARS // 2].hex(" ")
    return text[:PREVIEW_CHARS] + (" …" if len(text) > PREVIEW_CHARS else "")
