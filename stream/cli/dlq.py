"""`emotrack dlq list | show | requeue`: what could not be answered, why, and back it goes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, Literal

import typer
from rich.console import Console
from rich.table import Table

from stream.cli.options import Bootstrap, Prefix
from stream.cli.progress import progress_bar
from stream.errors import ConfigError, LetterUnfit
from stream.events.dead_letter import Letter
from stream.settings import Settings, load_settings
from stream.triage.dead_letters import (
    Choice,
    Summary,
    cannot_requeue,
    in_log_order,
    lost,
    preview,
    shape,
)

app = typer.Typer(help="Dead letters: count them, look at one, send them back after a fix.")

Reasons = Annotated[
    list[str] | None, typer.Option("--reason", help="only these reasons (repeat it)")
]
Since = Annotated[
    str | None, typer.Option(help="written since: 2026-01-31T12:00, or an age: 90s, 30m, 2h, 3d")
]
Until = Annotated[str | None, typer.Option(help="written before then")]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON")]
AGE_S: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
HEADER_CHARS: Final = 120


@app.command("list")
def list_letters(
    bootstrap: Bootstrap = None,
    topic_prefix: Prefix = None,
    reason: Reasons = None,
    since: Since = None,
    until: Until = None,
    by: Annotated[
        Literal["reason", "hour", "day"], typer.Option(help="how they are counted")
    ] = "reason",
    each: Annotated[bool, typer.Option("--each", help="one line a letter, with its id")] = False,
    json_out: AsJson = False,
) -> None:
    """Count dead letters by reason or time. No word of a conversation is shown."""
    settings = load_settings({"bootstrap": bootstrap, "topic_prefix": topic_prefix})
    choice = choice_of(None, reason, since, until)
    summary, letters = Summary(by), []
    for letter in read(settings, choice):
        summary.add(letter)
        if each:
            letters.append(letter)
    told = in_log_order(letters)
    if json_out:
        piles = {name: pile_data(summary, name) for name in sorted(summary.piles)}
        body = {"by": by, "piles": piles} | ({"letters": list(map(line, told))} if each else {})
        typer.echo(json.dumps(body, indent=2))
        return
    console = Console(highlight=False)
    if each:
        for letter in told:
            facts = line(letter)
            again = f"  requeued before: {facts['requeued']}" if facts["requeued"] else ""
            text = f"{facts['id']}  {facts['written']}  {facts['reason']}  {facts['says']}{again}"
            console.print(text, markup=False, soft_wrap=True)
    if summary.piles:
        console.print(summary_table(summary, by))
    console.print(f"{sum(pile.letters for pile in summary.piles.values())} dead letters")


def pile_data(summary: Summary, name: str) -> dict[str, Any]:
    """One pile as plain data."""
    pile = summary.piles[name]
    return {
        "letters": pile.letters,
        "repeats": pile.repeats,
        "requeued_before": pile.again,
        "first": when(pile.first_ms),
        "last": when(pile.last_ms),
        "reasons": dict(pile.reasons.most_common()),
    }


def summary_table(summary: Summary, by: str) -> Table:
    """The piles, the largest first; by time in order of time."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in (by, "letters", "requeued before", "repeats", "first, UTC", "last, UTC"):
        justify: Literal["left", "right"] = "right" if name in ("letters", "repeats") else "left"
        table.add_column(name, justify=justify, overflow="fold")
    order = sorted(
        summary.piles.items(), key=lambda p: (-p[1].letters, p[0]) if by == "reason" else p[0]
    )
    for name, pile in order:
        counts = (str(pile.letters), str(pile.again), str(pile.repeats))
        moments = (when(ms).replace("T", " ").rstrip("Z") for ms in (pile.first_ms, pile.last_ms))
        table.add_row(name, *counts, *moments)
    return table


@app.command("show")
def show_letter(
    id: Annotated[str, typer.Argument(help="topic-partition-offset, as `dlq list --each` says")],
    bootstrap: Bootstrap = None,
    topic_prefix: Prefix = None,
    body: Annotated[
        bool, typer.Option("--body", help="show the body's first words: what people said")
    ] = False,
    json_out: AsJson = False,
) -> None:
    """Show one dead letter: why it is one, its headers, what its body looks like."""
    settings = load_settings({"bootstrap": bootstrap, "topic_prefix": topic_prefix})
    letter = next(read(settings, Choice(frozenset({id}))), None)
    if letter is None:
        raise LetterUnfit(
            f"no dead letter {id} in {settings.topics.dead_letters}: `emotrack dlq list --each` "
            "names them"
        )
    headers = {
        name: (value or b"").decode(errors="replace")[:HEADER_CHARS]
        for name, value in letter.headers
    }
    why_not = cannot_requeue(letter, settings.topics.utterances)
    told = line(letter) | {
        "class": letter.error_class,
        "key": (letter.key or b"").decode(errors="replace"),
        "omitted": list(letter.omitted),
        "headers": headers,
        "body": preview(letter.value) if body else shape(letter.value),
        "can_be_requeued": why_not is None,
        "why_not": why_not,
    }
    if why_not is None and letter.error_class != "model":
        # What was wrong with the record still is: only a worker that takes it helps.
        told["note"] = "requeue sends the same bytes: this version of the worker refuses them again"
    if json_out:
        typer.echo(json.dumps(told, indent=2, ensure_ascii=False))
        return
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, value in told.items():
        if isinstance(value, dict):
            value = "\n".join(f"{n}: {v}" for n, v in value.items())
        if isinstance(value, bool):
            value = "yes" if value else "no"
        if value not in (None, [], ""):
            table.add_row(name.replace("_", " "), str(value))
    Console(highlight=False, markup=False).print(table)


