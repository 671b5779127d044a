"""`emotrack baseline`: train a simple model on the same vectors, score it as a checkpoint."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.progress import TaskProgressColumn

from model.study.figures import hush_torch_geometric
from model.study.ledger import note_look, sentence_on_looks
from stream.cli.evaluate import check_outputs, checked_ledger, print_report, publish
from stream.cli.options import (
    Data,
    Encoder,
    JsonFile,
    Ledger,
    ReportFolder,
    SetName,
    SplitName,
    Threads,
    data_words,
    model_errors,
    option_words,
    progress_bar,
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
    ledger: Ledger = None,
    encoder: Encoder = None,
    threads: Threads = 1,
    runs: Annotated[Path, typer.Option(help="encoded sentences are kept there")] = Path("runs"),
) -> None:
    """Train a simple model on train, choose on dev, and score it on a split as a checkpoint is.

    Sentences are read as vectors of the frozen encoder, the mean of its last four layers; a set
    without sentences is read by its own vectors.
    """
    hush_torch_geometric()
    from model.data.splits import with_dev
    from model.interface import INPUTS
    from model.scoring.html_page import Subject
    from model.study.baselines import fit_baseline, with_sentences

    read = with_dev(read_conversations(data, set_name))
    ledger = checked_ledger(split, ledger, read.name, data)
    check_outputs(report_folder)
    if read.note:
        Console(stderr=True).print(read.note)
    inputs = ("text",) if text_only else INPUTS
    if name != "majority":
        with _encoding() as on_share:
            read = with_sentences(
                read, ("train", "dev", split), encoder=encoder, cache=runs / ".text",
                on_share=on_share,
            )  # fmt: skip
    fitted = fit_baseline(name, read, split, seed=seed, threads=threads, inputs=inputs)
    report = fitted.report(read.labels)
    called = f"baseline-{name}{'-text' if text_only else ''}-seed{seed}"
    if split == "test":
        note_look(ledger, called, read.name, report, now=datetime.now(UTC))
    print_report(report, f"{read.name} {split}, {called} ({fitted.settings})")
    options = option_words(
        split=split, seed=seed, text_only=text_only, encoder=encoder, threads=threads
    )
    command = shlex.join(["emotrack", "baseline", name, *data_words(data, read.name), *options])
    subject = Subject(
        model=f"baseline: {name} ({fitted.settings})",
        digest=called,
        data=read.name,
        split=split,
        command=command,
        ledger=sentence_on_looks(ledger, split, called),
    )
    publish(subject, report, (), json_file, report_folder)


@contextmanager
def _encoding() -> Iterator[Callable[[float], None]]:
    """Show the encoding of sentences where there is any to do; a line without a terminal."""
    console = Console(stderr=True)
    with progress_bar("encoding sentences", TaskProgressColumn(), total=1) as progress:
        begun = False

        def on_share(share: float) -> None:
            nonlocal begun
            if not begun and not console.is_terminal:
                console.print("encoding sentences")
            begun = True
            progress(share)

        yield on_share
