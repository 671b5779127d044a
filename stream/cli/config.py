"""`emotrack config`: the settings, and where each comes from; secrets are masked."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import typer

from stream.cli.options import Bootstrap, Prefix
from stream.settings import PREFIX, SECRETS, Settings, load_settings, masked_url, settings_file

Origin = Literal["flag", "environment", "file", "default"]
MASK: Final = "***"
config_app = typer.Typer(help="The settings, and where each comes from.")


@dataclass(frozen=True, slots=True)
class Shown:
    """One setting: its value as it may be shown, and where it was found (a variable, a file)."""

    name: str
    value: str
    origin: Origin
    where: str = ""


def shown_settings(flags: Mapping[str, Any], file: Path | None = None) -> list[Shown]:
    """Every setting in the order of `Settings`. Raises `ConfigError` as `load_settings` does."""
    settings = load_settings(flags, file)
    path, from_file = settings_file(file)
    variables = {name.lower(): name for name, value in os.environ.items() if value}
    shown = []
    for name in Settings.model_fields:
        given_as = name
        if name in SECRETS and getattr(settings, f"{name}_file", None) is not None:
            given_as = f"{name}_file"  # the value is what that file holds
        variable = variables.get(f"{PREFIX}{given_as}".lower())
        value = masked(name, getattr(settings, name))
        if flags.get(given_as) is not None:
            shown.append(Shown(name, value, "flag", f"--{given_as.replace('_', '-')}"))
        elif variable is not None:
            shown.append(Shown(name, value, "environment", variable))
        elif given_as in from_file:
            shown.append(Shown(name, value, "file", str(path)))
        else:
            shown.append(Shown(name, value, "default"))
    return shown


def masked(name: str, value: Any) -> str:
    """A value as it may be shown: of a secret, only whether there is one."""
    if value is None or value == {}:
        return "-"
    if name == "redis_url":
        return masked_url(value)
    if name == "kafka_options":
        return ", ".join(f"{option}={MASK}" for option in value)
    return MASK if name in SECRETS else str(value)


@config_app.command("show")
def show_config(
    bootstrap: Bootstrap = None,
    topic_prefix: Prefix = None,
    redis_url: Annotated[str | None, typer.Option(help="redis://HOST:PORT/DB")] = None,
    model: Annotated[Path | None, typer.Option(help="checkpoint folder")] = None,
    config: Annotated[
        Path | None, typer.Option(help="TOML file with any setting [EMOTRACK_CONFIG]")
    ] = None,
) -> None:
    """Say each setting's value and where it comes from: flag, environment, file or default."""
    flags = {"bootstrap": bootstrap, "topic_prefix": topic_prefix, "redis_url": redis_url}
    for one in shown_settings({**flags, "model": model}, config):
        origin = f"{one.origin} {one.where}".rstrip()
        typer.echo(f"{one.name} = {one.value}  ({origin})")
