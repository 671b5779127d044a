"""The published schemas are the types."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from stream.events.decode import pack
from stream.events.messages import Features, FeatureVector, Utterance, encode
from stream.events.schemas import EVENT_TYPES, as_text, documents, schema_of

DOCS = Path(__file__).parents[3] / "docs/schema"
UTTERANCE = schema_of("emotrack.utterance.v1")


def valid(event: dict[str, Any]) -> bool:
    return bool(jsonschema.Draft202012Validator(UTTERANCE).is_valid(event))


@pytest.mark.parametrize("event_type", EVENT_TYPES)
def test_the_committed_schema_has_not_drifted_from_the_types(event_type: str) -> None:
    """`emotrack schema export docs/schema` writes it again; a change of contract is then seen."""
    assert (DOCS / f"{event_type}.json").read_text("utf-8") == as_text(schema_of(event_type))


@pytest.mark.parametrize("event_type", EVENT_TYPES)
def test_each_schema_is_a_schema(event_type: str) -> None:
    jsonschema.Draft202012Validator.check_schema(schema_of(event_type))


def test_what_we_encode_is_valid() -> None:
    vector = FeatureVector(pack(np.arange(3.0), "float16"), "e")
    event = Utterance("c", "u", "s", 1, "agent", "hi", Features(vector), persona=[0.1] * 5)
    assert valid(json.loads(encode(event)))


def test_ids_text_or_features_and_no_reserved_field_are_required() -> None:
    ids = {"conversation_id": "c", "utterance_id": "u", "speaker_id": "s"}
    assert valid(ids | {"text": "hi", "unknown": 1})
    assert not valid(ids)
    assert not valid({"text": "hi"})
    assert not valid(ids | {"text": "hi", "speaker_id": ""})
    assert not valid(ids | {"text": "hi", "is_partial": False})


def test_there_is_a_document_for_each_event_type_and_one_for_the_topics() -> None:
    assert set(documents()) == {*EVENT_TYPES, "asyncapi"}
