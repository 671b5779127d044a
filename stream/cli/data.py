"""`emotrack data convert | check | import | import-json`: make and check data-set folders."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from stream.cli.options import FeatureFiles, SetName, model_errors, warn_of_labels
from stream.errors import ConfigError

if TYPE_CHECKING:
    from model.data.dataset import DataSet, Dialogue
    from model.data.feature_file import FeatureRows

app = typer.Typer(help="Data sets: from your own conversations, from published features; checked.")

Out = Annotated[Path, typer.Option(help="folder the data set is written to")]
Corpus = Annotated[Literal["meld", "iemocap"], typer.Argument(help="whose layout")]
Share = typer.Option(min=0.0, max=0.9, help="share of the conversations, where no column says")


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(help="a .csv, .tsv or .jsonl, one utterance a row")],
    out: Out,
    name: Annotated[str | None, typer.Option(help="of the set (default: the file's name)")] = None,
    features: FeatureFiles = None,
    label_column: Annotated[str | None, typer.Option(help="default: emotion or label")] = None,
    speaker_column: Annotated[str | None, typer.Option(help="default: speaker_id or so")] = None,
    conversation_column: Annotated[
        str | None, typer.Option(help="default: conversation_id, dialogue_id or so")
    ] = None,
    text_column: Annotated[str | None, typer.Option(help="default: text or utterance")] = None,
    sentiment_column: Annotated[str | None, typer.Option(help="default: sentiment")] = None,
    sentiment: Annotated[
        list[str] | None,
        typer.Option(help="of a label, annoyed=negative (repeat it); wins over the column"),
    ] = None,
    dev_share: Annotated[float, Share] = 0.15,
    test_share: Annotated[float, Share] = 0.15,
    seed: Annotated[int, typer.Option(help="decides which conversations are dev and test")] = 0,
) -> None:
    """Make a data set of your own conversations, ready for `emotrack train --data OUT`.

    Columns: conversation_id, speaker_id, text, emotion (empty: nobody said), and if you have them
    utterance_id, split and sentiment (positive, neutral, negative). Rows of a conversation are in
    spoken order.
    """
    from model.data.convert import NO_FEATURES, Shares, to_data_set
    from model.data.table import read_table

    columns = {
        "conversation_id": conversation_column,
        "speaker_id": speaker_column,
        "text": text_column,
        "emotion": label_column,
        "sentiment": sentiment_column,
    }
    renames = {ours: theirs for ours, theirs in columns.items() if theirs is not None}
    vectors = vectors_in(features) or NO_FEATURES
    shares, stated = Shares(dev_share, test_share, seed), _stated(sentiment or ())
    with model_errors():
        rows = read_table(source, renames)
        name = name or source.name.split(".")[0]
        _write(to_data_set(name, rows, vectors, shares, stated, warn=warn), out)


@app.command()
def check(
    folder: Annotated[Path, typer.Argument(help="data-set folder")],
    set_name: SetName = None,
) -> None:
    """Read a data set whole and say what is in it, or what does not fit."""
    from model.data.reader import read_data_set

    with model_errors():
        show(read_data_set(folder, set_name))


@app.command("import")
def import_original(
    corpus: Corpus,
    features: Annotated[Path, typer.Option(help="MELD_features_raw1.pkl or IEMOCAP_features.pkl")],
    roberta: Annotated[Path, typer.Option(help="…_features_roberta.pkl")],
    out: Out,
    persona: Annotated[Path | None, typer.Option(help="…_persona.pkl")] = None,
    seed: Annotated[int, typer.Option(help="decides IEMOCAP's dev dialogues")] = 0,
) -> None:
    """Make a data set of the published feature pickles; nothing in them is run."""
    from model.data.published_pickles import read_original

    with model_errors():
        _write(read_original(corpus, features, roberta, persona, seed=seed), out)


@app.command("import-json")
def import_original_json(
    corpus: Corpus,
    folder: Annotated[Path, typer.Argument(help="with train_data.json, test_data.json and so on")],
    out: Out,
    audio: Annotated[str, typer.Option(help="which audio_features_….pkl")] = "opensmile",
    seed: Annotated[int, typer.Option(help="decides the dev dialogues, where no dev is")] = 0,
) -> None:
    """Make a data set of the JSON and feature files of HRG-SSA's published code."""
    from model.data.published_json import read_original_json

    with model_errors():
        _write(read_original_json(corpus, folder, audio=audio, seed=seed), out)


def _stated(sentiments: Sequence[str]) -> dict[str, str]:
    """Return sentiment by label of `label=sentiment` words. Raises `ConfigError`."""
    stated = {}
    for words in sentiments:
        label, found, sentiment = words.rpartition("=")
        if not found:
            raise ConfigError(
                f"--sentiment {words}: write a label and its sentiment, {words}=negative"
            )
        stated[label.strip()] = sentiment.strip().lower()
    return stated


def vectors_in(files: Sequence[Path] | None) -> FeatureRows | None:
    """Return the rows of feature files, None without files. Raises `SourceError`."""
    from model.data.feature_file import read_feature_rows

    with model_errors():
        return read_feature_rows(files) if files else None


def warn(sentence: str) -> None:
    """Print a warning on stderr."""
    typer.echo(f"warning: {sentence}", err=True)


def _write(data: DataSet, out: Path) -> None:
    """Write a set to `out` after a copy of it was written elsewhere and read back."""
    from model.data.reader import read_data_set
    from model.data.writer import write_data_set

    with TemporaryDirectory() as scratch:
        write_data_set(Path(scratch), data)
        read_data_set(Path(scratch))
    write_data_set(out, data)
    show(data)
    typer.echo(f"written to {out}; train with: emotrack train --data {out}")


def show(data: DataSet) -> None:
    """Print splits, labels, widths and the longest conversation."""
    from model.data.dataset import SPLITS, UNLABELLED, sentiment_of
    from model.interface import INPUTS

    table = Table("", *SPLITS, title=escape(data.name))

    def add(name: str, count: Callable[[Sequence[Dialogue]], object], last: bool = False) -> None:
        cells = (str(count(data.split(split))) for split in SPLITS)
        table.add_row(name, *cells, end_section=last)

    add("dialogues", len)
    add("utterances", lambda split: sum(map(len, split)))
    add("longest dialogue", lambda split: max(map(len, split), default=0))
    add("most speakers", lambda split: max((len(set(d.speakers)) for d in split), default=0), True)
    for i, (label, sentiment) in enumerate(sentiment_of(data.labels, data.sentiment).items()):
        add(f"{escape(label)} ({sentiment})", partial(_labelled, i))
    add("unlabelled", partial(_labelled, UNLABELLED), True)
    for modality, width in data.widths.items():
        in_dialogue = partial(_with_vector, INPUTS.index(modality))
        add(f"{modality}, {width} numbers", partial(_percent, in_dialogue))
    add("with a sentence", partial(_percent, lambda d: sum(map(bool, d.sentences))))
    Console().print(table)
    if data.note:
        typer.echo(data.note)
    warn_of_labels(data)


def _labelled(label: int, dialogues: Sequence[Dialogue]) -> int:
    return sum(int((d.labels == label).sum()) for d in dialogues)


def _with_vector(column: int, dialogue: Dialogue) -> int:
    return int(dialogue.present[:, column].sum())


def _percent(count: Callable[[Dialogue], int], dialogues: Sequence[Dialogue]) -> str:
    """Return the share of the utterances that `count` counts in each dialogue, in percent."""
    total = sum(map(len, dialogues))
    return f"{100 * sum(map(count, dialogues)) / total:.1f} %" if total else "-"
