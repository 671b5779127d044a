"""Decode a record of the utterances topic: its envelope, fields and vectors, or its fault.

Unknown fields are ignored, unknown labels tolerated; ids are opaque strings of 1..256 bytes.
Imports no Kafka client, no torch.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from typing import Final, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from model.interface import MODALITIES, Modality, Tensor
from state.window import ITEM_BYTES, DType
from stream.events.cloudevents import UTTERANCE_TYPE, Encoding, Envelope, open_record
from stream.events.lenient import read_leniently
from stream.events.messages import (
    PERSONA_SIZE,
    FeatureVector,
    PackedTensor,
    Utterance,
    in_range,
    words_of,
)
from stream.events.poison import MAX_ID_BYTES, MAX_VALUE_BYTES, Control, Poison, Reason, Rejected
from stream.events.recognise import nothing_said, wrong_key
from stream.events.repeated_names import may_repeat, require_once
from stream.ports import Record


class _WireUtterance(Utterance, frozen=True):
    """An utterance with the reserved fields, so that using them is refused and not ignored."""

    is_partial: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    consent: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_FIELDS: Final = len(Utterance.__struct_fields__)
_JSON_IN: Final = msgspec.json.Decoder(_WireUtterance)
_MSGPACK_IN: Final = msgspec.msgpack.Decoder(_WireUtterance)
_NOT_FINITE: Final = "{} is NaN or infinite: leave a missing modality out instead"
_FLOAT16_EXPONENT_FULL: Final = bytes(byte for byte in range(256) if byte & 0x7C == 0x7C)
_FEW: Final = 32  # up to here plain Python is faster than numpy
NO_EXTRACTORS: Final[Mapping[str, str]] = {}


class Decoded(msgspec.Struct, frozen=True):
    """A decoded record: an utterance, a control record, or the reason why it is refused."""

    message: Utterance | Control | Poison
    envelope: Envelope  # a bare one where it cannot be read


class Decoder(msgspec.Struct, frozen=True):
    """Decoder of records of the utterances topic for one model.

    `inputs` is `ModelInfo.inputs` (modality -> width; `persona` too): a vector of a modality the
    model knows must have exactly that width. `only` names the extractor of a modality where
    vectors of another extractor are refused.
    """

    inputs: Mapping[str, int]
    only: Mapping[str, str] = NO_EXTRACTORS

    def decode(self, record: Record) -> Decoded:
        """Decode one record; never raises for its contents. Tensor bytes are kept unchanged."""
        value = record.value
        if value is None:
            return Decoded(Control(), _envelope_of(record))
        if len(value) > MAX_VALUE_BYTES:
            sentence = (
                f"the value has {len(value)} bytes, more than {MAX_VALUE_BYTES}: send vectors as "
                "float16 MessagePack, and long text as several utterances"
            )
            return Decoded(Poison(Reason.TOO_LARGE, sentence), _envelope_of(record))
        try:
            envelope, data = open_record(record.headers, value)
            _check_type(envelope, record.topic)
            utterance = parse(data, envelope.encoding)
            check(utterance, self.inputs, self.only)
            _check_key(record.key, utterance.conversation_id)
        except Rejected as met:
            return Decoded(_with_hint(met.poison, record), _envelope_of(record))
        return Decoded(utterance, envelope)


def _envelope_of(record: Record) -> Envelope:
    """Return the envelope of a record without an utterance, for the trace it belongs to."""
    try:
        return open_record(record.headers, record.value or b"")[0]
    except Rejected:
        return Envelope()


def _with_hint(poison: Poison, record: Record) -> Poison:
    """Name the field of a record without words that may be meant, where there is one."""
    if poison.reason is not Reason.NOTHING_TO_PREDICT:
        return poison
    envelope, data = open_record(record.headers, record.value or b"")
    hint = nothing_said(data, envelope.encoding)
    return poison if hint is None else Poison(poison.reason, hint)


def check(
    utterance: Utterance, inputs: Mapping[str, int], only: Mapping[str, str] = NO_EXTRACTORS
) -> None:
    """Raise `Rejected` when an utterance could not be answered; sizes are checked by `inputs`."""
    _check_ids(utterance)
    if not in_range(utterance.seq):
        raise Rejected(Reason.WRONG_TYPE, "field `seq` must be 0, 1, 2 ... below 2^63")
    vectors = vectors_of(utterance)
    if not vectors and words_of(utterance) is None:
        raise Rejected(
            Reason.NOTHING_TO_PREDICT,
            "neither text nor a feature vector: send `text`, or `features` with text, audio or "
            "video",
        )
    for modality, vector in vectors.items():
        field, tensor, width = f"features.{modality}", vector.tensor, inputs.get(modality)
        if isinstance(tensor, PackedTensor):
            _check_packed(field, tensor, width)
        else:
            _check_numbers(field, tensor, width)
        if vector.extractor is not None and vector.extractor != only.get(
            modality, vector.extractor
        ):
            raise Rejected(
                Reason.WRONG_EXTRACTOR,
                f"`{field}` is of {vector.extractor[:80]}, the model hears {only[modality]}: send "
                "`text`, or vectors made with `emotrack extract text`",
            )
    if utterance.persona is not None:
        _check_numbers("persona", utterance.persona, inputs.get("persona", PERSONA_SIZE))


def vectors_of(utterance: Utterance) -> dict[Modality, FeatureVector]:
    """Return the feature vectors of an utterance, in the order text, audio, video."""
    features = utterance.features
    if features is None:
        return {}
    return {m: vector for m in MODALITIES if (vector := getattr(features, m)) is not None}


def tensors(utterance: Utterance, inputs: Mapping[str, int]) -> dict[Modality, Tensor]:
    """Return the vectors the model knows, for `Turn.features`; packed bytes are not copied."""
    found: dict[Modality, Tensor] = {}
    for modality, vector in vectors_of(utterance).items():
        if modality in inputs:
            wire = vector.tensor if isinstance(vector.tensor, PackedTensor) else pack(vector.tensor)
            found[modality] = Tensor(wire.dtype, wire.shape, wire.data)
    return found


def pack(
    values: NDArray[np.floating] | list[float], dtype: Literal["float16", "float32"] = "float32"
) -> PackedTensor:
    """Return a vector as wire bytes, rounded to `dtype`."""
    flat = np.asarray(values, "<f2" if dtype == "float16" else "<f4")
    return PackedTensor(dtype, flat.shape, flat.tobytes())


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
            f"event type {envelope.type[:80]!r} is of a version that this worker does not know: "
            f"send {UTTERANCE_TYPE}, or upgrade the worker first",
        )


def parse(value: bytes, encoding: Encoding) -> Utterance:
    """Read an utterance's fields, to be checked by `check`. Raises `Rejected`.

    What does not fit is read once more by `read_leniently`, which flags what it leaves out.
    """
    if encoding == "json" and may_repeat(value):
        require_once(value)
    try:
        wire = (_JSON_IN if encoding == "json" else _MSGPACK_IN).decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return read_leniently(value, encoding)
    reserved = wire.is_partial is not msgspec.UNSET or wire.consent is not msgspec.UNSET
    if reserved or not in_range(wire.seq):
        return read_leniently(value, encoding)
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
    if key != conversation_id.encode():
        raise Rejected(Reason.WRONG_KEY, wrong_key(key, conversation_id))


def _check_packed(field: str, tensor: PackedTensor, width: int | None) -> None:
    """Raise `Rejected` unless the bytes are one finite vector of `width` numbers (None: any)."""
    dtype, shape, data = tensor.dtype, tensor.shape, tensor.data
    size = math.prod(shape)
    if len(shape) != 1 or size < 1:
        raise Rejected(
            Reason.WRONG_TENSOR_SIZE,
            f"`{field}` has shape {list(shape)[:8]}: send one vector, shape [n]",
        )
    need = size * ITEM_BYTES[dtype]
    if need != len(data):
        raise Rejected(
            Reason.TENSOR_BYTES,
            f"`{field}`: shape {list(shape)} of {dtype} is {need} bytes, but data has {len(data)}",
        )
    _check_width(field, size, width)
    if not _finite(dtype, data):
        raise Rejected(Reason.NOT_FINITE, _NOT_FINITE.format(f"a number of `{field}`"))


def _check_numbers(field: str, numbers: list[float], width: int | None) -> None:
    """Raise `Rejected` unless there are `width` numbers (None: any), finite as float32."""
    _check_width(field, len(numbers), width)
    try:
        struct.pack(f"<{len(numbers)}f", *numbers)  # refuses what would round to infinity
        finite = math.isfinite(sum(numbers))  # the sum cannot overflow a double
    except OverflowError:
        finite = False
    if not finite:
        raise Rejected(Reason.NOT_FINITE, _NOT_FINITE.format(f"a number of `{field}`"))


def _check_width(field: str, size: int, width: int | None) -> None:
    if size == 0 or (width is not None and size != width):
        raise Rejected(
            Reason.WRONG_TENSOR_SIZE,
            f"`{field}` has {size} numbers, the model takes {width or 'at least 1'}: use the "
            "extractor the model was trained with (see its model card)",
        )


def _finite(dtype: DType, data: bytes) -> bool:
    """Return whether no number is NaN or infinite; 2 us for 384 float16 numbers."""
    if dtype == "float16":
        high = data[1::2]  # all five exponent bits set, seen in the high byte alone
        return len(high.translate(None, _FLOAT16_EXPONENT_FULL)) == len(high)
    if dtype == "bfloat16":
        bits = np.frombuffer(data, "<u2")
        return not bool(((bits & 0x7F80) == 0x7F80).any())
    count = len(data) // 4
    if count <= _FEW:  # a sum of so few float32 cannot overflow a double
        return math.isfinite(sum(struct.unpack(f"<{count}f", data)))
    return bool(np.isfinite(np.frombuffer(data, "<f4")).all())
