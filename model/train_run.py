"""A whole training run: a model of any kind trained, and its folder written.

`emotrack train` and the accuracy study share it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from model.checkpoint_files import LoadedCheckpoint, save_model, write_card
from model.evaluate import evaluate
from model.kind import Plan
from model.registry import load_any
from model.scoring.report import Report
from model.training.learning_curves import learning_curves
from model.training.loop import Trained
from model.training.progress import Listener

PROGRESS = "progress.pt"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run left in its folder."""

    folder: Path
    digest: str
    report: Report  # of dev
    trained: Trained[Any] = field(repr=False)


def carry_out(
    plan: Plan,
    folder: Path,
    listener: Listener | None = None,
    load: Callable[[Path], LoadedCheckpoint] = load_any,
) -> Outcome:
    """Train, save the checkpoint with its card and learning curves; score what was saved on dev.

    What was saved is read again by `load`.
    A run that was killed goes on from its last epoch when it is carried out again.
    """
    listener = listener or Listener()
    listener.on_phase("training")
    trained = plan.train(folder / PROGRESS, listener)
    digest = save_model(
        folder,
        trained.model,
        name=plan.kind,
        calibration=trained.calibration,
        thresholds=trained.thresholds,
        extractors=plan.extractors(trained),
        card="",  # it tells the scores of what is saved here
        text=trained.text,
    )
    report = evaluate(load(folder), plan.data, "dev", threads=plan.threads, encoder=plan.encoder)
    write_card(folder, plan.card(trained, report))
    learning_curves(trained.history, folder / "learning-curves.png")
    return Outcome(folder, digest, report, trained)


def finished(folder: Path) -> None:
    """Drop what only a run that goes on needs."""
    (folder / PROGRESS).unlink(missing_ok=True)
