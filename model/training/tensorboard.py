"""Each epoch's numbers for TensorBoard, where they are asked for (the extra `tensorboard`)."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Any

from model.training.progress import Epoch


class Board:
    """Writes a run's event files into a folder; raises ModuleNotFoundError without the extra."""

    def __init__(self, folder: Path) -> None:
        import_module("tensorboard")  # torch's own message would not name the package
        self._writer: Any = import_module("torch.utils.tensorboard").SummaryWriter(str(folder))

    def add(self, epochs: Iterable[Epoch]) -> None:
        """Add epochs, and see that they are on the disk."""
        for epoch in epochs:
            self._writer.add_scalar("loss/train", epoch.train_loss, epoch.number)
            self._writer.add_scalar("loss/dev", epoch.dev_loss, epoch.number)
            self._writer.add_scalar("dev/weighted_f1", epoch.dev_weighted_f1, epoch.number)
        self._writer.flush()

    def close(self) -> None:
        """Close the files."""
        self._writer.close()
