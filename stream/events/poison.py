"""Reasons why a record cannot be answered: a code to count, and a sentence that names the cure.

A poisoned record is dead-lettered, never retried; its partition continues (docs/contract.md §4).
Sentences name fields, sizes and settings, never the words of a conversation.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Self

MAX_VALUE_BYTES: Final = 1 << 20  # the utterances topic's max.message.bytes
MAX_ID_BYTES: Final = 256


class Reason(StrEnum):
    """Reason codes of dead letters, and the label of `emotrack_dead_letters_total`.

    `error_class` is the family an operator triages by: encoding, envelope, schema, tensor, size,
    model.
    """

    error_class: str

    def __new__(cls, code: str, error_class: str = "") -> Self:
        member = str.__new__(cls, code)
        member._value_, member.error_class = code, error_class
        return member

    BAD_JSON = "bad_json", "encoding"
    BAD_MSGPACK = "bad_msgpack", "encoding"
    TOO_DEEP = "too_deep", "encoding"
    TOO_LARGE = "too_large", "size"
    BAD_HEADERS = "bad_headers", "envelope"
    UNSUPPORTED_CONTENT_TYPE = "unsupported_content_type", "envelope"
    UNKNOWN_TYPE = "unknown_type", "envelope"
    UNKNOWN_VERSION = "unknown_version", "envelope"
    MISSING_FIELD = "missing_field", "schema"
    WRONG_TYPE = "wrong_type", "schema"
    UNSUPPORTED_FIELD = "unsupported_field", "schema"
    EMPTY_ID = "empty_id", "schema"
    ID_TOO_LONG = "id_too_long", "schema"
    WRONG_KEY = "wrong_key", "envelope"
    WRONG_TENSOR_SIZE = "wrong_tensor_size", "tensor"
    TENSOR_BYTES = "tensor_bytes", "tensor"
    NOT_FINITE = "not_finite", "tensor"
    WRONG_EXTRACTOR = "wrong_extractor", "tensor"
    NOTHING_TO_PREDICT = "nothing_to_predict", "schema"
    # Found later than decoding, by the worker:
    NO_TEXT_ENCODER = "no_text_encoder", "model"
    NOT_FINITE_RESULT = "not_finite_result", "model"
    DEVICE_EXHAUSTED = "device_exhausted", "model"


@dataclass(frozen=True, slots=True)
class Poison:
    """The reason why a record goes to the dead-letter topic."""

    reason: Reason
    sentence: str


@dataclass(frozen=True, slots=True)
class Control:
    """A record with a null value, a tombstone: counted, without effect."""


class Rejected(Exception):
    """A fault met while decoding; `Decoder.decode` returns its `poison`."""

    def __init__(self, reason: Reason, sentence: str) -> None:
        super().__init__(sentence)
        self.poison = Poison(reason, sentence)
