"""`emotrack publish | watch | topics | doctor | schema`: what the base install can do.

Arguments in, work called, results out. Errors are `EmotrackError`s; the console entry prints them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from stream.settings import Settings, load_settings

Bootstrap = Annotated[
    str | None, typer.Option(help="brokers, host:port[,host:port] (EMOTRACK_BOOTSTRAP)")
]
Prefix = Annotated[str | None, typer.Option("--topic-prefix", help="prefix of the four topics")]
Partitions = Annotated[int, typer.Option(min=1, help="partitions of each topic")]
Replication = Annotated[int, typer.Option(min=1, help="replicas of each partition")]
Days = Annotated[float, typer.Option(help="retention of utterances, predictions and alerts")]
LetterDays = Annotated[float, typer.Option(help="retention of dead letters")]

topics_app = typer.Typer(help="Create the four topics, or say how they differ.")
schema_app = typer.Typer(help="JSON Schemas of the events, AsyncAPI of the topics.")

config_app = typer.Typer(help="The settings, and where each comes from.")


def mount(app: typer.Typer) -> None:
    """Add these commands to the console's root."""
    app.command()(publish)
    app.command()(watch)
    app.command()(doctor)
    app.add_typer(topics_app, name="topics", no_args_is_help=True)
    app.add_typer(schema_app, name="schema", no_args_is_help=True)
    app.add_typer(config_app, name="config", no_args_is_help=True)


def publish(
    source: Annotated[
        str, typer.Argument(help="JSON lines, - for stdin, a .csv, or a data-set folder")
    ],
    bootstrap: Bootstrap = None,
    topic_prefix: Prefix = None,
    split: Annotated[Literal["train", "dev", "test"], typer.Option(help="of a data set")] = "test",
    set_name: Annotated[
        str | None, typer.Option("--set", help="which set of the folder, e.g. meld")
    ] = None,
    rate: Annotated[
        float | None, typer.Option(min=0.001, help="utterances a second; none: as fast as it goes")
    ] = None,
    limit_conversations: Annotated[
        int | None, typer.Option(min=1, help="only the first N conversations")
    ] = None,
    at_once: Annotated[
        int, typer.Option(min=1, help="conversations of a data set sent side by side")
    ] = 32,
    features: Annotated[
        list[Path] | None,
        typer.Option(help=".npz of vectors, row i for the i-th line; may be given several times"),
    ] = None,
    send: Annotated[
        str, typer.Option(help="what a data set sends: any of text,audio,video,persona")
    ] = "text,audio,video,persona",
    raw_text: Annotated[
        bool, typer.Option("--raw-text", help="send a data set's sentences, not their vectors")
    ] = False,
    encoding: Annotated[
        Literal["msgpack", "json"] | None, typer.Option(help="default: json, data sets msgpack")
    ] = None,
    timeout_s: Annotated[float, typer.Option(min=0.1, help="longest wait for the broker")] = 10.0,
) -> None:
    """Publish utterances.

    A line is one event: {"conversation_id": "c", "utterance_id": "u1", "speaker_id": "s", "text":
    "…"}. A CSV has such columns. Each conversation keeps its order; a data set's conversations run
    side by side.
    """
    from stream.cli_data import vectors_in
    from stream.client import Publisher
    from stream.publish import DataChoice, open_source, publish_all

    settings = _settings(bootstrap=bootstrap, topic_prefix=topic_prefix)
    wanted = frozenset(name.strip() for name in send.split(",") if name.strip())
    choice = DataChoice(split, set_name, limit_conversations, at_once, wanted, raw_text)
    opened = open_source(source, choice, features=vectors_in(features))
    console = Console(stderr=True)
    with (
        Publisher(
            settings.bootstrap,
            topic=settings.utterances,
            encoding=encoding or ("json" if opened.total is None else "msgpack"),
            timeout_s=timeout_s,
            security=settings.security,
        ) as publisher,
        _bar(console, f"publishing {opened.name}", opened.total) as sent,
    ):
        summary = publish_all(publisher, opened.utterances, rate=rate, sent=sent)
    typer.echo(
        f"published {summary.utterances} utterances of {summary.conversations} conversations to "
        f"{settings.utterances} in {summary.seconds:.1f} s ({summary.per_second:.0f}/s), all "
        "acknowledged"
    )


