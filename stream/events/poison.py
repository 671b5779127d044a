"""Why a record cannot be answered: one code a machine can count, one sentence a person can act on.

A poisoned record is dead-lettered, never retried; its partition goes on (contract §4). Sentences
name fields, sizes and settings, never the words of a conversation.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

MAX_VALUE_BYTES: Final = 1 << 20  # the utterances topic's max.message.bytes
MAX_ID_BYTES: Final = 256


class Reason(StrEnum):
    """Reason codes of dead letters, and the label of `emotrack_dead_letters_total`."""

    BAD_JSON = "bad_json"
    BAD_MSGPACK = "bad_msgpack"
    TOO_DEEP = "too_deep"
    TOO_LARGE = "too_large"
    BAD_HEADERS = "bad_headers"
    UNSUPPORTED_CONTENT_TYPE = "unsupported_content_type"
    UNKNOWN_TYPE = "unknown_type"
    UNKNOWN_VERSION = "unknown_version"
    MISSING_FIELD = "missing_field"
    WRONG_TYPE = "wrong_type"
    UNSUPPORTED_FIELD = "unsupported_field"
    EMPTY_ID = "empty_id"
    ID_TOO_LONG = "id_too_long"
    WRONG_KEY = "wrong_key"
    WRONG_TENSOR_SIZE = "wrong_tensor_size"
    TENSOR_BYTES = "tensor_bytes"
    NOT_FINITE = "not_finite"
    WRONG_EXTRACTOR = "wrong_extractor"
    NOTHING_TO_PREDICT = "nothing_to_predict"
    # Found later than decoding, by the worker:
    NO_TEXT_ENCODER = "no_text_encoder"
    NOT_FINITE_RESULT = "not_finite_result"
    DEVICE_EXHAUSTED = "device_exhausted"

    @property
    def error_class(self) -> str:
        """The family an operator triages by: encoding, envelope, schema, tensor, size, model."""
        return _CLASS[self]


_CLASS: Final = {
    Reason.BAD_JSON: "encoding",
    Reason.BAD_MSGPACK: "encoding",
    Reason.TOO_DEEP: "encoding",
    Reason.TOO_LARGE: "size",
    Reason.BAD_HEADERS: "envelope",
    Reason.UNSUPPORTED_CONTENT_TYPE: "envelope",
    Reason.UNKNOWN_TYPE: "envelope",
    Reason.UNKNOWN_VERSION: "envelope",
    Reason.WRONG_KEY: "envelope",
    Reason.MISSING_FIELD: "schema",
    Reason.WRONG_TYPE: "schema",
    Reason.UNSUPPORTED_FIELD: "schema",
    Reason.EMPTY_ID: "schema",
    Reason.ID_TOO_LONG: "schema",
    Reason.NOTHING_TO_PREDICT: "schema",
    Reason.WRONG_TENSOR_SIZE: "tensor",
    Reason.TENSOR_BYTES: "tensor",
    Reason.NOT_FINITE: "tensor",
    Reason.WRONG_EXTRACTOR: "tensor",
    Reason.NO_TEXT_ENCODER: "model",
    Reason.NOT_FINITE_RESULT: "model",
    Reason.DEVICE_EXHAUSTED: "model",
}


@dataclass(frozen=True, slots=True)
class Poison:
    """A record that goes to the dead-letter topic, and why."""

    reason: Reason
    sentence: str


@dataclass(frozen=True, slots=True)
class Control:
    """A record with a null value: a tombstone; counted, no effect."""


class Rejected(Exception):
    """Raised inside decoding where a fault is met; `decode` returns its `poison`."""

    def __init__(self, reason: Reason, sentence: str) -> None:
        super().__init__(sentence)
        self.poison = Poison(reason, sentence)
