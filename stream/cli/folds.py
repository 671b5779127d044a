"""The summary of `emotrack train --folds`: what each fold chose, and on what it was scored."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any, Final

from stream.errors import ConfigError

if TYPE_CHECKING:
    from model.data.dataset import DataSet
    from model.train_run import TrainedRun

FILE: Final = "folds.json"
FOLD_FILE: Final = "fold.json"  # in the folder of each
NOTE: Final = (
    "each fold is trained on the other dialogues; its own, those left out, chose its epoch, "
    "calibration and thresholds and give its score, so the scores flatter"
)


def fold_file(part: DataSet, outcome: TrainedRun) -> dict[str, bytes]:
    """Return the file of one fold's folder: what it left out, its choices and scores."""
    report, trained = outcome.report, outcome.trained
    row = {
        "folder": outcome.folder.name,
        "checkpoint": outcome.digest,
        "train_dialogues": len(part.split("train")),
        "left_out": [dialogue.dialogue_id for dialogue in part.split("dev")],
        "chosen_epoch": trained.chosen.number,
        "alert_at": trained.thresholds.shift,
        "abstain_below": trained.thresholds.abstain_below,
        "weighted_f1": report.weighted_f1.value,
        "accuracy": report.accuracy.value,
        "shift_auroc": _known(report.shift_auroc.value),
    }
    return {FOLD_FILE: _json(row)}


def read_fold(folder: Path) -> dict[str, Any]:
    """Return what `fold_file` wrote into a fold's folder. Raises `ConfigError`."""
    file = folder / FOLD_FILE
    try:
        row: dict[str, Any] = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{file} cannot be read ({error}): move {folder} away, and run the same command again"
        ) from error
    return row


def folds_of(rows: Sequence[dict[str, Any]], command: str) -> dict[str, Any]:
    """Return each fold's row, with mean and standard deviation of the scores, for JSON."""
    numbered = [{"fold": number, **row} for number, row in enumerate(rows, start=1)]
    spread: dict[str, Any] = {}
    for score in ("weighted_f1", "accuracy", "shift_auroc"):
        values = [row[score] for row in rows if row[score] is not None]
        spread[score] = {
            "mean": mean(values) if values else None,
            "standard_deviation": stdev(values) if len(values) > 1 else None,
            "folds": len(values),
        }
    return {"note": NOTE, "folds": numbered, "over_folds": spread, "command": command}


def _json(value: object) -> bytes:
    return (json.dumps(value, indent=1, allow_nan=False) + "\n").encode()


def write_folds(folder: Path, told: dict[str, Any]) -> None:
    """Write the summary into the folder of the folds. Raises `ConfigError`."""
    from model.atomic_files import write_whole

    try:
        write_whole(folder, {FILE: _json(told)})
    except OSError as error:
        raise ConfigError(
            f"{folder / FILE} cannot be written ({error.strerror}): make room, and run the same "
            "command again"
        ) from error


def folds_in_words(told: dict[str, Any]) -> str:
    """Return the summary for a person."""
    folds, spread = told["folds"], told["over_folds"]["weighted_f1"]
    lines = [
        f"fold {row['fold']}: trained on {row['train_dialogues']} dialogues; the "
        f"{len(row['left_out'])} left out chose epoch {row['chosen_epoch']}, calibration and the "
        f"alert threshold {row['alert_at']:.3f}: weighted F1 {100 * row['weighted_f1']:.1f} %"
        for row in folds
    ]
    each = ", ".join(f"{100 * row['weighted_f1']:.1f}" for row in folds)
    lines.append(
        f"{len(folds)} folds, weighted F1 of the one left out: {each}; mean "
        f"{100 * spread['mean']:.1f}, standard deviation {100 * spread['standard_deviation']:.1f}"
    )
    lines.append(f"Which flatters: {told['note']}. The summary is in {FILE}.")
    return "\n".join(lines)


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
