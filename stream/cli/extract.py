"""`emotrack extract audio | video | text`: compute the features of your own recordings.

The extractors are those of the shipped checkpoint; docs/data.md describes them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import numpy as np
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from stream.cli.options import Encoder, model_errors, progress_bar
from stream.errors import ConfigError

if TYPE_CHECKING:
    from model.data.dataset import Floats

app = typer.Typer(help="Feature vectors of your own sound, video and text, one row an utterance.")

SHOWN: Final = 6  # columns of the table: seventeen numbers do not fit next to each other
Out = Annotated[Path | None, typer.Option(help="write the vectors to this .npz")]
Fill = Annotated[
    str | None,
    typer.Option(
        help="checkpoint folder, or 'shipped': what could not be measured becomes its train mean "
        "(without: NaN)"
    ),
]


@app.command()
def audio(
    files: Annotated[list[Path], typer.Argument(help="one sound an utterance: .wav, .flac, .aiff")],
    out: Out = None,
    fill_from: Fill = None,
) -> None:
    """Eight numbers of Praat: loudness, pitch, rate, harmonicity (needs `emotrack\\[audio]`)."""
    from model.data.extractors import PRAAT, PRAAT_COLUMNS
    from model.features.praat import measure

    _extract("audio", files, measure, PRAAT_COLUMNS, PRAAT, out, fill_from)


@app.command()
def video(
    files: Annotated[list[Path], typer.Argument(help="one CSV of OpenFace an utterance")],
    out: Out = None,
    fill_from: Fill = None,
    confidence: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="frames tracked less surely are left out")
    ] = 0.8,
) -> None:
    """Seventeen mean action-unit intensities of OpenFace's CSV files."""
    from model.data.extractors import ACTION_UNITS, OPENFACE
    from model.features.openface import mean_action_units

    measure = partial(mean_action_units, confidence=confidence)
    _extract("video", files, measure, ACTION_UNITS, OPENFACE, out, fill_from)


@app.command()
def text(
    file: Annotated[Path, typer.Argument(help="a .csv or .jsonl of utterances, or plain lines")],
    out: Annotated[Path, typer.Option(help="write the vectors to this .npz")],
    encoder: Encoder = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="vectors as this checkpoint reads them (the shipped one)")
    ] = None,
    text_column: Annotated[str | None, typer.Option(help="default: text or utterance")] = None,
) -> None:
    """Sentence vectors, one of each row or line; where the text is empty there is none."""
    from model.data.feature_file import write_feature_rows
    from model.features.sentences import encoder_of, sentence_vectors

    _require_npz(out)
    with model_errors():
        names, texts = _sentences(file, text_column)
        if not texts:
            raise ConfigError(f"{file} holds no line to encode")
        network, extractor = encoder_of(encoder, checkpoint)
    with progress_bar("encoding", total=len(texts)) as progress:
        vectors = sentence_vectors(texts, network, progress)
    write_feature_rows(out, "text", names, vectors, extractor)
    absent = int(np.isnan(vectors).all(axis=1).sum())
    typer.echo(f"{len(texts)} rows of {vectors.shape[1]} numbers in {out}, {absent} without text")


def _sentences(file: Path, column: str | None) -> tuple[list[str], list[str]]:
    """Return the names and texts of a table's rows, or of plain lines."""
    from model.data.table import CSV_SUFFIXES, LINE_SUFFIXES, read_table
    from model.errors import DataError

    if file.suffix.lower() not in (*CSV_SUFFIXES, *LINE_SUFFIXES):
        try:
            lines = file.read_text("utf-8").splitlines()
        except (OSError, UnicodeError) as error:
            raise DataError(f"cannot read {file}: {error}") from error
        return [str(i) for i in range(len(lines))], lines
    rows = list(read_table(file, {"text": column} if column else {}))
    for row in rows:
        if not isinstance(row.cells.get("text", ""), str):
            raise DataError(f"{row.place}: `text` is {row.cells['text']!r}, expected a sentence")
    names = [str(row.cells.get("utterance_id", i)) for i, row in enumerate(rows)]
    return names, [row.cells.get("text", "") for row in rows]


def _extract(
    modality: str,
    files: Sequence[Path],
    measure: Callable[[Path], Floats],
    columns: Sequence[str],
    extractor: str,
    out: Path | None,
    fill_from: str | None,
) -> None:
    """Measure the files, show their numbers and write them to `out`."""
    from model.data.feature_file import write_feature_rows

    vectors = []
    with model_errors(), progress_bar("measuring", total=len(files)) as progress:
        for file in files:
            vectors.append(measure(file))
            progress(len(vectors))
        rows = np.stack(vectors)  # [files, width]
    if fill_from is not None:
        from model.features.sentences import filled_as_trained  # imports torch

        checkpoint = None if fill_from == "shipped" else Path(fill_from)
        with model_errors():
            rows = filled_as_trained(rows, modality, checkpoint)
    _show(files, rows, columns)
    if out is not None:
        _require_npz(out)
        write_feature_rows(out, modality, [file.stem for file in files], rows, extractor)
        typer.echo(f"{len(rows)} rows of {len(columns)} numbers in {out}")


def _show(files: Sequence[Path], rows: Floats, columns: Sequence[str]) -> None:
    """Print the numbers, one column a file, and name the files without any."""
    table = Table("", *(escape(file.stem) for file in files[:SHOWN]))
    for i, column in enumerate(columns):
        table.add_row(column, *("-" if np.isnan(v) else f"{v:.2f}" for v in rows[:SHOWN, i]))
    Console().print(table)
    if len(files) > SHOWN:
        typer.echo(f"and {len(files) - SHOWN} more")
    for file, row in zip(files, rows, strict=True):
        if np.isnan(row).all():
            typer.echo(f"{file}: nothing to measure, an absent vector (NaN)")


def _require_npz(out: Path) -> None:
    if out.suffix != ".npz":
        raise ConfigError(f"--out {out}: give a name that ends in .npz")
