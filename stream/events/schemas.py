"""JSON Schemas of the event types and the AsyncAPI 3 document of the topics, from the types.

`docs/schema` holds what `emotrack schema export` writes; a test fails where they differ.
"""

from __future__ import annotations

import json
from typing import Any, Final

import msgspec

from stream.events.cloudevents import (
    ALERT_TYPE,
    COMPUTE_MS,
    CONTENT_TYPES,
    END_TO_END_MS,
    PREDICTION_TYPE,
    PRODUCED_AT,
    QUEUE_MS,
    STATE_MS,
    UTTERANCE_TYPE,
)
from stream.events.dead_letter import Dlq
from stream.events.messages import (
    RESERVED_FIELDS,
    PredictionEvent,
    ShiftAlert,
    TopicNames,
    Utterance,
)
from stream.events.poison import Reason

EVENT_TYPES: Final[dict[str, type[msgspec.Struct]]] = {
    UTTERANCE_TYPE: Utterance,
    PREDICTION_TYPE: PredictionEvent,
    ALERT_TYPE: ShiftAlert,
}
_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_BINDING: Final = "0.5.0"  # version of the Kafka binding
_TEXT: Final = {"type": "string"}
_TRACE: Final = {
    "traceparent": {**_TEXT, "description": "W3C trace context; passed on to what is caused."},
    "tracestate": {**_TEXT, "description": "passed on with traceparent."},
}


def documents() -> dict[str, dict[str, Any]]:
    """Return the schema of each event type and the AsyncAPI document, by name."""
    schemas = {event_type: schema_of(event_type) for event_type in EVENT_TYPES}
    return schemas | {"asyncapi": asyncapi()}


def as_text(document: dict[str, Any]) -> str:
    """Return a document as `emotrack schema export` writes it."""
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def schema_of(event_type: str) -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of one event type's data."""
    (reference,), components = msgspec.json.schema_components(
        [EVENT_TYPES[event_type]], ref_template="#/$defs/{name}"
    )
    name = reference["$ref"].rsplit("/", 1)[1]
    schema: dict[str, Any] = {"$schema": _DIALECT, "$id": f"urn:{event_type}"}
    schema |= _with_rules(event_type, components.pop(name))
    if components:
        schema["$defs"] = components
    return schema


def _with_rules(event_type: str, schema: dict[str, Any]) -> dict[str, Any]:
    """Return a type's schema with the rules between its fields, which the type cannot express."""
    if event_type != UTTERANCE_TYPE:
        return schema
    reserved = {"anyOf": [{"required": [field]} for field in RESERVED_FIELDS]}
    some = [{"required": ["text"]}, {"required": ["features"]}]
    return schema | {"anyOf": some, "not": reserved}


def asyncapi() -> dict[str, Any]:
    """Return the AsyncAPI document of the worker, on topics with the default prefix."""
    names = TopicNames()
    channels = {
        "utterances": (names.utterances, "What was said: producers write, the worker reads."),
        "predictions": (names.predictions, "One answer for each utterance."),
        "shiftAlerts": (names.shift_alerts, "Where the alert rule fired on a shift."),
        "deadLetters": (names.dead_letters, "Records that could not be answered, and why."),
    }
    _, schemas = msgspec.json.schema_components(
        list(EVENT_TYPES.values()), ref_template="#/components/schemas/{name}"
    )
    for event_type, kind in EVENT_TYPES.items():
        schemas[kind.__name__] = _with_rules(event_type, schemas[kind.__name__])
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "emotrack",
            "version": "1",
            "description": (
                "Utterances of live conversations in, emotions and shift alerts out. The record "
                "key is the conversation id, and the partition is murmur2 of it, as Java and "
                "kafka-python do (librdkafka: partitioner=murmur2_random). Events are CloudEvents "
                "1.0 in binary mode; structured mode (application/cloudevents+json), and plain "
                "JSON without headers, are accepted on the utterances topic."
            ),
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": CONTENT_TYPES["json"],
        "channels": {
            name: {
                "address": topic,
                "description": description,
                "messages": {name: {"$ref": f"#/components/messages/{name}"}},
                "bindings": {"kafka": {"topic": topic, "bindingVersion": _BINDING}},
            }
            for name, (topic, description) in channels.items()
        },
        "operations": {
            "readUtterances": _operation("receive", "utterances"),
            "writePredictions": _operation("send", "predictions"),
            "writeShiftAlerts": _operation("send", "shiftAlerts"),
            "writeDeadLetters": _operation("send", "deadLetters"),
        },
        "components": {"messages": _messages(), "schemas": dict(schemas)},
    }


def _operation(action: str, channel: str) -> dict[str, Any]:
    return {"action": action, "channel": {"$ref": f"#/channels/{channel}"}}


def _messages() -> dict[str, Any]:
    timing = {name: _TEXT for name in (QUEUE_MS, STATE_MS, COMPUTE_MS, END_TO_END_MS, PRODUCED_AT)}
    cause = {"ce_causationid": {**_TEXT, "description": "id of the utterance event"}}
    reason = {Dlq.REASON.value: {**_TEXT, "enum": [reason.value for reason in Reason]}}
    letter = reason | {name.value: _TEXT for name in Dlq if name != Dlq.REASON}
    return {
        "utterances": _event(UTTERANCE_TYPE, {}, required=False),
        "predictions": _event(PREDICTION_TYPE, timing),
        "shiftAlerts": _event(ALERT_TYPE, cause),
        "deadLetters": {
            "summary": "The record unchanged, with headers that name the reason and the origin.",
            "headers": {"type": "object", "properties": letter},
            "payload": {"description": "the original bytes; none where they did not fit"},
            "bindings": _key("the key unchanged"),
        },
    }


def _event(event_type: str, more: dict[str, Any], *, required: bool = True) -> dict[str, Any]:
    headers: dict[str, Any] = {
        "ce_specversion": {**_TEXT, "const": "1.0"},
        "ce_id": _TEXT,
        "ce_type": {**_TEXT, "const": event_type},
        "ce_source": _TEXT,
        "ce_time": {**_TEXT, "format": "date-time"},
        "content-type": {**_TEXT, "enum": list(CONTENT_TYPES.values())},
        **_TRACE,
        **more,
    }
    described: dict[str, Any] = {"type": "object", "properties": headers}
    if required:
        described["required"] = ["ce_specversion", "ce_id", "ce_type", "ce_source", "content-type"]
    return {
        "name": event_type,
        "headers": described,
        "payload": {"$ref": f"#/components/schemas/{EVENT_TYPES[event_type].__name__}"},
        "bindings": _key("the conversation id"),
    }


def _key(description: str) -> dict[str, Any]:
    key = {**_TEXT, "description": description}
    return {"kafka": {"key": key, "bindingVersion": _BINDING}}
