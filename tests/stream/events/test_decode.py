"""Events on the wire: a round trip changes nothing, and every fault has one reason code."""

from __future__ import annotations

import base64
import json
import math
import struct
from collections.abc import Callable
from functools import partial
from typing import Any, Final, Literal

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from stream.events.cloudevents import (
    CLIENT_SOURCE,
    UTTERANCE_TYPE,
    Encoding,
    Envelope,
    Headers,
    event_headers,
    open_record,
    read_envelope,
    rfc3339,
)
from stream.events.dead_letter import UNREADABLE
from stream.events.decode import Decoder, pack, tensors
from stream.events.messages import (
    Features,
    FeatureVector,
    InputRef,
    PackedTensor,
    Utterance,
    alert_id,
    encode,
    prediction_id,
)
from stream.events.poison import MAX_VALUE_BYTES, Control, Poison, Reason
from stream.ports import Record

INPUTS: Final = {"text": 4, "audio": 2, "video": 3, "persona": 5}
DECODER: Final = Decoder(INPUTS)
IDS: Final = st.text(min_size=1, max_size=64)
FINITE: Final = st.floats(width=16, allow_nan=False, allow_infinity=False)


def headers(encoding: Encoding = "json", kind: str = UTTERANCE_TYPE) -> Headers:
    return list(event_headers(id="1", type=kind, source=CLIENT_SOURCE, encoding=encoding))


def read(
    value: bytes | None,
    key: bytes | None = b"c",
    given_headers: Headers = (),
    decoder: Decoder = DECODER,
) -> Utterance | Control | Poison:
    record = Record("t", 0, 0, 0, key, value, tuple(given_headers))
    return decoder.decode(record).message


def fields(**more: Any) -> dict[str, Any]:
    return {"conversation_id": "c", "utterance_id": "u", "speaker_id": "s", "text": "hi"} | more


def as_json(**more: Any) -> bytes:
    return json.dumps(fields(**more)).encode()


def audio(
    numbers: list[float],
    dtype: Literal["float16", "bfloat16", "float32"] = "float32",
    shape: tuple[int, ...] = (2,),
) -> dict[str, Any]:
    data = {
        "float16": lambda: np.asarray(numbers, "<f2").tobytes(),
        "float32": lambda: np.asarray(numbers, "<f4").tobytes(),
        "bfloat16": lambda: b"".join(struct.pack("<f", n)[2:] for n in numbers),
    }[dtype]()
    return {"audio": {"tensor": {"dtype": dtype, "shape": shape, "data": data}}}


def reason_of(outcome: Utterance | Control | Poison) -> Reason:
    assert isinstance(outcome, Poison), f"{outcome} is no poison"
    assert outcome.sentence
    return outcome.reason


@st.composite
def vectors(draw: st.DrawFn, width: int) -> FeatureVector:
    numbers = draw(st.lists(FINITE, min_size=width, max_size=width))
    as_list = draw(st.booleans())
    tensor = numbers if as_list else pack(np.array(numbers, np.float32), "float16")
    return FeatureVector(tensor, draw(st.none() | st.text(max_size=8)))


@st.composite
def utterances(draw: st.DrawFn) -> Utterance:
    return Utterance(
        conversation_id=draw(IDS),
        utterance_id=draw(IDS),
        speaker_id=draw(IDS),
        seq=draw(st.none() | st.integers(0, 2**63 - 1)),
        speaker_role=draw(st.none() | st.text(max_size=8)),
        text="hello" + draw(st.text()),
        features=draw(
            st.none()
            | st.builds(
                Features,
                text=st.none() | vectors(4),
                audio=st.none() | vectors(2),
                video=st.none() | vectors(3),
            )
        ),
        persona=draw(st.none() | st.lists(FINITE, min_size=5, max_size=5)),
        end_of_conversation=draw(st.booleans()),
    )


