"""`emotrack publish | watch`: send utterances, show predictions and alerts."""

from __future__ import annotations

from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.progress import MofNCompleteColumn, TimeElapsedColumn

from stream.cli.options import Bootstrap, FeatureFiles, Prefix, SetName, progress_bar
from stream.settings import load_settings


def publish(
    source: Annotated[
        str, typer.Argument(help="JSON lines, - for stdin, a .csv, or a data-set folder")
    ],
    bootstrap: Bootstrap = None,
    topic_prefix: Prefix = None,
    split: Annotated[Literal["train", "dev", "test"], typer.Option(help="of a data set")] = "test",
    set_name: SetName = None,
    rate: Annotated[
        float | None, typer.Option(min=0.001, help="utterances a second; none: as fast as it goes")
    ] = None,
    limit_conversations: Annotated[
        int | None, typer.Option(min=1, help="only the first N conversations")
    ] = None,
    at_once: Annotated[
        int, typer.Option(min=1, help="conversations of a data set sent side by side")
    ] = 32,
    features: FeatureFiles = None,
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
    from stream.cli.data import vectors_in
    from stream.client import Publisher
    from stream.client.sources import DataChoice, open_source, publish_all

    settings = load_settings({"bootstrap": bootstrap, "topic_prefix": topic_prefix})
    wanted = frozenset(name.strip() for name in send.split(",") if name.strip())
    choice = DataChoice(split, set_name, limit_conversations, at_once, wanted, raw_text)
    opened = open_source(source, choice, features=vectors_in(features))
    columns = MofNCompleteColumn(), TimeElapsedColumn()
    with (
        Publisher(
            settings.bootstrap,
            topic=settings.topics.utterances,
            encoding=encoding or ("json" if opened.total is None else "msgpack"),
            timeout_s=timeout_s,
            security=settings.security,
        ) as publisher,
        progress_bar(f"publishing {opened.name}", *columns, total=opened.total) as sent,
    ):
        summary = publish_all(publisher, opened.utterances, rate=rate, sent=sent)
    typer.echo(
        f"published {summary.utterances} utterances of {summary.conversations} conversations to "
        f"{settings.topics.utterances} in {summary.seconds:.1f} s ({summary.per_second:.0f}/s), "
        "all acknowledged"
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
    from stream.client.watch import watch as show

    settings = load_settings({"bootstrap": bootstrap, "topic_prefix": topic_prefix})
    alerts, topics = what == "alerts", settings.topics
    with (AlertSubscriber if alerts else PredictionSubscriber)(
        settings.bootstrap,
        topic=topics.shift_alerts if alerts else topics.predictions,
        group=group,
        from_beginning=from_beginning,
        timeout_s=timeout_s,
        security=settings.security,
    ) as events:
        shown = show(events.records(), Console(), limit=limit, jsonl=jsonl)
    note = f", {events.skipped} records of another kind skipped" if events.skipped else ""
    typer.echo(f"{shown} {what}{note}", err=True)
