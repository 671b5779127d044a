"""`emotrack evaluate`: a checkpoint and a split in, tables and files out.

The models are imported when the command runs: `emotrack --help` needs no torch.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table

from stream.cli_data import (
    Data,
    JsonFile,
    SetName,
    Threads,
    hush_torch_geometric,
    read_conversations,
)
from stream.errors import ModelUnfit
from stream.figures import write_figures
from stream.ledger import LEDGER, check_ledger, note_look

if TYPE_CHECKING:
    from model.evaluate import Report


def evaluate(
    checkpoint: Annotated[
        Path | None, typer.Argument(help="checkpoint folder (default: the shipped one)")
    ] = None,
    data: Data = None,
    set_name: SetName = None,
    split: Annotated[
        Literal["train", "dev", "test"],
        typer.Option(help="each look at test is written to the ledger"),
    ] = "dev",
    json_file: JsonFile = None,
    ledger: Annotated[Path, typer.Option(help="where looks at test are recorded")] = LEDGER,
    threads: Threads = 1,
) -> None:
    """Score a checkpoint on a split: emotion, shift, calibration, with 95 % intervals.

    Causal, in the stored precision: the worker's answers to the same conversations.
    """
    hush_torch_geometric()
    from model.checkpoint import default_checkpoint, load_checkpoint
    from model.evaluate import evaluate as run
    from model.predictor import CheckpointError

    if split == "test":
        check_ledger(ledger)
    read = read_conversations(data, set_name)
    try:
        loaded = load_checkpoint(checkpoint or default_checkpoint())
        report = run(loaded, read, split, threads=threads)
    except CheckpointError as error:
        raise ModelUnfit(str(error)) from error
    print_report(report, f"{read.name} {split}, checkpoint {loaded.digest[:16]}")
    if split == "test":
        note_look(ledger, loaded.digest, read.name, report, now=datetime.now(UTC))
    if json_file:
        command = f"emotrack evaluate --set {read.name} --split {split} --threads {threads}"
        rows = score_rows(report, read.name, split, loaded.digest)
        write_figures(json_file, rows, command)


def score_rows(
    report: Report, set_name: str, split: str, checkpoint: str
) -> dict[str, dict[str, Any]]:
    """The report's rows of goals.md, each with what it was measured on."""
    from model.evaluate import goal_rows

    rows = goal_rows(report)
    for row in rows.values():
        row |= {"set": set_name, "split": split, "checkpoint": checkpoint}
    return rows


def print_report(report: Report, title: str) -> None:
    """Print the scores beside their goals."""
    from model.evaluate import goal_rows

    table = Table("", "value", "95 % interval", "first", "aim", "beside", title=title)
    for name, row in goal_rows(report).items():
        low, high = row.get("ci95", ("", ""))
        interval = f"{low} to {high}" if low != "" else ""
        value = f"{row['value']} {row['unit']}"
        table.add_row(name, value, interval, str(row["first"]), str(row["aim"]), row["reference"])
    classes = ", ".join(f"{k} {100 * v:.1f}" for k, v in report.class_f1.items())
    console = Console()
    console.print(table)
    console.print(f"F1 by class: {classes}")
    console.print(
        f"accuracy {100 * report.accuracy:.1f} %; alerts find {100 * report.alert_recall:.1f} % of "
        f"shifts with {report.alert_false_per_100:.1f} false alarms per 100 pairs; "
        f"{100 * report.abstained:.1f} % abstained ({100 * report.abstained_accuracy:.1f} % of "
        "those right)"
    )
