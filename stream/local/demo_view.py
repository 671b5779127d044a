"""Views of the demo: a live table in a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from stream.events.messages import PredictionEvent, ShiftAlert, Utterance

BAR_CELLS: Final = 10
EIGHTHS: Final = " ▏▎▍▌▋▊▉█"
COLOURS: Final = {
    "neutral": "grey62",
    "surprise": "bright_yellow",
    "fear": "magenta",
    "sadness": "dodger_blue1",
    "joy": "green3",
    "disgust": "dark_olive_green3",
    "anger": "red1",
}


def bar(probability: float) -> str:
    """Return a probability as a bar of `BAR_CELLS` characters."""
    full, part = divmod(round(max(0.0, min(1.0, probability)) * BAR_CELLS * 8), 8)
    return ("█" * full + EIGHTHS[part]).ljust(BAR_CELLS)[:BAR_CELLS]


def shift_mark(prediction: PredictionEvent) -> str:
    """Return the shift as in `⇄ joy→anger 81%`, with the mark from 50 %; a first one has none."""
    if prediction.shift is None:
        return "· first words"
    shift = prediction.shift
    mark = "⇄" if shift.probability >= 0.5 else " "
    return f"{mark} {shift.from_}→{shift.to} {shift.probability:.0%}"


def inputs_note(modalities: Sequence[str]) -> str:
    """Return the names of the inputs that were there, and of those that were not."""
    absent = [m for m in ("text", "audio", "video") if m not in modalities]
    there = "+".join(m for m in ("text", "audio", "video", "persona") if m in modalities)
    return there + (f" (no {', no '.join(absent)})" if absent else "")


class PlainView:
    """A view of plain lines, for pipes and logs."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def _print(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def status(self, text: str) -> None:
        """Show the current step of the demo."""
        self._print(f"-- {text}")

    def answer(self, u: Utterance, p: PredictionEvent) -> None:
        """Show an utterance and its prediction."""
        line = f"{u.conversation_id}  {u.speaker_id}: {u.text or '…'}"
        emotion = f"{p.emotion} {p.confidence:.0%}"
        self._print(f"{line}\n    {bar(p.confidence)} {emotion:14} {shift_mark(p)}")

    def alert(self, alert: ShiftAlert) -> None:
        """Show a shift alert so that it stands out."""
        shift = f"{alert.speaker_id} {alert.from_}→{alert.to} {alert.probability:.0%}"
        self._print(f"!!! SHIFT ALERT {alert.conversation_id} {shift} ({alert.rule})")


class LiveView:
    """A live table of the latest utterances above the alerts, with the methods of `PlainView`."""

    def __init__(self, console: Console, total: int) -> None:
        self._total = total
        self._answered = 0
        self._status = ""
        rows = max(8, console.height - 14)
        self._rows: deque[tuple[Utterance, PredictionEvent]] = deque(maxlen=rows)
        self._alerts: deque[ShiftAlert] = deque(maxlen=4)
        self._alerted: set[str] = set()
        self.live = Live(get_renderable=self.render, console=console, refresh_per_second=12)

    def status(self, text: str) -> None:
        self._status = text

    def answer(self, u: Utterance, p: PredictionEvent) -> None:
        self._rows.append((u, p))
        self._answered += 1

    def alert(self, alert: ShiftAlert) -> None:
        self._alerts.append(alert)
        self._alerted.add(alert.utterance_id)

    def render(self) -> RenderableType:
        """Return the table, the alerts and the status line."""
        table = Table(expand=True, box=None, pad_edge=False, header_style="dim")
        table.add_column("conversation", no_wrap=True)
        table.add_column("speaker", no_wrap=True)
        table.add_column("says", ratio=1, no_wrap=True, overflow="ellipsis")
        table.add_column("emotion", no_wrap=True, width=BAR_CELLS + 14)
        table.add_column("shift", no_wrap=True, min_width=24)
        for answered in list(self._rows):  # rendered on one thread, filled on another
            table.add_row(*self._row(*answered))
        count = f"{self._answered} of {self._total} utterances answered"
        return Group(
            Panel(table, title="[bold]emotrack[/] · live", border_style="grey42"),
            self._alert_panel(),
            Text(f"{count} · {self._status}", style="dim"),
        )

    def _row(self, u: Utterance, p: PredictionEvent) -> list[Text]:
        colour = COLOURS.get(p.emotion, "cyan")
        shifted = p.shift is not None and p.shift.probability >= 0.5
        alerted = u.utterance_id in self._alerted
        style = "bold red" if alerted else ("bold" if shifted else "dim")
        return [
            Text(u.conversation_id.removeprefix("demo-"), style="dim"),
            Text(u.speaker_id, style="bold"),
            Text(u.text or "…"),
            Text.assemble(
                (bar(p.confidence), colour), f" {p.confidence:4.0%} ", (p.emotion, colour)
            ),
            Text(("▲ " if alerted else "") + shift_mark(p), style=style),
        ]

    def _alert_panel(self) -> RenderableType:
        if not self._alerts:
            return Panel(Text("no alert yet", style="dim"), title="shift alerts", height=6)
        lines = [
            Text.assemble(
                ("▲ ", "bold red"),
                (f"{a.speaker_id} ", "bold"),
                (f"{a.from_} → {a.to} ", f"bold {COLOURS.get(a.to, 'red')}"),
                f"{a.probability:.0%}  in {a.conversation_id}  ({a.rule}, {a.severity})",
            )
            for a in list(self._alerts)
        ]
        return Panel(Group(*lines), title="[bold red]shift alerts[/]", border_style="red", height=6)


View = PlainView | LiveView
