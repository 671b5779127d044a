"""Name what a record holds that is no utterance, with the setting of its producer that cures it.

Converters, serializers and compressors leave marks: a schema registry's first byte, Kafka Connect's
envelope, gzip's magic number. Nothing here is asked before a record has failed to decode. Sentences
name fields, sizes and settings, never the words of a conversation.
"""

from __future__ import annotations

import difflib
import json
import re
import unicodedata
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any, Final

import msgspec

from stream.events.cloudevents import Encoding
from stream.events.formats import (
    JSON_CONVERTER,
    REQUIRED,
    STRING_SERIALIZER,
    broken_json,
    format_of,
    in_base64,
    not_utf8,
)
from stream.events.messages import Utterance
from stream.events.poison import Reason, Rejected

_CONTENTS: Final = ("text", "features")
# Other names of a field, as they are without case, `_` and `-`: hints for a sentence, never read.
_ALIASES: Final[Mapping[str, tuple[str, ...]]] = {
    "conversation_id": ("conversation", "dialogueid", "dialogid", "sessionid", "callid", "chatid"),
    "utterance_id": ("utteranceid", "messageid", "turnid", "segmentid", "id"),
    "speaker_id": ("speaker", "participantid", "participant", "senderid", "userid", "role"),
    "text": ("utterance", "message", "content", "transcript", "sentence", "body", "msg"),
}
_AS_STR: Final = (
    "pack text as MessagePack's str, not bin (in Python give the packer str, and use_bin_type=True)"
)
_NAME: Final = re.compile(r"[A-Za-z_][\w.-]{0,39}", re.ASCII)
_SHOWN: Final = 8
_LOOKED_AT: Final = 100  # fields: a record of 1 MiB may have 100,000


def bad_value(value: bytes, encoding: Encoding, error: Exception | None) -> Rejected:
    """Return the `Rejected` of bytes that are not in `encoding` at all."""
    reason = Reason.BAD_JSON if encoding == "json" else Reason.BAD_MSGPACK
    if encoding == "msgpack" and value.lstrip()[:1] == b"{":
        sentence = (
            "the value is JSON, but its content-type says MessagePack: send the header "
            "content-type: application/json"
        )
        return Rejected(reason, sentence)
    if (named := format_of(value)) is not None:
        return Rejected(reason, named)
    if encoding == "msgpack":
        if isinstance(error, UnicodeDecodeError):
            sentence = "a name or a text of the MessagePack is not UTF-8: encode text as UTF-8"
            return Rejected(reason, sentence)
        return Rejected(reason, f"the value is not MessagePack: {error}. Write it with a library")
    if isinstance(error, UnicodeDecodeError):
        return Rejected(reason, not_utf8(value, error))
    return Rejected(reason, broken_json(value, error))


def bad_object(found: object, encoding: Encoding) -> Rejected:
    """Return the `Rejected` of a value that decodes, and is no utterance or lacks its ids."""
    named = "JSON" if encoding == "json" else "MessagePack"
    if isinstance(found, Mapping):
        return _bad_mapping(found)
    if isinstance(found, str):
        return Rejected(Reason.WRONG_TYPE, _quoted(found, named))
    if isinstance(found, list):
        sentence = (
            f"the value is a {named} array of {len(found)}: send a record for each utterance, in "
            "their order"
        )
        return Rejected(Reason.WRONG_TYPE, sentence)
    kind = {type(None): "null", bool: "a boolean", int: "a number", float: "a number"}
    sentence = (
        f"the value is {kind.get(type(found), 'no object')} in {named}: send an object with "
        f"{', '.join(REQUIRED)} and text"
    )
    return Rejected(Reason.WRONG_TYPE, sentence)


def nothing_said(value: bytes, encoding: Encoding) -> str | None:
    """Return which field of a record without words or vectors may be meant; None for none."""
    try:
        found = (msgspec.json if encoding == "json" else msgspec.msgpack).decode(value)
    except (ValueError, msgspec.DecodeError, RecursionError):
        return None
    near = nearest("text", found) if isinstance(found, Mapping) else None
    if near is None:
        return None
    return f"the record has no `text`, but `{near}`: rename that field to `text`"


