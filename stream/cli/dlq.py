"""`emotrack dlq list | show | requeue`: count dead letters, show one, send them back."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal

import typer
from rich.console import Console
from rich.table import Table

from stream.cli.options import AsJson, Bootstrap, Prefix, moment, progress_bar
from stream.errors import ConfigError, LetterUnfit
from stream.events.cloudevents import utc
from stream.events.dead_letter import Letter
from stream.settings import Settings, load_settings
from stream.triage.dead_letters import (
    Choice,
    Pile,
    cannot_requeue,
    count_letters,
    in_log_order,
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
    letters: Iterable[Letter] = read(settings, choice_of(None, reason, since, until))
    if each:
        letters = list(letters)
    piles = count_letters(letters, by)
    facts = [_letter_data(letter) for letter in in_log_order(letters if each else ())]
    if json_out:
        counts = {
            name: {
                "letters": pile.letters,
                "repeats": pile.repeats,
                "requeued_before": pile.again,
                "first": when(pile.first_ms),
                "last": when(pile.last_ms),
                "reasons": dict(pile.reasons.most_common()),
            }
            for name, pile in sorted(piles.items())
        }
        data = {"by": by, "piles": counts}
        typer.echo(json.dumps(data | ({"letters": facts} if each else {}), indent=2))
        return
    console = Console(highlight=False)
    for fact in facts:
        again = f"  requeued before: {fact['requeued']}" if fact["requeued"] else ""
        line = f"{fact['id']}  {fact['written']}  {fact['reason']}  {fact['says']}{again}"
        console.print(line, markup=False, soft_wrap=True)
    if piles:
        console.print(_pile_table(piles, by))
    console.print(f"{sum(pile.letters for pile in piles.values())} dead letters")


def _pile_table(piles: Mapping[str, Pile], by: str) -> Table:
    """Return the piles as a table, by reason the largest first, else in order of time."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in (by, "letters", "requeued before", "repeats", "first, UTC", "last, UTC"):
        number = name in ("letters", "repeats")
        table.add_column(name, justify="right" if number else "left", overflow="fold")
    names = sorted(piles, key=lambda n: (-piles[n].letters if by == "reason" else 0, n))
    for name in names:
        pile = piles[name]
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
    facts = _letter_data(letter) | _record_data(letter, settings.topics.utterances, body=body)
    if json_out:
        typer.echo(json.dumps(facts, indent=2, ensure_ascii=False))
        return
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, value in facts.items():
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
    from stream.brokers.topic_reader import TopicReader
    from stream.triage.requeue import already_requeued, send_again

    if not (ids or reason or since or until or every):
        raise ConfigError("which dead letters? Name ids, --reason, --since, --until, or --all")
    settings = load_settings({"bootstrap": bootstrap, "topic_prefix": topic_prefix})
    choice = choice_of(ids, reason, since, until)
    letters = in_log_order(read(settings, choice))
    if missing := sorted(choice.ids - {letter.id for letter in letters}):
        raise LetterUnfit(f"no dead letter {', '.join(missing)} in {settings.topics.dead_letters}")
    console = Console(stderr=True, highlight=False, markup=False)
    fit = []
    for letter in letters:
        why_not = cannot_requeue(letter, settings.topics.utterances)
        if why_not is None:
            fit.append(letter)
        elif ids:
            raise LetterUnfit(f"{letter.id} cannot be requeued: {why_not}")
        else:
            console.print(f"left out {letter.id}: {why_not}")
    if not again:  # some are in the log again after an interrupted requeue
        with TopicReader(settings) as reader:
            already = already_requeued(reader, fit)
        if already:
            console.print(
                f"left out {len(already)} that were requeued already (--again sends them)"
            )
        fit = [letter for letter in fit if letter.id not in already]
    typer.echo(f"{len(fit)} dead letters to send to {settings.topics.utterances}")
    if dry_run:
        for letter in fit:
            typer.echo(f"{letter.id}  {letter.reason}")
        return
    if fit and not (yes or typer.confirm("Send them?")):
        raise typer.Abort
    with progress_bar("requeueing", total=len(fit), transient=True) as sent:
        send_again(settings, fit, sent)
    typer.echo(f"requeued {len(fit)}, all acknowledged")


def read(settings: Settings, choice: Choice) -> Iterator[Letter]:
    """Yield the topic's letters that pass `choice`."""
    from stream.brokers.topic_reader import TopicReader
    from stream.triage.requeue import read_letters

    with TopicReader(settings) as reader, progress_bar("reading", transient=True) as progress:
        for letter in read_letters(reader, settings, progress):
            if choice.takes(letter):
                yield letter


def _letter_data(letter: Letter) -> dict[str, Any]:
    """Return a letter as a list shows it: not its record."""
    return {
        "id": letter.id,
        "written": when(letter.time_ms),
        "reason": letter.reason,
        "says": letter.sentence,
        "requeued": len(letter.requeued),
    }


def when(epoch_ms: int) -> str:
    """Format broker time."""
    return f"{utc(epoch_ms):%Y-%m-%dT%H:%M:%SZ}"


def _record_data(letter: Letter, topic: str, *, body: bool) -> dict[str, Any]:
    """Return the record in a letter as plain data, with the shape or the beginning of its body."""
    headers = {
        name: (value or b"").decode(errors="replace")[:HEADER_CHARS]
        for name, value in letter.headers
    }
    why_not = cannot_requeue(letter, topic)
    facts = {
        "class": letter.error_class,
        "key": (letter.key or b"").decode(errors="replace"),
        "omitted": list(letter.omitted),
        "headers": headers,
        "body": preview(letter.value) if body else shape(letter.value),
        "can_be_requeued": why_not is None,
        "why_not": why_not,
    }
    if why_not is None and letter.error_class != "model":
        # The bytes are the same: only a worker that accepts them helps.
        facts["note"] = (
            "requeue sends the same bytes: this version of the worker refuses them again"
        )
    return facts


def choice_of(
    ids: list[str] | None, reasons: list[str] | None, since: str | None, until: str | None
) -> Choice:
    """Return the filter of these flags. Raises `ConfigError` for an unknown reason or time."""
    from stream.events.poison import Reason

    known = {reason.value for reason in Reason}
    for reason in reasons or ():
        if reason not in known:
            raise ConfigError(f"no reason {reason}: there are {', '.join(sorted(known))}")
    now = datetime.now(UTC)
    return Choice(
        frozenset(ids or ()), frozenset(reasons or ()), moment(since, now), moment(until, now)
    )
