"""`emotrack doctor`: check what a worker needs."""

from __future__ import annotations

import typer

from stream.cli.options import Bootstrap, Model, Prefix, RedisUrl, settings_of


def doctor(
    context: typer.Context,
    bootstrap: Bootstrap = None,
    topic_prefix: Prefix = None,
    redis_url: RedisUrl = None,
    model: Model = None,
) -> None:
    """Check broker, topics, rights, Redis, model, device and port; say how to cure them."""
    from stream.cli.doctor_checks import examine

    failed = False
    for check in examine(settings_of(context)):
        typer.echo(f"{check.status.upper():6} {check.name}: {check.says}")
        failed |= check.status == "fail"
    if failed:
        raise typer.Exit(1)
