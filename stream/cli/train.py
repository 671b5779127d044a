"""`emotrack train`: arguments in, a folder with a checkpoint, its card, figures and curves out.

The models are imported when the command runs: `emotrack --help` needs no torch.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from model.study.figures import hush_torch_geometric, score_rows, write_figures
from stream.cli.options import (
    Data,
    Encoder,
    SetName,
    Threads,
    TrainingDevice,
    model_errors,
    read_conversations,
)
from stream.cli.score_tables import print_report
from stream.errors import ConfigError

if TYPE_CHECKING:
    from model.data.dataset import DataSet
    from model.hrg_ssa.plan import HrgPlan
    from model.pcgnet.plan import Plan
    from model.train_run import Outcome
    from model.training.loop import Epoch, Listener


def train(
    model: Annotated[
        Literal["pcgnet", "hrg-ssa"], typer.Argument(help="which model to train")
    ] = "pcgnet",
    data: Data = None,
    set_name: SetName = None,
    name: Annotated[
        str | None, typer.Option(help="folder under runs/ (default: set and model)")
    ] = None,
    text: Annotated[
        Literal["adapted", "frozen", "vectors"] | None,
        typer.Option(
            help="tune the sentence encoder with the graph, use it as it is, or use the set's "
            "text vectors (default: adapted where there are sentences)"
        ),
    ] = None,
    recipe: Annotated[
        Path | None, typer.Option(help="YAML file: sections recipe: and model:, name: value")
    ] = None,
    preset: Annotated[
        Literal["meld", "iemocap"] | None,
        typer.Option(help="the paper's sizes and training instead of ours"),
    ] = None,
    bidirectional: Annotated[
        bool, typer.Option("--bidirectional", help="research twin that hears the future")
    ] = False,
    folds: Annotated[
        int | None, typer.Option(min=2, help="cross-validate over dialogues instead")
    ] = None,
    seed: Annotated[int, typer.Option(help="decides every random number")] = 0,
    epochs: Annotated[int | None, typer.Option(min=1, help="default: the recipe's")] = None,
    hidden: Annotated[int | None, typer.Option(min=4, help="hidden width H (128)")] = None,
    window: Annotated[
        int | None, typer.Option(min=1, help="utterances the model sees (10; hrg-ssa 8)")
    ] = None,
    words_of: Annotated[
        Path | None,
        typer.Option(
            help="hrg-ssa: hear words through this checkpoint's tuned encoder (or pcgnet)"
        ),
    ] = None,
    encoder: Encoder = None,
    threads: Threads = 1,
    device: TrainingDevice = "cpu",
    runs: Annotated[Path, typer.Option(help="where runs are kept")] = Path("runs"),
) -> None:
    """Train a model on a data-set folder; write runs/NAME: checkpoint, card, metrics.json, curves.

    The epoch is chosen on the dev split (a tenth of the train dialogues where a set has none); the
    test split is never read. Equal arguments give an equal checkpoint on one machine. A run that
    was interrupted goes on where it was when the same command is given again.
    """
    hush_torch_geometric()
    read = read_conversations(data, set_name)
    given = {
        "set": read.name, "text": text, "preset": preset, "bidirectional": bidirectional,
        "folds": folds, "recipe": recipe, "seed": seed, "epochs": epochs, "hidden": hidden,
        "window": window, "words-of": words_of, "threads": threads,
        "device": None if device == "cpu" else device,
    }  # fmt: skip
    command = _command(given, model)
    default = read.name if model == "pcgnet" else f"{read.name}-{model}"
    if model == "hrg-ssa":
        _only_pcgnets(
            {"text": text, "preset": preset, "hidden": hidden, "bidirectional": bidirectional}
        )
    elif words_of is not None:
        raise ConfigError("--words-of is for hrg-ssa: pcgnet tunes an encoder of its own")
    elif device == "cuda":
        raise ConfigError("--device is for hrg-ssa: pcgnet is trained on the CPU, within minutes")

    def chosen_for(part: DataSet, listener: Listener) -> Plan | HrgPlan:
        if model == "hrg-ssa":
            from model.registry import text_encoder_of

            words = text_encoder_of(words_of) if words_of else None
            return _hrg_plan(
                part, recipe, epochs, window,
                seed=seed, command=command, encoder=encoder, words=words, threads=threads,
                device=device, cache=runs / ".text",
            )  # fmt: skip
        from model.pcgnet.plan import plan

        changes = _changes(recipe, epochs, hidden, window, bidirectional)
        return plan(
            part, seed=seed, command=command, text=text, preset=preset, recipe_changes=changes[0],
            model_changes=changes[1], encoder=encoder, threads=threads, cache=runs / ".text",
            listener=listener,
        )  # fmt: skip

    with model_errors(), _no_such_model():
        outcomes = []
        for part, folder in _parts(read, runs / (name or default), folds, seed):
            with _listener(part) as listener:
                outcomes.append(_run(chosen_for(part, listener), folder, listener))
            print_outcome(outcomes[-1], part.name)
    if folds:
        _print_folds(outcomes)


@contextmanager
def _no_such_model() -> Iterator[None]:
    """Raise `ConfigError` for sizes that no model can have."""
    try:
        yield
    except ValueError as error:
        raise ConfigError(f"no such model: {error}") from error


def _changes(
    recipe: Path | None,
    epochs: int | None,
    hidden: int | None,
    window: int | None,
    bidirectional: bool,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What differs from the chosen recipe and from the fitting model; flags win over the file."""
    from model.pcgnet.config import PcgnetConfig
    from model.pcgnet.recipe import Recipe
    from model.training.settings import read_settings

    of_recipe, of_model = read_settings(recipe, Recipe, PcgnetConfig) if recipe else ({}, {})
    if epochs is not None:
        of_recipe |= {"epochs": epochs, "steps_at_least": 1}
    if hidden is not None:
        of_model |= {"hidden": hidden}
    if window is not None:
        of_model |= {"recurrence": {"window": window}}
    if bidirectional:
        of_model |= {"research": ("bidirectional",)}
    return of_recipe, of_model


