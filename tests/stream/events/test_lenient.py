"""A field that no answer depends on costs none, and is flagged; the others stay errors."""

from __future__ import annotations

import json
from typing import Any, Final

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.events.cloudevents import CLIENT_SOURCE, UTTERANCE_TYPE, Encoding, event_headers
from stream.events.decode import Decoder
from stream.events.messages import (
    IGNORABLE_FIELDS,
    FlaggedUtterance,
    Utterance,
    encode,
    flags_of,
)
from stream.events.poison import Control, Poison, Reason
from stream.ports import Record

DECODER: Final = Decoder({"text": 2, "persona": 5})
GOOD: Final[dict[str, Any]] = {
    "conversation_id": "c",
    "utterance_id": "u",
    "speaker_id": "s",
    "text": "hi",
}
NEEDED: Final[dict[str, list[Any]]] = {  # answers depend on these: values that are refused
    "conversation_id": [7, None, 1.5, ["c"], True],
    "utterance_id": [7, None, 1.5, {}, False],
    "speaker_id": [0, None, [], True],
    "text": [7, ["hi"], {"en": "hi"}, True],
    "features": ["x", [1.0], 3, {"text": [0.5, 0.5]}, {"text": {"tensor": "no"}}],
    "persona": ["x", 3, [None] * 5, ["0.1"] * 5],
    "end_of_conversation": ["true", 1, 0, "yes"],
}


def read(value: bytes, encoding: Encoding = "json", key: bytes = b"c") -> Any:
    headers = event_headers(id="1", type=UTTERANCE_TYPE, source=CLIENT_SOURCE, encoding=encoding)
    return DECODER.decode(Record("t", 0, 0, 0, key, value, tuple(headers))).message


def as_json(**more: Any) -> bytes:
    return json.dumps(GOOD | more).encode()


@pytest.mark.parametrize("encoding", ["json", "msgpack"])
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("seq", "3"),
        ("seq", -1),
        ("seq", 2**63),
        ("seq", True),
        ("seq", 1.5),
        ("seq", [3]),
        ("speaker_role", 5),
        ("speaker_role", ["agent"]),
        ("start_ms", "12"),
        ("start_ms", 0.25),
        ("end_ms", {"ms": 3}),
        ("end_ms", False),
        ("event_time", 1732879300.125),
        ("event_time", ["2026-01-01"]),
        ("language", 7),
        ("language", {"code": "en"}),
    ],
)
def test_a_field_that_no_answer_needs_is_left_out_and_flagged(
    encoding: Encoding, field: str, value: Any
) -> None:
    sent = GOOD | {field: value}
    met = read(json.dumps(sent).encode() if encoding == "json" else msgspec.msgpack.encode(sent),
               encoding)  # fmt: skip
    assert flags_of(met) == (f"ignored_{field}",)
    assert met.plain() == Utterance("c", "u", "s", text="hi")


@pytest.mark.parametrize("field", ["seq", "start_ms", "end_ms", "event_time"])
@pytest.mark.parametrize("encoding", ["json", "msgpack"])
def test_a_whole_float_is_an_integer(field: str, encoding: Encoding) -> None:
    sent = GOOD | {field: 1732879300.0}
    value = json.dumps(sent).encode() if encoding == "json" else msgspec.msgpack.encode(sent)
    met = read(value, encoding)
    assert type(met) is Utterance
    assert getattr(met, field) == 1732879300
    assert type(getattr(met, field)) is int


@pytest.mark.parametrize("literal", [b"NaN", b"Infinity", b"-Infinity", b"1e400"])
def test_a_number_that_json_has_no_word_for_costs_no_answer_where_none_needs_it(
    literal: bytes,
) -> None:
    """pandas writes NaN for an absent time, and json.dumps passes it on."""
    met = read(as_json()[:-1] + b', "end_ms": ' + literal + b', "score": ' + literal + b"}")
    assert flags_of(met) == ("ignored_end_ms",)
    refused = read(as_json()[:-1] + b', "persona": [0, 0, 0, 0, ' + literal + b"]}")
    assert isinstance(refused, Poison)
    assert refused.reason is Reason.NOT_FINITE
    assert "persona" in refused.sentence


@pytest.mark.parametrize(("field", "value"), [(f, v) for f, vs in NEEDED.items() for v in vs])
@pytest.mark.parametrize("encoding", ["json", "msgpack"])
def test_a_field_that_answers_depend_on_stays_an_error_that_names_it(
    field: str, value: Any, encoding: Encoding
) -> None:
    sent = GOOD | {field: value, "seq": "3"}
    met = read(json.dumps(sent).encode() if encoding == "json" else msgspec.msgpack.encode(sent),
               encoding)  # fmt: skip
    assert isinstance(met, Poison)
    assert met.reason is Reason.WRONG_TYPE
    assert f"$.{field}" in met.sentence
    assert "send" in met.sentence or "needs" in met.sentence


def test_every_field_of_an_utterance_is_either_needed_or_ignorable() -> None:
    """A new field must be decided."""
    assert set(Utterance.__struct_fields__) == {*NEEDED, *IGNORABLE_FIELDS}


def test_an_extractor_of_a_wrong_type_is_an_error() -> None:
    """Vectors of another extractor would be noise; which one made them is not known here."""
    met = read(as_json(features={"text": {"tensor": [0.5, 0.5], "extractor": 7}}))
    assert isinstance(met, Poison)
    assert "$.features.text.extractor" in met.sentence


