"""`emotrack predict`: answers to a table of utterances, without Kafka and Redis."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

import typer
from rich.progress import MofNCompleteColumn, TimeElapsedColumn, TimeRemainingColumn

from stream.cli.options import Encoder, FeatureFiles, SetName, Threads, progress_bar

if TYPE_CHECKING:
    from model.data.feature_file import FeatureRows
    from stream.client.answer_file import AnswerFile
    from stream.client.data_source import DataChoice, Source
    from stream.offline import LoadedModel

AT_ONCE: Final = 256  # utterances read before they are answered
STDIN: Final = "-"


def predict(
    source: Annotated[
        str,
        typer.Argument(help="a .csv, .tsv, JSON lines, - for stdin, or a data-set folder"),
    ],
    out: Annotated[
        Path, typer.Option(help="a .csv, .jsonl or .parquet; - prints JSON lines")
    ] = Path("-"),
    model: Annotated[str, typer.Option(help="checkpoint folder, or a model's name")] = "pcgnet",
    features: FeatureFiles = None,
    split: Annotated[Literal["train", "dev", "test"], typer.Option(help="of a data set")] = "dev",
    set_name: SetName = None,
    raw_text: Annotated[
        bool, typer.Option("--raw-text", help="read a data set's sentences, not their vectors")
    ] = False,
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="where it runs")] = "auto",
    threads: Threads = 1,
    encoder: Encoder = None,
) -> None:
    """Answer every utterance of a table, one row each, as a worker would answer them on Kafka.

    A conversation is one session. Nothing is written where a row does not fit. From stdin each
    line is answered as it comes.
    """
    from stream.cli.data import vectors_in
    from stream.client.answer_file import require_answer_file
    from stream.client.data_source import DataChoice
    from stream.offline import load

    require_answer_file(out, () if source == STDIN else (Path(source),), lines=True)
    choice = DataChoice(split, set_name, raw_text=raw_text)
    vectors = vectors_in(features)
    if source != STDIN:  # a file that cannot be read is known before the model is loaded
        open_source(source, choice, vectors)
    loaded = load(model, device=device, threads=threads, encoder=encoder)
    began = time.monotonic()
    try:
        counts = answered_to(out, loaded, source, choice, vectors)
    except BrokenPipeError:  # the reader of our lines has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return
    typer.echo(counts.sentence(out, time.monotonic() - began), err=True)


@dataclass
class Counts:
    """Utterances by what became of them."""

    answered: int = 0
    repeats: int = 0
    alerts: int = 0
    conversations: set[str] = field(default_factory=set)
    abstained: Counter[str] = field(default_factory=Counter)
    flags: Counter[str] = field(default_factory=Counter)

    def sentence(self, out: Path, seconds: float) -> str:
        """Return the summary for people."""
        parts = [
            f"answered {self.answered} utterances of {len(self.conversations)} conversations in "
            f"{seconds:.1f} s{'' if str(out) == '-' else f', written to {out}'}"
        ]
        if self.alerts:
            parts.append(f"shift alerts: {self.alerts}")
        if self.abstained:
            reasons = ", ".join(f"{name} {count}" for name, count in self.abstained.most_common())
            parts.append(f"abstained: {reasons}")
        if self.repeats:
            parts.append(f"not answered, as they repeat an id: {self.repeats}")
        return "; ".join(parts)


def open_source(source: str, choice: DataChoice, vectors: FeatureRows | None) -> Source:
    """Open the source and refuse repeated ids. Raises `SourceError` or `InvalidUtterance`."""
    from stream.client.sources import open_sources

    opened = open_sources([source], choice, features=vectors, command="predict")
    opened.repeats.refuse(
        "Give each an id of its own, or leave the column out. Nothing was answered"
    )
    return opened


def answered_to(
    out: Path, model: LoadedModel, source: str, choice: DataChoice, vectors: FeatureRows | None
) -> Counts:
    """Write the answers and return their counts, after a first reading that checks every row."""
    from stream.cli.client import left_out, warn
    from stream.client.answer_file import AnswerFile
    from stream.events.answer_rows import ANSWER_COLUMNS, probability_columns

    in_each = None if source == STDIN else checked(model, open_source(source, choice, vectors))
    opened = open_source(source, choice, vectors)
    columns = {**ANSWER_COLUMNS, **probability_columns(model.info.labels)}
    bar = MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn()
    total = None if in_each is None else sum(in_each.values())
    with (
        AnswerFile(out, columns, whole=True) as file,
        progress_bar(f"answering {opened.name}", *bar, total=total) as progress,
    ):
        counts = Counts()
        for done in write_answers(file, model, opened, in_each, counts):
            progress(done)
    for sentence in (opened.repeats.sentence, *opened.warnings):
        warn(sentence)
    warn(left_out(counts.flags))
    return counts


def checked(model: LoadedModel, opened: Source) -> Counter[str]:
    """Return the utterances of each conversation. Raises `InvalidUtterance` as the model would."""
    from stream.offline.spoken import Ids, utterance_of

    in_each: Counter[str] = Counter()
    for utterance in opened.utterances:
        in_each[utterance_of(utterance, Ids(), model.info).conversation_id] += 1
    return in_each


def write_answers(
    file: AnswerFile,
    model: LoadedModel,
    opened: Source,
    in_each: Counter[str] | None,
    counts: Counts,
) -> Iterator[int]:
    """Write the answers in the order of the utterances; yield how many are done."""
    from stream.events.answer_rows import answer_row
    from stream.events.messages import flags_of
    from stream.offline.many import answers_in_order

    at_once = 1 if in_each is None else AT_ONCE
    asked = answers_in_order(model, opened.utterances, at_once=at_once, counts=in_each)
    for done, (utterance, answer) in enumerate(asked, start=1):
        counts.conversations.add(utterance.conversation_id)
        counts.flags.update(flags_of(utterance))
        if answer is None:
            counts.repeats += 1
        else:
            file.write(answer, answer_row(answer))
            counts.answered += 1
            counts.alerts += answer.alert is not None
            if answer.abstained:
                counts.abstained[answer.reason or "abstained"] += 1
        yield done
