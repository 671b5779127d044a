"""Pictures of a report and of a training run, as PNG in one style, safe for colour-blind eyes.

matplotlib is imported when a picture is drawn: `emotrack --help` must stay quick. Figures are drawn
without pyplot, so nothing global is set and no display is needed.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from model.scoring.report import Calibrated, Report

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's palette: told apart with any of the common kinds of colour blindness.
BLUE: Final = "#0072B2"
ORANGE: Final = "#D55E00"
GREEN: Final = "#009E73"
SKY: Final = "#A9CDE3"
INK: Final = "#333333"
GREY: Final = "#8A8A8A"
DPI: Final = 144
MOST_NUMBERED: Final = (
    40  # labels of a confusion matrix with numbers: one of 200 is 750 MB of pixels
)
STYLE: Final = Path(__file__).with_name("pictures.mplstyle")


@dataclass(frozen=True, slots=True)
class Picture:
    """A PNG with its heading and a caption of one sentence."""

    name: str
    heading: str
    caption: str
    png: bytes


def report_pictures(report: Report) -> tuple[Picture, ...]:
    """Draw every picture of a report; those of shift only where pairs can be scored."""
    pictures = [
        Picture(
            "confusion",
            "Which emotions are mistaken for which",
            "A row is a true emotion. A cell holds a count and its share of the row, its colour."
            if len(report.classes) <= MOST_NUMBERED
            else "A row is a true emotion, in the order of the table below; a cell's colour is its "
            "share of the row.",
            confusion_picture(report),
        ),
        Picture(
            "classes",
            "How well each emotion is found",
            "Bars are F1; triangles precision and circles recall.",
            class_picture(report),
        ),
        Picture(
            "emotion-reliability",
            "Whether a stated confidence can be taken at its word",
            "On the diagonal an answer is right as often as it says. Below: answers per bin.",
            reliability_picture(report.emotion, "confidence", "share right"),
        ),
        Picture(
            "risk-coverage",
            "What abstaining buys",
            "Accuracy when the least sure answers are held back.",
            risk_picture(report),
        ),
    ]
    if report.pairs:
        pictures += [
            Picture(
                "shift-decisions",
                "How well shifts are told from steady moods",
                "The dot is the threshold of the built-in alert rule; dashes are the base rate.",
                shift_picture(report),
            ),
            Picture(
                "shift-reliability",
                "Whether a stated shift probability can be taken at its word",
                "On the diagonal a shift comes as often as stated. Below: pairs per bin.",
                reliability_picture(report.shift, "shift probability", "share that shifted"),
            ),
        ]
    return tuple(pictures)


def confusion_picture(report: Report) -> bytes:
    """Draw the confusion matrix, coloured by row share, with counts in the cells."""
    counts = report.confusion
    labels = [c.label for c in report.classes]
    share = counts / np.maximum(1, counts.sum(1, keepdims=True))
    side = 1.6 + 0.68 * min(len(labels), MOST_NUMBERED)
    with _figure(side + 1.0, side) as (figure, png):
        axes = figure.subplots()
        image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
        numbered = len(labels) <= MOST_NUMBERED
        for (row, column), count in np.ndenumerate(counts[: len(counts) * numbered]):
            colour = "white" if share[row, column] > 0.55 else INK
            place: dict[str, Any] = {"ha": "center", "color": colour}
            axes.text(column, row - 0.05, f"{count:,}", va="center", **place)
            percent = f"{100 * share[row, column]:.0f} %"
            axes.text(column, row + 0.3, percent, va="center", fontsize=7, alpha=0.8, **place)
        if numbered:
            axes.set_xticks(range(len(labels)), labels, rotation=35, ha="right")
            axes.set_yticks(range(len(labels)), labels)
        axes.set(xlabel="answered", ylabel="true")
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
        bar = figure.colorbar(image, ax=axes, shrink=0.8, label="share of the true emotion")
        bar.outline.set_visible(False)
    return png()


def class_picture(report: Report) -> bytes:
    """Draw F1 of each class as bars, the commonest on top, with precision and recall."""
    classes = sorted(report.classes, key=lambda c: c.support)
    at = np.arange(len(classes))
    with _figure(7.2, 1.4 + 0.46 * len(classes)) as (figure, png):
        axes = figure.subplots()
        axes.barh(at, [c.f1 for c in classes], color=SKY, height=0.62, label="F1")
        axes.plot([c.precision for c in classes], at, "^", color=ORANGE, label="precision")
        axes.plot([c.recall for c in classes], at, "o", color=GREEN, label="recall")
        for y, c in enumerate(classes):
            axes.text(0.012, y, f"{c.f1:.2f}", va="center", fontsize=9)
        axes.set_yticks(at, [f"{c.label} ({c.support:,})" for c in classes])
        axes.set(xlim=(0, 1.01), xlabel="score (number of true utterances in brackets)")
        axes.grid(visible=False, axis="y")
        figure.legend(loc="outside upper right", ncols=3)
    return png()


def reliability_picture(found: Calibrated, stated: str, observed: str) -> bytes:
    """Draw stated against observed before and after calibration, with the count of each bin."""
    with _figure(9.0, 5.0) as (figure, png):
        grid = figure.subplots(
            2, 2, sharex=True, sharey="row", gridspec_kw={"height_ratios": [3.2, 1]}
        )
        pair = (("before", found.before), (f"after (T = {found.temperature:.2f})", found.after))
        for (title, one), (top, bottom) in zip(pair, grid.T, strict=True):
            bins = [b for b in one.bins if b.count]
            top.plot([0, 1], [0, 1], "--", color=GREY, linewidth=1.2)
            for b in bins:  # the gap that the calibration error sums
                ends = [b.stated, b.observed]
                top.plot([b.stated, b.stated], ends, color=ORANGE, alpha=0.7, lw=2.2)
            top.plot([b.stated for b in bins], [b.observed for b in bins], "o-", color=BLUE, ms=5)
            top.set(xlim=(0, 1), ylim=(0, 1.03))
            middles = [(b.low + b.high) / 2 for b in bins]
            width = 0.86 * one.bins[0].high
            bars = bottom.bar(middles, [b.count for b in bins], width=width, color=SKY)
            bottom.bar_label(bars, fontsize=7, color=INK, padding=1)
            bottom.margins(y=0.28)
            bottom.grid(visible=False, axis="x")
            top.set_title(f"{title}: ECE {100 * one.ece:.1f} %")
            floor = f"chance alone: {100 * one.floor:.1f} %"
            top.text(0.98, 0.04, floor, ha="right", color=GREY, transform=top.transAxes)
            bottom.set_xlabel(f"stated {stated}")
        grid[0, 0].set_ylabel(observed)
        grid[1, 0].set_ylabel("count")
    return png()


def risk_picture(report: Report) -> bytes:
    """Draw accuracy against the share answered, with the checkpoint's point."""
    risk, point = report.risk, report.abstention
    shown = risk.coverage >= min(1.0, 20 / len(risk.coverage))  # of fewer the share jumps about
    with _figure(7.2, 4.2) as (figure, png):
        axes = figure.subplots()
        axes.plot(risk.coverage[shown], risk.accuracy[shown], color=BLUE, label="surest first")
        axes.axhline(
            report.accuracy.value, ls="--", color=GREY, lw=1.2, label="in any order (all answered)"
        )
        answered = 1 - point.abstained
        axes.plot(
            [answered], [point.answered_accuracy], "o", color=ORANGE, ms=9, zorder=5,
            label=f"checkpoint: {100 * answered:.0f} % answered, "
            f"{100 * point.answered_accuracy:.1f} % of those right",
        )  # fmt: skip
        axes.set(xlim=(0, 1.01), ylim=(min(0.3, report.accuracy.value - 0.1), 1.0))
        axes.set(xlabel="share of utterances answered", ylabel="share of those right")
        axes.set_title(f"area under the error (AURC) {risk.area:.3f}")
        axes.legend(loc="upper right")
    return png()


