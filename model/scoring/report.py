"""The scores of one model on one split with their base rates; also as plain data."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from model.scoring.answers import Answers
from model.scoring.bootstrap import (
    RESAMPLES,
    Difference,
    Interval,
    dialogue_weights,
    interval,
    resampled_scores,
)
from model.scoring.calibrate import (
    emotion_probabilities,
    out_of_fold_errors,
    shift_probability,
    softmax,
    stated_shifts,
)
from model.scoring.curves import Reliability, RiskCoverage, Threshold, reliability, risk_coverage
from model.scoring.curves import thresholds as decisions
from model.scoring.scores import (
    Bools,
    Ints,
    accuracy,
    confusion,
    macro_f1,
    tally,
    weighted_f1,
)
from model.serving.calibration import Calibration, Thresholds


@dataclass(frozen=True, slots=True)
class ClassScore:
    """One class; shares between 0 and 1."""

    label: str
    precision: float
    recall: float
    f1: float
    support: int  # how often it is true


@dataclass(frozen=True, slots=True)
class BaseRate:
    """Scores of one answer for everything: the commonest true one."""

    answer: str
    accuracy: float
    weighted_f1: float
    macro_f1: float


@dataclass(frozen=True, slots=True)
class Calibrated:
    """Stated against observed, uncalibrated and calibrated."""

    before: Reliability
    after: Reliability
    temperature: float
    out_of_fold: float  # ECE by folds over dialogues, where this split fitted the calibration


@dataclass(frozen=True, slots=True)
class Alerts:
    """The built-in alert rule's threshold on shift probability."""

    threshold: float
    recall: float
    precision: float
    false_per_100: float  # false alarms per 100 pairs
    false_rate: float  # false positive rate


@dataclass(frozen=True, slots=True)
class Abstention:
    """Answers whose confidence is under the threshold, marked as abstained, and the others."""

    threshold: float
    abstained: float  # share of utterances
    abstained_accuracy: float  # how often those would have been right
    answered_accuracy: float


@dataclass(frozen=True, slots=True)
class Report:
    """The scores of one model on one split; shares between 0 and 1."""

    utterances: int
    pairs: int
    dialogues: int
    accuracy: Interval
    weighted_f1: Interval
    macro_f1: Interval
    classes: tuple[ClassScore, ...]
    confusion: Ints  # [C, C] row the true class
    majority: BaseRate
    shift_base_rate: float  # share of pairs that shift
    shift_auroc: Interval
    shift_average_precision: Interval
    shift_c2_weighted_f1: Interval
    shift_c2_accuracy: Interval
    no_shift: BaseRate  # always the commonest pair of equal emotions
    emotion: Calibrated
    shift: Calibrated
    risk: RiskCoverage
    shift_decisions: Threshold
    alerts: Alerts
    abstention: Abstention

    @property
    def class_f1(self) -> Mapping[str, float]:
        return {c.label: c.f1 for c in self.classes}


