"""A report as one HTML page that needs nothing else: pictures inside, no script, no address."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template
from typing import Final

import numpy as np

from model.scoring.bootstrap import Difference, Interval, ScoreName
from model.scoring.pictures import Picture
from model.scoring.report import Report

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
DIFFERENCE_HEADER: Final = (
    "", "this", "other", "difference", "95 % interval", "share ≤ 0", "which is",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Subject:
    """The model and conversations that were scored, and the command that prints the same again."""

    model: str  # its name and version
    digest: str
    data: str
    split: str
    command: str
    ledger: str  # a sentence on looks at the test split
    other: str = ""  # digest of the checkpoint it is compared with


def report_page(
    subject: Subject,
    report: Report,
    pictures: Sequence[Picture],
    against: Sequence[Difference] = (),
) -> str:
    """Return the whole page as HTML."""
    values = {
        "title": f"{subject.model} on {subject.data}, {subject.split} split",
        "sizes": f"{report.utterances:,} utterances and {report.pairs:,} pairs of "
        f"{report.dialogues:,} dialogues",
        "digest": subject.digest,
        "command": subject.command,
        "ledger": subject.ledger,
    }
    items = "".join(f"<li>{escape(sentence)}</li>" for sentence in summary(report))
    sections = [f'<ul class="lead">{items}</ul>', _scores(report)]
    if against:
        rows = [difference_row(d) for d in against if np.isfinite(d.value)]
        other = f"The other is <code>{escape(subject.other)}</code>, over the same dialogues."
        table = _table("Against another checkpoint", DIFFERENCE_HEADER, rows)
        sections.append(f"{table}<p>{other}</p>")
    sections += map(_figure, pictures)
    rows = [
        (c.label, _one(c.precision), _one(c.recall), _one(c.f1), f"{c.support:,}")
        for c in report.classes
    ]
    header = ("", "precision, %", "recall, %", "F1, %", "utterances")
    body = "\n".join([*sections, _table("By emotion", header, rows)])
    template = Template(Path(__file__).with_name("page.html").read_text("utf-8"))
    return template.substitute({name: escape(v) for name, v in values.items()}, body=body)


def summary(report: Report) -> tuple[str, ...]:
    """Explain the scores in sentences."""
    always, best = report.majority, max(report.classes, key=lambda c: c.f1)
    worst = min((c for c in report.classes if c.support), key=lambda c: c.f1)
    stated = report.emotion.after
    sentences = [
        f"It names the right emotion for {100 * report.accuracy.value:.0f} of 100 utterances; "
        f"answering “{always.answer}” every time would be right for {100 * always.accuracy:.0f}.",
        f"It is best at {best.label} (F1 {best.f1:.2f}) and worst at {worst.label} "
        f"(F1 {worst.f1:.2f}, {worst.support:,} utterances).",
        f"A stated confidence is off by {100 * stated.ece:.1f} points on average; chance "
        f"alone would show {100 * stated.floor:.1f} with this many utterances.",
        f"Marking the least sure {100 * report.abstention.abstained:.0f} % as “not sure” leaves "
        f"answers of which {100 * report.abstention.answered_accuracy:.0f} of 100 are right.",
    ]
    if report.pairs and np.isfinite(report.shift_auroc.value):
        alerts = report.alerts
        sentences.append(
            f"Given one pair with a shift and one without, it ranks them rightly "
            f"{100 * report.shift_auroc.value:.0f} times of 100 (a coin: 50). The built-in alert "
            f"finds {100 * alerts.recall:.0f} of 100 shifts with {alerts.false_per_100:.1f} false "
            "alarms per 100 pairs."
        )
    return tuple(sentences)


def difference_row(found: Difference) -> tuple[str, ...]:
    """Return the cells under `DIFFERENCE_HEADER`."""
    one, other, gap, low, high = (
        100 * x for x in (found.one, found.other, found.value, found.low, found.high)
    )
    return (
        SCORE_NAMES[found.score], f"{one:.1f}", f"{other:.1f}", f"{gap:+.1f}",
        f"{low:+.1f} to {high:+.1f}", f"{found.share_not_above:.3f}", found.verdict,
    )  # fmt: skip


def difference_sentence(found: Difference) -> str:
    """State a difference and its verdict in words."""
    name = SCORE_NAMES[found.score].removesuffix(", %")
    if np.isnan(found.value):
        return f"{name}: cannot be compared"
    return (
        f"{name}: {100 * found.value:+.1f} points "
        f"({100 * found.low:+.1f} to {100 * found.high:+.1f}), {found.verdict}"
    )


def _scores(report: Report) -> str:
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
    rows = []
    for name, (base, base_name) in bases.items():
        score: Interval = getattr(report, name)
        interval = f"{_one(score.low)} to {_one(score.high)}"
        beside = f"{100 * base:.1f} ({base_name})"
        rows.append((SCORE_NAMES[name], _one(score.value), interval, beside))
    for head, found in (("emotion", report.emotion), ("shift", report.shift)):
        if np.isfinite(found.after.ece):
            before = f"{100 * found.before.ece:.1f} as the logits come"
            context = f"{100 * found.after.floor:.1f} (by chance); {before}"
            if np.isfinite(found.out_of_fold):
                context += f"; {100 * found.out_of_fold:.1f} out of fold"
            rows.append((f"{head} calibration error, %", _one(found.after.ece), "", context))
    rows.append(("error over share answered (AURC), %", _one(report.risk.area), "", ""))
    return _table("Scores", ("", "value", "95 % interval", "to be read beside"), rows)


def _table(heading: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "\n".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<h2>{escape(heading)}</h2>\n<table><tr>{head}</tr>\n{body}</table>"


def _figure(picture: Picture) -> str:
    data = base64.b64encode(picture.png).decode("ascii")
    alt = escape(picture.heading, quote=True)
    return (
        f"<h2>{escape(picture.heading)}</h2>\n<figure><figcaption>{escape(picture.caption)}"
        f'</figcaption><img alt="{alt}" src="data:image/png;base64,{data}"></figure>'
    )


def _one(share: float) -> str:
    return f"{100 * share:.1f}" if np.isfinite(share) else "-"
