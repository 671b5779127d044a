"""A PCGNet on disk: the folder of `model.checkpoint_files`, with this model's settings."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model.pcgnet.config import PcgnetConfig
from model.text.sentence_encoder import TextEncoder
from state.window import Recurrence

if TYPE_CHECKING:  # torch_geometric comes with it: not for a process that only serves
    from model.pcgnet.model import Pcgnet
from model.checkpoint_files import (
    FORMAT,
    Described,
    described,
    fitting,
    read_files,
    text_encoder_from,
    write_files,
)
from model.serving.calibration import Calibration, Thresholds


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint(Described):
    """A loaded PCGNet."""

    config: PcgnetConfig
    text: TextEncoder | None = None  # None: text vectors of an encoder we do not know

    def model(self) -> Pcgnet:
        """Build the whole-conversation form, in evaluation mode."""
        from model.pcgnet.model import Pcgnet

        model = Pcgnet(self.config)
        model.load_state_dict(dict(self.weights))
        return model.eval()


def save_checkpoint(
    folder: Path,
    model: Pcgnet,
    *,
    calibration: Calibration,
    thresholds: Thresholds,
    extractors: Mapping[str, str],
    card: str,
    text: TextEncoder | None = None,
    name: str = "pcgnet",
    version: str = "1",
) -> str:
    """Write a checkpoint folder and return its digest; the same model gives the same bytes.

    Matrices are rounded to float16 here: evaluate what `load_checkpoint` returns, not `model`.
    All files are written beside their names before any is put in its place. Raises
    `CheckpointError` where that fails (a full disk, say): what was there stays as it was.
    """
    settings = {
        "name": name,
        "version": version,
        "model": asdict(model.config),
        "calibration": asdict(calibration),
        "thresholds": asdict(thresholds),
        "extractors": dict(extractors),
    }
    return write_files(folder, model.state_dict(), settings, text, card)


def load_checkpoint(folder: Path) -> Checkpoint:
    """Read and verify a checkpoint folder.

    Raises `CheckpointError`, one sentence naming the file, what is wrong with it and the cure.
    """
    weights, settings, tuned, digest = read_files(folder)
    with fitting(folder):
        return _parse(weights, settings, tuned, digest)


def _parse(weights: bytes, settings: bytes, tuned: bytes, digest: str) -> Checkpoint:
    config = json.loads(settings)
    if config["format"] != FORMAT:
        raise ValueError(f"format {config['format']}, this version reads {FORMAT}")
    fields: dict[str, Any] = dict(config["model"])
    fields["labels"] = tuple(fields["labels"])
    fields["research"] = tuple(fields.get("research", ()))
    fields["recurrence"] = Recurrence(**fields["recurrence"])
    return Checkpoint(
        config=PcgnetConfig(**fields),
        text=text_encoder_from(config.get("text_encoder"), tuned),
        **described(config, weights, digest),
    )
