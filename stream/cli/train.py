"""`emotrack train`: train a model; write its checkpoint, card, figures and curves to a folder.

Each model of `model.registry.KINDS` is a sub-command, whose options are the fields of its dataclass
of training options. The models are imported when the command runs: help needs no torch.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import fields
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, get_args, get_type_hints

import typer
from rich.console import Console
from typer.core import TyperCommand, TyperGroup

from model.interface import DEFAULT_KIND
from model.registry import KINDS, kind_named
from model.study.figures import hush_torch_geometric
from model.study.ledger import ledger_of
from model.training.options import Option, Run, TrainingOptions
from stream.cli.evaluate import print_report
from stream.cli.folds import fold_file, folds_in_words, folds_of, read_fold, write_folds
from stream.cli.options import (
    Data,
    SetName,
    conversations_folder,
    data_words,
    model_errors,
    option_words,
    read_conversations,
    warn_of_labels,
)
from stream.cli.training_log import followed, open_board
from stream.errors import ConfigError

if TYPE_CHECKING:
    from model.data.dataset import DataSet
    from model.kind import Plan
    from model.train_run import TrainedRun
    from model.training.tensorboard import Board

ALWAYS_WRITTEN: Final = ("seed", "threads")  # a run depends on them, whatever the defaults are
RUNS: Final = Path("runs")
HELP: Final = """\
Train this model on a data set; write runs/NAME: checkpoint, card, metrics.json, epochs, curves.

The epoch is chosen on the dev split (a tenth of the train dialogues where a set has none); the
test split is never read. Equal arguments give an equal checkpoint on one machine. A run that
was interrupted goes on where it was when the same command is given again."""


def train(
    kind: str,
    options: TrainingOptions,
    *,
    data: Data = None,
    set_name: SetName = None,
    name: Annotated[
        str | None, typer.Option(help="folder under runs/ (default: set and model)")
    ] = None,
    show_recipe: Annotated[
        bool,
        typer.Option(
            "--show-recipe", help="print every setting with unit and meaning; no training"
        ),
    ] = False,
    tensorboard: Annotated[
        Path | None,
        typer.Option(help="write each epoch for TensorBoard below this folder too"),
    ] = None,
    runs: Annotated[Path, typer.Option(help="where runs are kept")] = RUNS,
) -> None:
    """Train a model of this kind on a data set; write `runs`/NAME."""
    hush_torch_geometric()
    if show_recipe:
        _show_recipe(kind, options)
        return
    from model.data.splits import k_folds, with_dev

    read = read_conversations(data, set_name)
    warn_of_labels(read)
    places = [*data_words(data, read.name), *option_words(name=name)]
    if runs != RUNS:
        places += option_words(runs=runs)
    command = _command(kind, options, places)
    ledger = ledger_of(read.name, conversations_folder(data))
    default = read.name if kind == DEFAULT_KIND else f"{read.name}-{kind}"
    with model_errors():
        folder = runs / (name or default)
        if options.folds is None:
            parts = {folder: with_dev(read)}
        else:
            folds = k_folds(read, options.folds, seed=options.seed)
            parts = {folder / f"fold-{i}": fold for i, fold in enumerate(folds, start=1)}
        for folder, part in parts.items():
            board = open_board(tensorboard, folder.relative_to(runs))
            run = Run(command=command, cache=runs / ".text")
            _trained(kind, part, options, run, folder, ledger, board)
        if options.folds:
            told = folds_of([read_fold(folder) for folder in parts], command)
            write_folds(folder.parent, told)
            Console().print(folds_in_words(told), highlight=False)


def _show_recipe(kind: str, options: TrainingOptions) -> None:
    """Print the settings of these options as a recipe file."""
    from model.study.recipes import recipe_file

    given = [_flag(name) for name in ("text", "preset") if getattr(options, name, None)]
    words = ["emotrack train", kind, *(f"{flag} {getattr(options, flag[2:])}" for flag in given)]
    with model_errors():
        print(recipe_file(kind, options, " ".join(words)), end="")


class _Train(TyperGroup):
    """One sub-command for each registered model; without a name, the default one."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(KINDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        return _sub_command(cmd_name) if cmd_name in KINDS else None

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or (args[0].startswith("-") and args[0] not in ctx.help_option_names):
            args = [DEFAULT_KIND, *args]
        return super().parse_args(ctx, args)


