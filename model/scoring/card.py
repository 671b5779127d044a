"""Sections that every model card has: scores on dev, and limits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from model.scoring.bootstrap import Interval
from model.scoring.calibrate import ABSTAIN_SHARE, FALSE_ALARMS_PER_100
from model.scoring.report import Calibrated, Report
from model.serving.calibration import Thresholds

_LIMITS: Final = """\
## Limits

- An answer is an estimate of the emotion a listener would name for an utterance. It is not a
  finding about a person's inner state, and no decision about a person should rest on it.
{of_the_data}
- Rare classes ({rare}) are recognised poorly: see their F1.
"""
_OF_THE_DATA: Final[Mapping[str, str]] = {
    "meld": """\
- The labels are of scripted television dialogue, in English, judged by a few annotators. Other
  languages, unscripted speech and other label sets are outside of what was measured.
- Persona vectors come from published files whose recipe is not public. Nobody can compute them for
  new speakers: leave them out, the model is trained to do without.
- The weights were trained on data for research use, some of it without a stated licence. Check
  whether that suits your use.""",
}
_OF_OTHER_DATA: Final = """\
- Languages, kinds of speech and labels other than those of {data} are outside of what was measured.
- Check whether the licence of {data} suits your use of weights trained on it."""


def how_good(report: Report, points: Thresholds) -> str:
    """The section on dev's scores, and what was fitted on that same split."""
    f1 = report.class_f1
    return f"""\
## How good, on the dev split

| score | value |
|---|---|
{scores_table(report)}

F1 by class: {", ".join(f"{label} {100 * value:.1f}" for label, value in f1.items())}.
Intervals are 95 % bootstrap intervals over whole dialogues. Calibration and thresholds were
fitted on this same split: the alert rule fires at a shift probability of {points.shift:.3f}, where
dev shows at most {FALSE_ALARMS_PER_100:g} false alarms per 100 pairs, and re-arms below
{points.shift_exit:.3f}; an answer with a confidence under {points.abstain_below:.3f}
({100 * ABSTAIN_SHARE:g} % of dev) is marked as abstained.
So the dev scores flatter: the test scores, and how often the test split was looked at, are in
`docs/test-ledger.csv` of the project."""


def limits(data: str, f1: Mapping[str, float]) -> str:
    """What a model of that data is not good for, and which classes it knows poorly."""
    rare = ", ".join(sorted(f1, key=lambda label: f1[label])[:2])
    of_the_data = _OF_THE_DATA.get(data, _OF_OTHER_DATA.format(data=data))
    return _LIMITS.format(rare=rare, of_the_data=of_the_data)


def scores_table(report: Report) -> str:
    """Rows of a Markdown table: score and its interval."""
    base = f"{100 * report.shift_base_rate:.1f} % of {report.pairs} pairs shift"
    always, still = report.majority, report.no_shift
    rows = [
        ("utterances", f"{report.utterances}"),
        (f"accuracy (always {always.answer}: {100 * always.accuracy:.1f})",
         _percent(report.accuracy)),
        (f"weighted F1 (always {always.answer}: {100 * always.weighted_f1:.1f})",
         _percent(report.weighted_f1)),
        ("macro F1", _percent(report.macro_f1)),
        (f"shift AUROC ({base})", _share(report.shift_auroc)),
        ("shift average precision", _share(report.shift_average_precision)),
        (f"(from, to) weighted F1 (always {still.answer}: {100 * still.weighted_f1:.1f})",
         _percent(report.shift_c2_weighted_f1)),
        ("calibration error, emotion", _calibration(report.emotion)),
        ("calibration error, shift", _calibration(report.shift)),
    ]  # fmt: skip
    return "\n".join(f"| {name} | {value} |" for name, value in rows)


def _percent(score: Interval) -> str:
    return f"{100 * score.value:.1f} ({100 * score.low:.1f}, {100 * score.high:.1f})"


def _share(score: Interval) -> str:
    return f"{score.value:.3f} ({score.low:.3f}, {score.high:.3f})"


def _calibration(found: Calibrated) -> str:
    return (
        f"{100 * found.after.ece:.1f} %; {100 * found.out_of_fold:.1f} % out of fold; "
        f"{100 * found.before.ece:.1f} % as the logits come; "
        f"{100 * found.after.floor:.1f} % by chance alone"
    )
