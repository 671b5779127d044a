"""Read an utterance that the typed decoder refused: what no answer depends on costs no answer.

Only records that failed come here, so nothing in this file is on the path of a good one. A function
of the record alone: worker, rebuild and verifier read the same utterance and the same flags.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from stream.events.cloudevents import BOM, Encoding
from stream.events.messages import (
    IGNORABLE_FIELDS,
    IGNORED_FLAG,
    REPAIRED_TEXT,
    RESERVED_FIELDS,
    FlaggedUtterance,
    Utterance,
    in_range,
)
from stream.events.poison import Reason, Rejected
from stream.events.recognise import bad_object, bad_value, misfit, not_text

IDS: Final = ("conversation_id", "utterance_id", "speaker_id")
_WHOLE: Final = ("seq", "start_ms", "end_ms", "event_time")
_TEXTS: Final = ("speaker_role", "language", "event_time")
_RESERVED_CURE: Final = {
    "is_partial": "send final utterances only, without it",
    "consent": "send only what may be analysed, without it",
}
_PAIR: Final = re.compile("[\ud800-\udbff][\udc00-\udfff]")
_HALF: Final = re.compile("[\ud800-\udfff]")
_DIGITS: Final = 400  # a float has at most 309 before its point
_STRING_HEADS: Final = {0xD9: 2, 0xDA: 3, 0xDB: 5}  # bytes before the text of MessagePack's str
_TOO_DEEP: Final = "nested too deep: an utterance needs four levels, no more"


def read_leniently(value: bytes, encoding: Encoding) -> Utterance:
    """Read an utterance's fields, to be checked by `check`; flagged where something was left out.

    Whole floats are taken as integers. A null is an absent field. A field of `IGNORABLE_FIELDS`
    that does not fit is left out. Half a surrogate pair in a text becomes U+FFFD. Raises
    `Rejected`, with a sentence that names what the record holds.
    """
    try:
        fields = _json(value) if encoding == "json" else _msgpack(value)
    except RecursionError:
        raise Rejected(Reason.TOO_DEEP, _TOO_DEEP) from None
    for field in RESERVED_FIELDS:
        if fields.get(field) is not None:
            raise Rejected(
                Reason.UNSUPPORTED_FIELD,
                f"field `{field}` is reserved and not supported yet: {_RESERVED_CURE[field]}",
            )
    known = {name: fields[name] for name in Utterance.__struct_fields__ if name in fields}
    if known.get("end_of_conversation", False) is None:
        del known["end_of_conversation"]
    flags = [f"{IGNORED_FLAG}{name}" for name in IGNORABLE_FIELDS if not _fit(known, name)]
    repaired = _repaired(known)
    if repaired:
        flags.append(REPAIRED_TEXT)
    utterance = _typed(known, fields, encoding)
    if not flags:
        return utterance
    return FlaggedUtterance(*(*msgspec.structs.astuple(utterance), tuple(flags)))


def _json(value: bytes) -> dict[Any, Any]:
    text = value.removeprefix(BOM)
    try:  # `surrogatepass`: half a pair, or pairs as Java's modified UTF-8 has them
        found = json.loads(text.decode("utf-8", "surrogatepass"), parse_int=_whole_number)
    except ValueError as error:
        raise bad_value(text, "json", error) from None
    if not isinstance(found, dict):
        raise bad_object(found, "json")
    return found


def _whole_number(digits: str) -> int | float:
    """Return an integer; infinity for one that fits no field, of which Python refuses to read."""
    return int(digits) if len(digits) <= _DIGITS else float(digits)


def _msgpack(value: bytes) -> dict[Any, Any]:
    try:
        found = msgspec.msgpack.decode(value)
    except UnicodeDecodeError as error:
        found = _with_surrogates(value, error)
    except (ValueError, msgspec.DecodeError, TypeError) as error:
        raise bad_value(value, "msgpack", error) from None
    if isinstance(found, dict):
        return found
    if value.startswith(b"{"):  # the number 123 in MessagePack
        raise bad_value(value, "msgpack", None)
    raise bad_object(found, "msgpack")


def _with_surrogates(value: bytes, error: UnicodeDecodeError) -> dict[str, Any]:
    """Read fields one by one, those of text with halves of surrogate pairs, as JavaScript has them.

    Raises `Rejected` where another encoding is in a field, or text is so further inside.
    """
    try:
        raw = msgspec.msgpack.decode(value, type=dict[str, msgspec.Raw])
    except (UnicodeDecodeError, msgspec.DecodeError):
        raise bad_value(value, "msgpack", error) from None
    found: dict[str, Any] = {}
    for name, field in raw.items():
        try:
            found[name] = msgspec.msgpack.decode(field)
        except UnicodeDecodeError as inner:
            text = bytes(field)
            head = 1 if text[0] & 0xE0 == 0xA0 else _STRING_HEADS.get(text[0], 0)
            try:
                found[name] = text[head:].decode("utf-8", "surrogatepass")
            except UnicodeDecodeError:
                raise not_text(name, inner) from None
    return found


def _fit(fields: dict[str, Any], name: str) -> bool:
    """Make a field fit its type in place; remove it, and return False, where it does not."""
    value = fields.get(name)
    if name in _WHOLE and isinstance(value, float) and value.is_integer():
        value = fields[name] = int(value)
    whole = name in _WHOLE and isinstance(value, int) and not isinstance(value, bool)
    if value is None or (name in _TEXTS and isinstance(value, str)):
        return True
    if whole and (name != "seq" or in_range(value)):
        return True
    del fields[name]
    return False


def _repaired(fields: dict[str, Any]) -> bool:
    """Join surrogate pairs of strings in place; return whether the text had half of one."""
    lost = False
    for name, value in fields.items():
        if not isinstance(value, str) or _encodable(value):
            continue
        joined = _PAIR.sub(_character, value)
        fields[name], halves = _HALF.subn("\ufffd", joined)
        if not halves:
            continue  # whole pairs: nothing is lost
        if name in IDS:  # two ids must not become one
            raise Rejected(
                Reason.BAD_JSON,
                f"field `{name}` holds half of a surrogate pair, which is no character: cut ids "
                "between characters, not inside one",
            )
        lost = lost or name == "text"
    return lost


def _character(pair: re.Match[str]) -> str:
    return pair[0].encode("utf-16-le", "surrogatepass").decode("utf-16-le")


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _typed(known: Mapping[str, Any], fields: Mapping[Any, Any], encoding: Encoding) -> Utterance:
    """Return the known fields as an utterance. Raises `Rejected`."""
    builtin = (bytes,) if encoding == "msgpack" else ()  # in JSON bytes are base64
    try:
        return msgspec.convert(known, Utterance, builtin_types=builtin)
    except msgspec.ValidationError as error:
        message = str(error)
    except OverflowError:
        message = "Number out of range"
    if "missing required field" in message:
        raise bad_object(fields, encoding)
    raise misfit(message, encoding)