class _TrainKind(TyperCommand):
    """A sub-command that refuses another model's option by that model's name."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        own = {name for parameter in self.params for name in parameter.opts}
        for option in (word.partition("=")[0] for word in args):
            for kind in KINDS:
                if option not in own and option in map(_flag, _shown(kind_named(kind).options)):
                    raise ConfigError(f"{option} is for {kind}: leave it out, or see --recipe")
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_Train,
    help=f"{HELP}\n\nWithout the name of a model: {DEFAULT_KIND}.",
    no_args_is_help=False,
)


def _sub_command(kind: str) -> Any:
    options = kind_named(kind).options
    shown = _shown(options)

    def run(**arguments: Any) -> None:
        own = options(**{name: arguments.pop(name) for name in shown})
        train(kind, own, **arguments)

    shared = signature(train, eval_str=True).parameters.values()
    parameters = [p for p in shared if p.kind is Parameter.KEYWORD_ONLY]
    parameters[-1:-1] = shown.values()
    setattr(run, "__signature__", Signature(parameters))  # noqa: B010 -- a checker would refuse it
    single = typer.Typer(add_completion=False)
    single.command(kind, cls=_TrainKind, help=HELP, short_help=kind_named(kind).__doc__)(run)
    return typer.main.get_command(single)


def _shown(options: type[TrainingOptions]) -> dict[str, Parameter]:
    """Return a kind's options as parameters of its sub-command, by name and in order."""
    hints = get_type_hints(options, include_extras=True)
    order: list[str] = []
    shown = {}
    for field in fields(options):
        name = field.name
        type_, option = get_args(hints[name])
        assert isinstance(option, Option)
        order.insert(order.index(option.before) if option.before else len(order), name)
        default = typer.Option(field.default, _flag(name), help=option.help, min=option.least)
        shown[name] = Parameter(name, Parameter.KEYWORD_ONLY, annotation=type_, default=default)
    return {name: shown[name] for name in order}


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _command(kind: str, options: TrainingOptions, places: Sequence[str]) -> str:
    """Return the command that repeats this run; `places` are the words of its data and folder."""
    words = ["emotrack", "train", *([kind] if kind != DEFAULT_KIND else []), *places]
    default = type(options)()
    for name in _shown(type(options)):
        value = getattr(options, name)
        if value is None:
            continue
        if name in ALWAYS_WRITTEN or value != getattr(default, name):
            words += [_flag(name)] if value is True else [_flag(name), str(value)]
    return shlex.join(words)


def _trained(
    kind: str,
    data: DataSet,
    options: TrainingOptions,
    run: Run,
    folder: Path,
    ledger: Path,
    board: Board | None,
) -> None:
    """Train a model into `folder` and print its scores on dev, unless an equal one is there.

    Raises `ModelError` where a run with other data or settings has finished there.
    """
    from model.training.finished import finished_run

    try:
        plan = kind_named(kind).plan(data, options, run)
        digest = finished_run(folder, plan.identity(options.languages))
        if digest is None:
            outcome = _run(plan, folder, options, str(ledger), board)
    except ValueError as error:  # sizes that no model can have
        raise ConfigError(f"no such model: {error}") from error
    if digest is None:
        title = f"{data.name} dev, checkpoint {outcome.digest[:16]} in {outcome.folder}"
        print_report(outcome.report, title)
        return
    Console().print(
        f"already there: checkpoint {digest[:16]} in {folder}, of equal data and settings; nothing "
        "was trained"
    )


def _run(
    plan: Plan, folder: Path, options: TrainingOptions, ledger: str, board: Board | None
) -> TrainedRun:
    """Carry out a plan, with its figures and, of a fold, its choices next to the checkpoint."""
    from model.study.ablations import ablated, load
    from model.study.run_figures import run_figures
    from model.train_run import carry_out, finished
    from model.training.enough import warnings_of

    data = plan.data
    figures = run_figures(data, plan.command)

    def more(outcome: TrainedRun) -> dict[str, bytes]:
        return {**figures(outcome), **(fold_file(data, outcome) if options.folds else {})}

    notes = [data.note] if data.note else []
    with followed([*notes, *warnings_of(data)], board) as listener:
        outcome = carry_out(ablated(plan), folder, listener, load, options.languages, ledger, more)
    finished(folder)
    return outcome