@given(utterances(), st.sampled_from(["json", "msgpack"]))
def test_a_round_trip_changes_nothing(utterance: Utterance, encoding: Encoding) -> None:
    key = utterance.conversation_id.encode()
    assert read(encode(utterance, encoding), key, headers(encoding)) == utterance


@given(utterances(), st.sampled_from(["json", "msgpack"]))
def test_equal_events_give_equal_bytes(utterance: Utterance, encoding: Encoding) -> None:
    again = msgspec.structs.replace(utterance)
    assert encode(utterance, encoding) == encode(again, encoding)


@given(st.binary(max_size=200), st.sampled_from(["json", "msgpack"]))
def test_no_bytes_make_decoding_raise(value: bytes, encoding: Encoding) -> None:
    assert isinstance(read(value, b"c", headers(encoding)), Poison)


@given(st.binary(max_size=40), st.integers(0, 400), st.sampled_from(["json", "msgpack"]))
def test_damage_to_a_good_record_never_raises(damage: bytes, at: int, encoding: Encoding) -> None:
    good = encode(Utterance("c", "u", "s", text="x" * 200), encoding)
    read(good[:at] + damage + good[at + len(damage) :], b"c", headers(encoding))


def test_a_bare_json_value_with_the_conversation_as_key_is_enough() -> None:
    assert read(as_json()) == Utterance("c", "u", "s", text="hi")
    assert read_envelope(None) == read_envelope(())


def test_a_null_value_is_control() -> None:
    assert read(None) == Control()


def test_unknown_fields_and_unknown_labels_are_tolerated() -> None:
    outcome = read(as_json(mood={"deep": [1]}, speaker_role="moderator"))
    assert isinstance(outcome, Utterance)
    assert outcome.speaker_role == "moderator"


def test_a_later_minor_version_is_read_as_version_one() -> None:
    assert isinstance(read(as_json(), b"c", headers(kind="emotrack.utterance.v1.3")), Utterance)


def test_foreign_headers_may_hold_any_bytes() -> None:
    assert isinstance(read(as_json(), b"c", [("app", b"\xff\xfe"), ("x", None)]), Utterance)


def test_a_vector_of_a_modality_the_model_does_not_know_is_left_out() -> None:
    utterance = Utterance("c", "u", "s", text="hi", features=Features(audio=FeatureVector([1.0])))
    assert read(encode(utterance), decoder=Decoder({"text": 4})) == utterance
    assert tensors(utterance, {"text": 4}) == {}


def test_packed_bytes_reach_the_model_uncopied() -> None:
    vector = FeatureVector(pack(np.array([1.0, 2.0]), "float16"))
    value = encode(Utterance("c", "u", "s", features=Features(audio=vector)), "msgpack")
    outcome = read(value, b"c", headers("msgpack"))
    assert isinstance(outcome, Utterance)
    assert outcome.features is not None
    assert outcome.features.audio is not None
    packed = outcome.features.audio.tensor
    assert isinstance(packed, PackedTensor)
    assert tensors(outcome, INPUTS)["audio"].data is packed.data


def test_a_list_of_numbers_reaches_the_model_as_float32() -> None:
    utterance = Utterance("c", "u", "s", features=Features(audio=FeatureVector([0.1, 300.25])))
    (tensor,) = tensors(utterance, INPUTS).values()
    assert tensor.dtype == "float32"
    assert tensor.data == struct.pack("<2f", 0.1, 300.25)


def deep(levels: int) -> bytes:
    return as_json()[:-1] + b', "z": ' + b"[" * levels + b"]" * levels + b"}"


def packed_json(**features: Any) -> bytes:
    return bytes(msgspec.json.encode(fields(features=features)))


def whole(value: bytes) -> Utterance | Control | Poison:
    """Read a value that its header calls a structured CloudEvent."""
    return read(value, b"c", [("content-type", b"application/cloudevents+json; charset=UTF-8")])