def shift_picture(report: Report) -> bytes:
    """Draw ROC and precision-recall of "has shifted", with the alert rule's threshold."""
    curve, alerts = report.shift_decisions, report.alerts
    with _figure(9.0, 4.4) as (figure, png):
        roc, trade = figure.subplots(1, 2)
        roc.plot(curve.false_rate, curve.recall, color=BLUE)
        roc.plot([0, 1], [0, 1], "--", color=GREY, lw=1.2)
        roc.plot([alerts.false_rate], [alerts.recall], "o", color=ORANGE, ms=9, zorder=5)
        roc.set(xlabel="share of steady pairs alerted", ylabel="share of shifts found (recall)")
        roc.set_title(f"ROC: area {report.shift_auroc.value:.3f}")
        trade.plot(curve.recall, curve.precision, color=BLUE)
        trade.axhline(report.shift_base_rate, ls="--", color=GREY, lw=1.2)
        trade.plot([alerts.recall], [alerts.precision], "o", color=ORANGE, ms=9, zorder=5)
        trade.set(xlabel="share of shifts found (recall)", ylabel="share of alerts right")
        trade.set_title(f"average precision {report.shift_average_precision.value:.3f}")
        for axes in (roc, trade):
            axes.set(xlim=(0, 1.01), ylim=(0, 1.02))
    return png()


@contextmanager
def _figure(width: float, height: float) -> Iterator[tuple[Figure, Callable[[], bytes]]]:
    """Yield a figure in `STYLE` and a function that returns its PNG after the block."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(fname=STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        saved: list[bytes] = []
        yield figure, lambda: saved[0]
        out = io.BytesIO()
        figure.savefig(out, format="png", dpi=DPI, metadata={"Software": None})
        saved.append(out.getvalue())
