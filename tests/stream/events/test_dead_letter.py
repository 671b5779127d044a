"""A dead letter holds what came, and says why and from where."""

from __future__ import annotations

from stream.events.dead_letter import MAX_RECORD_BYTES, dead_letter
from stream.events.poison import Poison, Reason
from stream.ports import Record

POISON = Poison(Reason.BAD_JSON, "the value is not JSON")


def record(value: bytes = b"{", headers: tuple[tuple[str, bytes], ...] = ()) -> Record:
    return Record("utterances", 3, 41, 1_000, b"key", value, headers)


def test_key_bytes_and_headers_are_as_they_came() -> None:
    came = (("app", b"\xff\x00"), ("ce_id", b"7"))
    letter = dead_letter(record(b"\x00{", came), POISON, topic="dead")
    assert (letter.topic, letter.key, letter.value) == ("dead", b"key", b"\x00{")
    assert letter.headers[: len(came)] == came


def test_it_names_its_reason_and_origin() -> None:
    said = dict(dead_letter(record(), POISON, topic="dead").headers)
    assert said == {
        "emotrack_dlq_id": b"utterances-3-41",
        "emotrack_dlq_reason": b"bad_json",
        "emotrack_dlq_class": b"encoding",
        "emotrack_dlq_message": b"the value is not JSON",
        "emotrack_dlq_topic": b"utterances",
        "emotrack_dlq_partition": b"3",
        "emotrack_dlq_offset": b"41",
    }


def test_a_value_that_is_too_large_goes_by_reference() -> None:
    letter = dead_letter(record(b"x" * 10), Poison(Reason.TOO_LARGE, "too large"), topic="dead")
    assert letter.value is None
    assert letter.key == b"key"
    assert dict(letter.headers)["emotrack_dlq_omitted"] == b"body"


def test_a_dead_letter_always_fits_its_topic() -> None:
    huge = (("app", b"x" * (3 << 20)),)
    letter = dead_letter(record(b"x" * 100, huge), POISON, topic="dead")
    size = len(letter.value or b"") + sum(len(n) + len(v or b"") for n, v in letter.headers)
    assert size < MAX_RECORD_BYTES
    assert dict(letter.headers)["emotrack_dlq_omitted"] == b"body,headers"


def test_every_reason_has_a_class() -> None:
    classes = {reason.error_class for reason in Reason}
    assert classes == {"encoding", "envelope", "schema", "tensor", "size", "model"}
