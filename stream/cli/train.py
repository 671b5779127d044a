"""`emotrack train`: train a model; write its checkpoint, card, figures and curves to a folder.

Each model of `model.registry.KINDS` is a sub-command, whose options are the fields of its dataclass
of training options. The models are imported when the command runs: help needs no torch.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, fields
from inspect import Parameter, Signature, signature
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING, Annotated, Any, Final, get_args, get_type_hints

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from typer.core import TyperCommand, TyperGroup

from model.interface import DEFAULT_KIND
from model.registry import KINDS, kind_named
from model.study.figures import hush_torch_geometric, score_rows, write_figures
from model.training.options import Option, Run, TrainingOptions
from stream.cli.evaluate import print_report
from stream.cli.options import Data, SetName, model_errors, read_conversations
from stream.errors import ConfigError

if TYPE_CHECKING:
    from model.data.dataset import DataSet
    from model.kind import Plan
    from model.train_run import TrainedRun
    from model.training.progress import Epoch, Listener

ALWAYS_WRITTEN: Final = ("seed", "threads")  # a run depends on them, whatever the defaults are
NEVER_WRITTEN: Final = ("encoder",)  # a place on this machine
HELP: Final = """\
Train this model on a data set; write runs/NAME: checkpoint, card, metrics.json, curves.

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
    runs: Annotated[Path, typer.Option(help="where runs are kept")] = Path("runs"),
) -> None:
    """Train a model of this kind on a data set; write `runs`/NAME."""
    hush_torch_geometric()
    from model.data.splits import k_folds, with_dev

    read = read_conversations(data, set_name)
    command = _command(kind, options, read.name)
    default = read.name if kind == DEFAULT_KIND else f"{read.name}-{kind}"
    reports = []
    with model_errors():
        folder = runs / (name or default)
        if options.folds is None:
            parts = {folder: with_dev(read)}
        else:
            folds = k_folds(read, options.folds, seed=options.seed)
            parts = {folder / f"fold-{i}": fold for i, fold in enumerate(folds, start=1)}
        for folder, part in parts.items():
            with _listener(part) as listener:
                run = Run(command=command, cache=runs / ".text", listener=listener)
                try:
                    plan = kind_named(kind).plan(part, options, run)
                    outcome = _run(plan, folder, listener, options.languages)
                except ValueError as error:  # sizes that no model can have
                    raise ConfigError(f"no such model: {error}") from error
            title = f"{part.name} dev, checkpoint {outcome.digest[:16]} in {outcome.folder}"
            print_report(outcome.report, title)
            reports.append(outcome.report)
    if options.folds:
        scores = [100 * report.weighted_f1.value for report in reports]
        each = ", ".join(f"{score:.1f}" for score in scores)
        Console().print(
            f"{len(scores)} folds, weighted F1 of the one left out: {each}; "
            f"mean {mean(scores):.1f}, standard deviation {stdev(scores):.1f}"
        )


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


def _command(kind: str, options: TrainingOptions, set_name: str) -> str:
    """Return the command that repeats this run, without the places of files."""
    words = ["emotrack", "train", *([kind] if kind != DEFAULT_KIND else []), "--set", set_name]
    default = type(options)()
    for name in _shown(type(options)):
        value = getattr(options, name)
        if name in NEVER_WRITTEN or value is None:
            continue
        if name in ALWAYS_WRITTEN or value != getattr(default, name):
            words += [_flag(name)] if value is True else [_flag(name), str(value)]
    return shlex.join(words)


def _run(plan: Plan, folder: Path, listener: Listener, languages: str | None) -> TrainedRun:
    """Carry out a plan and write metrics.json next to the checkpoint."""
    from model.study.ablations import ablated, load
    from model.train_run import carry_out, finished

    outcome = carry_out(ablated(plan), folder, listener, load, languages)
    rows = score_rows(outcome.report, plan.data.name, "dev", outcome.digest)
    history = {"epochs": {"value": [asdict(epoch) for epoch in outcome.trained.history]}}
    write_figures(folder / "metrics.json", rows | history, plan.command)
    finished(folder)
    return outcome


@contextmanager
def _listener(data: DataSet) -> Iterator[Listener]:
    """Show a progress bar on stderr with the phase, the share done and the last epoch's score."""
    from model.training.progress import Listener

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
