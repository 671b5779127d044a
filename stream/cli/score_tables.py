"""Scores as tables for the console."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from model.scoring.bootstrap import Difference
    from model.scoring.report import Report


def print_report(report: Report, title: str) -> None:
    """Print the scores with their goals and base rates, and the scores of each class."""
    from model.scoring.report import goal_rows

    table = Table("", "value", "95 % interval", "first", "aim", "beside", title=title)
    for name, row in goal_rows(report).items():
        low, high = row.get("ci95", (None, None))
        interval = "" if low is None else f"{low} to {high}"
        value = "-" if row["value"] is None else f"{row['value']} {row['unit']}"
        table.add_row(name, value, interval, str(row["first"]), str(row["aim"]), row["reference"])
    classes = Table("", "precision", "recall", "F1", "utterances")
    for c in report.classes:
        scores = (f"{100 * score:.1f}" for score in (c.precision, c.recall, c.f1))
        classes.add_row(c.label, *scores, f"{c.support:,}")
    alerts, point, always = report.alerts, report.abstention, report.majority
    parts = [
        f"accuracy {100 * report.accuracy.value:.1f} % (always {always.answer}: "
        f"{100 * always.accuracy:.1f} %)",
        f"macro F1 {100 * report.macro_f1.value:.1f} %",
        f"AURC {report.risk.area:.3f}",
    ]
    if report.pairs:
        parts += [
            f"(from, to) accuracy {100 * report.shift_c2_accuracy.value:.1f} %",
            f"alerts find {100 * alerts.recall:.1f} % of shifts with {alerts.false_per_100:.1f} "
            "false alarms per 100 pairs",
        ]
    if point.abstained:
        parts.append(
            f"{100 * point.abstained:.1f} % abstained ({100 * point.abstained_accuracy:.1f} % of "
            "those right)"
        )
    Console().print(table, classes, "; ".join(parts))


def print_differences(differences: Sequence[Difference], title: str) -> None:
    """Print the differences of two models, score by score, and whether the main one is noise."""
    from model.scoring.html_page import DIFFERENCE_HEADER, difference_row, difference_sentence

    table = Table(*DIFFERENCE_HEADER, title=title)
    for difference in differences:
        table.add_row(*difference_row(difference))
    main = next(d for d in differences if d.score == "weighted_f1")
    Console().print(table, difference_sentence(main))
