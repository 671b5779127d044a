"""The events: utterances in, predictions and shift alerts out; their topics, ids and bytes.

`docs/events.md` describes them for other languages.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Annotated, Final, Literal, get_args

import msgspec

from stream.events.cloudevents import Encoding
from stream.events.poison import MAX_ID_BYTES

DEFAULT_PREFIX: Final = "emotrack."  # of the topics
Outcome = Literal["predicted", "abstained", "duplicate", "dead_lettered", "control"]
Abstention = Literal["low_confidence", "no_known_modality", "language", "unknown_words"]
KNOWN_ROLES: Final = ("customer", "agent", "employee", "student", "patient", "other")
RESERVED_FIELDS: Final = ("is_partial", "consent")
PERSONA_SIZE: Final = 5
# Fields that no prediction needs: one of a wrong type is left out (`lenient.py`), and flagged.
IGNORABLE_FIELDS: Final = (
    "seq",
    "speaker_role",
    "start_ms",
    "end_ms",
    "event_time",
    "language",
)
IGNORED_FLAG: Final = "ignored_"  # and the field
REPAIRED_TEXT: Final = "repaired_text"  # half a surrogate pair became U+FFFD
FIELD_OF_FLAG: Final = {f"{IGNORED_FLAG}{name}": name for name in IGNORABLE_FIELDS} | {
    REPAIRED_TEXT: "text"
}
_LIMIT_SEQ: Final = 1 << 63
SEQ_GAP: Final = "seq_gap"
SEQ_DISORDER: Final = "seq_disorder"
ID_REUSED: Final = "id_reused"
MOVED: Final = "moved"
FLAGS: Final = (SEQ_GAP, SEQ_DISORDER, *FIELD_OF_FLAG, ID_REUSED, MOVED)  # in their order
# `extra_json_schema` documents a bound without checking it in the decoder: `_check_ids` does, with
# a reason code of its own.
Id = Annotated[str, msgspec.Meta(extra_json_schema={"minLength": 1, "maxLength": MAX_ID_BYTES})]
Role = Annotated[
    str, msgspec.Meta(description="Other roles are tolerated.", examples=[*KNOWN_ROLES])
]
Why = Annotated[
    str,
    msgspec.Meta(
        description="Why the answer should not be acted on. Other reasons may be added.",
        examples=list(get_args(Abstention)),
    ),
]
Language = Annotated[
    str,
    msgspec.Meta(
        description="Where the model does not know it, the answer abstains; und states none.",
        examples=["en-US", "eng", "English"],
    ),
]
Persona = Annotated[
    list[float],
    msgspec.Meta(
        description="Extraversion, neuroticism, agreeableness, conscientiousness, openness.",
        extra_json_schema={"minItems": PERSONA_SIZE, "maxItems": PERSONA_SIZE},
    ),
]

Flag = Annotated[
    str,
    msgspec.Meta(
        description=(
            "Others may be added. seq_gap, seq_disorder: `seq` does not follow the last one. "
            "ignored_ and a field: it does not fit and was left out. repaired_text: half a "
            "surrogate pair became U+FFFD. "
            "id_reused: since the last answer an utterance was dropped whose id was that of "
            "another one. moved: the conversation is on several partitions, so that this answer "
            "may lack context."
        ),
        examples=[*FLAGS],
    ),
]


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


class Features(msgspec.Struct, frozen=True, omit_defaults=True):
    """Feature vectors of one utterance; any subset."""

    text: FeatureVector | None = None
    audio: FeatureVector | None = None
    video: FeatureVector | None = None


class PackedTensor(msgspec.Struct, frozen=True):
    """A tensor as little-endian bytes (base64 in JSON, bin in MessagePack)."""

    dtype: Literal["float16", "bfloat16", "float32"]
    shape: tuple[int, ...]
    data: bytes


class FeatureVector(msgspec.Struct, frozen=True, omit_defaults=True):
    """One modality's vector and the recipe it was made with."""

    tensor: PackedTensor | list[float]
    extractor: str | None = None


