"""`emotrack config`: the settings, and where each comes from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stream.cli.options import Bootstrap, Prefix

config_app = typer.Typer(help="The settings, and where each comes from.")


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
    from stream.cli.setting_origins import shown_settings

    flags = {"bootstrap": bootstrap, "topic_prefix": topic_prefix, "redis_url": redis_url}
    for one in shown_settings({**flags, "model": model}, config):
        origin = f"{one.origin} {one.where}".rstrip()
        typer.echo(f"{one.name} = {one.value}  ({origin})")
