"""Wire types: what crosses Kafka, as typed frozen values, and their codec (contract §2-4).

Unknown fields are ignored, unknown labels tolerated; ids are opaque strings of 1..256 bytes. JSON
Schema by `emotrack schema export`. Imports no Kafka client, no torch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Final, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from model.predictor import Modality, Tensor
from stream.cloudevents import UTTERANCE_TYPE, Encoding, Envelope, Headers, open_record
from stream.poison import MAX_ID_BYTES, MAX_VALUE_BYTES, Control, Poison, Reason, Rejected
from stream.vectors import NOT_FINITE, check_numbers, check_packed

Outcome = Literal["predicted", "abstained", "duplicate", "dead_lettered", "control"]
MODALITIES: Final[tuple[Modality, ...]] = ("text", "audio", "video")
KNOWN_ROLES: Final = ("customer", "agent", "employee", "student", "patient", "other")
RESERVED_FIELDS: Final = ("is_partial", "consent")
PERSONA_SIZE: Final = 5

# `extra_json_schema` documents a bound without checking it in the decoder: `_check_ids` does, with
# a reason code of its own.
Id = Annotated[str, msgspec.Meta(extra_json_schema={"minLength": 1, "maxLength": MAX_ID_BYTES})]
Role = Annotated[
    str, msgspec.Meta(description="Other roles are tolerated.", examples=[*KNOWN_ROLES])
]
Persona = Annotated[
    list[float],
    msgspec.Meta(
        description="Extraversion, neuroticism, agreeableness, conscientiousness, openness.",
        extra_json_schema={"minItems": PERSONA_SIZE, "maxItems": PERSONA_SIZE},
    ),
]


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


class _WireUtterance(Utterance, frozen=True):
    """An utterance with the reserved fields, so that using them is refused and not ignored."""

    is_partial: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    consent: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


Event = Utterance | PredictionEvent | ShiftAlert

_FIELDS: Final = len(Utterance.__struct_fields__)
_JSON_IN: Final = msgspec.json.Decoder(_WireUtterance)
_MSGPACK_IN: Final = msgspec.msgpack.Decoder(_WireUtterance)
_JSON_OUT: Final = msgspec.json.Encoder()
_MSGPACK_OUT: Final = msgspec.msgpack.Encoder()
_LIMIT_SEQ: Final = 1 << 63


def encode(event: Event, encoding: Encoding = "json") -> bytes:
    """Encode an event; equal events give equal bytes (fields and labels keep their order)."""
    return _JSON_OUT.encode(event) if encoding == "json" else _MSGPACK_OUT.encode(event)


NO_EXTRACTORS: Final[Mapping[str, str]] = {}


def decode(
    value: bytes | None,
    key: bytes | None,
    headers: Headers | None,
    *,
    topic: str,
    inputs: Mapping[str, int],
    only: Mapping[str, str] = NO_EXTRACTORS,
) -> Utterance | Control | Poison:
    """Decode one Kafka record of the utterances topic; never raises for what a record holds.

    `inputs` is `ModelInfo.inputs` (modality -> width; `persona` too): a vector of a modality the
    model knows must have exactly that width. `only` names the extractor of a modality where no
    other's vectors will do. Tensor bytes are kept as they came.
    """
    if value is None:
        return Control()
    try:
        if len(value) > MAX_VALUE_BYTES:
            _reject_large(value)
        envelope, data = open_record(headers, value)
        _check_type(envelope, topic)
        utterance = parse(data, envelope.encoding)
        check(utterance, inputs, only)
        _check_key(key, utterance.conversation_id)
    except Rejected as met:
        return met.poison
    return utterance


def check(
    utterance: Utterance, inputs: Mapping[str, int], only: Mapping[str, str] = NO_EXTRACTORS
) -> None:
    """Raise `Rejected` when an utterance could not be answered; sizes only where `inputs` say."""
    _check_ids(utterance)
    if utterance.seq is not None and not 0 <= utterance.seq < _LIMIT_SEQ:
        raise Rejected(Reason.WRONG_TYPE, "field `seq` must be 0, 1, 2 ... below 2^63")
    vectors = vectors_of(utterance)
    if not vectors and not (utterance.text and not utterance.text.isspace()):
        raise Rejected(
            Reason.NOTHING_TO_PREDICT,
            "neither text nor a feature vector: send `text`, or `features` with text, audio or "
            "video",
        )
    for modality, vector in vectors.items():
        field, tensor, width = f"features.{modality}", vector.tensor, inputs.get(modality)
        if isinstance(tensor, PackedTensor):
            check_packed(field, tensor.dtype, tensor.shape, tensor.data, width)
        else:
            check_numbers(field, tensor, width)
        if vector.extractor is not None and vector.extractor != only.get(
            modality, vector.extractor
        ):
            raise Rejected(
                Reason.WRONG_EXTRACTOR,
                f"`{field}` is of {vector.extractor[:80]}, the model hears {only[modality]}: send "
                "`text`, or vectors made with `emotrack extract text`",
            )
    if utterance.persona is not None:
        check_numbers("persona", utterance.persona, inputs.get("persona", PERSONA_SIZE))


def vectors_of(utterance: Utterance) -> dict[Modality, FeatureVector]:
    """The feature vectors an utterance carries, in the order text, audio, video."""
    features = utterance.features
    if features is None:
        return {}
    found: dict[Modality, FeatureVector] = {}
    if features.text is not None:
        found["text"] = features.text
    if features.audio is not None:
        found["audio"] = features.audio
    if features.video is not None:
        found["video"] = features.video
    return found


def tensors(utterance: Utterance, inputs: Mapping[str, int]) -> dict[Modality, Tensor]:
    """The vectors the model knows, ready for `Turn.features`; packed bytes are not copied."""
    found: dict[Modality, Tensor] = {}
    for modality, vector in vectors_of(utterance).items():
        if modality in inputs:
            found[modality] = as_tensor(vector.tensor)
    return found


def as_tensor(tensor: PackedTensor | list[float]) -> Tensor:
    """A wire tensor as the model takes it; a list becomes float32."""
    if isinstance(tensor, PackedTensor):
        return Tensor(tensor.dtype, tensor.shape, tensor.data)
    return Tensor("float32", (len(tensor),), np.asarray(tensor, "<f4").tobytes())


def pack(values: NDArray[np.floating], dtype: Literal["float16", "float32"]) -> PackedTensor:
    """A vector as wire bytes, rounded to `dtype`."""
    flat = np.asarray(values, "<f2" if dtype == "float16" else "<f4")
    return PackedTensor(dtype, flat.shape, flat.tobytes())


def prediction_id(
    *,
    conversation_id: str,
    utterance_id: str,
    input: InputRef,
    first_position: int,
    revision: int,
    model_digest: str,
) -> str:
    """32 hex digits: the same for a repeated answer, another for any other answer."""
    parts = (conversation_id, utterance_id, input.topic, input.partition, input.offset)
    return _hash(*parts, first_position, revision, model_digest)


def alert_id(prediction_id: str, rule_digest: str) -> str:
    """32 hex digits over the prediction and the rule."""
    return _hash(prediction_id, rule_digest)


def _hash(*parts: str | int) -> str:
    return hashlib.blake2b(_JSON_OUT.encode(parts), digest_size=16).hexdigest()


def _reject_large(value: bytes) -> None:
    raise Rejected(
        Reason.TOO_LARGE,
        f"the value has {len(value)} bytes, more than {MAX_VALUE_BYTES}: send vectors as float16 "
        "MessagePack, and long text as several utterances",
    )


def _check_type(envelope: Envelope, topic: str) -> None:
    name, _, version = envelope.type.rpartition(".v")
    if name != "emotrack.utterance":
        raise Rejected(
            Reason.UNKNOWN_TYPE,
            f"event type {envelope.type[:80]!r} does not belong on {topic}, which takes "
            f"{UTTERANCE_TYPE}",
        )
    if version.split(".")[0] != "1":
        raise Rejected(
            Reason.UNKNOWN_VERSION,
            f"event type {envelope.type[:80]!r} is newer than this worker: send {UTTERANCE_TYPE}, "
            "or upgrade the worker first",
        )


def parse(value: bytes, encoding: Encoding) -> Utterance:
    """Read an utterance's fields; `check` says whether they make sense. Raises `Rejected`."""
    bad = Reason.BAD_JSON if encoding == "json" else Reason.BAD_MSGPACK
    try:
        wire = (_JSON_IN if encoding == "json" else _MSGPACK_IN).decode(value)
    except msgspec.ValidationError as error:
        if encoding == "msgpack" and value.startswith(b"{"):  # in MessagePack the number 123
            raise Rejected(
                bad, "the value is JSON, but its content-type says MessagePack"
            ) from None
        raise _misfit(str(error)) from None
    except RecursionError:
        raise Rejected(
            Reason.TOO_DEEP, "nested too deep: an utterance needs four levels, no more"
        ) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        if encoding == "json" and _holds_nan(value):
            raise Rejected(Reason.NOT_FINITE, NOT_FINITE.format("a JSON number")) from None
        raise Rejected(bad, f"the value is not an utterance in {encoding}: {error}") from None
    return _without_reserved(wire)