class Utterance(msgspec.Struct, frozen=True, omit_defaults=True):
    """`emotrack.utterance.v1`: one utterance of one speaker. Text, a feature vector, or both."""

    conversation_id: Id
    utterance_id: Id
    speaker_id: Id
    seq: int | None = None  # 0, 1, 2 ... per conversation
    speaker_role: Role | None = None
    text: str | None = None
    features: Features | None = None
    persona: Persona | None = None
    start_ms: int | None = None
    end_ms: int | None = None
    event_time: str | int | None = None  # RFC 3339 or epoch milliseconds
    language: Language | None = None
    end_of_conversation: bool = False


class FlaggedUtterance(Utterance, frozen=True):
    """An utterance that was not read as it was sent; `flags` go to its prediction."""

    flags: tuple[str, ...] = ()

    def plain(self) -> Utterance:
        """Return the utterance as read, without flags: what may be sent."""
        return Utterance(*msgspec.structs.astuple(self)[:_FIELDS])


_FIELDS: Final = len(Utterance.__struct_fields__)


def in_range(seq: int | None) -> bool:
    """Return whether a `seq` is absent or can be stored."""
    return seq is None or 0 <= seq < _LIMIT_SEQ


def flags_of(utterance: Utterance) -> tuple[str, ...]:
    """Return what was not read as it was sent; mostly nothing."""
    return utterance.flags if isinstance(utterance, FlaggedUtterance) else ()


def words_of(utterance: Utterance) -> str | None:
    """Return the text, None where there is none but spaces."""
    text = utterance.text
    return text if text and not text.isspace() else None


class Shift(msgspec.Struct, frozen=True):
    """The likeliest move of the speaker's emotion since this speaker's previous utterance."""

    probability: float
    from_: str = msgspec.field(name="from")
    to: str
    previous_utterance_id: str


class Context(msgspec.Struct, frozen=True):
    """The session's utterances in the model's window, before this one."""

    utterances: int
    oldest_utterance_id: str | None
    first_position: int
    truncated: bool


class ModelRef(msgspec.Struct, frozen=True):
    """The model that answered."""

    name: str
    version: str
    digest: str
    calibration: str


class InputRef(msgspec.Struct, frozen=True):
    """The record that was answered."""

    topic: str
    partition: int
    offset: int


class PredictionEvent(msgspec.Struct, frozen=True):
    """`emotrack.prediction.v1`."""

    conversation_id: str
    utterance_id: str
    speaker_id: str
    prediction_id: str
    emotion: str
    probabilities: dict[str, float]
    confidence: float
    sentiment: str
    shift: Shift | None
    modalities_used: list[str]
    context: Context
    model: ModelRef
    input: InputRef
    revision: int = 0
    abstained: bool = False
    reason: Why | None = None
    flags: list[Flag] = []


class ShiftAlert(msgspec.Struct, frozen=True):
    """`emotrack.shift-alert.v1`."""

    alert_id: str
    conversation_id: str
    speaker_id: str
    from_: str = msgspec.field(name="from")
    to: str
    probability: float
    rule: str
    severity: Literal["info", "warning", "critical"]
    utterance_id: str
    previous_utterance_id: str
    prediction_id: str
    model: ModelRef
    input: InputRef


Event = Utterance | PredictionEvent | ShiftAlert
_JSON_OUT: Final = msgspec.json.Encoder()
_MSGPACK_OUT: Final = msgspec.msgpack.Encoder()


def encode(event: Event, encoding: Encoding = "json") -> bytes:
    """Encode an event; equal events give equal bytes (fields and labels keep their order)."""
    return _JSON_OUT.encode(event) if encoding == "json" else _MSGPACK_OUT.encode(event)


def prediction_id(
    *,
    conversation_id: str,
    utterance_id: str,
    input: InputRef,
    first_position: int,
    revision: int,
    model_digest: str,
) -> str:
    """Return 32 hex digits: the same for a repeated answer, another for any other answer."""
    parts = (conversation_id, utterance_id, input.topic, input.partition, input.offset)
    return _hash(*parts, first_position, revision, model_digest)


def alert_id(prediction_id: str, rule_digest: str) -> str:
    """Return 32 hex digits over the prediction and the rule."""
    return _hash(prediction_id, rule_digest)


def _hash(*parts: str | int) -> str:
    return hashlib.blake2b(_JSON_OUT.encode(parts), digest_size=16).hexdigest()
