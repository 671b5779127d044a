"""`emotrack evaluate`: score a checkpoint on a split, print tables, write files.

The models are imported when the command runs: `emotrack --help` needs no torch.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from model.study.figures import figures_json, hush_torch_geometric, score_rows, write_figures
from model.study.ledger import check_ledger, ledger_of, note_look, sentence_on_looks
from stream.cli.options import (
    Bootstrap,
    Data,
    Encoder,
    JsonFile,
    Ledger,
    NamedCheckpoint,
    ReportFolder,
    SetName,
    SplitName,
    Threads,
    conversations_folder,
    data_words,
    model_errors,
    option_words,
    read_conversations,
)
from stream.errors import ConfigError
from stream.settings import load_settings

if TYPE_CHECKING:
    from model.scoring.bootstrap import Difference
    from model.scoring.html_page import Subject
    from model.scoring.report import Report


@model_errors()
def evaluate(
    checkpoint: NamedCheckpoint = None,
    data: Data = None,
    set_name: SetName = None,
    split: SplitName = "dev",
    against: Annotated[
        Path | None,
        typer.Option(help="another checkpoint: differences over the same dialogues (paired)"),
    ] = None,
    answers_file: Annotated[
        Path | None,
        typer.Option("--answers", help="write one row an utterance: a .csv, .jsonl or .parquet"),
    ] = None,
    topic: Annotated[
        str | None,
        typer.Option(help="score what this topic answered instead, e.g. emotrack.predictions"),
    ] = None,
    id_prefix: Annotated[
        str, typer.Option(help="of the conversations on the topic, as `publish` was given it")
    ] = "",
    bootstrap: Bootstrap = None,
    json_file: JsonFile = None,
    report_folder: ReportFolder = None,
    ledger: Ledger = None,
    encoder: Encoder = None,
    threads: Threads = 1,
) -> None:
    """Score a checkpoint on a split: emotion, shift, calibration, with 95 % intervals.

    Causal, in the stored precision: the worker's answers to the same conversations. With --topic
    the answers that workers gave are scored.
    """
    from stream.cli.evaluate_answers import write_scored
    from stream.client.answer_file import require_answer_file

    if answers_file is not None:
        require_answer_file(answers_file)
    if topic is not None:
        from stream.cli.evaluate_topic import evaluate_topic

        refuse_beside_topic(checkpoint, against, json_file, report_folder)
        read = read_conversations(data, set_name)
        evaluate_topic(
            load_settings({"bootstrap": bootstrap}),
            topic,
            read,
            split,
            id_prefix=id_prefix,
            answers_file=answers_file,
            ledger=checked_ledger(split, ledger, read.name, data),
        )
        return
    hush_torch_geometric()
    from model import evaluate as scoring
    from model.checkpoint_files import find_checkpoint
    from model.scoring.html_page import Subject
    from model.study.ablations import load

    check_outputs(report_folder)
    read = read_conversations(data, set_name)
    ledger = checked_ledger(split, ledger, read.name, data, find_checkpoint(checkpoint))
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
    words = [*([] if checkpoint is None else [str(checkpoint)]), *data_words(data, read.name)]
    options = option_words(split=split, against=against, encoder=encoder, threads=threads)
    command = shlex.join(["emotrack", "evaluate", *words, *options])
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
    if answers_file is not None:
        count = write_scored(answers_file, loaded, read, split, threads=threads, encoder=encoder)
        typer.echo(f"{count} utterances with their answers: {answers_file}", err=True)


def refuse_beside_topic(*others: Path | None) -> None:
    """Raise `ConfigError` for what a topic's answers cannot be scored with."""
    if any(other is not None for other in others):
        raise ConfigError(
            "--topic scores the answers that are there: leave out the checkpoint, --against, "
            "--json and --report, or leave out --topic"
        )


def checked_ledger(
    split: str,
    named: Path | None,
    set_name: str,
    data: Path | None,
    checkpoint: Path | None = None,
) -> Path:
    """Return the ledger of a set's looks, `named` or the usual one.

    Raises `LedgerError` if a look at this split could not be written to it after the work.
    """
    ledger = named or ledger_of(set_name, conversations_folder(data), checkpoint)
    if split == "test":
        check_ledger(ledger)
    return ledger


def check_outputs(report_folder: Path | None) -> None:
    """Raise `ConfigError` if the report could not be written after the work."""
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
    """Print the scores in words with what chance would give, and the scores of each class."""
    from model.scoring.words import SCORE_HEADER, percent, remarks, score_lines

    table = Table(*SCORE_HEADER, title=title)
    for line in score_lines(report):
        table.add_row(*line)
    classes = Table("", "precision, %", "recall, %", "F1, %", "utterances")
    for c in report.classes:
        classes.add_row(c.label, *map(percent, (c.precision, c.recall, c.f1)), f"{c.support:,}")
    Console().print(table, classes, *remarks(report), sep="\n")


def print_differences(differences: Sequence[Difference], title: str) -> None:
    """Print the differences of two models, score by score, and whether the main one is noise."""
    from model.scoring.html_page import DIFFERENCE_HEADER, difference_row, difference_sentence

    table = Table(*DIFFERENCE_HEADER, title=title)
    for difference in differences:
        table.add_row(*difference_row(difference))
    main = next(d for d in differences if d.score == "weighted_f1")
    Console().print(table, difference_sentence(main))
