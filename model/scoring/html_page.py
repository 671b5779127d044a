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

from model.scoring.bootstrap import LEAST_DIALOGUES, Difference
from model.scoring.pictures import Picture
from model.scoring.report import Report
from model.scoring.words import SCORE_HEADER, SCORE_NAMES, percent, score_lines

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
        (c.label, percent(c.precision), percent(c.recall), percent(c.f1), f"{c.support:,}")
        for c in report.classes
    ]
    header = ("", "precision, %", "recall, %", "F1, %", "utterances")
    body = "\n".join([*sections, _table("By emotion", header, rows)])
    template = Template(Path(__file__).with_name("page.html").read_text("utf-8"))
    return template.substitute({name: escape(v) for name, v in values.items()}, body=body)


def summary(report: Report) -> tuple[str, ...]:
    """Explain the scores in sentences."""
    always, met = report.majority, [c for c in report.classes if c.support]
    best, worst = max(met, key=lambda c: c.f1), min(met, key=lambda c: c.f1)
    ends = (
        f"It is best at {best.label} (F1 {best.f1:.2f}) and worst at {worst.label} "
        f"(F1 {worst.f1:.2f}, {worst.support:,} utterances)."
    )
    if best.f1 == worst.f1:
        ends = f"It is equally good at every emotion that occurs (F1 {best.f1:.2f})."
    stated = report.emotion.after
    sentences = [
        f"It names the right emotion for {100 * report.accuracy.value:.0f} of 100 utterances; "
        f"answering “{always.answer}” every time would be right for {100 * always.accuracy:.0f}.",
        ends,
        f"A stated confidence is off by {100 * stated.ece:.1f} points on average; chance "
        f"alone would show {100 * stated.floor:.1f} with this many utterances.",
    ]
    if np.isfinite(report.abstention.answered_accuracy):  # not all of them abstained
        sentences.append(
            f"Marking the least sure {100 * report.abstention.abstained:.0f} % as “not sure” "
            f"leaves answers of which {100 * report.abstention.answered_accuracy:.0f} of 100 are "
            "right."
        )
    if report.pairs and np.isfinite(report.shift_auroc.value):
        alerts = report.alerts
        sentences.append(
            f"Given one pair with a shift and one without, it ranks them rightly "
            f"{100 * report.shift_auroc.value:.0f} times of 100 (a coin: 50). The built-in alert "
            f"finds {100 * alerts.recall:.0f} of 100 shifts with {alerts.false_per_100:.1f} false "
            "alarms per 100 pairs."
        )
    if report.dialogues < LEAST_DIALOGUES:
        sentences.append(
            f"These are {report.dialogues} dialogues: an interval needs {LEAST_DIALOGUES} at least."
        )
    return tuple(sentences)


def difference_row(found: Difference) -> tuple[str, ...]:
    """Return the cells under `DIFFERENCE_HEADER`."""
    if not np.isfinite(found.value):  # no pair of either kind, for instance
        return SCORE_NAMES[found.score], "-", "-", "-", "-", "-", found.verdict
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
    return _table("Scores", SCORE_HEADER, score_lines(report))


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