def score(
    answers: Answers,
    calibration: Calibration,
    thresholds: Thresholds,
    labels: Sequence[str],
    *,
    fitted_here: bool = False,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Report:
    """Score answers; intervals are 95 % bootstrap intervals over whole dialogues.

    `fitted_here`: the calibration was fitted on these answers, so their ECE flatters; the error
    out of fold is reported too.
    """
    from sklearn.metrics import precision_recall_fscore_support  # a second: not for --help

    columns = precision_recall_fscore_support(
        answers.labels, answers.guess, labels=range(len(labels)), zero_division=0
    )
    folds = out_of_fold_errors(answers) if fitted_here else (float("nan"), float("nan"))
    drawn = dialogue_weights(answers.dialogues, resamples=resamples, seed=seed)
    main = resampled_scores(answers, calibration, drawn)
    classes, shifted = answers.classes, answers.shifted
    stated = emotion_probabilities(answers.emotion, calibration).max(1)
    moved = stated_shifts(answers.shift, calibration)
    alerted, unsure = moved >= thresholds.shift, stated < thresholds.abstain_below
    return Report(
        utterances=len(answers.labels),
        pairs=len(shifted),
        dialogues=answers.dialogues,
        accuracy=interval(main["accuracy"]),
        weighted_f1=interval(main["weighted_f1"]),
        macro_f1=interval(main["macro_f1"]),
        classes=tuple(map(ClassScore, labels, *(column.tolist() for column in columns))),
        confusion=confusion(answers.labels, answers.guess, classes),
        majority=_always(answers.labels, classes, {label: i for i, label in enumerate(labels)}),
        shift_base_rate=_mean(shifted),
        shift_auroc=interval(main["shift_auroc"]),
        shift_average_precision=interval(main["shift_average_precision"]),
        shift_c2_weighted_f1=interval(main["shift_c2_weighted_f1"]),
        shift_c2_accuracy=interval(main["shift_c2_accuracy"]),
        no_shift=_always(
            answers.shifts,
            classes * classes,
            {f"{label} → {label}": i * (classes + 1) for i, label in enumerate(labels)},
        ),
        emotion=Calibrated(
            reliability(softmax(answers.emotion).max(1), answers.right),
            reliability(stated, answers.right),
            calibration.emotion,
            folds[0],
        ),
        shift=Calibrated(
            reliability(shift_probability(answers.shift, classes), shifted),
            reliability(moved, shifted),
            calibration.shift,
            folds[1],
        ),
        risk=risk_coverage(stated, answers.right),
        shift_decisions=decisions(shifted, moved),
        alerts=Alerts(
            threshold=thresholds.shift,
            recall=_mean(alerted[shifted]),
            precision=_mean(shifted[alerted]),
            false_per_100=100 * _mean(alerted & ~shifted),
            false_rate=_mean(alerted[~shifted]),
        ),
        abstention=Abstention(
            threshold=thresholds.abstain_below,
            abstained=_mean(unsure),
            abstained_accuracy=_mean(answers.right[unsure]),
            answered_accuracy=_mean(answers.right[~unsure]),
        ),
    )


def _always(truth: Ints, classes: int, answers: Mapping[str, int]) -> BaseRate:
    """Score the commonest of these answers, by name, given to everything."""
    often = np.bincount(truth, minlength=classes)
    name = max(answers, key=lambda answer: often[answers[answer]])
    counts = tally(truth, np.full_like(truth, answers[name]), classes)
    scores = (accuracy(counts), weighted_f1(counts), macro_f1(counts))
    return BaseRate(name, *(float(s) for s in scores))


def _mean(values: Bools) -> float:
    return float(values.mean()) if len(values) else float("nan")


def goal_rows(report: Report) -> dict[str, dict[str, Any]]:
    """Return rows of docs/benchmarks.md (A1, A4, A5), in percent where the goal is."""
    base = f"{100 * report.shift_base_rate:.1f} % of {report.pairs} pairs shift"
    size = f"{report.utterances} utterances"
    majority, still = report.majority, report.no_shift
    return {
        "A1": _row(report.weighted_f1, "wF1 %", 58.5, 60.0,
                   f"always {majority.answer}: {100 * majority.weighted_f1:.1f}; {size}")
        | {
            "accuracy": _percent(report.accuracy.value),
            "accuracy_ci95": _ends(report.accuracy, 100),
            "macro_f1": _percent(report.macro_f1.value),
            "macro_f1_ci95": _ends(report.macro_f1, 100),
            "class_f1": {k: _percent(v) for k, v in report.class_f1.items()},
            "majority": {"answer": majority.answer, "accuracy": _percent(majority.accuracy),
                         "wf1": _percent(majority.weighted_f1)},
        },
        "A4_auroc": _row(report.shift_auroc, "AUROC", 0.72, 0.75, f"chance 0.5; {base}")
        | {
            "average_precision": _number(report.shift_average_precision.value),
            "average_precision_ci95": _ends(report.shift_average_precision, 1),
            "base_rate": _number(report.shift_base_rate),
            "alert_recall": _number(report.alerts.recall),
            "alert_precision": _number(report.alerts.precision),
            "alert_false_per_100_pairs": _number(report.alerts.false_per_100),
        },
        "A4_c2_wf1": _row(report.shift_c2_weighted_f1, "wF1 %", 36.0, 38.0,
                          f"always {still.answer}: {100 * still.weighted_f1:.1f}; {base}")
        | {
            "accuracy": _percent(report.shift_c2_accuracy.value),
            "accuracy_ci95": _ends(report.shift_c2_accuracy, 100),
            "no_shift": {"answer": still.answer, "accuracy": _percent(still.accuracy),
                         "wf1": _percent(still.weighted_f1)},
        },
        "A5_emotion": _calibration_row(report.emotion, size)
        | {
            "aurc": _number(report.risk.area),
            "abstained_share": _number(report.abstention.abstained),
            "abstained_accuracy": _number(report.abstention.abstained_accuracy),
            "answered_accuracy": _number(report.abstention.answered_accuracy),
        },
        "A5_shift": _calibration_row(report.shift, base),
    }  # fmt: skip


def report_data(report: Report) -> dict[str, Any]:
    """Return the whole report for JSON; NaN and infinity are null."""
    plain: dict[str, Any] = _plain(report)
    return plain


def difference_rows(found: Sequence[Difference]) -> dict[str, dict[str, Any]]:
    """Return the differences for JSON, by score; shares between 0 and 1."""
    return {
        d.score: {name: value for name, value in _plain(d).items() if name != "score"}
        | {"verdict": d.verdict}
        for d in found
    }


def _row(score: Interval, unit: str, first: float, aim: float, reference: str) -> dict[str, Any]:
    scale = 100 if "%" in unit else 1
    return {
        "value": _number(scale * score.value), "unit": unit, "first": first, "aim": aim,
        "reference": reference, "ci95": _ends(score, scale),
    }  # fmt: skip


def _calibration_row(found: Calibrated, reference: str) -> dict[str, Any]:
    floor = f"chance alone gives {100 * found.after.floor:.1f}"
    if math.isfinite(found.out_of_fold):
        floor += f"; out of fold {100 * found.out_of_fold:.1f}"
    return {
        "value": _percent(found.after.ece), "unit": "ECE %", "first": 3.0, "aim": 2.0,
        "reference": f"{floor}; {reference}", "raw": _percent(found.before.ece),
        "floor": _percent(found.after.floor),
        "temperature": _number(found.temperature), "out_of_fold": _percent(found.out_of_fold),
    }  # fmt: skip


def _ends(score: Interval, scale: float) -> list[float | None]:
    return [_number(scale * score.low), _number(scale * score.high)]


def _percent(share: float) -> float | None:
    return _number(100 * share)


def _number(value: float) -> float | None:
    return round(value, 4) if math.isfinite(value) else None


def _plain(value: Any) -> Any:
    """Return a dataclass as JSON reads it; msgspec writes NaN and infinity as null."""
    return msgspec.json.decode(msgspec.json.encode(value, enc_hook=np.ndarray.tolist))