def watch(
    what: Annotated[
        Literal["predictions", "alerts"], typer.Argument(help="which topic")
    ] = "predictions",
    bootstrap: Bootstrap = None,
    topic_prefix: Prefix = None,
    jsonl: Annotated[bool, typer.Option("--jsonl", help="one JSON event a line")] = False,
    from_beginning: Annotated[
        bool, typer.Option("--from-beginning", help="everything the topic still holds")
    ] = False,
    group: Annotated[
        str | None, typer.Option(help="consumer group: share the work, go on where it stopped")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="end after N events")] = None,
    timeout_s: Annotated[
        float | None, typer.Option("--timeout", min=0.1, help="end after S seconds of silence")
    ] = None,
) -> None:
    """Watch predictions or shift alerts until Ctrl-C."""
    from stream.client import AlertSubscriber, PredictionSubscriber
    from stream.watch import watch as show

    settings = _settings(bootstrap=bootstrap, topic_prefix=topic_prefix)
    options: dict[str, Any] = {
        "group": group,
        "from_beginning": from_beginning,
        "timeout_s": timeout_s,
        "security": settings.security,
    }
    console = Console()
    if what == "alerts":
        with AlertSubscriber(settings.bootstrap, topic=settings.shift_alerts, **options) as alerts:
            shown, skipped = (
                show(alerts.records(), console, limit=limit, jsonl=jsonl),
                alerts.skipped,
            )
    else:
        with PredictionSubscriber(
            settings.bootstrap, topic=settings.predictions, **options
        ) as predictions:
            shown = show(predictions.records(), console, limit=limit, jsonl=jsonl)
            skipped = predictions.skipped
    note = f", {skipped} records of another kind skipped" if skipped else ""
    typer.echo(f"{shown} {what}{note}", err=True)


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
    from stream.topics import TopicNames, create, plan

    settings = _settings(bootstrap=bootstrap, topic_prefix=topic_prefix)
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
    from stream.errors import TopicMissing
    from stream.topics import TopicNames, describe, plan

    settings = _settings(bootstrap=bootstrap, topic_prefix=topic_prefix)
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


def doctor(
    bootstrap: Bootstrap = None,
    topic_prefix: Prefix = None,
    redis_url: Annotated[str | None, typer.Option(help="redis://HOST:PORT/DB")] = None,
    model: Annotated[Path | None, typer.Option(help="checkpoint folder")] = None,
) -> None:
    """Check broker, topics, rights, Redis, model, device and port; say how to cure them."""
    from stream.doctor import Check, examine, healthy

    settings = _settings(
        bootstrap=bootstrap, topic_prefix=topic_prefix, redis_url=redis_url, model=model
    )
    checks: list[Check] = []
    for check in examine(settings):
        typer.echo(f"{check.status.upper():6} {check.name}: {check.says}")
        checks.append(check)
    if not healthy(checks):
        raise typer.Exit(1)


@schema_app.command("export")
def export_schema(
    target: Annotated[str, typer.Argument(help="folder to write, - for standard output")] = "-",
) -> None:
    """Write the JSON Schema of each event type, and the AsyncAPI document of the topics."""
    import json

    from stream.asyncapi import document, document_text
    from stream.schema import EVENT_TYPES, export, schema_of

    if target == "-":
        every = {event_type: schema_of(event_type) for event_type in EVENT_TYPES}
        every["asyncapi"] = document()
        typer.echo(json.dumps(every, indent=2, ensure_ascii=False))
        return
    for path in export(Path(target), {"asyncapi.json": document_text()}):
        typer.echo(str(path))


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
    from stream.origins import shown_settings

    flags = {"bootstrap": bootstrap, "topic_prefix": topic_prefix, "redis_url": redis_url}
    for one in shown_settings({**flags, "model": model}, config):
        origin = f"{one.origin} {one.where}".rstrip()
        typer.echo(f"{one.name} = {one.value}  ({origin})")


def _settings(**flags: Any) -> Settings:
    return load_settings(flags)


@contextmanager
def _bar(console: Console, title: str, total: int | None) -> Iterator[Any]:
    """A progress bar on a terminal, nothing elsewhere; yields what takes the count so far."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(
        *columns, TimeElapsedColumn(), console=console, disable=not console.is_terminal
    ) as progress:
        task = progress.add_task(title, total=total)
        yield lambda count: progress.update(task, completed=count)
