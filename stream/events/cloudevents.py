"""CloudEvents 1.0 over Kafka: attributes of an event from headers, or from the value itself.

Events are written in binary mode (attributes as `ce_*` headers, data as the value) and read in
structured mode too (`application/cloudevents+json`: attributes and data in one JSON object).
A record without any header is read as JSON of the topic's type (a user with a console producer).
Timing is in headers too, so that a repeated prediction has byte-equal data.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final, Literal

import msgspec

from stream.events.formats import format_of
from stream.events.poison import Reason, Rejected

Encoding = Literal["json", "msgpack"]
Headers = Sequence[tuple[str, bytes | None]]
HeaderList = list[tuple[str, bytes]]

UTTERANCE_TYPE: Final = "emotrack.utterance.v1"
PREDICTION_TYPE: Final = "emotrack.prediction.v1"
ALERT_TYPE: Final = "emotrack.shift-alert.v1"
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
    # These say nothing about the value, and are what clients put there by default. JSON is read,
    # whose first byte no other format here shares; anything else is refused by what it holds.
    "": "json",
    "text/plain": "json",
    "application/octet-stream": "json",
    "binary/octet-stream": "json",
}
_JSON_SUFFIX: Final = "+json"  # application/vnd.acme.utterance+json (RFC 6839)
_READ: Final = frozenset(
    ("content-type", "ce_specversion", "ce_type", "ce_id", "ce_source", "traceparent", "tracestate")
)

QUEUE_MS: Final = "emotrack_queue_ms"
STATE_MS: Final = "emotrack_state_ms"
COMPUTE_MS: Final = "emotrack_compute_ms"
END_TO_END_MS: Final = "emotrack_end_to_end_ms"
PRODUCED_AT: Final = "emotrack_produced_at"

UNREADABLE_HEADER: Final = "ce_unreadable"  # stands for headers whose names are no UTF-8
MAX_ID_HEADER: Final = 1024  # bytes of `ce_id`: it is copied into what it causes
_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST_MS: Final = -62_135_596_800_000  # the beginning of the year 1
_LAST_MS: Final = 253_402_300_799_999  # the end of the year 9999


class Envelope(msgspec.Struct, frozen=True):
    """The attributes of a record; None where they are absent."""

    encoding: Encoding = "json"
    type: str = UTTERANCE_TYPE
    id: str | None = None
    source: str | None = None
    traceparent: str | None = None
    tracestate: str | None = None
    structured: bool = False  # the value holds attributes and data: see `open_record`


class _Structured(msgspec.Struct, frozen=True):
    """A CloudEvent in JSON format; other extension attributes are ignored."""

    specversion: str
    id: str
    source: str
    type: str
    datacontenttype: str | None = None
    data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    data_base64: bytes | msgspec.UnsetType = msgspec.UNSET
    traceparent: str | None = None
    tracestate: str | None = None


BOM: Final = b"\xef\xbb\xbf"  # UTF-8 with a signature, as Windows writes it
_BARE: Final = Envelope()
_STRUCTURED: Final = msgspec.json.Decoder(_Structured)
_STRUCTURED_JSON: Final = "application/cloudevents+json"
_MAX_TRACESTATE: Final = 512  # W3C: longer ones may be dropped


def open_record(headers: Headers | None, value: bytes) -> tuple[Envelope, bytes]:
    """Return the attributes of a record and its data, in either mode.

    Raises `Rejected` as `read_envelope` does; in structured mode also bad_json, missing_field,
    wrong_type, too_deep.
    """
    envelope = read_envelope(headers)
    return _unwrapped(envelope, value) if envelope.structured else (envelope, value)


def _unwrapped(outer: Envelope, value: bytes) -> tuple[Envelope, bytes]:
    event = _structured(value)
    _check_version("attribute specversion", event.specversion)
    _check_id("attribute id", event.id)
    content = event.datacontenttype
    encoding, structured = _encoding(content)
    if structured:
        raise Rejected(Reason.UNSUPPORTED_CONTENT_TYPE, "a CloudEvent inside a CloudEvent")
    envelope = Envelope(
        encoding=encoding,
        type=event.type,
        id=event.id,
        source=event.source,
        traceparent=_traceparent(event.traceparent) or outer.traceparent,
        tracestate=_tracestate(event.tracestate) or outer.tracestate,
    )
    if isinstance(event.data_base64, bytes):
        if event.data is not msgspec.UNSET:
            raise Rejected(Reason.WRONG_TYPE, "both `data` and `data_base64`: send one of them")
        return envelope, event.data_base64
    if not isinstance(event.data, msgspec.Raw):
        raise Rejected(
            Reason.MISSING_FIELD, "the CloudEvent has no `data`: put the utterance there"
        )
    if encoding != "json":
        raise Rejected(
            Reason.WRONG_TYPE,
            "`data` is JSON: send MessagePack as `data_base64`, or in binary mode",
        )
    return envelope, bytes(event.data)


def _structured(value: bytes) -> _Structured:
    try:
        return _STRUCTURED.decode(value)
    except msgspec.ValidationError as error:
        missing = "missing required field" in str(error)
        reason = Reason.MISSING_FIELD if missing else Reason.WRONG_TYPE
        raise Rejected(reason, f"the CloudEvent does not fit: {error}") from None
    except RecursionError:
        raise Rejected(Reason.TOO_DEEP, "nested too deep: an utterance needs four levels") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        if value.startswith(BOM):
            return _structured(value[len(BOM) :])
        named = format_of(value) or f"the value is no CloudEvent in JSON: {error}"
        raise Rejected(
            Reason.BAD_JSON, f"content-type is {_STRUCTURED_JSON}, but {named}"
        ) from None


def read_envelope(headers: Headers | None) -> Envelope:
    """Read the attributes of a record; the last of two equal header names counts.

    Raises `Rejected`: bad_headers, unsupported_content_type, unknown_version.
    """
    if not headers:
        return _BARE
    texts = _text_headers(headers)
    _check_id("header ce_id", texts.get("ce_id", ""))
    _check_version("header ce_specversion", texts.get("ce_specversion", "1.0"))
    encoding, structured = _encoding(texts.get("content-type"))
    return Envelope(
        encoding=encoding,
        type=texts.get("ce_type", UTTERANCE_TYPE),
        id=texts.get("ce_id"),
        source=texts.get("ce_source"),
        traceparent=_traceparent(texts.get("traceparent")),
        tracestate=_tracestate(texts.get("tracestate")),
        structured=structured,
    )


def _check_id(where: str, id: str) -> None:
    if len(id) > MAX_ID_HEADER:
        raise Rejected(Reason.BAD_HEADERS, f"{where} is longer than {MAX_ID_HEADER} characters")


def _check_version(where: str, version: str) -> None:
    if version.split(".")[0] != "1":
        sentence = f"{where} is {version[:40]!r}: send CloudEvents 1.0"
        raise Rejected(Reason.UNKNOWN_VERSION, sentence)


def _tracestate(tracestate: str | None) -> str | None:
    """Return a W3C trace state of a length that must be passed on, else None."""
    return tracestate if tracestate and len(tracestate) <= _MAX_TRACESTATE else None


def _traceparent(header: str | None) -> str | None:
    """Return a W3C trace parent; None for anything else, as the standard requires."""
    return header if header is not None and _TRACEPARENT.fullmatch(header) else None


def _text_headers(headers: Headers) -> dict[str, str]:
    texts: dict[str, str] = {}
    for name, raw in headers:
        known = name if name in _READ else name.lower()
        if known not in _READ and not known.startswith("ce_"):
            continue  # other headers may contain any bytes
        if raw is None:
            if known == UNREADABLE_HEADER:
                raise Rejected(
                    Reason.BAD_HEADERS, "the name of a header is not UTF-8 text: send it as UTF-8"
                )
            continue  # a header without a value says nothing
        try:
            texts[known] = raw.decode()
        except UnicodeDecodeError:
            raise Rejected(
                Reason.BAD_HEADERS,
                f"header {name[:40]!r} is not UTF-8 text: send ce_*, content-type and "
                "traceparent headers as UTF-8",
            ) from None
    return texts


def _encoding(content_type: str | None) -> tuple[Encoding, bool]:
    """Return the encoding of the value, and whether it is a structured CloudEvent."""
    if content_type is None:
        return "json", False
    if (usual := _ENCODINGS.get(content_type)) is not None:
        return usual, False
    # Spring and others write header values as JSON, in quotes.
    media = content_type.partition(";")[0].strip(' \t"').lower()
    known = _ENCODINGS.get(media)
    if known is not None:
        return known, False
    if media == _STRUCTURED_JSON:
        return "json", True
    if media.endswith(_JSON_SUFFIX) and not media.startswith("application/cloudevents"):
        return "json", False
    if media.startswith("application/cloudevents"):
        sentence = (
            f"content-type {media[:80]} is not supported: send {_STRUCTURED_JSON}, or put the "
            "attributes into ce_* headers (binary mode) and the data into the value"
        )
    else:
        sentence = (
            f"content-type {media[:80]!r} is not read: send the value as application/json or "
            "application/msgpack, with that header"
        )
    raise Rejected(Reason.UNSUPPORTED_CONTENT_TYPE, sentence)


def event_headers(
    *,
    id: str,
    type: str,
    source: str,
    encoding: Encoding,
    time_ms: int | None = None,
    traceparent: str | None = None,
    tracestate: str | None = None,
    causation_id: str | None = None,
    more: Iterable[tuple[str, bytes]] = (),
) -> HeaderList:
    """Return the headers of one event in binary mode.

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
        if tracestate is not None:  # it means nothing without its parent
            headers.append(("tracestate", tracestate.encode()))
    headers.extend(more)
    return headers


@lru_cache(maxsize=1024)  # a batch's records share few milliseconds
def rfc3339(epoch_ms: int) -> str:
    """Return epoch milliseconds as `2026-01-31T12:00:00.123Z`."""
    at = utc(epoch_ms)
    return f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03d}Z"


def utc(epoch_ms: int) -> datetime:
    """Return epoch milliseconds as a time; the nearest there is, for what no year can hold."""
    within = max(_FIRST_MS, min(epoch_ms, _LAST_MS))  # a producer's CreateTime may be any number
    return _EPOCH + timedelta(milliseconds=within)
