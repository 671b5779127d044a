"""The progress of a training run: reported, and saved after each epoch so that it can resume."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any, Final

from model.atomic_files import write_whole
from model.errors import ModelError

EPOCHS_FILE: Final = "epochs.csv"
PROGRESS: Final = "progress.pt"  # in a run's folder until it has finished


@dataclass(frozen=True, slots=True)
class Epoch:
    """The result of one epoch; the best weighted F1 on dev is chosen."""

    number: int
    train_loss: float
    dev_loss: float  # emotion cross-entropy
    dev_weighted_f1: float


@dataclass(frozen=True, slots=True)
class Listener:
    """Calls for a run's progress: its phase, the share of it that is done (0..1], each epoch.

    `on_begin` is told how many epochs are at most run and how many an interrupted run has done.
    """

    on_begin: Callable[[int, Sequence[Epoch]], None] = lambda _, __: None
    on_phase: Callable[[str], None] = lambda _: None
    on_share: Callable[[float], None] = lambda _: None
    on_epoch: Callable[[Epoch], None] = lambda _: None


def write_epochs(folder: Path, history: Sequence[Epoch]) -> None:
    """Write the numbers of each epoch so far as a table; the file is whole or as it was."""
    best = max(history, key=lambda epoch: (epoch.dev_weighted_f1, -epoch.number))
    table = StringIO()
    lines = csv.writer(table, lineterminator="\n")
    lines.writerow(("epoch", "train_loss", "dev_loss", "dev_weighted_f1", "best"))
    for epoch in history:
        losses = f"{epoch.train_loss:.6g}", f"{epoch.dev_loss:.6g}"
        is_best = "yes" if epoch is best else "no"
        lines.writerow((epoch.number, *losses, f"{epoch.dev_weighted_f1:.6f}", is_best))
    try:
        write_whole(folder, {EPOCHS_FILE: table.getvalue().encode()})
    except OSError as error:
        raise ModelError(
            f"{folder / EPOCHS_FILE} cannot be written ({error}): make room and run the same "
            "command again"
        ) from error


def save_progress(path: Path, state: Mapping[str, Any]) -> None:
    """Write tensors and plain values; the file is complete or it is the one before."""
    import torch  # here, because help imports this module

    content = BytesIO()
    torch.save(dict(state), content)
    try:
        write_whole(path.parent, {path.name: content.getvalue()})
    except OSError as error:
        raise ModelError(
            f"{path} cannot be written ({error}): make room and run the same command again"
        ) from error


def load_progress(path: Path, fingerprint: str) -> dict[str, Any] | None:
    """Return the state saved by a run of the same data, model, recipe and seed; None without one.

    Unpickles tensors and plain values only. Raises `ModelError` for the state of another run, or a
    damaged one.
    """
    import torch

    if not path.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        same = state["fingerprint"] == fingerprint
    except Exception as error:  # torch raises any class for a damaged file
        raise ModelError(f"{path} is damaged ({error}): delete it to start anew") from error
    if not same:
        raise ModelError(
            f"{path} is of a run with other data or settings: delete it to start anew, or give "
            "this run another --name"
        )
    return state
