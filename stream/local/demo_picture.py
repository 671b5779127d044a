"""The demo's timeline as a picture, for `emotrack demo --picture FILE.svg` (or .png)."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Patch

from model.scoring.pictures import BLUE, DPI, GREEN, GREY, INK, ORANGE, STYLE
from stream.events.messages import PredictionEvent, ShiftAlert, Utterance
from stream.local.demo_view import inputs_note

COLOURS: Final = {  # Okabe and Ito's, as in the pictures of a report
    "neutral": "#C4C4C4", "joy": GREEN, "surprise": "#E69F00", "sadness": BLUE, "anger": ORANGE,
    "fear": "#CC79A7", "disgust": "#7A5C2E",
}  # fmt: skip
WIDTH, HEADER, ROW = 900, 42, 200  # pixels of 1/96 inch, as are all places below
LEFT, RIGHT = 22, 878  # of the bars
BASE, FULL = 84, 66  # the foot of the bars above the bottom of their row; the height of 100 %
CALLOUT: Final = 152  # least distance between the middles of two callouts
NOTE: Final = "bar: confidence, up to 100 %     line: shift probability     arrow: alert"
ARROW: Final = {"arrowstyle": "-|>", "connectionstyle": "arc3,rad=-0.22", "lw": 1.3}
MIDDLE: Final[dict[str, Any]] = {"ha": "center", "va": "top"}
Script = Mapping[str, Sequence[Utterance]]
Answers = Mapping[str, PredictionEvent]  # by utterance id, as are the next
Places = Mapping[str, float]


def draw(path: Path, script: Script, answers: Answers, alerts: Sequence[ShiftAlert]) -> None:
    """Write the timeline as .svg or .png, a row per conversation; equal answers, equal bytes."""
    height = HEADER + ROW * len(script)
    with rc_context({"svg.hashsalt": "emotrack", "font.size": 8}, fname=STYLE):
        figure = Figure(figsize=(WIDTH / 96, height / 96))
        axes = figure.add_axes((0, 0, 1, 1), xlim=(0, WIDTH), ylim=(0, height))
        axes.set_axis_off()
        card = FancyBboxPatch((1, 1), WIDTH - 2, height - 2, "round,pad=0,rounding_size=10")
        card.set(facecolor="white", edgecolor="#D0D0D0")  # readable on a dark page too
        axes.add_patch(card)
        seen = {p.emotion for p in answers.values()}
        patches = [Patch(color=COLOURS[e], label=e) for e in COLOURS if e in seen]
        axes.legend(handles=patches, loc="center left", bbox_to_anchor=(0.013, 1 - 25 / height),
                    ncols=7, handlelength=1, handleheight=1, handletextpad=0.5)  # fmt: skip
        axes.text(RIGHT, height - 25, NOTE, va="center", ha="right", color=GREY)
        for number, (name, utterances) in enumerate(script.items(), 1):
            base = height - HEADER - ROW * number + BASE
            note = inputs_note(answers[utterances[0].utterance_id].modalities_used)
            axes.text(LEFT, base + 108, name, weight="bold", fontsize=9.5, va="center")
            axes.text(LEFT + 8 + 8.5 * len(name), base + 108, note, color=GREY, va="center")
            at = _bars(axes, base, utterances, answers)
            _callouts(axes, base, {u.utterance_id: u.text or "" for u in utterances}, at, alerts)
        undated = {"Date": None, "Creator": None}
        figure.savefig(path, dpi=DPI, metadata=undated, transparent=True)


def _bars(axes: Axes, base: float, spoken: Sequence[Utterance], answers: Answers) -> Places:
    """Draw bars, names and the shift line of a conversation; return the middles of the bars."""
    step, shifts = (RIGHT - LEFT) / len(spoken), []
    at = {u.utterance_id: LEFT + (i + 0.5) * step for i, u in enumerate(spoken)}
    axes.hlines([base, base + FULL], LEFT, RIGHT, colors=[GREY, "#E6E6E6"], linewidths=0.6)
    for u in spoken:
        p, x = answers[u.utterance_id], at[u.utterance_id]
        colour = to_rgba(COLOURS.get(p.emotion, GREY), 0.4 + 0.6 * p.confidence)
        axes.bar(x, FULL * p.confidence, 0.8 * step, base, color=colour)
        axes.text(x, base - 9, u.speaker_id, ha="center", va="center", fontsize=6.2)
        shifts += [(x, base + FULL * p.shift.probability)] if p.shift else []
    axes.plot([x for x, _ in shifts], [y for _, y in shifts], "o-", color=INK, lw=0.7, ms=1.8)
    return at


def _callouts(
    axes: Axes, base: float, texts: Mapping[str, str], at: Places, alerts: Sequence[ShiftAlert]
) -> None:
    """Draw each alert's arrow above the bars and its words below them."""
    own = sorted((a for a in alerts if a.utterance_id in at), key=lambda a: at[a.utterance_id])
    for a, middle in zip(own, spread([at[a.utterance_id] for a in own]), strict=True):
        x, before, top = at[a.utterance_id], at[a.previous_utterance_id], base + FULL + 3
        colour = GREY if a.to == "neutral" else COLOURS.get(a.to, GREY)
        axes.annotate("", (x, top), (before, top), arrowprops=ARROW | {"color": colour})
        axes.plot([x, x, middle, middle], [base - d for d in (16, 20, 28, 32)], color=colour, lw=1)
        text = textwrap.shorten(texts[a.utterance_id], 50, placeholder=" …")
        change, words = f"{a.speaker_id}: {a.from_} → {a.to}", textwrap.fill(f"“{text}”", 28)
        axes.text(middle, base - 35, change, weight="bold", fontsize=7, **MIDDLE)
        axes.text(middle, base - 49, words, fontsize=6.8, **MIDDLE)


def spread(wanted: Sequence[float]) -> list[float]:
    """Move the middles of callouts, in ascending order, apart and inside the picture."""
    placed: list[float] = []
    for x in wanted:
        placed.append(max(x, placed[-1] + CALLOUT if placed else LEFT + CALLOUT / 2))
    last = RIGHT - CALLOUT / 2 - CALLOUT * (len(placed) - 1)
    return [min(x, last + CALLOUT * i) for i, x in enumerate(placed)]
