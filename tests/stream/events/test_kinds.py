"""Records as other producers write them: each is read, or refused with a sentence whose cure works.

A case holds the record, words of the sentence about it, and the sentence's cure carried out on it.
"""

from __future__ import annotations

import base64
import bz2
import gzip
import json
import lzma
import pickle
import struct
import zlib
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.events.decode import Decoder
from stream.events.messages import Utterance, flags_of
from stream.events.poison import Poison
from stream.ports import Record

DECODER: Final = Decoder({"text": 2})
TEXT: Final = "Where is my order?"
GOOD: Final[dict[str, Any]] = {
    "conversation_id": "c",
    "utterance_id": "u",
    "speaker_id": "s",
    "text": TEXT,
}
Headers = tuple[tuple[str, bytes | None], ...]


class Wire(NamedTuple):
    """A record as a producer writes it."""

    value: bytes
    key: bytes | None = b"c"
    headers: Headers = ()


class Case(NamedTuple):
    """A record, words of the sentence it is refused with, and the cure."""

    wire: Wire
    words: tuple[str, ...]
    cure: Callable[[Wire], Wire]


def to_json(**more: Any) -> bytes:
    return json.dumps(GOOD | more).encode()


def content_type(media: str, name: str = "content-type") -> Headers:
    return ((name, media.encode()),)


def value_by(change: Callable[[bytes], bytes]) -> Callable[[Wire], Wire]:
    """Return the cure that sends another value."""
    return lambda wire: wire._replace(value=change(wire.value))


def object_by(change: Callable[[Any], Any]) -> Callable[[Wire], Wire]:
    """Return the cure that sends a part of the JSON."""
    return value_by(lambda value: json.dumps(change(json.loads(value))).encode())


def rename(old: str, new: str) -> Callable[[Wire], Wire]:
    return object_by(lambda fields: {new if k == old else k: v for k, v in fields.items()})


def protobuf(*texts: str) -> bytes:
    """Return texts as a Protobuf message writes them, as fields 1, 2, 3 ..."""
    return b"".join(
        bytes([number << 3 | 2, len(text)]) + text.encode()
        for number, text in enumerate(texts, start=1)
    )


def with_key(key: bytes) -> Callable[[Wire], Wire]:
    return lambda wire: wire._replace(key=key)


def with_type(media: str) -> Callable[[Wire], Wire]:
    return lambda wire: wire._replace(headers=content_type(media))


send_json: Final = value_by(lambda _value: to_json())
STRING: Final = "StringSerializer"
PLAIN: Final = "schemas.enable=false"

