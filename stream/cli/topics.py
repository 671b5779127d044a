"""`emotrack topics`: create and describe the four topics."""

from __future__ import annotations

from typing import Annotated

import typer

from stream.cli.options import Bootstrap, Prefix
from stream.settings import load_settings

Partitions = Annotated[int, typer.Option(min=1, help="partitions of each topic")]
Replication = Annotated[int, typer.Option(min=1, help="replicas of each partition")]
Days = Annotated[float, typer.Option(help="retention of utterances, predictions and alerts")]
LetterDays = Annotated[float, typer.Option(help="retention of dead letters")]
topics_app = typer.Typer(help="Create the four topics, or say how they differ.")


@topics_app.command("create")
def create_topics(
    bootstrap: Bootstrap = None,
    topic_prefix: Prefix = None,
    partitions: Partitions = 4,
    replication: Replication = 1,
    retention_days: Days = 7,
    dead_letter_days: LetterDays = 28,
) -> None:
    """Create what is missing; what exists is left as it is."""
    from stream.brokers.topics import create, plan
    from stream.events.topic_names import TopicNames

    settings = load_settings({"bootstrap": bootstrap, "topic_prefix": topic_prefix})
    plans = plan(
        TopicNames(settings.topic_prefix),
        partitions=partitions,
        replication=replication,
        retention_days=retention_days,
        dead_letter_days=dead_letter_days,
    )
    for report in create(settings.bootstrap, plans, settings.security):
        typer.echo(f"{report.name}: {'created' if report.created else 'already there'}")
        for difference in report.differs:
            typer.echo(f"  {difference}")


@topics_app.command("describe")
def describe_topics(
    bootstrap: Bootstrap = None,
    topic_prefix: Prefix = None,
    partitions: Partitions = 4,
    replication: Replication = 1,
    retention_days: Days = 7,
    dead_letter_days: LetterDays = 28,
) -> None:
    """Say how each topic is and what differs from the plan; exit code 4 where one is missing."""
    from stream.brokers.topics import describe, plan
    from stream.errors import TopicMissing
    from stream.events.topic_names import TopicNames

    settings = load_settings({"bootstrap": bootstrap, "topic_prefix": topic_prefix})
    plans = plan(
        TopicNames(settings.topic_prefix),
        partitions=partitions,
        replication=replication,
        retention_days=retention_days,
        dead_letter_days=dead_letter_days,
    )
    reports = describe(settings.bootstrap, plans, settings.security)
    for report in reports:
        settled = " ".join(f"{name}={value}" for name, value in report.config.items())
        state = f"{report.partitions} partitions, {settled}" if report.exists else "missing"
        typer.echo(f"{report.name}: {state}")
        for difference in report.differs:
            typer.echo(f"  {difference}")
    missing = [report.name for report in reports if not report.exists]
    if missing:
        raise TopicMissing(
            f"missing: {', '.join(missing)}. Create them with `emotrack topics create`"
        )