def not_text(name: str, error: UnicodeDecodeError) -> Rejected:
    """Return the `Rejected` of a MessagePack field whose text is in another encoding."""
    return Rejected(
        Reason.BAD_MSGPACK,
        f"field {_safe(name)} has text in another encoding, perhaps Windows-1252 or Latin-1: byte "
        f"{error.object[error.start]:#04x} is not UTF-8. Encode it as UTF-8",
    )


def misfit(message: str, encoding: Encoding) -> Rejected:
    """Return the `Rejected` of msgspec's refusal of a field; its message names the field."""
    if "got `bytes`" in message and "Expected `str" in message:
        return Rejected(Reason.WRONG_TYPE, f"{message}: {_AS_STR}")
    if "Number out of range" in message:
        return Rejected(Reason.NOT_FINITE, f"{message}: it does not fit a float")
    if "Invalid base64" in message:
        return Rejected(Reason.TENSOR_BYTES, f"{message}: use standard base64 with padding")
    if "got `null`" in message and any(f"$.{name}`" in message for name in REQUIRED):
        return Rejected(Reason.WRONG_TYPE, f"{message}: every utterance needs it, as a string")
    if "Expected `str" in message:
        quotes = ", in quotes" if encoding == "json" else ""
        return Rejected(Reason.WRONG_TYPE, f"{message}: send it as a string{quotes}")
    if "Expected `bool" in message:
        return Rejected(Reason.WRONG_TYPE, f"{message}: send true or false, without quotes")
    return Rejected(
        Reason.WRONG_TYPE, f"{message}: send the type that is expected, or leave it out"
    )


def wrong_key(key: bytes | None, conversation_id: str) -> str:
    """Return the sentence about a record key that is not the conversation id."""
    id_bytes = conversation_id.encode(errors="surrogatepass")
    cure = (
        "set the record key to the conversation id (console producer: --property parse.key=true), "
        "so that a conversation stays on one partition"
    )
    serializer = (
        "write keys as plain text: key.serializer=org.apache.kafka.common.serialization."
        "StringSerializer, or in Kafka Connect key.converter=org.apache.kafka.connect.storage."
        "StringConverter"
    )
    if key is None or not key:
        return f"the record has {'no' if key is None else 'an empty'} key: {cure}"
    if key[:1] == b"\0" and key[5:].strip(b'\n\r\t "').endswith(id_bytes):
        return f"the key begins with a schema registry's 5 bytes before the id: {serializer}"
    if key.removeprefix(b"\xef\xbb\xbf") == id_bytes:
        return "the key begins with a byte order mark: write keys as UTF-8 without one"
    if key.strip(b" \t\r\n\0") == id_bytes:
        return "the key is the id with spaces, line breaks or NUL around it: send the id alone"
    if (named := _written_otherwise(key, conversation_id)) is not None:
        return named
    try:
        found = json.loads(key)
    except (ValueError, RecursionError):
        return f"the record has a key that differs from `conversation_id`: {cure}"
    if found == conversation_id:
        return f"the key is the id in JSON, with its quotes: {serializer}"
    if isinstance(found, dict) and "payload" in found:
        return f"the key is Kafka Connect's envelope of schema and payload: {serializer}"
    if isinstance(found, dict):
        return (
            "the key is a JSON object, not the id alone: in Kafka Connect use the transforms "
            "ValueToKey and ExtractField$Key with field=conversation_id, and " + serializer
        )
    return f"the record has a key that differs from `conversation_id`: {cure}"


def _written_otherwise(key: bytes, conversation_id: str) -> str | None:
    """Say how a key differs that looks like the id; None where it is another text."""
    for encoding in ("utf-16", "cp1252"):
        try:
            if key.decode(encoding) == conversation_id:
                name = "UTF-16" if encoding == "utf-16" else "Windows-1252 or Latin-1"
                return f"the key is the id in {name}: write keys as UTF-8"
        except UnicodeDecodeError:
            pass
    try:
        text = key.decode()
    except UnicodeDecodeError:
        return None
    same = "send the same bytes in both, so that a conversation is one, on one partition"
    if unicodedata.normalize("NFC", text) == unicodedata.normalize("NFC", conversation_id):
        return (
            "the key and `conversation_id` look alike, with accents composed in one and apart in "
            f"the other (Unicode's NFC and NFD): {same}"
        )
    if text.casefold() == conversation_id.casefold():
        return f"the key and `conversation_id` differ in upper and lower case: {same}"
    if _visible(text) == _visible(conversation_id):
        return f"the key and `conversation_id` differ in characters that are not visible: {same}"
    return None