REFUSED: Final[dict[str, Case]] = {
    "a schema registry's frame around JSON": Case(
        Wire(b"\0\0\0\0\x0c" + to_json()), ("schema id 12", "then JSON", STRING),
        value_by(lambda value: value[5:]),
    ),
    "a schema registry's frame around Avro": Case(
        Wire(b"\0\0\0\1\0\x02c\x02u\x02s"), ("schema id 256", "Avro or Protobuf", PLAIN), send_json
    ),
    "gzip": Case(
        Wire(gzip.compress(to_json())), ("compressed with gzip", "compression.type=gzip"),
        value_by(gzip.decompress),
    ),
    "zlib": Case(
        Wire(zlib.compress(to_json())), ("compressed with zlib",), value_by(zlib.decompress)
    ),
    "bzip2": Case(
        Wire(bz2.compress(to_json())), ("compressed with bzip2",), value_by(bz2.decompress)
    ),
    "xz": Case(Wire(lzma.compress(to_json())), ("compressed with xz",), value_by(lzma.decompress)),
    "zstd": Case(Wire(b"\x28\xb5\x2f\xfd\x04\0"), ("compressed with zstd",), send_json),
    "lz4": Case(Wire(b"\x04\x22\x4d\x18\x64\x40"), ("compressed with lz4",), send_json),
    "snappy": Case(Wire(b"\xff\x06\0\0sNaPpY"), ("compressed with snappy",), send_json),
    "snappy of Java": Case(Wire(b"\x82SNAPPY\0\0"), ("compressed with snappy",), send_json),
    "JSON in a JSON string": Case(
        Wire(json.dumps(to_json().decode()).encode()), ("inside a JSON string", "twice", STRING),
        object_by(json.loads),
    ),
    "base64 in a JSON string": Case(
        Wire(json.dumps(base64.b64encode(to_json()).decode()).encode()),
        ("base64 inside a JSON string",),
        value_by(lambda value: base64.b64decode(json.loads(value))),
    ),
    "base64": Case(Wire(base64.b64encode(to_json())), ("base64",), value_by(base64.b64decode)),
    "a JSON string": Case(Wire(b'"hello"'), ("a JSON string, no object",), send_json),
    "Connect's envelope": Case(
        Wire(json.dumps({"schema": {"type": "struct"}, "payload": GOOD}).encode()),
        ("envelope of schema and payload", PLAIN),
        object_by(lambda found: found["payload"]),
    ),
    "Debezium's envelope": Case(
        Wire(json.dumps({"before": None, "after": GOOD, "op": "c"}).encode()),
        ("Debezium", "ExtractNewRecordState"),
        object_by(lambda found: found["after"]),
    ),
    "both envelopes": Case(
        Wire(json.dumps({"schema": {}, "payload": {"before": None, "after": GOOD}}).encode()),
        (PLAIN, "Debezium", "ExtractNewRecordState"),
        object_by(lambda found: found["payload"]["after"]),
    ),
    "Connect's text of a struct": Case(
        Wire(b"Struct{conversation_id=c,utterance_id=u}"), ("Connect struct", PLAIN), send_json
    ),
    "an object inside a field": Case(
        Wire(json.dumps({"meta": 1, "data": GOOD}).encode()),
        ("inside `data`", "at the top"),
        object_by(lambda found: found["data"]),
    ),
    "JSON text inside a field": Case(
        Wire(json.dumps({"message": to_json().decode()}).encode()), ("`message`", "JSON text"),
        object_by(lambda found: json.loads(found["message"])),
    ),
    "an array": Case(
        Wire(json.dumps([GOOD, GOOD | {"utterance_id": "v"}]).encode()), ("array of 2",),
        object_by(lambda found: found[0]),
    ),
    "a number": Case(Wire(b"7"), ("a number in JSON", "send an object"), send_json),
    "NDJSON": Case(
        Wire(to_json() + b"\n" + to_json(utterance_id="v")), ("holds 2 JSON values", "each"),
        value_by(lambda value: value.split(b"\n")[0]),
    ),
    "a text with a NUL at its end": Case(
        Wire(to_json() + b"\0"), ("after the JSON object comes a NUL",),
        value_by(lambda value: value.rstrip(b"\0")),
    ),
    "JSON with a line break in a string": Case(
        Wire(to_json(text="a#b").replace(b"#", b"\n")), ("control character", "\\n"),
        value_by(lambda value: value.replace(b"\n", b"\\n")),
    ),
    "JSON that was cut": Case(Wire(to_json()[:-5]), ("ends too early", "cut"), send_json),
    "JSON with a comma at its end": Case(
        Wire(to_json()[:-1] + b",}"), ("broken at character",), send_json
    ),
    "two texts": Case(
        Wire(to_json()[:-1] + b', "text": "No."}'), ("`text`", "twice"), send_json
    ),
    "two speakers": Case(
        Wire(to_json()[:-1] + b', "speaker_id": "t"}'), ("`speaker_id`", "twice"), send_json
    ),
    "a null after the text": Case(
        Wire(to_json()[:-1] + b',"text":null}'), ("`text`", "twice"), send_json
    ),
    "an id that is a number": Case(
        Wire(to_json(conversation_id=1610521604143693812), b"1610521604143693812"),
        ("`$.conversation_id`", "in quotes"),
        object_by(lambda found: found | {"conversation_id": str(found["conversation_id"])}),
    ),
    "MessagePack with names in bytes": Case(
        Wire(
            msgspec.msgpack.encode({k.encode(): v.encode() for k, v in GOOD.items()}),
            headers=content_type("application/msgpack"),
        ),
        ("names of the fields are bytes", "str, not bin"),
        lambda wire: wire._replace(value=msgspec.msgpack.encode(GOOD)),
    ),
    "MessagePack with texts in bytes": Case(
        Wire(
            msgspec.msgpack.encode(GOOD | {"text": TEXT.encode()}),
            headers=content_type("application/msgpack"),
        ),
        ("`$.text`", "str, not bin"),
        lambda wire: wire._replace(value=msgspec.msgpack.encode(GOOD)),
    ),
    "MessagePack in Windows-1252": Case(
        Wire(
            msgspec.msgpack.encode(GOOD | {"text": "I can?t"}).replace(b"?", b"\x92"),
            headers=content_type("application/msgpack"),
        ),
        ("`text`", "0x92", "Windows-1252", "UTF-8"),
        value_by(lambda value: value.replace(b"\x92", b"'")),
    ),
    "Python's dict": Case(
        Wire(str(GOOD).encode()), ("single quotes", "json.dumps"), send_json
    ),
    "Windows-1252": Case(
        Wire(json.dumps(GOOD | {"text": "I can\u2019t"}, ensure_ascii=False).encode("cp1252")),
        ("0x92", "Windows-1252", "UTF-8"),
        value_by(lambda value: value.decode("cp1252").encode()),
    ),
    "Latin-1": Case(
        Wire(json.dumps(GOOD | {"text": "d\xe9j\xe0"}, ensure_ascii=False).encode("latin-1")),
        ("0xe9", "Latin-1", "UTF-8"),
        value_by(lambda value: value.decode("latin-1").encode()),
    ),
    "UTF-16 with a mark": Case(
        Wire(to_json().decode().encode("utf-16")), ("UTF-16", "UTF-8"),
        value_by(lambda value: value.decode("utf-16").encode()),
    ),
    "UTF-16, little end first": Case(
        Wire(to_json().decode().encode("utf-16-le")), ("UTF-16", "UTF-8"),
        value_by(lambda value: value.decode("utf-16-le").encode()),
    ),
    "UTF-16, big end first": Case(
        Wire(to_json().decode().encode("utf-16-be")), ("UTF-16", "UTF-8"),
        value_by(lambda value: value.decode("utf-16-be").encode()),
    ),
    "an empty value": Case(Wire(b""), ("is empty",), send_json),
    "spaces": Case(Wire(b" \r\n"), ("is empty",), send_json),
    "XML": Case(Wire(b"<?xml version='1.0'?><u/>"), ("XML",), send_json),
    "a web page": Case(Wire(b"<!DOCTYPE html><html></html>"), ("web page",), send_json),
    "a web form": Case(Wire(b"conversation_id=c&text=hi"), ("web form",), send_json),
    "a line of text": Case(Wire(b"anna: where is it?"), ("text, not JSON",), send_json),
    "a Java object": Case(Wire(b"\xac\xed\0\x05sr\0\x11"), ("Java object",), send_json),
    "a pickle": Case(Wire(pickle.dumps(GOOD)), ("pickle", "json.dumps"), send_json),
    "Protobuf": Case(Wire(protobuf("c", "u", "s", TEXT)), ("Protobuf",), send_json),
    "BSON": Case(
        Wire(struct.pack("<i", 15) + b"\x02a\0\x02\0\0\0b\0\0\0"), ("BSON",), send_json
    ),
    "CBOR": Case(Wire(b"\xa1\x6fconversation_id\x61c"), ("CBOR",), send_json),
    "an Avro file": Case(Wire(b"Obj\x01\x04\x14avro.codec"), ("Avro file",), send_json),
    "MessagePack without its content-type": Case(
        Wire(msgspec.msgpack.encode(GOOD)), ("MessagePack", "content-type: application/msgpack"),
        with_type("application/msgpack"),
    ),
    "MessagePack as octets": Case(
        Wire(msgspec.msgpack.encode(GOOD), headers=content_type("application/octet-stream")),
        ("MessagePack", "content-type: application/msgpack"),
        with_type("application/msgpack"),
    ),
    "JSON as MessagePack": Case(
        Wire(to_json(), headers=content_type("application/msgpack")),
        ("is JSON", "content-type: application/json"),
        with_type("application/json"),
    ),
    "a batch of CloudEvents": Case(
        Wire(b"[]", headers=content_type("application/cloudevents-batch+json")),
        ("cloudevents-batch+json is not supported", "application/cloudevents+json"),
        lambda _wire: Wire(
            json.dumps({"specversion": "1.0", "id": "1", "source": "s",
                        "type": "emotrack.utterance.v1", "data": GOOD}).encode(),
            headers=content_type("application/cloudevents+json"),
        ),
    ),
    "a compressed CloudEvent": Case(
        Wire(gzip.compress(to_json()), headers=content_type("application/cloudevents+json")),
        ("content-type is application/cloudevents+json", "compressed with gzip"),
        lambda _wire: Wire(to_json()),
    ),
    "a CloudEvent without its content-type": Case(
        Wire(json.dumps({"specversion": "1.0", "id": "1", "source": "s",
                         "type": "emotrack.utterance.v1", "data": GOOD}).encode()),
        ("structured mode", "content-type: application/cloudevents+json"),
        with_type("application/cloudevents+json"),
    ),
    "a type of Avro": Case(
        Wire(to_json(), headers=content_type("application/avro")),
        ("'application/avro' is not read", "application/json"),
        with_type("application/json"),
    ),
    "camelCase": Case(
        Wire(json.dumps({"conversationId": "c", "utteranceId": "u", "speakerId": "s",
                         "text": "hi"}).encode()),
        ("`conversationId` to `conversation_id`", "`utteranceId` to", "`speakerId` to"),
        send_json,
    ),
    "upper case": Case(
        Wire(json.dumps({name.upper(): value for name, value in GOOD.items()}).encode()),
        ("`CONVERSATION_ID` to `conversation_id`", "`SPEAKER_ID` to"),
        object_by(lambda found: {name.lower(): value for name, value in found.items()}),
    ),
    "a typing error": Case(
        Wire(to_json().replace(b"speaker_id", b"speeker_id")), ("`speeker_id` to `speaker_id`",),
        rename("speeker_id", "speaker_id"),
    ),
    "another name": Case(
        Wire(to_json().replace(b"speaker_id", b"speaker")), ("`speaker` to `speaker_id`",),
        rename("speaker", "speaker_id"),
    ),
    "no speaker": Case(
        Wire(json.dumps({k: v for k, v in GOOD.items() if k != "speaker_id"}).encode()),
        ("lacks `speaker_id`", "It has `conversation_id`, `utterance_id`, `text`"),
        object_by(lambda found: found | {"speaker_id": "s"}),
    ),
    "a speaker that is null": Case(
        Wire(to_json(speaker_id=None)), ("$.speaker_id", "null", "every utterance needs it"),
        object_by(lambda found: found | {"speaker_id": "s"}),
    ),
    "a text under another name": Case(
        Wire(to_json().replace(b'"text"', b'"message"')), ("`message`", "`text`"),
        rename("message", "text"),
    ),
    "ids that are numbers": Case(
        Wire(to_json(conversation_id=7), b"7"), ("$.conversation_id", "in quotes"),
        object_by(lambda found: found | {"conversation_id": "7"}),
    ),
    "a key in quotes": Case(
        Wire(to_json(), b'"c"'), ("id in JSON, with its quotes", "key.serializer"), with_key(b"c")
    ),
    "a key in a schema registry's frame": Case(
        Wire(to_json(), b"\0\0\0\0\x07c"), ("5 bytes before the id", "key.serializer"),
        with_key(b"c"),
    ),
    "a key in Connect's envelope": Case(
        Wire(to_json(), b'{"schema":{"type":"string"},"payload":"c"}'),
        ("envelope of schema and payload", "key.converter"),
        with_key(b"c"),
    ),
    "a key that is an object": Case(
        Wire(to_json(), b'{"conversation_id":"c"}'), ("ExtractField$Key",), with_key(b"c")
    ),
    "a key with a line break": Case(Wire(to_json(), b"c\n"), ("line breaks",), with_key(b"c")),
    "a key with a byte order mark": Case(
        Wire(to_json(), b"\xef\xbb\xbfc"), ("byte order mark",), with_key(b"c")
    ),
    "a key with other accents": Case(
        Wire(to_json(conversation_id="Zoe\u0308"), "Zo\u00eb".encode()), ("NFC and NFD",),
        with_key("Zoe\u0308".encode()),
    ),
    "a key in another case": Case(
        Wire(to_json(conversation_id="Call-1"), b"call-1"), ("upper and lower case",),
        with_key(b"Call-1"),
    ),
    "a key with what cannot be seen": Case(
        Wire(to_json(), "c\u200b".encode()), ("not visible",), with_key(b"c")
    ),
    "a key in Latin-1": Case(
        Wire(to_json(conversation_id="Zo\u00eb"), b"Zo\xeb"), ("Latin-1", "UTF-8"),
        with_key("Zo\u00eb".encode()),
    ),
    "a key in UTF-16": Case(
        Wire(to_json(), "c".encode("utf-16")), ("UTF-16", "UTF-8"), with_key(b"c")
    ),
    "another key": Case(Wire(to_json(), b"d"), ("differs from `conversation_id`",), with_key(b"c")),
    "an empty key": Case(Wire(to_json(), b""), ("an empty key",), with_key(b"c")),
    "no key": Case(Wire(to_json(), None), ("has no key",), with_key(b"c")),
}  # fmt: skip

