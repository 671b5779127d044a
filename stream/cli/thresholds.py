"""`emotrack thresholds`: show what alerts and abstention cost on dev, and set them in a copy."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.console import Console
from rich.table import Column, Table

from model.study.figures import hush_torch_geometric, score_rows, write_figures
from stream.cli.options import (
    Data,
    Encoder,
    NamedCheckpoint,
    SetName,
    Threads,
    model_errors,
    read_conversations,
)
from stream.errors import ConfigError

if TYPE_CHECKING:
    from model.checkpoint_files import LoadedCheckpoint
    from model.data.dataset import DataSet
    from model.scoring.answers import Answers
    from model.scoring.operating import Stated
    from model.serving.calibration import Thresholds

BUDGETS: Final = (1.0, 2.0, 5.0, 10.0, 20.0)  # false alarms per 100 pairs
ALERT_CHOICES: Final = ("--false-alarms", "--false-alarms-an-hour", "--alert-at")
ABSTAIN_CHOICES: Final = ("--abstain", "--abstain-below")
SHARES: Final = (1.0, 2.0, 5.0, 10.0, 20.0)  # % of the utterances


@model_errors()
def thresholds(
    checkpoint: NamedCheckpoint = None,
    data: Data = None,
    set_name: SetName = None,
    false_alarms: Annotated[
        float | None,
        typer.Option(min=0, max=100, help="alert within so many false alarms per 100 pairs"),
    ] = None,
    false_alarms_an_hour: Annotated[
        float | None,
        typer.Option(min=0, help="the same an hour; needs --utterances-an-hour"),
    ] = None,
    utterances_an_hour: Annotated[
        float | None,
        typer.Option(min=1, help="your traffic: false alarms are told an hour, too"),
    ] = None,
    alert_at: Annotated[
        float | None, typer.Option(min=0, max=1, help="alert from this probability on")
    ] = None,
    abstain: Annotated[
        float | None,
        typer.Option(min=0, max=100, help="abstain on the least sure so many % of dev"),
    ] = None,
    abstain_below: Annotated[
        float | None, typer.Option(min=0, max=1, help="abstain below this confidence")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="new folder for the checkpoint with the chosen points")
    ] = None,
    encoder: Encoder = None,
    threads: Threads = 1,
) -> None:
    """Show what the alert and the abstain point do on dev; set others in a copy with a new digest.

    A pair is two successive utterances of one speaker. Only dev is looked at. With fewer than 20
    shifts there, a budget gives the fallback: alert at 0.5, re-arm below 0.4.
    """
    hush_torch_geometric()
    from model import evaluate as scoring
    from model.checkpoint_files import check_new_folder, find_checkpoint
    from model.data.splits import with_dev
    from model.scoring.operating import stated_of
    from model.study.ablations import load

    asked = {
        "--false-alarms": false_alarms, "--false-alarms-an-hour": false_alarms_an_hour,
        "--utterances-an-hour": utterances_an_hour, "--alert-at": alert_at, "--abstain": abstain,
        "--abstain-below": abstain_below,
    }  # fmt: skip
    chosen = _check(asked, out)
    folder = find_checkpoint(checkpoint)
    if out is not None:
        check_new_folder(out)
    loaded = load(folder)
    read = with_dev(read_conversations(data, set_name))
    answers = scoring.answers_of(loaded, read, "dev", threads=threads, encoder=encoder)
    stated = stated_of(answers, loaded.calibration)
    an_hour = None
    if utterances_an_hour is not None:
        an_hour = utterances_an_hour * stated.pairs_per_utterance  # pairs
    if false_alarms_an_hour is not None:
        if not an_hour:
            raise ConfigError("dev has no pairs, so none an hour: choose a point with --alert-at")
        false_alarms = min(100.0, 100 * false_alarms_an_hour / an_hour)
    points = _chosen(stated, loaded.thresholds, false_alarms, alert_at, abstain, abstain_below)
    title = f"{read.name} dev, checkpoint {loaded.digest[:16]}"
    _print(stated, loaded.thresholds, points if chosen else None, title, an_hour)
    budget = false_alarms is not None
    _warn(stated, points, budget)
    if out is None:
        if chosen:
            Console().print("Nothing is written: name a new folder with --out.")
        return
    words = ["emotrack", "thresholds", *([] if checkpoint is None else [str(checkpoint)])]
    words += [] if data is None else ["--data", str(data)]
    words += ["--set", read.name]
    for flag, value in asked.items():
        words += [] if value is None else [flag, f"{value:g}"]
    command = shlex.join([*words, "--out", str(out)])
    _write(loaded, folder, out, points, read, answers, command, budget and _few(stated))


def _check(asked: Mapping[str, float | None], out: Path | None) -> bool:
    """Return whether a point is chosen. Raises `ConfigError` where the options contradict."""
    given = [flag for flag, value in asked.items() if value is not None]
    hour = "--utterances-an-hour"
    if "--false-alarms-an-hour" in given and hour not in given:
        raise ConfigError(f"how many utterances an hour? Give {hour}")
    for rivals in (ALERT_CHOICES, ABSTAIN_CHOICES):
        both = [flag for flag in given if flag in rivals]
        if len(both) > 1:
            raise ConfigError(f"{' and '.join(both)} ask for different points: choose one")
    chosen = bool({*ALERT_CHOICES, *ABSTAIN_CHOICES} & {*given})
    if out is not None and not chosen:
        raise ConfigError(
            "what is to be set in --out? Give --false-alarms or --abstain, see --help"
        )
    return chosen


def _chosen(
    stated: Stated,
    before: Thresholds,
    false_alarms: float | None,
    alert_at: float | None,
    abstain: float | None,
    abstain_below: float | None,
) -> Thresholds:
    """Return the thresholds that the options ask for; the checkpoint's own where none does."""
    from model.serving.calibration import Thresholds

    enter, leave = before.shift, before.shift_exit
    if false_alarms is not None:
        enter, leave = stated.alerts_within(false_alarms)
    elif alert_at is not None:
        enter, leave = alert_at, 0.8 * alert_at  # as 0.5 and 0.4, the defaults
    below = before.abstain_below
    if abstain is not None:
        below = stated.abstain_on(abstain / 100)
    elif abstain_below is not None:
        below = abstain_below
    return Thresholds(below, enter, leave)


