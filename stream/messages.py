"""Wire types: what crosses Kafka, as typed frozen values (`docs/contract`, JSON Schema by
`emotrack schema export`). Unknown fields are ignored; ids are opaque strings of 1..256 bytes.
"""

from __future__ import annotations

from typing import Literal

import msgspec

SpeakerRole = Literal["customer", "agent", "employee", "student", "patient", "other"]
Outcome = Literal["predicted", "abstained", "duplicate", "dead_lettered", "control"]


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

    conversation_id: str
    utterance_id: str
    speaker_id: str
    seq: int | None = None
    speaker_role: SpeakerRole | None = None
    text: str | None = None
    features: Features | None = None
    persona: list[float] | None = None
    start_ms: int | None = None
    end_ms: int | None = None
    event_time: str | int | None = None  # RFC 3339 or epoch milliseconds
    language: str | None = None
    end_of_conversation: bool = False


class Shift(msgspec.Struct, frozen=True):
    """Whether the speaker's emotion moved since this speaker's previous utterance."""

    probability: float
    from_: str = msgspec.field(name="from")
    to: str
    previous_utterance_id: str


class Context(msgspec.Struct, frozen=True):
    """What the model could see: the session's utterances in its window, before this one."""

    utterances: int
    oldest_utterance_id: str | None
    first_position: int
    truncated: bool


class ModelRef(msgspec.Struct, frozen=True):
    """Which model answered."""

    name: str
    version: str
    digest: str
    calibration: str


class InputRef(msgspec.Struct, frozen=True):
    """Which record was answered."""

    topic: str
    partition: int
    offset: int


class PredictionEvent(msgspec.Struct, frozen=True, omit_defaults=True):
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
    reason: str | None = None
    flags: list[str] = []  # "seq_gap", "seq_disorder"


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
