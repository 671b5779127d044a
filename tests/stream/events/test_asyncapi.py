"""The published AsyncAPI document is an AsyncAPI document, and says what the types say."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest

from stream.events.messages import TopicNames
from stream.events.schemas import EVENT_TYPES, as_text, asyncapi, schema_of
from tests.conftest import ROOT

SPECIFICATION = ROOT / ".servers/asyncapi/3.0.0.json"


@pytest.fixture(scope="module")
def specification() -> dict[str, Any]:
    """AsyncAPI's own JSON Schema, which `make servers` gets."""
    if not SPECIFICATION.exists():
        if os.environ.get("CI") == "true":
            pytest.fail("CI must have AsyncAPI's schema: make servers")
        pytest.skip("AsyncAPI's schema is not here: make servers")
    loaded: dict[str, Any] = json.loads(SPECIFICATION.read_text("utf-8"))
    return loaded


def test_the_committed_document_has_not_drifted_from_the_types() -> None:
    """`emotrack schema export docs/schema` writes it again."""
    assert (ROOT / "docs/schema/asyncapi.json").read_text("utf-8") == as_text(asyncapi())


def test_it_is_valid_by_the_standards_own_schema(specification: dict[str, Any]) -> None:
    validator = jsonschema.Draft7Validator(specification)
    assert [error.message for error in validator.iter_errors(asyncapi())] == []


@pytest.mark.parametrize(
    ("part", "value"),
    [("asyncapi", "2.6.0"), ("operations", {"x": {"action": "shout"}}), ("channels", [])],
)
def test_what_the_standard_forbids_is_found(
    part: str, value: object, specification: dict[str, Any]
) -> None:
    """Else the test above could not fail."""
    assert not jsonschema.Draft7Validator(specification).is_valid(asyncapi() | {part: value})


def references(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        for name, inner in part.items():
            if name == "$ref":
                yield inner
            else:
                yield from references(inner)
    elif isinstance(part, list):
        for inner in part:
            yield from references(inner)


def test_every_reference_leads_somewhere() -> None:
    whole = asyncapi()
    found = set(references(whole))
    assert len(found) >= 10
    for reference in found:
        at: Any = whole
        for step in reference.removeprefix("#/").split("/"):
            at = at[step]
        assert isinstance(at, dict)


def test_the_channels_are_the_topics() -> None:
    names = TopicNames()
    addresses = {channel["address"] for channel in asyncapi()["channels"].values()}
    assert addresses == {
        names.utterances,
        names.predictions,
        names.shift_alerts,
        names.dead_letters,
    }


@pytest.mark.parametrize("event_type", EVENT_TYPES)
def test_a_payload_is_the_json_schema_of_its_type(event_type: str) -> None:
    alone = schema_of(event_type)
    there = asyncapi()["components"]["schemas"][EVENT_TYPES[event_type].__name__]
    same = json.dumps(there).replace("#/components/schemas/", "#/$defs/")
    for part in ("properties", "required", "anyOf", "not"):
        assert json.loads(same).get(part) == alone.get(part)
