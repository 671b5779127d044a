"""`emotrack topics`: create and describe the four topics."""

from __future__ import annotations

from typing import Annotated

import typer

from stream.cli.options import Bootstrap, Prefix
from stream.settings import load_settings

Days = Annotated[float, typer.Option(help="retention of utterances, predictions and alerts")]
topics_app = typer.Typer(help="Create the four topics, or say how they differ.")


@topics_app.command(
    "describe",
    help="Say how each topic is and what differs from the plan; exit code 4 where one is missing.",
)
@topics_app.command("create", help="Create what is missing; what exists is left as it is.")
def topics(
    context: typer.Context,
    bootstrap: Bootstrap = None,
    topic_prefix: Prefix = None,
    partitions: Annotated[int, typer.Option(min=1, help="partitions of each topic")] = 4,
    replication: Annotated[int, typer.Option(min=1, help="replicas of each partition")] = 1,
    retention_days: Days = 7,
    dead_letter_days: Annotated[float, typer.Option(help="retention of dead letters")] = 28,
) -> None:
    """Create or describe the four topics, by the command's name, and report on each."""
    from stream.brokers.topics import create, describe, plan
    from stream.errors import TopicMissing

    settings = load_settings({"bootstrap": bootstrap, "topic_prefix": topic_prefix})
    plans = plan(
        settings.topics,
        partitions=partitions,
        replication=replication,
        retention_days=retention_days,
        dead_letter_days=dead_letter_days,
    )
    creates = context.command.name == "create"
    reports = (create if creates else describe)(settings.bootstrap, plans, settings.security)
    for report in reports:
        if creates:
            state = "created" if report.created else "already there"
        elif report.exists:
            config = " ".join(f"{name}={value}" for name, value in report.config.items())
            state = f"{report.partitions} partitions, {config}"
        else:
            state = "missing"
        typer.echo(f"{report.name}: {state}")
        for difference in report.differs:
            typer.echo(f"  {difference}")
    missing = [report.name for report in reports if not report.exists]
    if missing:
        raise TopicMissing(
            f"missing: {', '.join(missing)}. Create them with `emotrack topics create`"
        )