@app.command()
def requeue(
    ids: Annotated[list[str] | None, typer.Argument(help="letters; none: the filters say")] = None,
    bootstrap: Bootstrap = None,
    topic_prefix: Prefix = None,
    reason: Reasons = None,
    since: Since = None,
    until: Until = None,
    every: Annotated[bool, typer.Option("--all", help="every letter there is")] = False,
    again: Annotated[
        bool, typer.Option("--again", help="also those that were requeued already")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="say what would be sent")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False,
) -> None:
    """Send dead letters' records back to the utterances topic, after a fix.

    With their own bytes, key and headers, to their own partition, in the order of their log. Each
    gets a header `emotrack_requeued`, so that a loop is seen. Exit code 13 where a letter named by
    id cannot be sent.
    """
    if not (ids or reason or since or until or every):
        raise ConfigError("which dead letters? Name ids, --reason, --since, --until, or --all")
    settings = load_settings({"bootstrap": bootstrap, "topic_prefix": topic_prefix})
    choice = choice_of(ids, reason, since, until)
    letters = in_log_order(read(settings, choice))
    if gone := lost(choice.ids, letters):
        raise LetterUnfit(f"no dead letter {', '.join(gone)} in {settings.topics.dead_letters}")
    console = Console(stderr=True, highlight=False, markup=False)
    fit = without_unfit(letters, settings.topics.utterances, console, named=bool(ids))
    if not again:
        fit = without_sent(settings, fit, console)
    typer.echo(f"{len(fit)} dead letters to send to {settings.topics.utterances}")
    if dry_run:
        for letter in fit:
            typer.echo(f"{letter.id}  {letter.reason}")
        return
    if fit and not (yes or typer.confirm("Send them?")):
        raise typer.Abort
    from stream.triage.requeue import send_again

    with progress_bar("requeueing", transient=True) as told:
        send_again(settings, fit, lambda count: told(count, len(fit)))
    typer.echo(f"requeued {len(fit)}, all acknowledged")


def without_unfit(
    letters: list[Letter], topic: str, console: Console, *, named: bool
) -> list[Letter]:
    """Those that can be sent; says why others cannot. Raises `LetterUnfit` for named ones."""
    fit = []
    for letter in letters:
        why_not = cannot_requeue(letter, topic)
        if why_not is None:
            fit.append(letter)
        elif named:
            raise LetterUnfit(f"{letter.id} cannot be requeued: {why_not}")
        else:
            console.print(f"left out {letter.id}: {why_not}")
    return fit


def without_sent(settings: Settings, letters: list[Letter], console: Console) -> list[Letter]:
    """Those that are not in the log again already, so that an interrupted requeue can go on."""
    from stream.brokers.topic_reader import LogReader
    from stream.triage.requeue import sent_before

    with LogReader(settings) as reader:
        before = sent_before(reader, letters)
    if before:
        console.print(f"left out {len(before)} that were requeued already (--again sends them)")
    return [letter for letter in letters if letter.id not in before]


def read(settings: Settings, choice: Choice) -> Iterator[Letter]:
    """The letters meant, as they stand in the topic."""
    from stream.brokers.topic_reader import LogReader
    from stream.triage.requeue import read_letters

    with LogReader(settings) as reader, progress_bar("reading", transient=True) as told:
        for letter in read_letters(reader, settings, told):
            if choice.takes(letter):
                yield letter


def line(letter: Letter) -> dict[str, Any]:
    """What a list says of a letter."""
    return {
        "id": letter.id,
        "written": when(letter.time_ms),
        "reason": letter.reason,
        "says": letter.sentence,
        "requeued": len(letter.requeued),
    }


def when(epoch_ms: int) -> str:
    """Broker time for people."""
    return f"{datetime.fromtimestamp(epoch_ms / 1000, UTC):%Y-%m-%dT%H:%M:%SZ}"


def choice_of(
    ids: list[str] | None, reasons: list[str] | None, since: str | None, until: str | None
) -> Choice:
    """What the flags mean. Raises `ConfigError` for an unknown reason or time."""
    from stream.events.poison import Reason

    known = {reason.value for reason in Reason}
    for reason in reasons or ():
        if reason not in known:
            raise ConfigError(f"no reason {reason}: there are {', '.join(sorted(known))}")
    now = datetime.now(UTC)
    return Choice(
        frozenset(ids or ()), frozenset(reasons or ()), moment(since, now), moment(until, now)
    )


def moment(text: str | None, now: datetime) -> int | None:
    """Epoch milliseconds of a time or an age. Raises `ConfigError`."""
    if text is None:
        return None
    try:
        if text[-1:] in AGE_S and text[:-1].isdigit():
            at = now - timedelta(seconds=int(text[:-1]) * AGE_S[text[-1]])
        else:
            at = datetime.fromisoformat(text)
            at = at if at.tzinfo else at.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise ConfigError(
            f"{text!r} is no time: write 2026-01-31T12:00 (UTC), or an age as 90s, 30m, 2h, 3d"
        ) from None
    return int(at.timestamp() * 1000)
