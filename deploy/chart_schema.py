"""Write what the chart's schema says of the settings: `python -m deploy.chart_schema`.

`settings` and `secretSettings` of `values.schema.json` follow from `stream.settings.Settings`; the
rest of that file is written by hand and kept.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Final

from stream.security import SETTING_OF_OPTION
from stream.settings import GROUP_OPTIONS, SECRETS, Settings

SCHEMA: Final = Path(__file__).parent / "helm/emotrack/values.schema.json"
OWN_VALUE: Final = {
    "bootstrap": "kafka.bootstrap",
    "group": "kafka.group",
    "topic_prefix": "kafka.topicPrefix",
    "redis_url": "redis.secretName",
    "redis_url_file": "redis.secretName",
    "drain_budget_s": "shutdown.drainSeconds",
    "start_wait_s": "startWaitSeconds",
    "device": "gpu.enabled",
    "metrics_host": "the chart",
    "metrics_port": "the chart",
}
"""Settings that a value of the chart's own sets."""
WHOLE: Final = "^(-?[0-9]+)?$"  # a number in quotes, or empty: not set
SECRET_OPTION: Final = "password|secret|jaas"
DECIMAL: Final = "^(-?[0-9]+(\\.[0-9]*)?([eE][-+]?[0-9]+)?)?$"
YES_OR_NO: Final = {"enum": [True, False, "true", "false", "True", "False", "1", "0", ""]}
HTTP: Final = {"type": "string", "pattern": "^(https?://[^@]+)?$"}  # user:password@host is refused


def document(values: dict[str, Any]) -> dict[str, Any]:
    """Return the chart's schema with the settings of this version in it."""
    fields = Settings.model_json_schema()["properties"]
    settings = {name: setting(name, field) for name, field in fields.items()}
    references = {name: taken(name) or {"$ref": "#/definitions/secretKey"} for name in fields}
    properties = values["properties"] | {
        "settings": closed(settings),
        "secretSettings": closed(references),
    }
    return values | {"properties": properties}


def closed(properties: dict[str, Any]) -> dict[str, Any]:
    """Return an object that has these properties and no others."""
    return {"type": "object", "additionalProperties": False, "properties": properties}


def setting(name: str, field: dict[str, Any]) -> dict[str, Any]:
    """Return what `settings` may give a field."""
    about = {"description": text} if (text := field.get("description")) else {}
    if name == "kafka_options":
        return about | options()
    if name in SECRETS:
        cure = f"secretSettings.{name}, or secretFiles and settings.{name}_file"
        return taken(name) or only(f"given by {cure}: it would stand in clear in the Deployment")
    return taken(name) or about | (HTTP if name == "trace_endpoint" else accepted(field))


def taken(name: str) -> dict[str, Any]:
    """Return the refusal of a setting that has a value of its own; empty where it has none."""
    return only(f"left out: it is set by {OWN_VALUE[name]}") if name in OWN_VALUE else {}


def only(cure: str) -> dict[str, Any]:
    """Return a schema that nothing fits; Helm's complaint is the cure and never shows the value."""
    return {"const": f"({cure})"}


def options() -> dict[str, Any]:
    """Return what `kafka_options` may be: an object, or JSON of one, without credentials."""
    settings = SETTING_OF_OPTION | GROUP_OPTIONS
    refused = "|".join(map(re.escape, settings))
    return {
        "type": ["object", "string"],
        "properties": {
            option: only(f"left out: it is {OWN_VALUE.get(name, f'settings.{name}')}")
            for option, name in settings.items()
        },
        "patternProperties": {SECRET_OPTION: only("given by secretSettings.kafka_options")},
        "additionalProperties": {"type": "string"},
        "pattern": "^(\\s*\\{[^\\0]*\\}\\s*)?$",
        "not": {"type": "string", "pattern": f'"({refused}|[^"]*({SECRET_OPTION})[^"]*)"\\s*:'},
    }


def accepted(field: dict[str, Any]) -> dict[str, Any]:
    """Return the values that the environment can hold for a field of pydantic's schema."""
    if "anyOf" in field:
        field = next(kind for kind in field["anyOf"] if kind["type"] != "null")
    if "enum" in field:
        return {"enum": [*field["enum"], ""]}
    kind = field["type"]
    if kind == "boolean":
        return YES_OR_NO
    if kind == "string":
        pattern = {"pattern": f"^({p.strip('^$')})?$"} if (p := field.get("pattern")) else {}
        return {"type": "string", **pattern}
    bounds = {key: value for key, value in field.items() if key.endswith(("imum", "Minimum"))}
    return {"type": [kind, "string"], **bounds, "pattern": WHOLE if kind == "integer" else DECIMAL}


def write(path: Path = SCHEMA) -> None:
    """Bring the file to this version's settings."""
    values = document(json.loads(path.read_text("utf-8")))
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", "utf-8")


if __name__ == "__main__":
    write()
