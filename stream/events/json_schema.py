"""JSON Schema of the event types, generated from the types themselves.

`docs/schema` holds what `emotrack schema export` writes; a test fails where they differ.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from stream.events.cloudevents import ALERT_TYPE, PREDICTION_TYPE, UTTERANCE_TYPE
from stream.events.messages import RESERVED_FIELDS, PredictionEvent, ShiftAlert, Utterance

EVENT_TYPES: Final[dict[str, type[msgspec.Struct]]] = {
    UTTERANCE_TYPE: Utterance,
    PREDICTION_TYPE: PredictionEvent,
    ALERT_TYPE: ShiftAlert,
}
_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"


def schema_of(event_type: str) -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of one event type's data."""
    (reference,), components = msgspec.json.schema_components(
        [EVENT_TYPES[event_type]], ref_template="#/$defs/{name}"
    )
    name = reference["$ref"].rsplit("/", 1)[1]
    schema: dict[str, Any] = {"$schema": _DIALECT, "$id": f"urn:{event_type}"}
    schema |= with_rules(event_type, components.pop(name))
    if components:
        schema["$defs"] = components
    return schema


def with_rules(event_type: str, schema: dict[str, Any]) -> dict[str, Any]:
    """A type's schema with the rules between its fields, which the type cannot say."""
    if event_type != UTTERANCE_TYPE:
        return schema
    reserved = {"anyOf": [{"required": [field]} for field in RESERVED_FIELDS]}
    some = [{"required": ["text"]}, {"required": ["features"]}]
    return schema | {"anyOf": some, "not": reserved}


def schema_text(event_type: str) -> str:
    """The schema as the file of `export` holds it."""
    return json.dumps(schema_of(event_type), indent=2, ensure_ascii=False) + "\n"


def export(folder: Path, more: Mapping[str, str] | None = None) -> list[Path]:
    """Write one file for each event type, and `more` files by name; return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    texts = {f"{event_type}.json": schema_text(event_type) for event_type in EVENT_TYPES}
    for name, text in (texts | dict(more or {})).items():
        path = folder / name
        path.write_text(text, encoding="utf-8")
        written.append(path)
    return written
