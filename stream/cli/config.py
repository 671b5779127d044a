"""`emotrack config`: the settings and their origins; secrets are masked."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import typer

from stream.cli.options import Bootstrap, ConfigFile, Model, Prefix, RedisUrl
from stream.settings import PREFIX, SECRETS, Settings, load_settings, masked_url, settings_file
from stream.worker.cpus import threads_fault, usable_cpus

Origin = Literal["flag", "environment", "file", "default"]
MASK: Final = "***"
config_app = typer.Typer(help="The settings, and where each comes from.")


@dataclass(frozen=True, slots=True)
class Shown:
    """A setting, with secrets masked, and the flag, variable or file it comes from."""

    name: str
    value: str
    origin: Origin
    source: str = ""
    note: str = ""  # where it has no effect beside the others, or another one


@config_app.command("show")
def show_config(
    context: typer.Context,
    bootstrap: Bootstrap = None,
    topic_prefix: Prefix = None,
    redis_url: RedisUrl = None,
    model: Model = None,
    config: ConfigFile = None,
) -> None:
    """Say each setting's value and where it comes from: flag, environment, file or default."""
    flags = {name: value for name, value in context.params.items() if name != "config"}
    for setting in shown_settings(flags, config):
        origin = f"{setting.origin} {setting.source}".rstrip()
        note = f"; {setting.note}" if setting.note else ""
        typer.echo(f"{setting.name} = {setting.value}  ({origin}{note})")
    if fault := threads_fault(load_settings(flags, config).threads, usable_cpus()):
        typer.echo(f"warning: {fault}", err=True)


def shown_settings(flags: Mapping[str, Any], file: Path | None = None) -> list[Shown]:
    """Return every setting in the order of `Settings`. Raises as `load_settings` does."""
    settings = load_settings(flags, file)
    path, from_file = settings_file(file)
    variables = {name.lower(): name for name, value in os.environ.items() if value}
    notes = notes_on(settings)
    shown = []
    for name in Settings.model_fields:
        key = name
        if name in SECRETS and getattr(settings, f"{name}_file", None) is not None:
            key = f"{name}_file"  # the value is the content of that file
        variable = variables.get(f"{PREFIX}{key}".lower())
        value, why = _masked(name, getattr(settings, name)), notes.get(name, "")
        if flags.get(key) is not None:
            shown.append(Shown(name, value, "flag", f"--{key.replace('_', '-')}", why))
        elif variable is not None:
            shown.append(Shown(name, value, "environment", variable, why))
        elif key in from_file:
            shown.append(Shown(name, value, "file", str(path), why))
        else:
            shown.append(Shown(name, value, "default", note=why))
    return shown


def notes_on(settings: Settings) -> dict[str, str]:
    """Return the settings that have no effect beside the others, or another one, and why."""
    found: dict[str, str] = {}
    if settings.runtime == "faust":
        found |= dict.fromkeys(("group_protocol", "kafka_options"), "not used by runtime faust")
    elif settings.mock_broker:
        found["group_protocol"] = "not used on a mock cluster, which has the classic one"
    elif settings.group_protocol == "consumer":
        found["session_timeout_ms"] = (
            "not used with group_protocol consumer: the broker and its group config decide, and "
            "`emotrack doctor` says the seconds"
        )
    elif settings.group_protocol == "auto":
        found["session_timeout_ms"] = (
            "the most that is accepted: `emotrack doctor` says the seconds on this broker"
        )
    return found


def _masked(name: str, value: Any) -> str:
    """Return a value as text; of a secret, only that there is one."""
    if value is None or value == {}:
        return "-"
    if name == "redis_url":
        return masked_url(value)
    if name == "kafka_options":
        return ", ".join(f"{option}={MASK}" for option in value)
    return MASK if name in SECRETS else str(value)
