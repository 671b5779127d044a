"""`emotrack demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from stream.cli.options import Checkpoint
from stream.errors import ConfigError


def demo(
    speed: Annotated[
        float, typer.Option(min=0.1, max=100, help="how much faster than the usual pace")
    ] = 1.0,
    keep: Annotated[
        bool, typer.Option("--keep", help="keep it running, for publish and watch to join in")
    ] = False,
    model: Checkpoint = None,
    plain: Annotated[
        bool | None,
        typer.Option("--plain/--live", help="lines instead of the live table (no terminal: lines)"),
    ] = None,
    picture: Annotated[
        Path | None, typer.Option(help="draw the timeline to this .svg or .png at the end")
    ] = None,
) -> None:
    """Watch three conversations live: embedded broker, worker, publisher and view, all on here."""
    from stream.local.demo import run_demo

    if picture and picture.suffix not in (".svg", ".png"):
        raise ConfigError(f"--picture {picture}: give a name that ends in .svg or .png")
    console = Console()
    lines = not console.is_terminal if plain is None else plain
    run_demo(speed=speed, keep=keep, plain=lines, console=console, model=model, picture=picture)
