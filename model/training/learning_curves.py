"""A plot of a training run: loss and dev score by epoch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from model.atomic_files import write_whole
from model.scoring.pictures import BLUE, GREEN, ORANGE, _figure
from model.training.progress import Epoch


def learning_curves(history: Sequence[Epoch], path: Path) -> None:
    """Write losses and dev weighted F1 by epoch, the best one marked; whole or not at all."""
    numbers = [e.number for e in history]
    best = max(history, key=lambda e: e.dev_weighted_f1)
    with _figure(9.0, 3.8) as (figure, png):
        losses, f1 = figure.subplots(1, 2)
        losses.plot(numbers, [e.train_loss for e in history], "o-", ms=4, color=BLUE, label="train")
        losses.plot(numbers, [e.dev_loss for e in history], "s-", ms=4, color=GREEN, label="dev")
        losses.set(xlabel="epoch", ylabel="loss")
        losses.set_title("loss (train: all tasks, dev: emotion)")
        losses.legend()
        f1.plot(numbers, [100 * e.dev_weighted_f1 for e in history], "s-", ms=4, color=GREEN)
        f1.plot([best.number], [100 * best.dev_weighted_f1], "o", color=ORANGE, ms=9, zorder=5)
        f1.set(xlabel="epoch", ylabel="weighted F1, %")
        f1.set_title(f"dev: best {100 * best.dev_weighted_f1:.1f} % in epoch {best.number}")
        for axes in (losses, f1):
            axes.xaxis.get_major_locator().set_params(integer=True)
    write_whole(path.parent, {path.name: png()})
