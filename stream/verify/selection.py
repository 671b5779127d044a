"""The part of the log that `emotrack verify` looks at: since when, which partitions, which share.

A conversation is chosen by a hash of its id, so that a repeat with the same share chooses the same
ones, and a larger share those of a smaller one and others. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any, Final

from stream.ports import Record

_WHOLE: Final = 1 << 64


@dataclass(frozen=True, slots=True)
class Selection:
    """The part to look at; nothing set: everything."""

    since_ms: int | None = None  # broker time of the first record that is checked
    partitions: frozenset[int] | None = None  # of the utterances topic
    share: float = 1.0  # of the conversations
    part: int = 0  # of `parts`: those conversations that are looked at in one pass
    parts: int = 1

    @property
    def is_whole(self) -> bool:
        """True where everything is looked at, in however many passes."""
        return self.since_ms is None and self.partitions is None and self.share >= 1.0

    def has_partition(self, partition: int) -> bool:
        """Return whether this partition of the utterances topic is looked at."""
        return self.partitions is None or partition in self.partitions

    def in_sample(self, key: bytes | None) -> bool:
        """Return whether records of this key, a conversation's id, are in the sample."""
        return self.share >= 1.0 or _hashes(key)[0] < self.share * _WHOLE

    def in_pass(self, key: bytes | None) -> bool:
        """Return whether records of this key are looked at in this pass."""
        return self.in_sample(key) and (
            self.parts == 1 or _hashes(key)[1] % self.parts == self.part
        )

    def passes(self, answers: int, most: int) -> list[Selection]:
        """Return selections that together are this one, each of about `most` answers at most.

        `answers` is the number of records in the output topics, of which each pass stores a part.
        """
        parts = max(1, -(-int(answers * min(self.share, 1.0)) // most))
        return [replace(self, part=part, parts=parts) for part in range(parts)]

    def as_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        partitions = None if self.partitions is None else sorted(self.partitions)
        return {"since_ms": self.since_ms, "partitions": partitions, "share": self.share}


EVERYTHING: Final = Selection()


def _hashes(key: bytes | None) -> tuple[int, int]:
    """Return two independent numbers of 64 bits, the same on every machine."""
    digest = blake2b(key or b"", digest_size=16).digest()
    return int.from_bytes(digest[:8], "big"), int.from_bytes(digest[8:], "big")


@dataclass(frozen=True, slots=True)
class Stretch:
    """The stretch of one partition that is read: context from `first`, checked from `since` on.

    In the context only the conversations of `needed` are recomputed: those whose session at
    `since` began before it.
    """

    first: int = 0
    since: int = 0
    first_ms: int | None = None  # all records since then are read; None: since the first one's time
    needed: frozenset[bytes] = frozenset()

    @property
    def is_cut(self) -> bool:
        """True where records before `since` are left out."""
        return self.since > 0

    def answers(self, offset: int, key: bytes | None) -> bool:
        """Return whether the answer to this offset, of this conversation, is of use."""
        return offset >= self.since or (offset >= self.first and (key or b"") in self.needed)

    def is_context(self, record: Record) -> bool:
        """Return whether a record is before what is checked."""
        return record.offset < self.since

    def skips(self, record: Record) -> bool:
        """Return whether a record is before what is checked and no context of it either."""
        return not self.answers(record.offset, record.key)


WHOLE: Final = Stretch()