READ: Final[dict[str, Wire]] = {
    "no header": Wire(to_json()),
    "the same field twice": Wire(to_json()[:-1] + f', "text": "{TEXT}"}}'.encode()),
    "our names in a field that is not ours": Wire(
        to_json(meta={"text": "a", "speaker_id": "b", "of": {"text": "d"}})
    ),
    "a byte order mark": Wire(b"\xef\xbb\xbf" + to_json()),
    "spaces around": Wire(b"\r\n " + to_json() + b"\n"),
    "a type in quotes": Wire(to_json(), headers=content_type('"application/json"')),
    "a type with parameters": Wire(
        to_json(), headers=content_type('Application/JSON; charset="utf-8"')
    ),
    "Spring's headers": Wire(
        to_json(),
        headers=(
            ("__TypeId__", b"com.acme.Utterance"),
            ("contentType", b'"application/json"'),
            ("nul", None),
        ),
    ),
    "text/plain": Wire(to_json(), headers=content_type("text/plain; charset=utf-8")),
    "octets": Wire(to_json(), headers=content_type("application/octet-stream")),
    "a type that is empty": Wire(to_json(), headers=content_type("")),
    "a type without a value": Wire(to_json(), headers=(("content-type", None),)),
    "a vendor's JSON": Wire(to_json(), headers=content_type("application/vnd.acme.u+json")),
    "MessagePack, in quotes": Wire(
        msgspec.msgpack.encode(GOOD), headers=content_type('"application/x-msgpack"')
    ),
    "a CloudEvent whose data is base64": Wire(
        json.dumps(
            {
                "specversion": "1.0",
                "id": "1",
                "source": "s",
                "type": "emotrack.utterance.v1",
                "datacontenttype": "application/json",
                "data_base64": base64.b64encode(to_json()).decode(),
            }
        ).encode(),
        headers=content_type('"application/cloudevents+json"; charset=utf-8'),
    ),
}


