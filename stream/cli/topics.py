"""`emotrack topics`: create, describe and mend the four topics, and the group that reads them."""

from __future__ import annotations

from typing import Annotated

import typer

from stream.cli.options import Bootstrap, Group, Prefix
from stream.settings import Settings, load_settings

Days = Annotated[
    float | None,
    typer.Option(help="retention of utterances, predictions and alerts [7, more if sessions need]"),
]
Replication = Annotated[
    int | None,
    typer.Option(min=1, help="replicas of each partition [3, or as many as there are brokers]"),
]
topics_app = typer.Typer(help="Create the four topics, or say how they differ.")


@topics_app.command(
    "describe",
    help="Say how each topic is and what differs from the plan; exit code 4 where one is missing.",
)
@topics_app.command(
    "create",
    help="Create what is missing and shorten the group's session; topics that exist are left as "
    "they are.",
)
def topics(
    context: typer.Context,
    bootstrap: Bootstrap = None,
    topic_prefix: Prefix = None,
    group: Group = None,
    partitions: Annotated[int, typer.Option(min=1, help="partitions of each topic")] = 4,
    replication: Replication = None,
    retention_days: Days = None,
    dead_letter_days: Annotated[float, typer.Option(help="retention of dead letters")] = 28,
) -> None:
    """Create or describe the four topics, by the command's name, and report on each."""
    from stream.brokers.topic_rules import Needs
    from stream.brokers.topics import create, describe, plan, usual_replication
    from stream.errors import TopicMissing

    flags = {"bootstrap": bootstrap, "topic_prefix": topic_prefix, "group": group}
    settings = load_settings(flags)
    plans = plan(
        settings.topics,
        partitions=partitions,
        replication=replication or usual_replication(settings.bootstrap, settings.security),
        retention_days=retention_days,
        dead_letter_days=dead_letter_days,
        needs=Needs.of(settings),
    )
    creates = context.command.name == "create"
    reports = (create if creates else describe)(settings.bootstrap, plans, settings.security)
    for report in reports:
        if creates:
            state = "created" if report.created else "already there"
        elif report.exists:
            config = "".join(f", {name}={value}" for name, value in report.config.items())
            state = f"{report.partitions} partitions, replicas={report.replicas}{config}"
        else:
            state = "missing"
        typer.echo(f"{report.name}: {state}")
        for difference in report.differs:
            typer.echo(f"  {difference}")
    say_faults(settings)
    say_takeover(settings, change=creates)
    missing = [report.name for report in reports if not report.exists]
    if missing:
        raise TopicMissing(
            f"missing: {', '.join(missing)}. Create them with `emotrack topics create`"
        )


@topics_app.command(
    "fix",
    help="Set the settings that break or weaken a promise, and shorten the group's session; what "
    "is right is left as it is.",
)
def fix_topics(
    bootstrap: Bootstrap = None,
    topic_prefix: Prefix = None,
    group: Group = None,
    replication: Annotated[
        int | None,
        typer.Option(min=1, help="copy partitions that have fewer replicas to more brokers"),
    ] = None,
) -> None:
    """Set what `describe` says is wrong; needs ALTER_CONFIGS on the topics and the group.

    With `--replication` also ALTER on the cluster.
    """
    from stream.brokers.topic_rules import Needs, curing
    from stream.brokers.topics import fix

    flags = {"bootstrap": bootstrap, "topic_prefix": topic_prefix, "group": group}
    settings = load_settings(flags)
    names, needs = settings.topics, Needs.of(settings)
    done, left = fix(settings.bootstrap, names, needs, settings.security, replication)
    for fault in done:
        typer.echo(f"{fault.topic}: {fault.setting}={fault.cure} is set")
    for fault in left:
        typer.echo(f"{fault.says}: {curing([fault], settings.bootstrap, names.prefix)}")
    if not done and not left:
        typer.echo("nothing to set: every topic is as it must be")
    say_takeover(settings, change=True)


def say_faults(settings: Settings) -> None:
    """Print what of the topics breaks or weakens a promise, and the command that cures it."""
    from stream.brokers.topic_rules import Needs, curing
    from stream.brokers.topic_survey import examine

    names = settings.topics
    found = examine(settings.bootstrap, names, Needs.of(settings), settings.security)
    for fault in found.faults:
        typer.echo(f"  {'BREAKS' if fault.breaks else 'weakens'}: {fault.says}")
    if found.faults:
        typer.echo(f"  to cure it, {curing(found.faults, settings.bootstrap, names.prefix)}")


def say_takeover(settings: Settings, *, change: bool) -> None:
    """Print how soon the group's partitions are taken over; where `change`, shorten it first."""
    from stream.brokers.takeover import ask, prepare

    for line in prepare(settings) if change else []:
        typer.echo(line)
    takeover = ask(settings)
    typer.echo(f"group {settings.group}: {takeover.says}")
    if takeover.cure is not None:
        typer.echo(f"  to shorten it, {takeover.cure}")
