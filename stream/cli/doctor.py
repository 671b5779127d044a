"""`emotrack doctor`: check what a worker needs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stream.cli.options import Bootstrap, Prefix
from stream.settings import load_settings


def doctor(
    bootstrap: Bootstrap = None,
    topic_prefix: Prefix = None,
    redis_url: Annotated[str | None, typer.Option(help="redis://HOST:PORT/DB")] = None,
    model: Annotated[Path | None, typer.Option(help="checkpoint folder")] = None,
) -> None:
    """Check broker, topics, rights, Redis, model, device and port; say how to cure them."""
    from stream.cli.doctor_checks import Check, examine, healthy

    settings = load_settings(
        {
            "bootstrap": bootstrap,
            "topic_prefix": topic_prefix,
            "redis_url": redis_url,
            "model": model,
        }
    )
    checks: list[Check] = []
    for check in examine(settings):
        typer.echo(f"{check.status.upper():6} {check.name}: {check.says}")
        checks.append(check)
    if not healthy(checks):
        raise typer.Exit(1)
