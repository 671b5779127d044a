"""`emotrack evaluate`: a checkpoint and a split in, tables and files out.

The models are imported when the command runs: `emotrack --help` needs no torch.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console

from model.study.figures import figures_json, hush_torch_geometric, score_rows, write_figures
from model.study.ledger import LEDGER, check_ledger, note_look, sentence_on_looks
from stream.cli.options import (
    Data,
    Encoder,
    JsonFile,
    SetName,
    Threads,
    model_errors,
    read_conversations,
)
from stream.cli.score_tables import print_differences, print_report
from stream.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from model.checkpoint_files import LoadedCheckpoint
    from model.data.dataset import DataSet, Split
    from model.scoring.bootstrap import Difference
    from model.scoring.html_page import Subject
    from model.scoring.report import Report

Ledger = Annotated[Path, typer.Option(help="where looks at test are recorded")]
SplitName = Annotated[
    Literal["train", "dev", "test"],
    typer.Option(help="each look at test is written to the ledger"),
]
ReportFolder = Annotated[
    Path | None,
    typer.Option("--report", help="write a page with pictures (report.html, report.json) here"),
]


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
    from model.checkpoint_files import find_checkpoint
    from model.scoring.html_page import Subject
    from model.study.ablations import load

    check_outputs(split, ledger, report_folder)
    read = read_conversations(data, set_name)
    loaded = load(find_checkpoint(checkpoint))
    other = load(find_checkpoint(against)) if against else None
    reports, differences = _scored(loaded, other, read, split, threads, encoder)
    scored = [loaded] if other is None else [loaded, other]
    if split == "test":
        for model, report in zip(scored, reports, strict=True):
            note_look(ledger, model.digest, read.name, report, now=datetime.now(UTC))
    print_report(reports[0], f"{read.name} {split}, checkpoint {loaded.digest[:16]}")
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
    publish(subject, reports[0], differences, json_file, report_folder)


def check_outputs(split: str, ledger: Path, report_folder: Path | None) -> None:
    """Raise `ConfigError` before anything is computed that could not be recorded or written."""
    if split == "test":
        check_ledger(ledger)
    if report_folder is not None and report_folder.exists() and not report_folder.is_dir():
        raise ConfigError(f"--report {report_folder} is a file: name a folder")


def _scored(
    checkpoint: LoadedCheckpoint,
    other: LoadedCheckpoint | None,
    data: DataSet,
    split: Split,
    threads: int,
    encoder: Path | None,
) -> tuple[list[Report], Sequence[Difference]]:
    from model.evaluate import compare
    from model.evaluate import evaluate as run

    if other is None:
        return [run(checkpoint, data, split, threads=threads, encoder=encoder)], ()
    one, two, found = compare(checkpoint, other, data, split, threads=threads, encoder=encoder)
    return [one, two], found


def publish(
    subject: Subject,
    report: Report,
    differences: Sequence[Difference],
    json_file: Path | None,
    report_folder: Path | None,
) -> None:
    """Print the differences, write the figures and the page, where they are asked for."""
    if differences:
        print_differences(differences, f"against {subject.other[:16]}, the same dialogues")
    if json_file:
        rows = score_rows(report, subject.data, subject.split, subject.digest, differences)
        write_figures(json_file, rows, subject.command)
    if report_folder:
        write_report(report_folder, subject, report, differences)
        Console().print(f"report: {report_folder / 'report.html'}")


def write_report(
    folder: Path, subject: Subject, report: Report, differences: Sequence[Difference] = ()
) -> None:
    """Write report.html (one page, pictures inside) and report.json, both whole or none.

    Raises `ConfigError` when the folder cannot be written.
    """
    from model.atomic_files import write_whole
    from model.scoring.html_page import report_page
    from model.scoring.pictures import report_pictures
    from model.scoring.report import report_data

    rows = score_rows(report, subject.data, subject.split, subject.digest, differences)
    figures = figures_json(rows | {"report": report_data(report)}, subject.command)
    page = report_page(subject, report, report_pictures(report), differences)
    files = {"report.json": figures.encode(), "report.html": page.encode()}
    try:
        write_whole(folder, files)
    except OSError as error:
        raise ConfigError(
            f"the report cannot be written to {folder} ({error.strerror}): make room there or "
            "name another folder with --report"
        ) from error
