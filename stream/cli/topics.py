"""`emotrack topics`: create, describe and mend the four topics."""

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
    from stream.brokers.topic_rules import Needs, curing
    from stream.brokers.topics import create, describe, examine, plan
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
    faults = examine(settings.bootstrap, settings.topics, Needs.of(settings), settings.security)
    for fault in faults:
        typer.echo(f"  {'BREAKS' if fault.breaks else 'weakens'}: {fault.says}")
    if faults:
        cure = curing(faults, settings.bootstrap, settings.topics.prefix)
        typer.echo(f"  to cure it, {cure}")
    missing = [report.name for report in reports if not report.exists]
    if missing:
        raise TopicMissing(
            f"missing: {', '.join(missing)}. Create them with `emotrack topics create`"
        )


@topics_app.command(
    "fix", help="Set the settings that break or weaken a promise; what is right is left as it is."
)
def fix_topics(bootstrap: Bootstrap = None, topic_prefix: Prefix = None) -> None:
    """Set what `describe` says is wrong; needs ALTER_CONFIGS on the topics."""
    from stream.brokers.topic_rules import Needs, curing
    from stream.brokers.topics import fix

    settings = load_settings({"bootstrap": bootstrap, "topic_prefix": topic_prefix})
    names, needs = settings.topics, Needs.of(settings)
    done, left = fix(settings.bootstrap, names, needs, settings.security)
    for fault in done:
        typer.echo(f"{fault.topic}: {fault.setting}={fault.cure} is set")
    for fault in left:
        typer.echo(f"{fault.says}: {curing([fault], settings.bootstrap, names.prefix)}")
    if not done and not left:
        typer.echo("nothing to set: every topic is as it must be")
