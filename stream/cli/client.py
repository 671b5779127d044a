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

from stream.cli.options import Bootstrap, Prefix
from stream.settings import load_settings


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
    from stream.cli.data import vectors_in
    from stream.client import Publisher
    from stream.client.sources import DataChoice, open_source, publish_all

    settings = load_settings({"bootstrap": bootstrap, "topic_prefix": topic_prefix})
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
    from stream.client.watch import watch as show

    settings = load_settings({"bootstrap": bootstrap, "topic_prefix": topic_prefix})
    options: dict[str, Any] = {
        "group": group,
        "from_beginning": from_beginning,
        "timeout_s": timeout_s,
        "security": settings.security,
    }
    console = Console()
    subscriber: AlertSubscriber | PredictionSubscriber
    if what == "alerts":
        subscriber = AlertSubscriber(settings.bootstrap, topic=settings.shift_alerts, **options)
    else:
        subscriber = PredictionSubscriber(settings.bootstrap, topic=settings.predictions, **options)
    with subscriber:
        shown = show(subscriber.records(), console, limit=limit, jsonl=jsonl)
    skipped = subscriber.skipped
    note = f", {skipped} records of another kind skipped" if skipped else ""
    typer.echo(f"{shown} {what}{note}", err=True)


@contextmanager
def _bar(console: Console, title: str, total: int | None) -> Iterator[Any]:
    """A progress bar on a terminal, nothing elsewhere; yields what takes the count so far."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(
        *columns, TimeElapsedColumn(), console=console, disable=not console.is_terminal
    ) as progress:
        task = progress.add_task(title, total=total)
        yield lambda count: progress.update(task, completed=count)
