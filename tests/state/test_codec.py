"""The stored bytes, pinned: a change here is a change of format, and needs a new version."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from state.codec import (
    Append,
    Codec,
    Entries,
    decode_output,
    encode_output,
    key_tag,
    partition_tag,
    stored_int,
)
from state.store import Save, StoredOutput
from state.window import LAYOUT, Applied, Change, Conversation, StateKey, StateSpec, apply, open_at
from stream.answers.output_dictionary import OUTPUT_DICTIONARY

Make = Callable[..., StateSpec]
Say = Callable[..., Change]
KEY = StateKey("c", "t", 0)
OUTPUT = StoredOutput("predicted", b"{}")
GOLDEN = {
    b"m": (
        "01e1e7158a0000000000000102000001a0c4506c00000001a0c4506c00000000000000010200000000000000"
        "0305000000010000000136c4281e41"
    ),
    b"c": ("0146be53a7000000010001020304050607"),
    b"sada": ("012ba4cc8c00000000000475323538000102030405060708090a0b"),
}
GOLDEN_ROW = "01bcfb47f6000000000004000375323538616461000102030405060708090a0b0c0d0e0f101112131415"
GOLDEN_ID = "322ca5dd13860009" + b"ABCDEFGH".hex()
GOLDEN_OUTPUT = "000000000000010201f43c915000707265646963746564007b7d"
GOLDEN_DICTIONARY = 4180172934
GOLDEN_TAG = "SUjIxoG5aqXBL1LrW6It"
GOLDEN_PARTITION_TAG = "zlEPwTmaIY62Q1agr1YX"
GOLDEN_DEFLATED = (
    "000000000000010201693564b801ad94570ec2300c404f84e499711c778453f4ee38a0b429a3a08adf7849f6"
    "7b39e677bc00007afddaecb197c77b0d8a077740dbb55272bfeb8eea006c65b2100d84cb8c31c581464e9365"
    "5483d14b36ea1b1a0da457e231e644eab33bec4959543af631670e9ed309c0d1b3560b4840c0333a15503266"
    "cf587dc0da857dd57b295a696f46f7b17cb20128b1c4734a6c5ba7633bbedbe05b7a4ffc36a3b25a9ee047fa"
    "1bfdc12c478d3cf0cc43d0a03005132b3ef5172b184fe2efa76df893a665b901"
)
GOLDEN_JSON = (
    b'{"conversation_id":"c-0001","utterance_id":"c-0001-0004","speaker_id":"agent",'
    b'"prediction_id":"603afda67a043fe1787b2c38da915a0c","emotion":"joy","probabilities":'
    b'{"neutral":0.179825,"surprise":0.253454,"fear":0.019936,"sadness":0.037253,'
    b'"joy":0.240406,"disgust":0.149193,"anger":0.119933},"confidence":0.240406,"sentiment":'
    b'"positive","shift":{"probability":0.028347,"from":"neutral","to":"joy",'
    b'"previous_utterance_id":"c-0001-0002"},"modalities_used":["text","persona"],"context":'
    b'{"utterances":4,"oldest_utterance_id":"c-0001-0000","first_position":12,"truncated":'
    b'false},"model":{"name":"pcgnet","version":"0.1.0","digest":"6aa97573b3e3b65650d6a4af",'
    b'"calibration":"temperature(emotion=1.31)"},"input":{"topic":"emotrack.utterances",'
    b'"partition":3,"offset":258}}'
)


def append_of(spec: StateSpec) -> Append:
    """The first utterance of a conversation, its arrays counting upwards."""
    opening = open_at(None, spec=spec, timestamp_ms=1_790_000_000_000, offset=258, truncated=True)
    sizes = (spec.row_bytes, spec.conversation_bytes, spec.speaker_bytes)
    row, arrays, speaker = (np.arange(n, dtype=np.uint8) for n in sizes)
    change = apply(
        opening,
        Applied(row, arrays, speaker),
        recurrence=spec.recurrence,
        utterance_id="u258",
        fields=b"ABCDEFGH",
        speaker_id="ada",
        offset=258,
        timestamp_ms=1_790_000_000_000,
        seq=3,
        alert=b"A",
    )
    return Codec(spec).encode(Save(KEY, 9, -1, change, OUTPUT, 258))


def entries_of(append: Append) -> Entries:
    head = {b"t": b"%d" % append.save.token, b"o": b"%d" % append.offset, b"d": append.digest}
    return Entries(list(append.rows), head | append.fields, [append.ids], [append.output])


def test_the_bytes_of_a_state_are_those_of_layout_2(make_spec: Make) -> None:
    """Layout 2 added the digest of the fields to each id, so the checksum in `m` is another one.

    Layout 1 is foreign by its digest, never decoded: the entries' own version stays 1, so that
    outputs stored before an upgrade are still replayed after it.
    """
    assert LAYOUT == 2, "a change of these bytes needs another layout"
    append = append_of(make_spec())
    assert {name: value.hex() for name, value in append.fields.items()} == GOLDEN
    assert [row.hex() for row in append.rows] == [GOLDEN_ROW]
    assert append.ids.hex() == GOLDEN_ID
    assert append.output.hex() == GOLDEN_OUTPUT


def test_the_digest_in_the_hash_is_that_of_the_spec(make_spec: Make) -> None:
    spec = make_spec()
    assert append_of(spec).digest.hex() == spec.digest


def test_format_1_is_still_read(make_spec: Make) -> None:
    """Literal bytes of a whole output, deflated by the zlib of the day it was pinned."""
    offset, output = decode_output(bytes.fromhex(GOLDEN_DEFLATED), OUTPUT_DICTIONARY)
    assert offset == 258
    assert output == StoredOutput("predicted", GOLDEN_JSON)


def test_the_dictionary_of_format_1_never_changes() -> None:
    """A byte changed in it makes outputs unreadable that are already stored."""
    assert zlib.crc32(OUTPUT_DICTIONARY) == GOLDEN_DICTIONARY


def test_tags_of_keys_never_change() -> None:
    """Another tag would lose every state at an upgrade."""
    assert key_tag(StateKey("caf\u00e9", "t", 3)) == GOLDEN_TAG
    assert partition_tag("t", 3) == GOLDEN_PARTITION_TAG


@given(
    parts=st.lists(
        st.tuples(st.text(max_size=6), st.text(max_size=6), st.integers(0, 300)),
        unique=True,
        max_size=20,
    )
)
def test_tags_differ_where_keys_differ(parts: list[tuple[str, str, int]]) -> None:
    tags = {key_tag(StateKey(*p)) for p in parts}
    assert len(tags) == len(parts)
    assert all(len(tag) == 20 and tag.isascii() and "{" not in tag for tag in tags)


def test_an_entry_of_a_newer_version_is_refused_by_number(make_spec: Make) -> None:
    spec = make_spec()
    entries = entries_of(append_of(spec))
    newer = b"\x02" + entries.fields[b"m"][1:]
    loaded = Codec(spec).decode(KEY, replace(entries, fields=entries.fields | {b"m": newer}))
    assert "format version 2, this build reads 1" in (loaded.corrupt or "")


def test_a_state_mixed_from_two_sessions_is_corrupt(make_spec: Make, say: Say) -> None:
    """Each part is whole and has a valid checksum; only together are they wrong."""
    spec = make_spec(window=2)
    codec = Codec(spec)
    first = say(spec, None, 0).after
    second = say(spec, first, 1).after
    third = say(spec, second, 2).after
    old = [codec.encode(whole_save(c)) for c in (first, second, third)]
    mixed = entries_of(old[2])
    mixed.rows[:] = old[1].rows
    assert "rows are not those of one session" in (codec.decode(KEY, mixed).corrupt or "")
    mixed = entries_of(old[2])
    mixed.fields[b"c"] = old[1].fields[b"c"]
    assert "arrays of another utterance" in (codec.decode(KEY, mixed).corrupt or "")
    mixed = entries_of(old[2])
    mixed.fields[b"sada"] = old[1].fields[b"sada"]
    assert "the last speaker is missing" in (codec.decode(KEY, mixed).corrupt or "")


def whole_save(after: Conversation) -> Save:
    return Save(KEY, 1, -1, Change(after), OUTPUT, 0)


def test_arrays_of_another_size_are_never_written(make_spec: Make, say: Say) -> None:
    small = make_spec()
    large = replace(small, utterance=small.utterance * 2)
    with pytest.raises(ValueError, match="a row has 22 bytes, not 44"):
        Codec(large).encode(whole_save(say(small, None, 0).after))
    large = replace(small, speaker=small.speaker * 2)
    with pytest.raises(ValueError, match="the arrays of a speaker have 12 bytes, not 24"):
        Codec(large).encode(whole_save(say(small, None, 0).after))


@given(
    garbage=st.lists(st.binary(max_size=90), max_size=4),
    fields=st.dictionaries(
        st.sampled_from([b"t", b"o", b"d", b"m", b"c", b"s", b"sx"]), st.binary(max_size=90)
    ),
    at=st.integers(-1, 300),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_garbage_never_decodes_and_never_crashes(
    make_spec: Make, garbage: list[bytes], fields: dict[bytes, bytes], at: int
) -> None:
    spec = make_spec()
    head = {b"o": b"%d" % at, b"d": bytes.fromhex(spec.digest)}
    entries = Entries(garbage, fields | head, garbage, garbage)
    loaded = Codec(spec).decode(KEY, entries)
    assert "'c'" in (loaded.corrupt or "")
    assert (loaded.conversation, loaded.foreign, loaded.outputs) == (None, True, {})


@given(
    offset=st.integers(0, 2**53),
    outcome=st.text(st.characters(codec="ascii", exclude_characters="\0")),
    payload=st.binary(max_size=400),
)
def test_an_output_decodes_to_what_was_encoded(offset: int, outcome: str, payload: bytes) -> None:
    output = StoredOutput(outcome, payload)
    assert decode_output(encode_output(offset, output, b""), b"") == (offset, output)


@given(at=st.integers(0, 500), flip=st.integers(1, 255), size=st.sampled_from([0, 40, 300]))
def test_one_changed_byte_of_an_output_never_passes(at: int, flip: int, size: int) -> None:
    member = bytearray(encode_output(5, StoredOutput("predicted", b"ab" * size), b""))
    member[at % len(member)] ^= flip
    with pytest.raises(ValueError, match=r"checksum|version"):
        decode_output(bytes(member), b"")


@pytest.mark.parametrize("text", [None, b"", b"-", b"1.0", b"0x1", b" 1", b"1" * 17, b"\xff"])
def test_a_field_that_is_no_decimal_counts_as_missing(text: bytes | None) -> None:
    assert stored_int(text) is None


@pytest.mark.parametrize("number", [-1, 0, 7, 1_795_334_589_232_984])
def test_decimals_are_read_as_written(number: int) -> None:
    assert stored_int(b"%d" % number) == number


def test_a_stored_prediction_takes_a_third_of_its_bytes() -> None:
    stored = encode_output(258, StoredOutput("predicted", GOLDEN_JSON), OUTPUT_DICTIONARY)
    assert len(stored) < len(GOLDEN_JSON) / 3