def structured(**changes: object) -> Utterance | Control | Poison:
    """Read a structured CloudEvent with attributes changed; None leaves one out."""
    event: dict[str, object] = {
        "specversion": "1.0",
        "id": "7",
        "source": "urn:t",
        "type": "emotrack.utterance.v1",
        "subject": "whatever",
        "data": json.loads(as_json()),
    }
    said = {name: value for name, value in (event | changes).items() if value is not None}
    return whole(json.dumps(said).encode())


POISON: Final[dict[str, tuple[Reason, Callable[[], Utterance | Control | Poison]]]] = {
    "broken JSON": (Reason.BAD_JSON, lambda: read(as_json()[:-3])),
    "two JSON values": (Reason.BAD_JSON, lambda: read(as_json() + b" 1")),
    "JSON that is not UTF-8": (Reason.BAD_JSON, lambda: read(b'{"conversation_id": "\xff"}')),
    "an empty value": (Reason.BAD_JSON, lambda: read(b"")),
    "broken MessagePack": (Reason.BAD_MSGPACK, lambda: read(b"\xc1", b"c", headers("msgpack"))),
    "JSON said to be MessagePack": (
        Reason.BAD_MSGPACK,
        lambda: read(as_json(), b"c", headers("msgpack")),
    ),
    "deep JSON": (Reason.TOO_DEEP, lambda: read(deep(100_000))),
    "deep MessagePack": (
        Reason.TOO_DEEP,
        lambda: read(b"\x81\xa1z" + b"\x91" * 100_000 + b"\xc0", b"c", headers("msgpack")),
    ),
    "over 1 MiB": (Reason.TOO_LARGE, lambda: read(as_json(text="x" * (1 << 20)))),
    "a header that is not UTF-8": (
        Reason.BAD_HEADERS,
        lambda: read(as_json(), b"c", [("ce_source", b"\xff")]),
    ),
    "a header whose name is not UTF-8": (
        Reason.BAD_HEADERS,
        lambda: read(as_json(), b"c", [UNREADABLE]),
    ),
    "a batch of CloudEvents": (
        Reason.UNSUPPORTED_CONTENT_TYPE,
        lambda: read(b"[]", b"c", [("content-type", b"application/cloudevents-batch+json")]),
    ),
    "a CloudEvent that is no JSON": (Reason.BAD_JSON, lambda: whole(b"{")),
    "a CloudEvent that is nothing but deep": (Reason.TOO_DEEP, lambda: whole(deep(100_000))),
    "a CloudEvent without an id": (Reason.MISSING_FIELD, lambda: structured(id=None)),
    "a CloudEvent without data": (Reason.MISSING_FIELD, lambda: structured(data=None)),
    "a CloudEvent of version 2": (
        Reason.UNKNOWN_VERSION,
        lambda: structured(specversion="2.0"),
    ),
    "a CloudEvent with both kinds of data": (
        Reason.WRONG_TYPE,
        lambda: structured(data_base64="e30="),
    ),
    "a CloudEvent whose JSON is said to be MessagePack": (
        Reason.WRONG_TYPE,
        lambda: structured(datacontenttype="application/msgpack"),
    ),
    "a CloudEvent in a CloudEvent": (
        Reason.UNSUPPORTED_CONTENT_TYPE,
        lambda: structured(datacontenttype="application/cloudevents+json"),
    ),
    "a CloudEvent with an id without end": (
        Reason.BAD_HEADERS,
        lambda: structured(id="x" * 2_000),
    ),
    "a CloudEvent of another type": (Reason.UNKNOWN_TYPE, lambda: structured(type="a.b.v1")),
    "XML": (
        Reason.UNSUPPORTED_CONTENT_TYPE,
        lambda: read(b"<u/>", b"c", [("content-type", b"text/xml")]),
    ),
    "another event": (Reason.UNKNOWN_TYPE, lambda: read(as_json(), b"c", headers(kind="a.b.v1"))),
    "version 2": (
        Reason.UNKNOWN_VERSION,
        lambda: read(as_json(), b"c", headers(kind="emotrack.utterance.v2")),
    ),
    "CloudEvents 2": (
        Reason.UNKNOWN_VERSION,
        lambda: read(as_json(), b"c", [("ce_specversion", b"2.0")]),
    ),
    "no speaker": (
        Reason.MISSING_FIELD,
        lambda: read(b'{"conversation_id": "c", "utterance_id": "u", "text": "hi"}'),
    ),
    "text that is a number": (Reason.WRONG_TYPE, lambda: read(as_json(text=5))),
    "an array": (Reason.WRONG_TYPE, lambda: read(b"[]")),
    "an unknown dtype": (
        Reason.WRONG_TYPE,
        lambda: read(as_json(features={"audio": {"tensor": {"dtype": "int8", "shape": [2]}}})),
    ),
    "is_partial": (Reason.UNSUPPORTED_FIELD, lambda: read(as_json(is_partial=False))),
    "consent": (Reason.UNSUPPORTED_FIELD, lambda: read(as_json(consent={"audio": True}))),
    "an empty id": (Reason.EMPTY_ID, lambda: read(as_json(utterance_id=""))),
    "an id of 257 bytes": (Reason.ID_TOO_LONG, lambda: read(as_json(speaker_id="s" * 257))),
    "an id of 65 four-byte characters": (
        Reason.ID_TOO_LONG,
        lambda: read(as_json(speaker_id="\U0001f600" * 65)),
    ),
    "no key": (Reason.WRONG_KEY, lambda: read(as_json(), None)),
    "another key": (Reason.WRONG_KEY, lambda: read(as_json(), b"d")),
    "too few numbers": (
        Reason.WRONG_TENSOR_SIZE,
        lambda: read(as_json(features={"audio": {"tensor": [1.0]}})),
    ),
    "no numbers": (
        Reason.WRONG_TENSOR_SIZE,
        lambda: read(as_json(features={"audio": {"tensor": []}})),
    ),
    "a packed vector of another width": (
        Reason.WRONG_TENSOR_SIZE,
        lambda: read(packed_json(**audio([1.0, 2.0, 3.0], shape=(3,)))),
    ),
    "a matrix": (
        Reason.WRONG_TENSOR_SIZE,
        lambda: read(packed_json(**audio([1.0, 2.0], shape=(1, 2)))),
    ),
    "negative shapes": (
        Reason.WRONG_TENSOR_SIZE,
        lambda: read(packed_json(**audio([1.0, 2.0], shape=(-1, -2)))),
    ),
    "four traits": (Reason.WRONG_TENSOR_SIZE, lambda: read(as_json(persona=[0.1] * 4))),
    "fewer bytes than the shape says": (
        Reason.TENSOR_BYTES,
        lambda: read(packed_json(**audio([1.0]))),
    ),
    "bytes that are not base64": (
        Reason.TENSOR_BYTES,
        lambda: read(
            as_json(features={"audio": {"tensor": {"dtype": "float16", "shape": [2], "data": "!"}}})
        ),
    ),
    "NaN in JSON": (Reason.NOT_FINITE, lambda: read(as_json(persona=[math.nan] * 5))),
    "a JSON number beyond doubles": (
        Reason.NOT_FINITE,
        lambda: read(as_json().replace(b'"hi"', b'"hi", "persona": [1e999, 0, 0, 0, 0]')),
    ),
    "a number beyond float32": (
        Reason.NOT_FINITE,
        lambda: read(as_json(features={"audio": {"tensor": [1e39, 0.0]}})),
    ),
    "no words and no vector": (Reason.NOTHING_TO_PREDICT, lambda: read(as_json(text=" \n"))),
    "only traits": (
        Reason.NOTHING_TO_PREDICT,
        lambda: read(as_json(text=None, persona=[0.1] * 5)),
    ),
}


