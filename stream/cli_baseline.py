"""`emotrack baseline`: a simple model on the same vectors, scored as a checkpoint is."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal

import typer

from stream.cli_evaluate import Ledger, ReportFolder, SplitName, check_outputs, publish
from stream.cli_options import (
    Data,
    JsonFile,
    SetName,
    Threads,
    hush_torch_geometric,
    read_conversations,
)
from stream.errors import SourceError
from stream.ledger import LEDGER, note_look, sentence_on_looks
from stream.score_tables import print_report


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
    from model.baselines import fit_baseline
    from model.data import MODALITIES, DataError
    from model.page import Subject

    check_outputs(split, ledger, report_folder)
    read = read_conversations(data, set_name)
    inputs = ("text",) if text_only else MODALITIES
    try:
        fitted = fit_baseline(name, read, split, seed=seed, threads=threads, inputs=inputs)
    except DataError as error:
        raise SourceError(str(error)) from error
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
