"""The scores of a report in words and cells, as the console and the page show them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

from model.scoring.bootstrap import LEAST_DIALOGUES, Interval, ScoreName
from model.scoring.calibrate import LEAST_SHIFTS
from model.scoring.report import Calibrated, Report

SCORE_NAMES: Final[dict[ScoreName, str]] = {
    "accuracy": "accuracy, %",
    "weighted_f1": "weighted F1, %",
    "macro_f1": "macro F1, %",
    "shift_auroc": "shift AUROC, %",
    "shift_average_precision": "shift average precision, %",
    "shift_c2_weighted_f1": "(from, to) weighted F1, %",
    "shift_c2_accuracy": "(from, to) accuracy, %",
    "emotion_ece": "emotion calibration error, %",
    "shift_ece": "shift calibration error, %",
}
SCORE_HEADER: Final = ("", "value", "95 % interval", "to be read beside")


def score_lines(report: Report) -> list[tuple[str, ...]]:
    """Return the rows under `SCORE_HEADER`: each score, its interval, what chance would give."""
    always, still = report.majority, report.no_shift
    answer, pair = f"always {always.answer}", f"always {still.answer}"
    bases: dict[ScoreName, tuple[float, str]] = {
        "accuracy": (always.accuracy, answer),
        "weighted_f1": (always.weighted_f1, answer),
        "macro_f1": (always.macro_f1, answer),
    }
    if report.pairs:
        bases |= {
            "shift_auroc": (0.5, "chance"),
            "shift_average_precision": (report.shift_base_rate, "chance"),
            "shift_c2_weighted_f1": (still.weighted_f1, pair),
            "shift_c2_accuracy": (still.accuracy, pair),
        }
    rows: list[tuple[str, ...]] = []
    for name, (base, base_name) in bases.items():
        score: Interval = getattr(report, name)
        beside = f"{100 * base:.1f} ({base_name})"
        cells = percent(score.value), ends(score, report.dialogues)
        rows.append((SCORE_NAMES[name], *cells, beside))
    rows += _calibration_lines(report)
    rows.append(("error over share answered (AURC), %", percent(report.risk.area), "", ""))
    return rows


def _calibration_lines(report: Report) -> Iterator[tuple[str, ...]]:
    both: dict[ScoreName, Calibrated] = {"emotion_ece": report.emotion, "shift_ece": report.shift}
    for name, found in both.items():
        if math.isfinite(found.after.ece):
            before = f"{100 * found.before.ece:.1f} as the logits come"
            context = f"{100 * found.after.floor:.1f} (by chance); {before}"
            if math.isfinite(found.out_of_fold):
                context += f"; {100 * found.out_of_fold:.1f} out of fold"
            yield SCORE_NAMES[name], percent(found.after.ece), "", context


def ends(score: Interval, dialogues: int, factor: int = 100, digits: int = 1) -> str:
    """Return an interval's ends; or what it would need."""
    if not math.isfinite(score.value):
        return "-"
    if dialogues < LEAST_DIALOGUES:
        return f"needs {LEAST_DIALOGUES} dialogues"
    return f"{factor * score.low:.{digits}f} to {factor * score.high:.{digits}f}"


def percent(share: float) -> str:
    """Return a share in percent; "-" where there is none."""
    return f"{100 * share:.1f}" if math.isfinite(share) else "-"


def shifts_of(report: Report) -> int:
    """Return how many pairs shift."""
    return round(report.pairs * report.shift_base_rate) if report.pairs else 0


def remarks(report: Report) -> list[str]:
    """Return sentences on what the alerts do, on abstention, and on what is too little to tell."""
    alerts, point = report.alerts, report.abstention
    said = []
    if report.pairs and math.isfinite(alerts.recall):
        said.append(
            f"Alerts find {percent(alerts.recall)} % of the shifts with {alerts.false_per_100:.1f} "
            f"false alarms per 100 pairs ({report.pairs:,} pairs, of which "
            f"{percent(report.shift_base_rate)} % shift)."
        )
    elif report.pairs:
        said.append(f"None of {report.pairs:,} pairs shifts: alerts cannot be scored.")
    else:
        said.append("No speaker has two labelled utterances: shifts cannot be scored.")
    if point.abstained:
        said.append(
            f"{percent(point.abstained)} % abstained, of which "
            f"{percent(point.abstained_accuracy)} % would have been right."
        )
    if report.dialogues < LEAST_DIALOGUES:
        said.append(
            f"{_count(report.dialogues, 'dialogue')}: an interval needs {LEAST_DIALOGUES} at least."
        )
    if 0 < shifts_of(report) < LEAST_SHIFTS:
        said.append(
            f"{_count(shifts_of(report), 'shift')}: fewer than {LEAST_SHIFTS} tell little of the "
            "alerts."
        )
    return said


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