@pytest.mark.parametrize("kind", POISON)
def test_each_kind_of_poison_has_its_reason(kind: str) -> None:
    reason, outcome = POISON[kind]
    assert reason_of(outcome()) is reason


def test_every_reason_found_by_decoding_is_tested() -> None:
    later = {Reason.NO_TEXT_ENCODER, Reason.NOT_FINITE_RESULT, Reason.DEVICE_EXHAUSTED}
    assert {reason for reason, _ in POISON.values()} == set(Reason) - later - {
        Reason.WRONG_EXTRACTOR
    }  # below


def test_a_vector_of_another_encoder_than_the_models_own_is_refused_by_name() -> None:
    """Same width, another space: nothing else could tell, and the answers would be noise."""
    vector = {"tensor": [0.5, 0.5], "extractor": "all-MiniLM-L6-v2"}
    value = json.dumps(
        {"conversation_id": "c", "utterance_id": "u", "speaker_id": "s",
         "features": {"text": vector}}
    ).encode()  # fmt: skip
    only = {"text": "all-MiniLM-L6-v2, tuned (in the checkpoint)"}

    def decoded(only: dict[str, str]) -> object:
        return read(value, decoder=Decoder({"text": 2}, only))

    refused = decoded(only)
    assert isinstance(refused, Poison)
    assert refused.reason is Reason.WRONG_EXTRACTOR
    assert "emotrack extract text" in refused.sentence
    assert isinstance(decoded({}), Utterance)
    assert isinstance(decoded({"text": "all-MiniLM-L6-v2"}), Utterance)
    assert isinstance(decoded({"audio": "praat"}), Utterance)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("width", [2, 50])