@pytest.mark.parametrize("field", [*IGNORABLE_FIELDS, "end_of_conversation", "text", "features"])
def test_null_is_an_absent_field(field: str) -> None:
    """Serializers of classes write null for what is not set."""
    sent: dict[str, Any] = GOOD | {"persona": None, "features": None, field: None}
    sent |= {} if field != "text" else {"features": {"text": {"tensor": [0.5, 0.5]}}}
    met = read(json.dumps(sent).encode())
    assert type(met) is Utterance


@pytest.mark.parametrize("encoding", ["json", "msgpack"])
@pytest.mark.parametrize("field", ["is_partial", "consent"])
def test_a_reserved_field_is_refused_unless_it_is_null(field: str, encoding: Encoding) -> None:
    pack = msgspec.json.encode if encoding == "json" else msgspec.msgpack.encode
    assert type(read(pack(GOOD | {field: None}), encoding)) is Utterance
    for value in (False, True, {"audio": True}):
        met = read(pack(GOOD | {field: value, "seq": "3"}), encoding)
        assert isinstance(met, Poison)
        assert met.reason is Reason.UNSUPPORTED_FIELD
        assert "without it" in met.sentence


def test_several_misfits_are_all_flagged_in_one_order() -> None:
    met = read(as_json(language=1, end_ms="x", seq=-1, event_time=0.5))
    assert flags_of(met) == ("ignored_seq", "ignored_end_ms", "ignored_event_time",
                             "ignored_language")  # fmt: skip


@pytest.mark.parametrize(
    ("half", "text"),
    [
        (b"so happy \xed\xa0\xbd", "so happy \ufffd"),
        (b"so happy \\ud83d", "so happy \ufffd"),
        (b"\\ude21 so happy", "\ufffd so happy"),
    ],
)
def test_half_a_surrogate_pair_in_a_text_becomes_the_replacement_character(
    half: bytes, text: str
) -> None:
    met = read(as_json().replace(b'"hi"', b'"' + half + b'"'))
    assert flags_of(met) == ("repaired_text",)
    assert met.text == text


def test_a_pair_as_java_and_oracle_write_it_is_the_character_and_no_flag() -> None:
    met = read(as_json().replace(b'"hi"', b'"\xed\xa0\xbd\xed\xb8\xa1"'))
    assert met == Utterance("c", "u", "s", text="\U0001f621")


@pytest.mark.parametrize("length", [3, 40, 300, 70_000])
def test_half_a_pair_in_messagepack_is_repaired_as_in_json(length: int) -> None:
    """kriszyp/msgpackr#195: a text that was cut inside an emoji."""
    text = "x" * (length - 3)
    value = msgspec.msgpack.encode(GOOD | {"text": f"{text}???"}).replace(b"???", b"\xed\xa0\xbd")
    met = DECODER.decode(
        Record("t", 0, 0, 0, b"c", value, (("content-type", b"application/msgpack"),))
    ).message
    assert isinstance(met, Utterance)
    assert (met.text, flags_of(met)) == (f"{text}\ufffd", ("repaired_text",))


@pytest.mark.parametrize("field", ["seq", "start_ms", "ours"])
def test_a_number_without_end_costs_no_answer(field: str) -> None:
    """Liquid4All/ifstruct#3: Python reads no whole number of more than 4,300 digits."""
    met = read(as_json(end_ms="x")[:-1] + f', "{field}": {"9" * 5000}}}'.encode())
    assert isinstance(met, Utterance)
    assert f"ignored_{field}" in flags_of(met) or field == "ours"


def test_half_a_pair_in_an_id_is_refused_because_two_ids_could_become_one() -> None:
    met = read(as_json().replace(b'"s"', b'"s\\ud83d"'))
    assert isinstance(met, Poison)
    assert "`speaker_id` holds half of a surrogate pair" in met.sentence


def test_a_byte_order_mark_before_json_changes_nothing() -> None:
    assert read(b"\xef\xbb\xbf" + as_json()) == read(as_json())
    event = {"specversion": "1.0", "id": "7", "source": "s", "type": UTTERANCE_TYPE, "data": GOOD}
    value = b"\xef\xbb\xbf" + json.dumps(event).encode()
    headers = (("content-type", b"application/cloudevents+json"),)
    assert DECODER.decode(Record("t", 0, 0, 0, b"c", value, headers)).message == read(as_json())


def test_what_was_left_out_is_never_sent_again() -> None:
    met = read(as_json(seq="3"))
    assert isinstance(met, FlaggedUtterance)
    assert b"flags" not in encode(met.plain())
    assert read(encode(met.plain())) == met.plain()


JSON_VALUES: Final = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(IGNORABLE_FIELDS), JSON_VALUES))
def test_no_value_of_an_ignorable_field_costs_an_answer(fields: dict[str, Any]) -> None:
    met = read(as_json(**fields))
    assert isinstance(met, Utterance), met
    flagged = {flag.removeprefix("ignored_") for flag in flags_of(met)}
    for name, value in fields.items():
        kept = getattr(met, name)
        assert (name in flagged) == (kept is None and value is not None)


@given(JSON_VALUES, st.sampled_from(Utterance.__struct_fields__))
def test_reading_leniently_never_raises_and_gives_one_answer(value: Any, field: str) -> None:
    for encoding in ("json", "msgpack"):
        pack = json.dumps if encoding == "json" else msgspec.msgpack.encode
        try:
            packed = pack(GOOD | {field: value})
        except OverflowError:  # MessagePack has no integers beyond 64 bits
            continue
        sent = packed.encode() if isinstance(packed, str) else packed
        met = read(sent, encoding)
        assert isinstance(met, Utterance | Poison | Control)
        assert met == read(sent, encoding)