def _parts(data: DataSet, folder: Path, folds: int | None, seed: int) -> list[tuple[DataSet, Path]]:
    """The sets to train on and where each run goes: one, or one a fold."""
    from model.data.splits import k_folds, with_dev

    if folds is None:
        return [(with_dev(data), folder)]
    parts = enumerate(k_folds(data, folds, seed=seed), start=1)
    return [(part, folder / f"fold-{number}") for number, part in parts]


def _only_pcgnets(given: dict[str, Any]) -> None:
    """Raise `ConfigError` where an option was given that HRG-SSA has no meaning for."""
    for option, value in given.items():
        if value:
            raise ConfigError(f"--{option} is for pcgnet: leave it out, or see --recipe")


def _hrg_plan(
    part: DataSet, recipe: Path | None, epochs: int | None, window: int | None, **rest: Any
) -> HrgPlan:
    """What to train of HRG-SSA; flags win over the recipe file."""
    from model.hrg_ssa.config import HrgSsaConfig
    from model.hrg_ssa.plan import plan_hrg_ssa
    from model.hrg_ssa.recipe import HrgRecipe
    from model.training.settings import read_settings

    of_recipe, of_model = read_settings(recipe, HrgRecipe, HrgSsaConfig) if recipe else ({}, {})
    if epochs is not None:
        of_recipe |= {"epochs": epochs, "steps_at_least": 1}
    if window is not None:
        of_model |= {"recurrence": {"window": window}}
    return plan_hrg_ssa(part, recipe_changes=of_recipe, model_changes=of_model, **rest)


def _run(chosen: Plan | HrgPlan, folder: Path, listener: Listener) -> Outcome:
    """Carry a plan out and write metrics.json beside the checkpoint."""
    from model.pcgnet.plan import Plan
    from model.train_run import carry_out, finished

    if isinstance(chosen, Plan):
        outcome = carry_out(chosen, folder, listener)
    else:
        from model.train_run import carry_out_hrg_ssa

        outcome = carry_out_hrg_ssa(chosen, folder, listener)
    rows = score_rows(outcome.report, chosen.data.name, "dev", outcome.digest)
    history = {"epochs": {"value": [asdict(epoch) for epoch in outcome.trained.history]}}
    write_figures(folder / "metrics.json", rows | history, chosen.command)
    finished(folder)
    return outcome


def print_outcome(outcome: Outcome, data: str) -> None:
    """Say on one table how good what was saved is on dev."""
    title = f"{data} dev, checkpoint {outcome.digest[:16]} in {outcome.folder}"
    print_report(outcome.report, title)


def _print_folds(outcomes: Sequence[Outcome]) -> None:
    scores = [100 * outcome.report.weighted_f1.value for outcome in outcomes]
    each = ", ".join(f"{score:.1f}" for score in scores)
    Console().print(
        f"{len(scores)} folds, weighted F1 of the one left out: {each}; "
        f"mean {mean(scores):.1f}, standard deviation {stdev(scores):.1f}"
    )


def _command(given: dict[str, Any], model: str) -> str:
    """The command that gives this run again, less where the data lies."""
    words = ["emotrack", "train", *([model] if model != "pcgnet" else [])]
    for option, value in given.items():
        if value is True:
            words.append(f"--{option}")
        elif value is not None and value is not False:
            words += [f"--{option}", str(value)]
    return shlex.join(words)


@contextmanager
def _listener(data: DataSet) -> Iterator[Listener]:
    """A progress bar on stderr that says what is going on."""
    from model.training.loop import Listener

    if data.note:
        Console(stderr=True).print(data.note)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:3.0f} %"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=Console(stderr=True),
    ) as progress:
        task = progress.add_task("reading", total=1.0, note="")

        def on_epoch(epoch: Epoch) -> None:
            note = f"epoch {epoch.number}: dev wF1 {100 * epoch.dev_weighted_f1:.1f}"
            progress.update(task, note=note)

        yield Listener(
            on_phase=lambda phase: progress.reset(task, description=phase),
            on_share=lambda share: progress.update(task, completed=share),
            on_epoch=on_epoch,
        )
