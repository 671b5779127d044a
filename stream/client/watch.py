"""Watch predictions or alerts: a live table in a terminal, plain lines or JSON lines elsewhere."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from itertools import islice
from typing import Final, TextIO

from rich.console import Console, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from stream.client.subscriber import Received
from stream.events.cloudevents import END_TO_END_MS
from stream.events.messages import PredictionEvent, ShiftAlert, encode

Event = Received[PredictionEvent] | Received[ShiftAlert]
BAR: Final = 10
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
    """Show events until there are no more, `limit` are shown, or Ctrl-C; return how many."""
    shown = 0
    try:
        for _ in _shown(events, console, limit, jsonl, out or sys.stdout):
            shown += 1
    except KeyboardInterrupt:
        pass  # the usual way to stop watching
    return shown


def _shown(
    events: Iterable[Event], console: Console, limit: int | None, jsonl: bool, out: TextIO
) -> Iterator[None]:
    """Show each event, then yield."""
    wanted = islice(events, limit)
    if jsonl:
        for event in wanted:
            out.write(encode(event.event).decode() + "\n")
            out.flush()
            yield
    elif console.is_terminal:
        yield from _live(wanted, console)
    else:
        for number, event in enumerate(wanted):
            if number == 0:
                console.print(" | ".join(_COLUMNS), soft_wrap=True)
            console.print(Text("  ").join(cells(event)), soft_wrap=True)
            yield


def _live(events: Iterator[Event], console: Console) -> Iterator[None]:
    latest: deque[Event] = deque(maxlen=max(5, min(_ROWS, console.height - 5)))
    with Live(table(latest), console=console, refresh_per_second=8) as live:
        for event in events:
            latest.append(event)
            live.update(table(latest))
            yield


def table(events: Iterable[Event]) -> RenderableType:
    """The latest events, oldest first."""
    drawn = Table(*_COLUMNS, expand=True, caption="Ctrl-C ends")
    for event in events:
        drawn.add_row(*cells(event))
    return drawn


def cells(received: Event) -> list[Text]:
    """One event as the seven cells of a row."""
    event = received.event
    head = [
        Text(f"{datetime.fromtimestamp(received.timestamp_ms / 1000, UTC):%H:%M:%S}"),
        Text(event.conversation_id),
        Text(event.speaker_id),
    ]
    body = _prediction(event) if isinstance(event, PredictionEvent) else _alert(event)
    return [*head, *body, Text(_latency(received))]


def _prediction(event: PredictionEvent) -> list[Text]:
    name = f"({event.reason or 'abstained'})" if event.abstained else event.emotion
    shift = Text("-", style="dim")
    if event.shift is not None:
        moved = f"{event.shift.from_} -> {event.shift.to}"
        shift = Text(f"{event.shift.probability:.2f} {moved}")
    return [Text(name, style="dim" if event.abstained else "bold"), bar(event.confidence), shift]


def _alert(event: ShiftAlert) -> list[Text]:
    style = _SEVERITY_STYLE[event.severity]
    moved = f"{event.from_} -> {event.to}"
    return [Text(event.to, style=style), bar(event.probability), Text(f"ALERT {moved}", style)]


def bar(probability: float) -> Text:
    """`######.... 0.61`: ten marks and the number."""
    full = round(max(0.0, min(1.0, probability)) * BAR)
    return Text("#" * full, "green") + Text("." * (BAR - full), "dim") + f" {probability:.2f}"


def _latency(received: Event) -> str:
    """Milliseconds from broker time to produced, as the worker says in the headers."""
    said = dict(received.headers).get(END_TO_END_MS)
    return f"{float(said):.1f}" if said is not None else ""
