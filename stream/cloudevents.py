"""CloudEvents 1.0 over Kafka, binary mode: attributes as `ce_*` headers, data as the value.

A record without any header is taken as JSON of the topic's type (a person with a console producer).
Timing travels in headers too, so that a repeated prediction has byte-equal data.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final, Literal

import msgspec

from stream.poison import Reason, Rejected

Encoding = Literal["json", "msgpack"]
Headers = Sequence[tuple[str, bytes | None]]
HeaderList = list[tuple[str, bytes]]

UTTERANCE_TYPE: Final = "emotrack.utterance.v1"
PREDICTION_TYPE: Final = "emotrack.prediction.v1"
ALERT_TYPE: Final = "emotrack.shift-alert.v1"
WORKER_SOURCE: Final = "urn:emotrack:worker"
CLIENT_SOURCE: Final = "urn:emotrack:client"

CONTENT_TYPES: Final[dict[Encoding, str]] = {
    "json": "application/json",
    "msgpack": "application/msgpack",
}
_ENCODINGS: Final[dict[str, Encoding]] = {
    "application/json": "json",
    "text/json": "json",
    "application/msgpack": "msgpack",
    "application/x-msgpack": "msgpack",
    "application/vnd.msgpack": "msgpack",
}
_READ: Final = frozenset(
    ("content-type", "ce_specversion", "ce_type", "ce_id", "ce_source", "traceparent", "tracestate")
)

QUEUE_MS: Final = "emotrack_queue_ms"
STATE_MS: Final = "emotrack_state_ms"
COMPUTE_MS: Final = "emotrack_compute_ms"
END_TO_END_MS: Final = "emotrack_end_to_end_ms"
PRODUCED_AT: Final = "emotrack_produced_at"

MAX_ID_HEADER: Final = 1024  # bytes of `ce_id`: it is copied into what it causes
_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_LAST_MS: Final = 253_402_300_799_999  # the end of the year 9999


class Envelope(msgspec.Struct, frozen=True):
    """What the headers of a record say; None where they say nothing."""

    encoding: Encoding = "json"
    type: str = UTTERANCE_TYPE
    id: str | None = None
    source: str | None = None
    traceparent: str | None = None
    tracestate: str | None = None


@dataclass(frozen=True, slots=True)
class Timing:
    """Where one utterance's time went, in milliseconds, and when its prediction was produced."""

    queue_ms: float
    state_ms: float
    compute_ms: float
    end_to_end_ms: float
    produced_at_ms: int  # epoch

    def headers(self) -> HeaderList:
        """The timing headers of a prediction."""
        return [
            (QUEUE_MS, b"%.3f" % self.queue_ms),
            (STATE_MS, b"%.3f" % self.state_ms),
            (COMPUTE_MS, b"%.3f" % self.compute_ms),
            (END_TO_END_MS, b"%.3f" % self.end_to_end_ms),
            (PRODUCED_AT, rfc3339(self.produced_at_ms).encode()),
        ]


_BARE: Final = Envelope()


def read_envelope(headers: Headers | None) -> Envelope:
    """Read the attributes of a record; the last of two equal header names counts.

    Raises `Rejected`: bad_headers, unsupported_content_type, unknown_version.
    """
    if not headers:
        return _BARE
    found = _text_headers(headers)
    if len(found.get("ce_id", "")) > MAX_ID_HEADER:
        raise Rejected(
            Reason.BAD_HEADERS, f"header ce_id is longer than {MAX_ID_HEADER} characters"
        )
    version = found.get("ce_specversion", "1.0")
    if version.split(".")[0] != "1":
        raise Rejected(
            Reason.UNKNOWN_VERSION,
            f"header ce_specversion is {version[:40]!r}: send CloudEvents 1.0",
        )
    return Envelope(
        encoding=_encoding(found.get("content-type")),
        type=found.get("ce_type", UTTERANCE_TYPE),
        id=found.get("ce_id"),
        source=found.get("ce_source"),
        traceparent=_trace(found.get("traceparent")),
        tracestate=found.get("tracestate"),
    )


def _trace(header: str | None) -> str | None:
    """A W3C trace parent; anything else is dropped, as the standard asks."""
    return header if header is not None and _TRACEPARENT.fullmatch(header) else None


def _text_headers(headers: Headers) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, raw in headers:
        known = name if name in _READ else name.lower()
        if known not in _READ and not known.startswith("ce_"):
            continue  # other people's headers may hold any bytes
        try:
            found[known] = (raw if raw is not None else b"\xff").decode()
        except UnicodeDecodeError:
            raise Rejected(
                Reason.BAD_HEADERS,
                f"header {name[:40]!r} is not UTF-8 text: send ce_*, content-type and "
                "traceparent headers as UTF-8",
            ) from None
    return found


def _encoding(content_type: str | None) -> Encoding:
    if content_type is None:
        return "json"
    media = content_type.partition(";")[0].strip().lower()
    known = _ENCODINGS.get(media)
    if known is not None:
        return known
    if media.startswith("application/cloudevents"):
        sentence = (
            f"content-type {media} is CloudEvents structured mode, which is not supported: put the "
            "attributes into ce_* headers (binary mode) and the data into the value"
        )
    else:
        sentence = f"content-type {media[:80]!r} is not application/json or application/msgpack"
    raise Rejected(Reason.UNSUPPORTED_CONTENT_TYPE, sentence)


def event_headers(
    *,
    id: str,
    type: str,
    source: str,
    encoding: Encoding,
    time_ms: int | None = None,
    traceparent: str | None = None,
    causation_id: str | None = None,
    more: Iterable[tuple[str, bytes]] = (),
) -> HeaderList:
    """The headers of one event in binary mode.

    `time_ms` is the utterance's broker time in epoch milliseconds, so that a replay is equal.
    """
    headers: HeaderList = [
        ("ce_specversion", b"1.0"),
        ("ce_id", id.encode()),
        ("ce_type", type.encode()),
        ("ce_source", source.encode()),
        ("content-type", CONTENT_TYPES[encoding].encode()),
    ]
    if time_ms is not None and time_ms >= 0:
        headers.append(("ce_time", rfc3339(time_ms).encode()))
    if causation_id is not None:
        headers.append(("ce_causationid", causation_id.encode()))
    if traceparent is not None:
        headers.append(("traceparent", traceparent.encode()))
    headers.extend(more)
    return headers


@lru_cache(maxsize=1024)  # a batch's records share few milliseconds
def rfc3339(epoch_ms: int) -> str:
    """Epoch milliseconds as `2026-01-31T12:00:00.123Z`."""
    epoch_ms = min(epoch_ms, _LAST_MS)  # a producer's CreateTime may say anything
    at = datetime.fromtimestamp(epoch_ms // 1000, UTC)
    return f"{at:%Y-%m-%dT%H:%M:%S}.{epoch_ms % 1000:03d}Z"
