"""`emotrack train`: arguments in, files and tables out.

The models are imported when the command runs: `emotrack --help` needs no torch.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from stream.cli_options import Data, SetName, Threads, hush_torch_geometric, read_conversations
from stream.errors import ConfigError
from stream.figures import write_figures
from stream.score_tables import print_report, score_rows

if TYPE_CHECKING:
    from model.data import DataSet
    from model.train import Epoch, Recipe, Trained


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
    hush_torch_geometric()
    from dataclasses import replace

    from model.train import Recipe, fitting_config
    from model.train import train as run

    read = read_conversations(data, set_name)
    recipe = Recipe() if epochs is None else replace(Recipe(), epochs=epochs)
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


def _keep(
    folder: Path, trained: Trained, recipe: Recipe, data: DataSet, *, seed: int, command: str
) -> None:
    """Save the checkpoint with its card, score what was saved on dev, write metrics.json."""
    from model.card import model_card
    from model.checkpoint import load_checkpoint, save_checkpoint
    from model.evaluate import evaluate as run

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
    rows = score_rows(report, data.name, "dev", digest)
    history = {"epochs": {"value": [asdict(epoch) for epoch in trained.history]}}
    write_figures(folder / "metrics.json", rows | history, command)
    print_report(report, f"{data.name} dev, checkpoint {digest[:16]} in {folder}")


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:3.0f} %"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=Console(stderr=True),
    )
