"""Model cards from their templates: scores and limits are sections of every card."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Final

from model.scoring.bootstrap import Interval
from model.scoring.calibrate import ABSTAIN_SHARE, FALSE_ALARMS_PER_100, LEAST_SHIFTS
from model.scoring.report import Calibrated, ClassScore, Report
from model.scoring.words import ends, percent, shifts_of
from model.serving.calibration import Thresholds

MOST_NAMED: Final = 10
_HERE: Final = Path(__file__).parent


# What hubs read: the data set's id there, and the licence of weights that were trained on it.
HUB_SETS: Final[Mapping[str, str]] = {"meld": "declare-lab/MELD"}
_METRICS: Final = ("f1", "accuracy", "roc_auc")
_TAGS: Final = ("emotion-recognition", "conversation", "emotion-shift", "streaming")


def filled_card(
    template: Path,
    report: Report,
    points: Thresholds,
    *,
    data: str,
    known: Sequence[str],
    looks: str,
    **values: object,
) -> str:
    """Fill a card's template in; `report` is of the dev split of `data`, languages are `known`.

    `looks` says where the looks at its test split are recorded. Begins with the front matter that
    model hubs read.
    """
    how_good = _filled(
        _HERE / "card_scores.md",
        scores=scores_table(report),
        class_f1=", ".join(map(_class_f1, report.classes)),
        looks=looks,
        alert_rule=_alert_rule(report, points),
        abstain=f"{points.abstain_below:.3f}",
        abstained=f"{100 * ABSTAIN_SHARE:g}",
    )
    own = _HERE / f"card_limits_{data}.md"
    of_the_data = _filled(own if own.exists() else _HERE / "card_limits_other.md", data=data)
    bullets = "\n".join([of_the_data, *_weak_classes(report)])
    limits = _filled(_HERE / "card_limits.md", of_the_data=bullets) + "\n"
    licence = _HERE / f"card_licence_{data}.md"
    terms = _filled(licence if licence.exists() else _HERE / "card_licence_other.md", data=data)
    body = _filled(
        template, data=data, how_good=how_good, limits=limits, licence=terms + "\n", **values
    )
    return f"{front_matter(data, known)}\n{body}"


def front_matter(data: str, languages: Sequence[str]) -> str:
    """Return the YAML that model hubs read: licence, languages, library, tags, sets, metrics."""
    lines = ["---"]
    if data in HUB_SETS:
        lines += ["license: other", "license_name: apache-2.0-research-data"]
        lines += ["license_link: README.md"]
    else:
        lines += ["license: unknown"]
    lists = {
        "language": languages,
        "tags": _TAGS,
        "datasets": [HUB_SETS[data]] if data in HUB_SETS else [],
        "metrics": _METRICS,
    }
    lines.append("library_name: emotrack")
    for name, values in lists.items():
        lines += [f"{name}:", *(f"- {value}" for value in values)] if values else []
    return "\n".join([*lines, "---"])


def _alert_rule(report: Report, points: Thresholds) -> str:
    fires = f"the alert rule fires at a shift probability of {points.shift:.3f}"
    again = f"re-arms below\n{points.shift_exit:.3f}"
    if shifts_of(report) < LEAST_SHIFTS:
        return (
            f"{fires} and {again}.\nBoth are a fallback: dev has fewer than the {LEAST_SHIFTS} "
            "shifts that a choice needs (here "
            f"{shifts_of(report)})"
        )
    most = f"{FALSE_ALARMS_PER_100:g} false alarms per 100 pairs"
    return f"{fires}, where\ndev shows at most {most}, and {again}"


def _class_f1(found: ClassScore) -> str:
    return (
        f"{found.label} {100 * found.f1:.1f}" if found.support else f"{found.label} (none in dev)"
    )


def _weak_classes(report: Report) -> list[str]:
    """Return what the limits say of classes that are rare and recognised poorly, or not in dev.

    Rare: less than half of what each had if all were equally common. Poorly: F1 below the mean.
    """
    classes, mean = report.classes, report.weighted_f1.value
    even = report.utterances / len(classes)
    rare = [c for c in classes if 0 < c.support < even / 2 and c.f1 < mean]
    rare.sort(key=lambda c: c.f1)
    absent = [c for c in classes if not c.support]
    found = []
    if rare:
        found.append(f"- Rare classes ({_names(rare)}) are recognised poorly: see their F1.")
    if absent:
        found.append(
            f"- Not in dev, so that nothing is known of how well they are recognised: "
            f"{_names(absent)}."
        )
    return found


def _names(classes: Sequence[ClassScore]) -> str:
    more = f" and {len(classes) - MOST_NAMED} more" if len(classes) > MOST_NAMED else ""
    return ", ".join(c.label for c in classes[:MOST_NAMED]) + more


def languages_section(known: Sequence[str], scripts: Sequence[str]) -> str:
    """Return what a card says of the languages that its checkpoint states."""
    letters = ", ".join(script.capitalize() for script in scripts)
    return _filled(_HERE / "card_languages.md", known=", ".join(known), scripts=letters)


def _filled(template: Path, **values: object) -> str:
    return Template(template.read_text("utf-8").rstrip("\n")).substitute(values)


def scores_table(report: Report) -> str:
    """Return rows of a Markdown table: score and its interval."""
    base = f"{percent(report.shift_base_rate)} % of {report.pairs} pairs shift"
    always, still = report.majority, report.no_shift
    rows = [
        ("utterances", f"{report.utterances}"),
        (f"accuracy (always {always.answer}: {100 * always.accuracy:.1f})",
         _cell(report.accuracy, report)),
        (f"weighted F1 (always {always.answer}: {100 * always.weighted_f1:.1f})",
         _cell(report.weighted_f1, report)),
        ("macro F1", _cell(report.macro_f1, report)),
    ]  # fmt: skip
    if report.pairs:
        rows += [
            (f"shift AUROC ({base})", _cell(report.shift_auroc, report, 1, 3)),
            ("shift average precision", _cell(report.shift_average_precision, report, 1, 3)),
            (f"(from, to) weighted F1 (always {still.answer}: {100 * still.weighted_f1:.1f})",
             _cell(report.shift_c2_weighted_f1, report)),
        ]  # fmt: skip
    rows += [
        ("calibration error, emotion", _calibration(report.emotion)),
        ("calibration error, shift", _calibration(report.shift)),
    ]  # fmt: skip
    return "\n".join(f"| {name} | {value} |" for name, value in rows)


def _cell(score: Interval, report: Report, factor: int = 100, digits: int = 1) -> str:
    if not math.isfinite(score.value):
        return "-"
    interval = ends(score, report.dialogues, factor, digits)
    if not interval.startswith("needs"):
        interval = interval.replace(" to ", ", ")
    return f"{factor * score.value:.{digits}f} ({interval})"


def _calibration(errors: Calibrated) -> str:
    said = [
        (errors.after.ece, ""),
        (errors.out_of_fold, " out of fold"),
        (errors.before.ece, " as the logits come"),
        (errors.after.floor, " by chance alone"),
    ]
    known = [f"{percent(value)} %{words}" for value, words in said if math.isfinite(value)]
    return "; ".join(known) or "-"