def _visible(text: str) -> str:
    return "".join(c for c in text if unicodedata.category(c) not in ("Cc", "Cf", "Zs"))


def _bad_mapping(found: Mapping[Any, Any]) -> Rejected:
    sentence = _wrapped(found)
    if sentence is not None:
        return Rejected(Reason.MISSING_FIELD, sentence)
    missing = [name for name in REQUIRED if name not in found]
    if any(name.encode() in found for name in missing):
        return Rejected(Reason.WRONG_TYPE, f"the names of the fields are bytes: {_AS_STR}")
    near = {name: other for name in missing if (other := nearest(name, found))}
    listed = ", ".join(f"`{name}`" for name in missing)
    sentence = (
        f"the record lacks {listed}: every utterance needs {'it' if len(missing) == 1 else 'them'}"
    )
    if near:
        renames = ", ".join(f"`{other}` to `{name}`" for name, other in near.items())
        sentence += f". Rename {renames}"
    elif shown := _names(found):
        sentence += f". It has {shown}"
    return Rejected(Reason.MISSING_FIELD, sentence)


def _wrapped(found: Mapping[Any, Any]) -> str | None:
    """Name the envelope that an object is, where it is a known one."""
    if "payload" in found and "schema" in found:
        sentence = f"the value is Kafka Connect's envelope of schema and payload: {JSON_CONVERTER}"
        inner = found["payload"]
        both = isinstance(inner, Mapping) and "after" in inner
        return f"{sentence}. Inside is {_DEBEZIUM}" if both else sentence
    if "after" in found and ("before" in found or "op" in found):
        return f"the value is {_DEBEZIUM}"
    if "specversion" in found and ("data" in found or "data_base64" in found):
        return (
            "the value is a CloudEvent in structured mode: send the header content-type: "
            "application/cloudevents+json"
        )
    for name, inner in islice(found.items(), _LOOKED_AT):
        if isinstance(inner, str) and inner.lstrip()[:1] == "{" and '"conversation_id"' in inner:
            return (
                f"field {_safe(name)} holds the utterance as JSON text: send that text as the value"
            )
        if isinstance(inner, Mapping) and "conversation_id" in inner:
            return f"the utterance is inside {_safe(name)}: send its fields at the top of the value"
    return None


_DEBEZIUM: Final = (
    "Debezium's envelope of before and after: set transforms=unwrap and "
    "transforms.unwrap.type=io.debezium.transforms.ExtractNewRecordState"
)


def nearest(name: str, found: Iterable[Any]) -> str | None:
    """Return the field that may be meant by `name`: in another case, an alias, a typing error."""
    folded = {
        re.sub(r"[\W_]", "", other).lower(): other
        for other in islice(found, _LOOKED_AT)
        if isinstance(other, str)
        and _NAME.fullmatch(other)
        and other not in Utterance.__struct_fields__
    }
    wanted = name.replace("_", "")
    for candidate in (wanted, *_ALIASES.get(name, ())):
        if candidate in folded:
            return folded[candidate]
    close = difflib.get_close_matches(wanted, list(folded), n=1, cutoff=0.8)
    return folded[close[0]] if close else None


def _names(found: Iterable[Any]) -> str:
    names = [
        name
        for name in islice(found, _LOOKED_AT)
        if isinstance(name, str) and _NAME.fullmatch(name)
    ]
    shown = ", ".join(f"`{name}`" for name in names[:_SHOWN])
    return f"{shown} and {len(names) - _SHOWN} more" if len(names) > _SHOWN else shown


def _safe(name: Any) -> str:
    """Return a field's name, unless it may be anything else than one."""
    return f"`{name}`" if isinstance(name, str) and _NAME.fullmatch(name) else "one of its fields"


def _quoted(text: str, named: str) -> str:
    inside = text.strip()
    if inside[:1] in ("{", "["):
        return (
            f"the value is JSON inside a {named} string, serialised twice. For text that is JSON "
            f"already set {STRING_SERIALIZER} (in Kafka Connect value.converter=org.apache.kafka."
            "connect.storage.StringConverter); give a JSON serializer the object, not its text"
        )
    if in_base64(inside.encode(errors="replace")):
        return f"the value is base64 inside a {named} string: send the decoded JSON itself"
    return (
        f"the value is a {named} string, no object: send an object with {', '.join(REQUIRED)} and "
        "text"
    )
