"""`emotrack evaluate`: score a checkpoint on a split, print tables, write files.

The models are imported when the command runs: `emotrack --help` needs no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from model.study.figures import figures_json, hush_torch_geometric, score_rows, write_figures
from model.study.ledger import LEDGER, check_ledger, note_look, sentence_on_looks
from stream.cli.options import (
    Data,
    Encoder,
    JsonFile,
    Ledger,
    ReportFolder,
    SetName,
    SplitName,
    Threads,
    model_errors,
    read_conversations,
)
from stream.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from model.scoring.bootstrap import Difference
    from model.scoring.html_page import Subject
    from model.scoring.report import Report
if TYPE_CHECKING:
    from model.scoring.bootstrap import Difference
    from model.scoring.report import Report


@model_errors()
def evaluate(
    checkpoint: Annotated[
        Path | None,
        typer.Argument(help="checkpoint folder, or a model's name (default: the shipped PCGNet)"),
    ] = None,
    data: Data = None,
    set_name: SetName = None,
    split: SplitName = "dev",
    against: Annotated[
        Path | None,
        typer.Option(help="another checkpoint: differences over the same dialogues (paired)"),
    ] = None,
    json_file: JsonFile = None,
    report_folder: ReportFolder = None,
    ledger: Ledger = LEDGER,
    encoder: Encoder = None,
    threads: Threads = 1,
) -> None:
    """Score a checkpoint on a split: emotion, shift, calibration, with 95 % intervals.

    Causal, in the stored precision: the worker's answers to the same conversations.
    """
    hush_torch_geometric()
    from model import evaluate as scoring
    from model.checkpoint_files import find_checkpoint
    from model.scoring.html_page import Subject
    from model.study.ablations import load

    check_outputs(split, ledger, report_folder)
    read = read_conversations(data, set_name)
    loaded = load(find_checkpoint(checkpoint))
    other = load(find_checkpoint(against)) if against else None
    differences: Sequence[Difference] = ()
    if other is None:
        report = scoring.evaluate(loaded, read, split, threads=threads, encoder=encoder)
        scored = [(loaded, report)]
    else:
        report, other_report, differences = scoring.compare(
            loaded, other, read, split, threads=threads, encoder=encoder
        )
        scored = [(loaded, report), (other, other_report)]
    if split == "test":
        for model, its_report in scored:
            note_look(ledger, model.digest, read.name, its_report, now=datetime.now(UTC))
    print_report(report, f"{read.name} {split}, checkpoint {loaded.digest[:16]}")
    command = f"emotrack evaluate --set {read.name} --split {split} --threads {threads}"
    subject = Subject(
        model=f"{loaded.name} {loaded.version}",
        digest=loaded.digest,
        data=read.name,
        split=split,
        command=command,
        ledger=sentence_on_looks(ledger, split, loaded.digest),
        other=other.digest if other else "",
    )
    publish(subject, report, differences, json_file, report_folder)


def check_outputs(split: str, ledger: Path, report_folder: Path | None) -> None:
    """Raise `ConfigError` if the ledger or the report could not be written after the work."""
    if split == "test":
        check_ledger(ledger)
    if report_folder is not None and report_folder.exists() and not report_folder.is_dir():
        raise ConfigError(f"--report {report_folder} is a file: name a folder")


def publish(
    subject: Subject,
    report: Report,
    differences: Sequence[Difference],
    json_file: Path | None,
    report_folder: Path | None,
) -> None:
    """Print the differences; write the figures and the report if they are requested.

    A report is report.html (one page with its pictures) and report.json, both or none. Raises
    `ConfigError` if its folder cannot be written.
    """
    if differences:
        print_differences(differences, f"against {subject.other[:16]}, the same dialogues")
    rows = score_rows(report, subject.data, subject.split, subject.digest, differences)
    if json_file:
        write_figures(json_file, rows, subject.command)
    if not report_folder:
        return
    from model.atomic_files import write_whole
    from model.scoring.html_page import report_page
    from model.scoring.pictures import report_pictures
    from model.scoring.report import report_data

    figures = figures_json(rows | {"report": report_data(report)}, subject.command)
    page = report_page(subject, report, report_pictures(report), differences)
    try:
        write_whole(report_folder, {"report.json": figures.encode(), "report.html": page.encode()})
    except OSError as error:
        raise ConfigError(
            f"the report cannot be written to {report_folder} ({error.strerror}): make room there "
            "or name another folder with --report"
        ) from error
    Console().print(f"report: {report_folder / 'report.html'}")


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
