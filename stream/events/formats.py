"""Name the format of bytes that are no utterance by their first bytes, with the cure.

A schema registry, compressors and serializers leave marks. Where a format can only be guessed, the
sentence says "looks like".
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import zlib
from collections.abc import Mapping
from typing import Final

import msgspec

REQUIRED: Final = ("conversation_id", "utterance_id", "speaker_id")
JSON_CONVERTER: Final = (
    "in Kafka Connect set value.converter=org.apache.kafka.connect.json.JsonConverter and "
    "value.converter.schemas.enable=false"
)
STRING_SERIALIZER: Final = "value.serializer=org.apache.kafka.common.serialization.StringSerializer"
_COMPRESSIONS: Final[Mapping[bytes, tuple[str, str]]] = {  # magic number: name, producer's codec
    b"\x1f\x8b": ("gzip", "gzip"),
    b"\x28\xb5\x2f\xfd": ("zstd", "zstd"),
    b"\x04\x22\x4d\x18": ("lz4", "lz4"),
    b"\xff\x06\x00\x00sNaPpY": ("snappy", "snappy"),
    b"\x82SNAPPY\x00": ("snappy", "snappy"),
    b"\xfd7zXZ\x00": ("xz", "zstd"),
    b"BZh91AY&SY": ("bzip2", "gzip"),
}
_MARKS: Final = bytes(b for b in range(256) if b >= 0x20 or b in b"\t\r\n")
_WORD: Final = re.compile(r"\S")
_COUNTED: Final = 1_000  # values of one record
_GUESSED: Final = 1 << 14  # bytes looked at where a format can only be guessed


def format_of(value: bytes) -> str | None:
    """Return a sentence that names the format of a value and the cure; None: unknown."""
    for look in (_empty, _utf16, _framed, _compressed, _binary, _msgpack, _text):
        if sentence := look(value):
            return sentence
    return None


def _empty(value: bytes) -> str | None:
    if value.strip(b" \t\r\n\0\xef\xbb\xbf"):
        return None
    return "the value is empty: send the utterance in the record's value, as JSON"


def _utf16(value: bytes) -> str | None:
    head = value[:4]
    wide = head[:2] in (b"\xff\xfe", b"\xfe\xff") or head in (b'{\0"\0', b'\0{\0"', b"\0\0\0{")
    if not wide and head != b"{\0\0\0":
        return None
    return "the value is text in UTF-16 or UTF-32: encode JSON as UTF-8"


def _framed(value: bytes) -> str | None:
    if value[:1] != b"\0" or len(value) < 6:
        return None
    schema = int.from_bytes(value[1:5], "big")
    inside = "JSON" if value[5:6] == b"{" else "what looks like Avro or Protobuf"
    return (
        f"the value begins with a schema registry's magic byte and schema id {schema}, then "
        f"{inside}: write plain JSON with {STRING_SERIALIZER}; {JSON_CONVERTER}"
    )


def _compressed(value: bytes) -> str | None:
    for magic, (name, codec) in _COMPRESSIONS.items():
        if value.startswith(magic):
            return (
                f"the value is compressed with {name}: send it uncompressed, and let the producer "
                f"compress with compression.type={codec}, which clients undo by themselves"
            )
    if _deflated(value):
        return (
            "the value is compressed with zlib: send it uncompressed, and let the producer "
            "compress with compression.type=gzip, which clients undo by themselves"
        )
    return None


def _deflated(value: bytes) -> bool:
    if value[:1] != b"x":  # as texts may begin, too
        return False
    try:
        zlib.decompressobj().decompress(value[:256], 64)
    except zlib.error:
        return False
    return True


def _binary(value: bytes) -> str | None:
    if value.startswith(b"\xac\xed\x00\x05"):
        return (
            "the value is a Java object (ObjectOutputStream): write it as JSON, with Spring's "
            f"JsonSerializer or {STRING_SERIALIZER}"
        )
    if value[:1] == b"\x80" and value[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return "the value is a Python pickle: write it with json.dumps(...).encode()"
    if value.startswith(b"Obj\x01"):
        return f"the value is an Avro file: write JSON instead; {JSON_CONVERTER}"
    if len(value) >= 5 and int.from_bytes(value[:4], "little") == len(value):
        return "the value is BSON: write it as JSON"
    if re.match(rb"[\xa1-\xb7\xbf][\x61-\x78]|\xd9\xd9\xf7", value):
        return "the value looks like CBOR: write it as JSON"
    if _protobuf(value[:_GUESSED], whole=len(value) <= _GUESSED):
        return f"the value looks like Protobuf: write it as JSON; {JSON_CONVERTER}"
    return None


def _protobuf(value: bytes, *, whole: bool) -> bool:
    """Return whether bytes can be read as Protobuf that begins with a text of field 1 to 15."""
    text = not value.translate(None, _MARKS)  # tags of later fields are control characters
    if not whole or not value or value[0] & 0x87 != 0x02 or text:
        return False
    at, fields = 0, 0
    while at < len(value):
        tag, at = value[at], at + 1
        kind = tag & 7
        if tag >> 3 == 0 or tag & 0x80 or kind not in (0, 1, 2, 5):
            return False
        length, shift = {1: 8, 5: 4}.get(kind, 0), 0
        if kind in (0, 2):
            while at < len(value) and value[at] & 0x80 and shift < 63:
                length, at, shift = length | (value[at] & 0x7F) << shift, at + 1, shift + 7
            if at >= len(value):
                return False
            length, at = length | value[at] << shift, at + 1
        at += 0 if kind == 0 else length
        fields += 1
    return at == len(value) and fields >= 2


def _msgpack(value: bytes) -> str | None:
    if not value or not (0x81 <= value[0] <= 0x8F or value[0] in (0xDE, 0xDF)):
        return None
    try:
        found = msgspec.msgpack.decode(value)
    except (ValueError, msgspec.DecodeError, TypeError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    return "the value is MessagePack: send the header content-type: application/msgpack"


def _text(value: bytes) -> str | None:
    """Name text that is no JSON, by how it begins."""
    head = value[:256].lstrip().lower()
    if head.startswith((b"<!doctype html", b"<html")):
        return (
            "the value is a web page: perhaps an error page came where the utterance was expected"
        )
    if head.startswith(b"<"):
        return "the value is XML: write it as JSON"
    if head.startswith(b"struct{"):
        return f"the value is the text of a Kafka Connect struct, not JSON: {JSON_CONVERTER}"
    if re.match(rb"\{\s*'", head):
        return "the value has single quotes, as Python prints a dict: write it with json.dumps(...)"
    if re.match(rb"[a-z_]+=[^{]*&[a-z_]+=", head):
        return "the value is a web form (name=value&…): write it as JSON"
    if value.isascii() and in_base64(value):
        return "the value is base64: send the decoded JSON itself"
    if head[:1] not in (b"{", b"[", b'"') and _is_utf8(value):
        return f"the value is text, not JSON: send an object with {', '.join(REQUIRED)} and text"
    return None


def in_base64(text: bytes) -> bool:
    """Return whether text is base64 of a JSON object."""
    try:
        head = base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        return False
    return head.lstrip()[:1] == b"{"


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def not_utf8(value: bytes, error: UnicodeDecodeError) -> str:
    at = error.start
    sentence = f"byte {value[at]:#04x} at {at} is not UTF-8"
    if value.lstrip()[:1] != b"{":
        return f"the value is neither JSON nor a format that is recognised: {sentence}"
    try:
        json.loads(value.decode("cp1252"))
    except ValueError:
        return f"the JSON has text that is damaged: {sentence}. Encode it as UTF-8"
    return (
        f"the JSON has text in another encoding, perhaps Windows-1252 or Latin-1: {sentence}. "
        "Encode it as UTF-8"
    )


def broken_json(value: bytes, error: Exception | None) -> str:
    """Name the fault of text that begins as JSON does."""
    text = value.decode("utf-8", "surrogatepass")
    objects, at = 0, 0
    scan = json.JSONDecoder(strict=False).raw_decode
    try:
        while objects < _COUNTED and (begin := _WORD.search(text, at)):
            _, at = scan(text, begin.start())
            objects += 1
    except (ValueError, RecursionError):
        pass
    rest = text[at:].strip()
    if objects > 1:
        count = f"{objects} or more" if rest else f"{objects}"
        return f"the value holds {count} JSON values: send a record for each, in their order"
    if objects == 1 and rest:
        what = "a NUL byte" if not rest.strip("\0") else f"{len(rest)} characters"
        return f"after the JSON object comes {what}: send the object alone"
    if objects == 1:
        return (
            "a string of the JSON has a line break, tab or other control character in it: write "
            "them as \\n, \\t or \\u0000, as a JSON library does"
        )
    if text.rstrip()[-1:] not in ("}", "]"):
        return (
            f"the JSON ends too early, after {len(value)} bytes: it was cut, so look for a limit "
            "of length on its way"
        )
    assert isinstance(error, json.JSONDecodeError), error
    return f"the JSON is broken at character {error.pos}: {error.msg}. Write it with a library"