def read(wire: Wire) -> object:
    return DECODER.decode(Record("t", 0, 0, 0, wire.key, wire.value, wire.headers)).message


@pytest.mark.parametrize("kind", REFUSED)
def test_a_refused_kind_is_named_and_its_cure_works(kind: str) -> None:
    case = REFUSED[kind]
    met = read(case.wire)
    assert isinstance(met, Poison), met
    for words in case.words:
        assert words in met.sentence
    assert TEXT not in met.sentence
    assert len(met.sentence) < 600
    assert "msgspec" not in met.sentence.lower()
    cured = read(case.cure(case.wire))
    assert isinstance(cured, Utterance), cured


@pytest.mark.parametrize("kind", READ)
def test_a_harmless_wrapping_costs_no_answer_and_no_flag(kind: str) -> None:
    met = read(READ[kind])
    assert met == Utterance("c", "u", "s", text=TEXT)
    assert isinstance(met, Utterance)
    assert flags_of(met) == ()


@given(
    st.sampled_from(
        [*(case.wire.value for case in REFUSED.values()), b"\xa1", b"\x0a", b"x", b"{"]
    ),
    st.integers(0, 40),
    st.binary(max_size=12),
    st.sampled_from(["application/json", "application/msgpack"]),
)
def test_damage_to_any_kind_never_raises(value: bytes, at: int, noise: bytes, media: str) -> None:
    read(Wire(value[:at] + noise, headers=content_type(media)))
    read(Wire(value[:at] + noise + value[at:], headers=content_type(media)))


@given(st.binary(max_size=24))
def test_no_key_makes_decoding_raise(key: bytes) -> None:
    assert isinstance(read(Wire(to_json(), key)), Poison | Utterance)


@given(st.text(min_size=1, max_size=200))
def test_no_sentence_repeats_the_words_of_a_conversation(words: str) -> None:
    secret = f"secret {words} secret"
    for wire in (
        Wire(json.dumps({secret: 1, "text": secret}).encode()),
        Wire(json.dumps(secret).encode()),
        Wire(secret.encode(errors="replace")),
        Wire(json.dumps({"payload": secret, secret: GOOD}).encode()),
        Wire(to_json(text=[secret])),
    ):
        met = read(wire)
        assert isinstance(met, Poison)
        assert secret not in met.sentence
