"""Model cards from their templates: scores and limits are sections of every card."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from string import Template
from typing import Final

from model.scoring.bootstrap import Interval
from model.scoring.calibrate import ABSTAIN_SHARE, FALSE_ALARMS_PER_100
from model.scoring.report import Calibrated, Report
from model.serving.calibration import Thresholds

_HERE: Final = Path(__file__).parent


def filled_card(
    template: Path, report: Report, points: Thresholds, *, data: str, **values: object
) -> str:
    """Fill a card's template in; `report` is of the dev split of `data`."""
    f1 = report.class_f1
    how_good = _filled(
        _HERE / "card_scores.md",
        scores=scores_table(report),
        class_f1=", ".join(f"{label} {100 * value:.1f}" for label, value in f1.items()),
        shift=f"{points.shift:.3f}",
        exit=f"{points.shift_exit:.3f}",
        abstain=f"{points.abstain_below:.3f}",
        false_alarms=f"{FALSE_ALARMS_PER_100:g}",
        abstained=f"{100 * ABSTAIN_SHARE:g}",
    )
    own = _HERE / f"card_limits_{data}.md"
    of_the_data = _filled(own if own.exists() else _HERE / "card_limits_other.md", data=data)
    rare = ", ".join(sorted(f1, key=lambda label: f1[label])[:2])
    limits = _filled(_HERE / "card_limits.md", rare=rare, of_the_data=of_the_data) + "\n"
    return _filled(template, data=data, how_good=how_good, limits=limits, **values)


def languages_section(known: Sequence[str], scripts: Sequence[str]) -> str:
    """Return what a card says of the languages that its checkpoint states."""
    letters = ", ".join(script.capitalize() for script in scripts)
    return _filled(_HERE / "card_languages.md", known=", ".join(known), scripts=letters)


def _filled(template: Path, **values: object) -> str:
    return Template(template.read_text("utf-8").rstrip("\n")).substitute(values)


def scores_table(report: Report) -> str:
    """Return rows of a Markdown table: score and its interval."""
    base = f"{100 * report.shift_base_rate:.1f} % of {report.pairs} pairs shift"
    always, still = report.majority, report.no_shift
    rows = [
        ("utterances", f"{report.utterances}"),
        (f"accuracy (always {always.answer}: {100 * always.accuracy:.1f})",
         _ends(report.accuracy)),
        (f"weighted F1 (always {always.answer}: {100 * always.weighted_f1:.1f})",
         _ends(report.weighted_f1)),
        ("macro F1", _ends(report.macro_f1)),
        (f"shift AUROC ({base})", _ends(report.shift_auroc, 1, 3)),
        ("shift average precision", _ends(report.shift_average_precision, 1, 3)),
        (f"(from, to) weighted F1 (always {still.answer}: {100 * still.weighted_f1:.1f})",
         _ends(report.shift_c2_weighted_f1)),
        ("calibration error, emotion", _calibration(report.emotion)),
        ("calibration error, shift", _calibration(report.shift)),
    ]  # fmt: skip
    return "\n".join(f"| {name} | {value} |" for name, value in rows)


def _ends(score: Interval, scale: int = 100, digits: int = 1) -> str:
    value, low, high = (f"{scale * x:.{digits}f}" for x in (score.value, score.low, score.high))
    return f"{value} ({low}, {high})"


def _calibration(errors: Calibrated) -> str:
    return (
        f"{100 * errors.after.ece:.1f} %; {100 * errors.out_of_fold:.1f} % out of fold; "
        f"{100 * errors.before.ece:.1f} % as the logits come; "
        f"{100 * errors.after.floor:.1f} % by chance alone"
    )
