"""`emotrack train` and `emotrack evaluate`: arguments in, files and tables out.

The models are imported when a command runs: `emotrack --help` needs no torch.
"""

from __future__ import annotations

import csv
import warnings
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from stream.errors import ConfigError, ModelUnfit, SourceError
from stream.figures import write_figures

if TYPE_CHECKING:
    from model.checkpoint import Checkpoint
    from model.data import DataSet
    from model.evaluate import Report
    from model.recipe import Recipe
    from model.train import Epoch, Trained

SHARED_DATA: Final = Path("../shared/data")
LEDGER: Final = Path("docs/test-ledger.csv")
LEDGER_COLUMNS: Final = (
    "date", "checkpoint", "set", "utterances", "pairs", "accuracy", "wf1", "wf1_low", "wf1_high",
    "shift_auroc", "shift_c2_wf1", "emotion_ece", "shift_ece",
)  # fmt: skip

Data = Annotated[
    Path | None,
    typer.Option("--data", envvar="EMOTRACK_DATA", help="data-set folder (../shared/data)"),
]
SetName = Annotated[
    str | None, typer.Option("--set", help="which set of the folder, e.g. meld or emorynlp")
]
Threads = Annotated[int, typer.Option(min=1, help="CPU threads")]
JsonFile = Annotated[Path | None, typer.Option("--json", help="write the figures here too")]


def train(
    data: Data = None,
    set_name: SetName = None,
    name: Annotated[str | None, typer.Option(help="folder under runs/ (default: the set)")] = None,
    seed: Annotated[int, typer.Option(help="decides every random number")] = 0,
    epochs: Annotated[int | None, typer.Option(min=1, help="default: the recipe's")] = None,
    hidden: Annotated[int, typer.Option(min=4, help="hidden width H")] = 128,
    window: Annotated[int, typer.Option(min=1, help="utterances the model sees")] = 10,
    threads: Threads = 1,
    runs: Annotated[Path, typer.Option(help="where runs are kept")] = Path("runs"),
) -> None:
    """Train a model on a data-set folder; write runs/NAME: checkpoint, card, metrics.json.

    The epoch is chosen on the dev split; the test split is never read. Equal arguments give an
    equal checkpoint on one machine.
    """
    _hush_torch_geometric()
    from model.recipe import recipe_for
    from model.train import fitting_config
    from model.train import train as run

    read = _read(data, set_name)
    recipe = recipe_for("vectors", {} if epochs is None else {"epochs": epochs})
    try:
        config = fitting_config(read, hidden=hidden, window=window)
    except ValueError as error:
        raise ConfigError(f"no such model: {error}") from error
    with _progress() as progress:
        task = progress.add_task("training", total=1.0, note="")

        def on_epoch(epoch: Epoch) -> None:
            note = f"epoch {epoch.number}: dev wF1 {100 * epoch.dev_weighted_f1:.1f}"
            progress.update(task, note=note)

        trained = run(
            read,
            config,
            recipe,
            seed=seed,
            threads=threads,
            on_step=lambda share: progress.update(task, completed=share),
            on_epoch=on_epoch,
        )
    command = f"emotrack train --set {read.name} --seed {seed} --hidden {hidden}"
    command += f" --epochs {recipe.epochs} --window {window} --threads {threads}"
    _keep(runs / (name or read.name), trained, recipe, read, seed=seed, command=command)


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
    _hush_torch_geometric()
    from model.checkpoint import default_checkpoint, load_checkpoint
    from model.evaluate import evaluate as run
    from model.evaluate import goal_rows
    from model.predictor import CheckpointError

    if split == "test" and not ledger.parent.is_dir():
        raise ConfigError(
            f"a look at the test split is recorded in {ledger}, but {ledger.parent} is no folder: "
            "run this in the project's folder or name a file with --ledger"
        )
    read = _read(data, set_name)
    try:
        loaded = load_checkpoint(checkpoint or default_checkpoint())
        report = run(loaded, read, split, threads=threads)
    except CheckpointError as error:
        raise ModelUnfit(str(error)) from error
    _print(report, f"{read.name} {split}, checkpoint {loaded.digest[:16]}")
    if split == "test":
        note_look(ledger, loaded, read.name, report, now=datetime.now(UTC))
    if json_file:
        command = f"emotrack evaluate --set {read.name} --split {split} --threads {threads}"
        rows = goal_rows(report)
        for row in rows.values():
            row |= {"set": read.name, "split": split, "checkpoint": loaded.digest}
        write_figures(json_file, rows, command)


def note_look(
    ledger: Path, checkpoint: Checkpoint, set_name: str, report: Report, *, now: datetime
) -> None:
    """Append one look at a test split to the ledger (shares as in the report)."""
    f1 = report.weighted_f1
    scores = (
        report.accuracy, f1.value, f1.low, f1.high, report.shift_auroc.value,
        report.shift_c2_weighted_f1.value, report.emotion_ece, report.shift_ece,
    )  # fmt: skip
    row = [now.isoformat(timespec="seconds"), checkpoint.digest, set_name]
    row += [str(report.utterances), str(report.pairs), *(f"{score:.4f}" for score in scores)]
    new = not ledger.exists()
    with ledger.open("a", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if new:
            writer.writerow(LEDGER_COLUMNS)
        writer.writerow(row)


def _hush_torch_geometric() -> None:
    """Its import warns that torch.jit.script is deprecated: nothing a reader of scores can cure."""
    warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", FutureWarning)


def _read(folder: Path | None, name: str | None) -> DataSet:
    from model.data import DataError, read_data_set

    if folder is None:
        if not SHARED_DATA.is_dir():
            raise ConfigError("which conversations? Give a folder with --data or EMOTRACK_DATA")
        folder = SHARED_DATA
    try:
        return read_data_set(folder, name)
    except DataError as error:
        raise SourceError(str(error)) from error


def _keep(
    folder: Path, trained: Trained, recipe: Recipe, data: DataSet, *, seed: int, command: str
) -> None:
    """Save the checkpoint with its card, score what was saved on dev, write metrics.json."""
    from model.card import model_card
    from model.checkpoint import load_checkpoint, save_checkpoint
    from model.evaluate import evaluate as run
    from model.evaluate import goal_rows

    def save(card: str) -> str:
        return save_checkpoint(
            folder,
            trained.model,
            calibration=trained.calibration,
            thresholds=trained.thresholds,
            extractors=data.extractors,
            card=card,
        )

    digest = save("")
    report = run(load_checkpoint(folder), data, "dev")
    card = model_card(
        trained,
        report,
        data=data.name,
        extractors=data.extractors,
        recipe=recipe,
        seed=seed,
        command=command,
    )
    save(card)
    rows = goal_rows(report)
    for row in rows.values():
        row |= {"set": data.name, "split": "dev", "checkpoint": digest}
    history = {"epochs": {"value": [asdict(epoch) for epoch in trained.history]}}
    write_figures(folder / "metrics.json", rows | history, command)
    _print(report, f"{data.name} dev, checkpoint {digest[:16]} in {folder}")


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:3.0f} %"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=Console(stderr=True),
    )


def _print(report: Report, title: str) -> None:
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
