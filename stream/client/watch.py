"""Display of predictions or alerts: a live table in a terminal, lines of text or JSON, a file."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Final, TextIO

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from stream.client.answer_file import AnswerFile
from stream.client.subscriber import Received
from stream.events.answer_rows import (
    ALERT_COLUMNS,
    PREDICTION_COLUMNS,
    Row,
    alert_row,
    answer_row,
    probability_columns,
)
from stream.events.cloudevents import END_TO_END_MS, utc
from stream.events.messages import PredictionEvent, ShiftAlert, encode

Event = Received[PredictionEvent] | Received[ShiftAlert]
BAR: Final = 10
TIME: Final = "time"  # column of a table: when the broker took the record, UTC
_ROWS: Final = 20
_COLUMNS: Final = (
    "time, UTC",
    "conversation",
    "speaker",
    "emotion",
    "confidence",
    "shift: probability, from and to",
    "latency, ms",
)
_SEVERITY_STYLE: Final = {"info": "cyan", "warning": "bold yellow", "critical": "bold red"}


def watch(
    events: Iterable[Event],
    console: Console,
    *,
    limit: int | None = None,
    jsonl: bool = False,
    out: TextIO | None = None,
) -> int:
    """Show events until their end, `limit` of them, or Ctrl-C; return the number shown."""
    shown = 0
    with suppress(KeyboardInterrupt):  # the usual way to stop watching
        for _ in _show(islice(events, limit), console, jsonl, out):
            shown += 1
    return shown


def save(
    events: Iterable[Event], path: Path, *, alerts: bool, limit: int | None = None
) -> AnswerFile:
    """Write events to a table as they come, until their end, `limit` of them, or Ctrl-C.

    The labels of the first prediction are the columns of a .csv or .parquet: those of a model
    with others are left out, and counted. Returns the closed file, for its counts.
    """
    file: AnswerFile | None = None
    try:
        with suppress(KeyboardInterrupt):
            for received in islice(events, limit):
                file = file or AnswerFile(path, _columns(received.event), whole=False)
                file.write(received.event, _row(received))
        file = file or AnswerFile(path, _columns(None, alerts=alerts), whole=False)
        return file
    finally:
        if file is not None:
            file.close()


def _columns(
    first: PredictionEvent | ShiftAlert | None, *, alerts: bool = False
) -> dict[str, type]:
    """Return the columns of a table that begins with this event, or has none."""
    if alerts or isinstance(first, ShiftAlert):
        return {TIME: str, **ALERT_COLUMNS}
    labels = () if first is None else first.probabilities
    return {TIME: str, **PREDICTION_COLUMNS, **probability_columns(list(labels))}


def _row(received: Event) -> Row:
    event = received.event
    row = answer_row(event) if isinstance(event, PredictionEvent) else alert_row(event)
    return {TIME: utc(received.timestamp_ms).isoformat(timespec="milliseconds"), **row}


def _show(
    events: Iterable[Event], console: Console, jsonl: bool, out: TextIO | None
) -> Iterator[None]:
    """Show each event, then yield."""
    if jsonl:
        for event in events:
            print(encode(event.event).decode(), file=out, flush=True)
            yield
    elif console.is_terminal:
        latest: deque[Event] = deque(maxlen=max(5, min(_ROWS, console.height - 5)))
        with Live(_table(latest), console=console, refresh_per_second=8) as live:
            for event in events:
                latest.append(event)
                live.update(_table(latest))
                yield
    else:
        for number, event in enumerate(events):
            if number == 0:
                console.print(" | ".join(_COLUMNS), soft_wrap=True)
            console.print(Text("  ").join(_cells(event)), soft_wrap=True)
            yield


def _table(events: Iterable[Event]) -> Table:
    table = Table(*_COLUMNS, expand=True, caption="Ctrl-C ends")
    for event in events:
        table.add_row(*_cells(event))
    return table


def _cells(received: Event) -> list[Text]:
    """Return the seven cells of an event's row."""
    event = received.event
    head = [
        Text(f"{utc(received.timestamp_ms):%H:%M:%S}"),
        Text(event.conversation_id),
        Text(event.speaker_id),
    ]
    body = _prediction(event) if isinstance(event, PredictionEvent) else _alert(event)
    latency_ms = dict(received.headers).get(END_TO_END_MS)  # from broker time to produced
    return [*head, *body, Text(_decimal(latency_ms))]


def _decimal(header: bytes | None) -> str:
    """Return a header's number with one decimal; nothing where another writer put no number."""
    try:
        return "" if header is None else f"{float(header):.1f}"
    except ValueError:
        return ""


def _prediction(event: PredictionEvent) -> list[Text]:
    name = f"({event.reason or 'abstained'})" if event.abstained else event.emotion
    shift = Text("-", style="dim")
    if event.shift is not None:
        shift = Text(f"{event.shift.probability:.2f} {event.shift.from_} -> {event.shift.to}")
    return [Text(name, style="dim" if event.abstained else "bold"), bar(event.confidence), shift]


def _alert(event: ShiftAlert) -> list[Text]:
    style = _SEVERITY_STYLE[event.severity]
    shift = Text(f"ALERT {event.from_} -> {event.to}", style)
    return [Text(event.to, style=style), bar(event.probability), shift]


def bar(probability: float) -> Text:
    """Return ten marks and the number, as in `######.... 0.61`."""
    full = round(max(0.0, min(1.0, probability)) * BAR)
    return Text("#" * full, "green") + Text("." * (BAR - full), "dim") + f" {probability:.2f}"