def test_one_number_that_is_not_finite_poisons_a_packed_vector(
    dtype: Literal["float16", "bfloat16", "float32"], bad: float, width: int
) -> None:
    for numbers in ([bad] + [1.0] * (width - 1), [60000.0] * (width - 1) + [bad]):
        value = msgspec.msgpack.encode(fields(features=audio(numbers, dtype, (width,))))
        outcome = read(value, b"c", headers("msgpack"), Decoder({"audio": width}))
        assert reason_of(outcome) is Reason.NOT_FINITE


@given(st.lists(st.integers(0, 0xFFFF), min_size=1, max_size=80))
def test_finite_means_what_numpy_means_by_it(bits: list[int]) -> None:
    data = np.array(bits, "<u2").tobytes()
    wide = np.array([half << 16 for half in bits], "<u4").view("<f4")
    for dtype, finite in (
        ("float16", bool(np.isfinite(np.frombuffer(data, "<f2")).all())),
        ("bfloat16", bool(np.isfinite(wide).all())),
    ):
        tensor = {"dtype": dtype, "shape": [len(bits)], "data": data}
        value = msgspec.msgpack.encode(fields(features={"audio": {"tensor": tensor}}))
        outcome = read(value, b"c", headers("msgpack"), Decoder({"audio": len(bits)}))
        assert isinstance(outcome, Utterance) == finite


def test_a_sentence_about_poison_never_repeats_the_text() -> None:
    outcome = read(as_json(text="my secret", is_partial=True))
    assert isinstance(outcome, Poison)
    assert "secret" not in outcome.sentence


def test_every_part_of_an_answer_is_part_of_its_id() -> None:
    base: dict[str, Any] = {
        "conversation_id": "c", "utterance_id": "u", "input": InputRef("t", 0, 7),
        "first_position": 3, "revision": 0, "model_digest": "d",
    }  # fmt: skip
    other = {
        "conversation_id": "cu", "utterance_id": "", "input": InputRef("t", 0, 8),
        "first_position": 4, "revision": 1, "model_digest": "e",
    }  # fmt: skip
    ids = {prediction_id(**base)} | {prediction_id(**(base | {k: v})) for k, v in other.items()}
    assert len(ids) == 1 + len(other)
    assert prediction_id(**base) == prediction_id(**base)
    assert alert_id("p", "r") != alert_id("p", "q")


