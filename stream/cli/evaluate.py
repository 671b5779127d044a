"""`emotrack evaluate`: score a checkpoint on a split, print tables, write files.

The models are imported when the command runs: `emotrack --help` needs no torch.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

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
from stream.cli.score_tables import print_differences, print_report
from stream.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from model.scoring.bootstrap import Difference
    from model.scoring.html_page import Subject
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
