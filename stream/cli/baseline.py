"""`emotrack baseline`: train a simple model on the same vectors, score it as a checkpoint."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal

import typer

from model.study.figures import hush_torch_geometric
from model.study.ledger import LEDGER, note_look, sentence_on_looks
from stream.cli.evaluate import check_outputs, print_report, publish
from stream.cli.options import (
    Data,
    JsonFile,
    Ledger,
    ReportFolder,
    SetName,
    SplitName,
    Threads,
    model_errors,
    read_conversations,
)


@model_errors()
def baseline(
    name: Annotated[
        Literal["majority", "logistic", "markov", "gru"],
        typer.Argument(
            help="class frequencies; logistic regression, alone or with a chain of emotions; a GRU"
        ),
    ],
    data: Data = None,
    set_name: SetName = None,
    split: SplitName = "dev",
    text_only: Annotated[bool, typer.Option(help="read the text vectors alone")] = False,
    seed: Annotated[int, typer.Option(help="decides every random number")] = 0,
    json_file: JsonFile = None,
    report_folder: ReportFolder = None,
    ledger: Ledger = LEDGER,
    threads: Threads = 1,
) -> None:
    """Train a simple model on train, choose on dev, and score it on a split as a checkpoint is."""
    hush_torch_geometric()
    from model.interface import INPUTS
    from model.scoring.html_page import Subject
    from model.study.baselines import fit_baseline

    check_outputs(split, ledger, report_folder)
    read = read_conversations(data, set_name)
    inputs = ("text",) if text_only else INPUTS
    fitted = fit_baseline(name, read, split, seed=seed, threads=threads, inputs=inputs)
    report = fitted.report(read.labels)
    called = f"baseline-{name}{'-text' if text_only else ''}-seed{seed}"
    if split == "test":
        note_look(ledger, called, read.name, report, now=datetime.now(UTC))
    print_report(report, f"{read.name} {split}, {called} ({fitted.settings})")
    command = f"emotrack baseline {name} --set {read.name} --split {split} --seed {seed}"
    subject = Subject(
        model=f"baseline: {name} ({fitted.settings})",
        digest=called,
        data=read.name,
        split=split,
        command=command + (" --text-only" if text_only else "") + f" --threads {threads}",
        ledger=sentence_on_looks(ledger, split, called),
    )
    publish(subject, report, (), json_file, report_folder)