def _few(stated: Stated) -> bool:
    from model.scoring.calibrate import LEAST_SHIFTS

    return stated.shifts < LEAST_SHIFTS


def _print(
    stated: Stated,
    now: Thresholds,
    chosen: Thresholds | None,
    title: str,
    an_hour: float | None,
) -> None:
    from model.scoring.words import percent

    hourly = [] if an_hour is None else ["an hour"]
    table = Table(
        Column("alerts", no_wrap=True), "from", "of the shifts, %", "of the alerts right, %",
        "false alarms per 100 pairs", *hourly,
        title=f"{title}: {len(stated.shifted):,} pairs, {stated.shifts:,} shift",
    )  # fmt: skip
    rows = [("now", now.shift)] + ([] if chosen is None else [("chosen", chosen.shift)])
    if not _few(stated):
        rows += [(f"{b:g} per 100", stated.alerts_within(b)[0]) for b in BUDGETS]
    for name, at in rows:
        found = stated.alerts(at)
        false = f"{found.false_per_100:.1f}" if len(stated.shifted) else "-"
        cells = [percent(found.recall), percent(found.precision), false]
        if an_hour is not None:
            cells.append(f"{found.false_per_100 / 100 * an_hour:.1f}" if an_hour else "-")
        table.add_row(name, f"{at:.3f}", *cells)
    Console().print(table)
    table = Table(
        Column("abstaining", no_wrap=True),
        "below",
        "of the answers, %",
        "of those right, %",
        "of the others right, %",
    )
    rows = [("now", now.abstain_below)]
    rows += [] if chosen is None else [("chosen", chosen.abstain_below)]
    rows += [(f"least sure {share:g} %", stated.abstain_on(share / 100)) for share in SHARES]
    for name, below in rows:
        point = stated.abstaining(below)
        shares = point.abstained, point.abstained_accuracy, point.answered_accuracy
        table.add_row(name, f"{below:.3f}", *map(percent, shares))
    Console().print(
        table,
        "Alerts are counted pair by pair. A worker alerts less often: after an alert it waits for "
        "three utterances of that speaker and for a probability below the exit point.",
    )


def _warn(stated: Stated, points: Thresholds, budget: bool) -> None:
    from model.scoring.calibrate import LEAST_SHIFTS

    if not _few(stated):
        return
    sentence = (
        f"warning: dev has {stated.shifts} shifts, fewer than the {LEAST_SHIFTS} from which a "
        "budget can choose"
    )
    if budget:
        sentence += (
            f": {points.shift:g} is a fallback; label more conversations, or set a point of your "
            "own with --alert-at"
        )
    Console(stderr=True, highlight=False, soft_wrap=True).print(sentence)


def _write(
    loaded: LoadedCheckpoint,
    folder: Path,
    out: Path,
    points: Thresholds,
    data: DataSet,
    answers: Answers,
    command: str,
    fallback: bool,
) -> None:
    """Write the copy and its scores on dev; print its digest."""
    from model.checkpoint_files import save_with_thresholds
    from model.scoring.report import score
    from model.study.ablations import load

    chosen = f"set on the dev split of {data.name}"
    if fallback:
        chosen = "the alert point a fallback, because dev has too few shifts to choose one"
    remark = (
        f"Thresholds set again by `emotrack thresholds`, {chosen}: alert from a shift probability "
        f"of {points.shift:.3f}, re-arm below {points.shift_exit:.3f}, abstain below a confidence "
        f"of {points.abstain_below:.3f}. All else is as in the checkpoint `{loaded.digest}`: what "
        "is said of thresholds below is of that one."
    )
    save_with_thresholds(folder, out, points, remark)
    made = load(out)
    report = score(
        answers,
        made.calibration,
        made.thresholds,
        made.config.labels,
        fitted_here=made.calibration.fitted_on == "dev",
    )
    rows = score_rows(report, data.name, "dev", made.digest)
    write_figures(out / "metrics.json", rows, command)
    Console().print(f"checkpoint {made.digest} in {out}", soft_wrap=True, highlight=False)
