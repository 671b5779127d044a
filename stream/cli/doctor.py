"""`emotrack doctor`: check what a worker needs."""

from __future__ import annotations

import typer

from stream.cli.options import Bootstrap, Model, Prefix, RedisUrl
from stream.settings import load_settings


def doctor(
    bootstrap: Bootstrap = None,
    topic_prefix: Prefix = None,
    redis_url: RedisUrl = None,
    model: Model = None,
) -> None:
    """Check broker, topics, rights, Redis, model, device and port; say how to cure them."""
    from stream.cli.doctor_checks import Check, examine, healthy

    flags = {"bootstrap": bootstrap, "topic_prefix": topic_prefix, "redis_url": redis_url}
    checks: list[Check] = []
    for check in examine(load_settings({**flags, "model": model})):
        typer.echo(f"{check.status.upper():6} {check.name}: {check.says}")
        checks.append(check)
    if not healthy(checks):
        raise typer.Exit(1)
