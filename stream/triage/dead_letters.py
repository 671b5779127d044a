"""Dead letters for people: choose, count and describe them.

Pure. A letter's id is topic-partition-offset of the record it holds: one written twice is one.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Literal

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
        """True if a letter passes every filter."""
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


class Summary:
    """Counts letters into piles."""

    def __init__(self, by: By) -> None:
        self._by = by
        self._seen: set[str] = set()
        self.piles: dict[str, Pile] = {}

    def add(self, letter: Letter) -> None:
        """Count one letter, as read from the topic."""
        pile = self.piles.setdefault(self._name(letter), Pile(first_ms=letter.time_ms))
        if letter.id in self._seen:
            pile.repeats += 1
            return
        self._seen.add(letter.id)
        pile.letters += 1
        pile.again += bool(letter.requeued)
        pile.reasons[letter.reason] += 1
        pile.first_ms = min(pile.first_ms, letter.time_ms)
        pile.last_ms = max(pile.last_ms, letter.time_ms)

    def _name(self, letter: Letter) -> str:
        if self._by == "reason":
            return letter.reason
        at = datetime.fromtimestamp(letter.time_ms / 1000, UTC)
        return f"{at:%Y-%m-%d %H:00}" if self._by == "hour" else f"{at:%Y-%m-%d}"


def cannot_requeue(letter: Letter, topic: str) -> str | None:
    """Return why a letter cannot be sent again, in a sentence; None where it can."""
    if letter.topic != topic:
        return f"its record came from {letter.topic}, this prefix's topic is {topic}"
    if letter.omitted:
        return (
            f"it holds its record by reference only, without {' and '.join(letter.omitted)}: too "
            f"large; read {letter.topic}-{letter.partition}@{letter.offset} while retention still "
            "has it, and publish it anew in smaller parts"
        )
    if UNREADABLE in letter.headers:
        return "its header names were no UTF-8 and are lost: publish it anew"
    return None


def in_log_order(letters: Iterable[Letter]) -> list[Letter]:
    """Return each letter once, in the order of their records in the log."""
    first: dict[str, Letter] = {}
    for letter in letters:
        first.setdefault(letter.id, letter)
    return sorted(first.values(), key=lambda one: (one.partition, one.offset))


def shape(value: bytes | None) -> str:
    """Describe a body without a word of it: an object's fields, their types and sizes."""
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
    """Return the first words of a body: text where it is text, else hexadecimal."""
    if value is None:
        return ""
    text = value.decode(errors="replace")
    if "�" in text[:PREVIEW_CHARS]:
        return value[: PREVIEW_CHARS // 2].hex(" ")
    return text[:PREVIEW_CHARS] + (" …" if len(text) > PREVIEW_CHARS else "")


def missing_ids(wanted: Iterable[str], found: Sequence[Letter]) -> list[str]:
    """Return the ids that no letter has."""
    return sorted(set(wanted) - {letter.id for letter in found})
