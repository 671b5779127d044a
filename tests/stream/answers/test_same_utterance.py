"""The digest of an utterance's fields: the values that were decoded, whatever their form."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from state.window import FIELDS_BYTES
from stream.answers.same_utterance import NO_WORDS, WORDS, fields_digest, repeats
from stream.events.decode import parse
from stream.events.messages import Features, FeatureVector, PackedTensor, Utterance

IDS: dict[str, Any] = {"conversation_id": "c", "utterance_id": "u", "speaker_id": "ann"}
FULL: dict[str, Any] = IDS | {
    "text": "no, never",
    "seq": 3,
    "speaker_role": "customer",
    "persona": [0.5, 0.25, 1, 0, -1],
    "start_ms": 10,
    "end_ms": 20,
    "event_time": "2026-01-01T00:00:00Z",
    "language": "en",
    "end_of_conversation": True,
    "features": {
        "text": {"tensor": [1.0, 2.0]},
        "audio": {"tensor": [0.5, -2.0, 0.1], "extractor": "a v1"},
        "video": {"tensor": [3.0]},
    },
}


def of(fields: Mapping[str, Any], encoding: str = "json") -> bytes:
    if encoding == "json":
        return fields_digest(parse(json.dumps(fields).encode(), "json"))
    return fields_digest(parse(msgspec.msgpack.encode(fields), "msgpack"))


def vector(values: Any, dtype: str, *, json_form: bool) -> dict[str, Any]:
    if dtype == "bfloat16":
        data = (np.asarray(values, "<f4").view("<u4") >> 16).astype("<u2").tobytes()
    else:
        data = np.asarray(values, {"float16": "<f2", "float32": "<f4"}[dtype]).tobytes()
    coded: Any = base64.b64encode(data).decode() if json_form else data
    return {"tensor": {"dtype": dtype, "shape": [len(values)], "data": coded}}


def test_the_form_on_the_wire_does_not_enter() -> None:
    backwards = dict(reversed(FULL.items()))
    absent = FULL | {"language": None, "unknown_to_us": {"x": 1}}
    assert len(of(FULL)) == FIELDS_BYTES
    assert of(FULL) == of(FULL, "msgpack") == of(backwards) == of(backwards, "msgpack")
    assert of(absent) == of({name: v for name, v in absent.items() if name != "language"})
    spoken = IDS | {"text": "no"}
    nothing: dict[str, Any] = {
        "features": {},
        "seq": None,
        "end_of_conversation": False,
        "persona": None,
    }
    assert of(spoken) == of(spoken | nothing)
    assert of(IDS | {"features": {"text": {"tensor": [1.0]}}}) == of(
        IDS | {"text": " ", "features": {"text": {"tensor": [1.0]}, "audio": None}}
    )


@given(st.lists(st.integers(-255, 255).map(lambda n: n / 4), min_size=1, max_size=40))
def test_a_vector_has_one_digest_in_every_form_that_holds_its_numbers(values: list[float]) -> None:
    """Eight significant bits fit into all of float16, bfloat16 and float32."""
    forms = [{"tensor": values}]
    forms += [vector(values, d, json_form=True) for d in ("float16", "bfloat16", "float32")]
    packed = [vector(values, d, json_form=False) for d in ("float16", "bfloat16", "float32")]
    for modality in ("text", "audio", "video"):
        digests = {of(IDS | {"features": {modality: form}}) for form in forms}
        digests |= {of(IDS | {"features": {modality: form}}, "msgpack") for form in packed}
        assert len(digests) == 1


def test_numbers_that_float16_does_not_hold_are_not_rounded() -> None:
    for values in ([0.1], [1e6], [1.0, 0.1]):
        wide = of(IDS | {"features": {"audio": {"tensor": values}}})
        packed = vector(values, "float32", json_form=True)
        assert of(IDS | {"features": {"audio": packed}}) == wide
        with np.errstate(over="ignore"):
            narrow = vector(values, "float16", json_form=True)
        assert of(IDS | {"features": {"audio": narrow}}) != wide


OTHER: dict[str, Any] = {
    "speaker_id": "bob",
    "text": "no, never!",
    "seq": 4,
    "speaker_role": "agent",
    "persona": [0.5, 0.25, 1, 0, -0.5],
    "start_ms": 11,
    "end_ms": 21,
    "event_time": 1767225600000,
    "language": "de",
    "end_of_conversation": False,
}


@pytest.mark.parametrize("name", OTHER)
def test_each_field_enters(name: str) -> None:
    assert of(FULL) != of(FULL | {name: OTHER[name]})


def test_every_field_of_an_utterance_is_tried_above() -> None:
    apart = {"conversation_id", "utterance_id", "features"}
    assert set(Utterance.__struct_fields__) == apart | set(OTHER)


@pytest.mark.parametrize("modality", ["text", "audio", "video"])
def test_each_vector_and_its_extractor_enter(modality: str) -> None:
    of_one = FULL["features"][modality]
    for other in (
        of_one | {"tensor": [9.0, *of_one["tensor"][1:]]},
        of_one | {"extractor": "another"},
        None,
    ):
        assert of(FULL) != of(FULL | {"features": FULL["features"] | {modality: other}})


def test_vectors_are_not_exchanged_with_each_other() -> None:
    """The hash runs over joined numbers: it also knows where one vector ends."""
    joined = Features(audio=FeatureVector([1.0, 2.0]), video=FeatureVector([3.0]))
    shifted = Features(audio=FeatureVector([1.0]), video=FeatureVector([2.0, 3.0]))
    swapped = Features(audio=FeatureVector([3.0]), video=FeatureVector([1.0, 2.0]))
    digests = {fields_digest(Utterance("c", "u", "ann", features=f)) for f in (joined, shifted)}
    assert len(digests | {fields_digest(Utterance("c", "u", "ann", features=swapped))}) == 3


def test_the_ids_that_chose_what_is_compared_do_not_enter() -> None:
    said = Utterance("c", "u", "ann", text="hi")
    other = structs.replace(said, conversation_id="d", utterance_id="v")
    assert fields_digest(said) == fields_digest(other)


def test_how_a_record_relates_to_the_one_applied_under_its_id() -> None:
    text = of(IDS | {"text": "no"})
    voice = of(IDS | {"features": {"audio": {"tensor": [1.0]}}})
    both = of(IDS | {"text": "no", "features": {"audio": {"tensor": [1.0]}}})
    words = of(IDS | {"features": {"text": {"tensor": [1.0]}}})
    assert repeats(text, text) == "utterance_id"
    assert repeats(text, both) == repeats(both, text) == "late_fields"
    assert repeats(text, voice) == repeats(voice, text) == "late_fields", "no words to compare"
    assert repeats(text, words) == repeats(words, text) == "late_fields", "no words in common"
    assert repeats(text, of(IDS | {"text": "yes"})) == "other_utterance"
    assert repeats(words, of(IDS | {"features": {"text": {"tensor": [2.0]}}})) == "other_utterance"
    for digest in (text, voice, both, words):
        bob = of({**IDS, "speaker_id": "bob", "text": "no"})
        assert repeats(digest, bob) == repeats(bob, digest) == "other_utterance"


@given(text=st.text(max_size=8).filter(lambda text: text != "" and not text.isspace()))
def test_words_are_never_taken_for_none(text: str) -> None:
    assert fields_digest(Utterance("c", "u", "ann", text=text))[WORDS] != NO_WORDS


def test_a_packed_float16_vector_is_hashed_as_it_is() -> None:
    """The recommended form is on the path of every utterance: it is not converted."""
    data = np.asarray([1.0, 0.1], "<f2").tobytes()
    packed = PackedTensor("float16", (2,), data)
    said = Utterance("c", "u", "ann", features=Features(audio=FeatureVector(packed)))
    listed = np.frombuffer(data, "<f2").astype(float).tolist()
    assert fields_digest(said) == of(IDS | {"features": {"audio": {"tensor": listed}}})