def _misfit(message: str) -> Rejected:
    """Sort msgspec's refusal of well-formed data into our codes; its message names the field."""
    if "missing required field" in message:
        return Rejected(Reason.MISSING_FIELD, f"{message}: every utterance needs it")
    if "Number out of range" in message:
        return Rejected(Reason.NOT_FINITE, f"{message}: it does not fit a float")
    if "Invalid base64" in message:
        return Rejected(Reason.TENSOR_BYTES, f"{message}: use standard base64 with padding")
    return Rejected(Reason.WRONG_TYPE, message)


def _holds_nan(value: bytes) -> bool:
    """Whether JSON fails only because of the literals NaN or Infinity, which many writers emit."""
    if b"NaN" not in value and b"Infinity" not in value:
        return False
    try:
        json.loads(value)
    except (ValueError, RecursionError):
        return False
    return True


def _without_reserved(wire: _WireUtterance) -> Utterance:
    for field in RESERVED_FIELDS:
        if getattr(wire, field) is not msgspec.UNSET:
            raise Rejected(
                Reason.UNSUPPORTED_FIELD,
                f"field `{field}` is reserved and not supported yet: leave it out",
            )
    return Utterance(*msgspec.structs.astuple(wire)[:_FIELDS])


def _check_ids(utterance: Utterance) -> None:
    for field in ("conversation_id", "utterance_id", "speaker_id"):
        text: str = getattr(utterance, field)
        if not text:
            raise Rejected(Reason.EMPTY_ID, f"field `{field}` is empty: give it 1 to 256 bytes")
        if len(text) * 4 > MAX_ID_BYTES and len(text.encode()) > MAX_ID_BYTES:
            raise Rejected(
                Reason.ID_TOO_LONG,
                f"field `{field}` has {len(text.encode())} bytes: at most {MAX_ID_BYTES} fit",
            )


def _check_key(key: bytes | None, conversation_id: str) -> None:
    if key == conversation_id.encode():
        return
    fault = "has no key" if key is None else "has a key that differs from `conversation_id`"
    raise Rejected(
        Reason.WRONG_KEY,
        f"the record {fault}: set the record key to the conversation id (console producer: "
        "--property parse.key=true), so that a conversation stays on one partition",
    )