def test_headers_say_what_the_envelope_reads() -> None:
    trace = f"00-{'a' * 32}-{'b' * 16}-01"
    written = event_headers(
        id="7", type="x.v1", source="urn:s", encoding="msgpack", time_ms=1_500, traceparent=trace
    )
    envelope = read_envelope(list(written))
    assert (envelope.id, envelope.type, envelope.source) == ("7", "x.v1", "urn:s")
    assert (envelope.encoding, envelope.traceparent) == ("msgpack", trace)
    assert dict(written)["ce_time"] == b"1970-01-01T00:00:01.500Z"


def test_no_timestamp_a_producer_may_claim_breaks_the_headers() -> None:
    assert rfc3339(2**62).startswith("9999-12-31T")
    assert rfc3339(32_503_680_000_123) == "3000-01-01T00:00:00.123Z"
    assert "ce_time" not in dict(
        event_headers(id="1", type="x", source="s", encoding="json", time_ms=-1)
    )


def test_a_trace_that_is_none_is_dropped_however_long() -> None:
    """A header of a megabyte was copied into the prediction, which no broker then took."""
    for header in (b"00-a", b"0" * 900_000, b"00-" + b"g" * 32 + b"-" + b"0" * 16 + b"-01"):
        assert read_envelope([("traceparent", header)]).traceparent is None


@pytest.mark.parametrize("value", [None, b"{", b"x" * (MAX_VALUE_BYTES + 1)])
def test_a_record_without_an_utterance_still_belongs_to_its_trace(value: bytes | None) -> None:
    trace = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
    record = Record("t", 0, 0, 0, b"c", value, (("traceparent", trace.encode()),))
    assert DECODER.decode(record).envelope.traceparent == trace
    unreadable = structs.replace(record, headers=(*record.headers, ("ce_id", b"\xff")))
    assert DECODER.decode(unreadable).envelope == Envelope()


def test_an_event_id_without_end_is_refused() -> None:
    value = json.dumps({"conversation_id": "c", "utterance_id": "u", "speaker_id": "s"}).encode()
    met = read(value, b"c", [("ce_id", b"x" * 2_000)], Decoder({}))
    assert isinstance(met, Poison) and met.reason is Reason.BAD_HEADERS


def test_a_structured_cloudevent_is_its_data() -> None:
    plain = read(as_json())
    assert isinstance(plain, Utterance)
    assert structured() == plain
    packed = base64.b64encode(encode(plain, "msgpack")).decode()
    given = {"data": None, "data_base64": packed, "datacontenttype": "application/msgpack"}
    assert structured(**given) == plain


def test_a_structured_cloudevent_has_its_own_id_and_trace() -> None:
    trace = f"00-{'a' * 32}-{'b' * 16}-01"
    event = {"specversion": "1.0", "id": "7", "source": "s", "type": "t", "data": {"n": 1}}
    value = json.dumps(event | {"traceparent": trace, "tracestate": "v=1"}).encode()
    headers = [("content-type", b"application/cloudevents+json"), ("ce_id", b"other")]
    envelope, data = open_record(headers, value)
    assert (envelope.id, envelope.traceparent, envelope.tracestate) == ("7", trace, "v=1")
    assert json.loads(data) == {"n": 1}


def test_a_trace_state_goes_with_its_parent_only_and_not_without_end() -> None:
    trace = f"00-{'a' * 32}-{'b' * 16}-01"
    written = partial(event_headers, id="1", type="x", source="s", encoding="json")
    assert dict(written(traceparent=trace, tracestate="v=1"))["tracestate"] == b"v=1"
    assert "tracestate" not in dict(written(tracestate="v=1"))
    assert read_envelope([("tracestate", b"v" * 513)]).tracestate is None
