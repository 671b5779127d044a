"""The dead letter of a record: its own bytes and headers, and headers with reason and origin.

Its id is topic-partition-offset, so a dead letter that is written twice (a crash between producing
and committing) can be told from two. What does not fit is left out and named: body first, then the
original headers, then the key.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from stream.events.cloudevents import UNREADABLE_HEADER
from stream.events.poison import Poison, Reason
from stream.ports import Headers, Outgoing, Record

REQUEUED: Final = "emotrack_requeued"  # on a requeued record: the id of its dead letter, each time
UNREADABLE: Final = (UNREADABLE_HEADER, None)  # stands for header names that are no UTF-8
MAX_RECORD_BYTES: Final = (2 << 20) - (64 << 10)  # the topic takes 2 MiB; room for our headers
_MAX_MESSAGE_CHARS: Final = 1000


class Dlq(StrEnum):
    """Names of the headers that a dead letter has in addition to the record's own."""

    ID = "emotrack_dlq_id"
    REASON = "emotrack_dlq_reason"
    CLASS = "emotrack_dlq_class"
    MESSAGE = "emotrack_dlq_message"
    TOPIC = "emotrack_dlq_topic"
    PARTITION = "emotrack_dlq_partition"
    OFFSET = "emotrack_dlq_offset"
    OMITTED = "emotrack_dlq_omitted"


_OURS: Final = frozenset(Dlq)


def dead_letter_id(topic: str, partition: int, offset: int) -> str:
    """Return the id of the dead letter of one position."""
    return f"{topic}-{partition}-{offset}"


def dead_letter(record: Record, poison: Poison, *, topic: str) -> Outgoing:
    """Return the record to write to the dead-letter `topic`; key, bytes and headers unchanged.

    A value that is too large is left out: no body, `emotrack_dlq_omitted: body`.
    """
    value, key, headers = record.value, record.key, record.headers
    omitted: list[str] = []
    if poison.reason is Reason.TOO_LARGE or _size(key, value, headers) > MAX_RECORD_BYTES:
        value = None
        omitted.append("body")
    if _size(key, value, headers) > MAX_RECORD_BYTES:
        headers = ()
        omitted.append("headers")
    if _size(key, value, headers) > MAX_RECORD_BYTES:
        key = None
        omitted.append("key")
    texts = {
        Dlq.ID: dead_letter_id(record.topic, record.partition, record.offset),
        Dlq.REASON: poison.reason.value,
        Dlq.CLASS: poison.reason.error_class,
        Dlq.MESSAGE: poison.sentence[:_MAX_MESSAGE_CHARS],
        Dlq.TOPIC: record.topic,
        Dlq.PARTITION: str(record.partition),
        Dlq.OFFSET: str(record.offset),
    }
    if omitted:
        texts[Dlq.OMITTED] = ",".join(omitted)
    reasons = tuple((name.value, text.encode(errors="replace")) for name, text in texts.items())
    return Outgoing(topic, key, value, headers + reasons)


def _size(key: bytes | None, value: bytes | None, headers: Headers) -> int:
    in_headers = sum(len(name.encode()) + len(text or b"") + 10 for name, text in headers)
    return len(key or b"") + len(value or b"") + in_headers


@dataclass(frozen=True, slots=True)
class Letter:
    """One dead letter: the refused record, and the reason of its refusal."""

    id: str
    reason: str
    error_class: str
    sentence: str
    topic: str
    partition: int
    offset: int
    omitted: tuple[str, ...]  # of body, headers, key: what did not fit
    time_ms: int  # when it was written
    key: bytes | None
    value: bytes | None
    headers: Headers  # the record's own

    @property
    def requeued(self) -> tuple[str, ...]:
        """Ids of the dead letters this record was requeued from; a loop shows as a long list."""
        return tuple((v or b"").decode(errors="replace") for n, v in self.headers if n == REQUEUED)


def letter_of(record: Record) -> Letter | None:
    """Return the letter in a record of the dead-letters topic; None for any other record."""
    texts = {n: (v or b"").decode(errors="replace") for n, v in record.headers if n in _OURS}
    try:
        return Letter(
            id=texts[Dlq.ID],
            reason=texts[Dlq.REASON],
            error_class=texts.get(Dlq.CLASS, ""),
            sentence=texts.get(Dlq.MESSAGE, ""),
            topic=texts[Dlq.TOPIC],
            partition=int(texts[Dlq.PARTITION]),
            offset=int(texts[Dlq.OFFSET]),
            omitted=tuple(filter(None, texts.get(Dlq.OMITTED, "").split(","))),
            time_ms=record.timestamp_ms,
            key=record.key,
            value=record.value,
            headers=tuple(h for h in record.headers if h[0] not in _OURS),
        )
    except (KeyError, ValueError):
        return None


def requeued(letter: Letter) -> Outgoing:
    """Return the refused record unchanged, with one header more: the id of its dead letter."""
    mark = (REQUEUED, letter.id.encode())
    return Outgoing(letter.topic, letter.key, letter.value, (*letter.headers, mark))
