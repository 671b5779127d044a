"""`emotrack publish | watch`: send utterances, show predictions and alerts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.progress import MofNCompleteColumn, TimeElapsedColumn

from stream.cli.options import AsJson, Bootstrap, FeatureFiles, Prefix, SetName, progress_bar
from stream.errors import ConfigError, NotDelivered
from stream.events.messages import FIELD_OF_FLAG, FlaggedUtterance, Utterance
from stream.settings import load_settings

if TYPE_CHECKING:
    from stream.client import Publisher


def publish(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...", help="JSON lines, - for stdin, a .csv, or a data-set folder"
        ),
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
    id_prefix: Annotated[
        str, typer.Option(help="put before each conversation id, as in `dev-`")
    ] = "",
    repeats: Annotated[
        Literal["refuse", "send"],
        typer.Option(help="ids that a file repeats with other words: they would get no answer"),
    ] = "refuse",
    rest: Annotated[
        Path | None,
        typer.Option(help="write here what the broker did not take, if it stops: publish it later"),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="wait for the answers, and say what came back")
    ] = False,
    check_timeout_s: Annotated[
        float, typer.Option("--check-timeout", min=1, help="longest wait without progress")
    ] = 60.0,
    group: Annotated[
        str | None, typer.Option(help="group of the workers, for --check [EMOTRACK_GROUP]")
    ] = None,
    json_out: AsJson = False,
    timeout_s: Annotated[float, typer.Option(min=0.1, help="longest wait for the broker")] = 10.0,
) -> None:
    """Publish utterances.

    A line is one event: {"conversation_id": "c", "utterance_id": "u1", "speaker_id": "s", "text":
    "…"}. A CSV has such columns. Each conversation keeps its order; a data set's conversations run
    side by side. With --check the exit code is 14 where an utterance got no answer.
    """
    from stream.cli.data import vectors_in
    from stream.client import Publisher
    from stream.client.check import Check
    from stream.client.data_source import DataChoice
    from stream.client.sources import open_sources, publish_all

    settings = load_settings({"bootstrap": bootstrap, "topic_prefix": topic_prefix, "group": group})
    require_new(rest)
    wanted = frozenset(name.strip() for name in send.split(",") if name.strip())
    choice = DataChoice(split, set_name, limit_conversations, at_once, wanted, raw_text)
    opened = open_sources(sources, choice, features=vectors_in(features), id_prefix=id_prefix)
    if repeats == "refuse":
        opened.repeats.refuse()
    known = opened.repeats.sentence
    for sentence in (known, *opened.warnings):
        warn(sentence)
    columns = MofNCompleteColumn(), TimeElapsedColumn()
    with ExitStack() as stack:
        checking = check and stack.enter_context(
            Check(
                settings.bootstrap,
                topics=settings.topics,
                group=settings.group,
                security=settings.security,
                timeout_s=timeout_s,
            )
        )
        publisher = Publisher(
            settings.bootstrap,
            topic=settings.topics.utterances,
            encoding=encoding or ("json" if opened.total is None else "msgpack"),
            timeout_s=timeout_s,
            security=settings.security,
            delivered=checking.note if checking else None,
        )
        try:
            with (
                publisher,
                progress_bar(f"publishing {opened.name}", *columns, total=opened.total) as sent,
            ):
                summary = publish_all(publisher, opened.utterances, rate=rate, sent=sent)
        except NotDelivered as error:
            raise NotDelivered(not_taken(publisher, opened.utterances, rest, error)) from None
        if opened.repeats.sentence != known:  # standard input is known only now
            warn(opened.repeats.sentence)
        warn(left_out(summary.flags))
        if not json_out:
            typer.echo(
                f"published {summary.utterances} utterances of {summary.conversations} "
                f"conversations to {settings.topics.utterances} in {summary.seconds:.1f} s "
                f"({summary.per_second:.0f}/s), all acknowledged"
            )
        with progress_bar("answers", total=summary.utterances, transient=True) as done:
            found = checking.wait(check_timeout_s, done) if checking else None
    if json_out:
        facts: dict[str, object] = {
            "published": summary.utterances,
            "conversations": summary.conversations,
            "seconds": round(summary.seconds, 3),
            "repeated_ids": opened.repeats.equal + opened.repeats.other,
        }
        typer.echo(json.dumps(facts | ({} if found is None else {"check": found.data()})))
    if found is not None:
        for line in () if json_out else found.lines():
            typer.echo(line)
        found.require_complete()


def require_new(rest: Path | None) -> None:
    """Raise `ConfigError` where a file of an earlier rest would be overwritten, or none be written.

    Before anything is sent, not when it is needed.
    """
    if rest is None:
        return
    if rest.exists():
        raise ConfigError(
            f"{rest} is there already: publish it if it is an earlier rest, or name another --rest"
        )
    try:
        rest.touch()
        rest.unlink()
    except OSError as error:
        raise ConfigError(f"{rest} cannot be written: {error.strerror}") from None


def not_taken(
    publisher: Publisher, later: Iterable[Utterance], rest: Path | None, error: NotDelivered
) -> str:
    """Return what the broker did not take and how to go on, after the publisher is closed.

    `later` was not published yet; `rest` is the file to write all of it to, if there is one.
    """
    from stream.client.publisher import REPEATS, first_of
    from stream.events.messages import encode

    waiting = sorted(publisher.unacknowledged.items())
    said = str(error.__cause__ or error)
    state = (
        f"{publisher.acknowledged} utterances are acknowledged, {len(waiting)} were published "
        f"without ({said}). {first_of(waiting[0] if waiting else None)}"
    )
    if rest is None:
        return (
            f"{state}They, and what comes after them, may be published again, also all from the "
            f"start: {REPEATS}. --timeout-s waits longer for a broker, --rest FILE keeps what it "
            "does not take"
        )
    count = 0
    with rest.open("wb") as file:
        for utterance in chain((u for _, u in waiting), later):
            plain = utterance.plain() if isinstance(utterance, FlaggedUtterance) else utterance
            file.write(encode(plain, "json") + b"\n")
            count += 1
    return (
        f"{state}They and what was not published yet, {count} utterances, are in {rest}: `emotrack "
        f"publish {rest}` when the broker is back; {REPEATS}"
    )


def warn(sentence: str | None) -> None:
    """Write a sentence to stderr, if there is one."""
    if sentence:
        typer.echo(f"warning: {sentence}", err=True)


def left_out(flags: Mapping[str, int]) -> str | None:
    """Return which fields of what was published did not fit."""
    if not flags:
        return None
    counts = ", ".join(
        f"`{FIELD_OF_FLAG.get(flag, flag)}` of {count} utterances" for flag, count in flags.items()
    )
    return f"left out or mended, as no answer needs it: {counts}"


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
    out: Annotated[
        Path | None, typer.Option(help="write a table instead: a .csv, .jsonl or .parquet")
    ] = None,
) -> None:
    """Watch predictions or shift alerts until Ctrl-C."""
    from stream.client import AlertSubscriber, PredictionSubscriber
    from stream.client.answer_file import require_answer_file
    from stream.client.watch import save
    from stream.client.watch import watch as show

    if out is not None:
        require_answer_file(out, new=True)

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
        if out is None:
            shown = show(events.records(), Console(), limit=limit, jsonl=jsonl)
        else:
            file = save(events.records(), out, alerts=alerts, limit=limit)
            shown = file.written
            if file.other_columns:
                warn(
                    f"{file.other_columns} predictions of a model with other labels are not in "
                    f"{out}: watch them to a .jsonl"
                )
    note = f", {events.skipped} records of another kind skipped" if events.skipped else ""
    typer.echo(f"{shown} {what}{note}", err=True)
