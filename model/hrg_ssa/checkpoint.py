"""An HRG-SSA on disk: the folder that `model.checkpoint_files` describes, with this model's
settings.

The encoder is frozen and not in the folder: its digest is, and what another checkpoint's training
added to it, where it is heard through that (`encoder.safetensors`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from model.checkpoint_files import (
    FORMAT,
    Described,
    described,
    fitting,
    read_files,
    text_encoder_from,
    write_files,
)
from model.hrg_ssa.config import HrgSsaConfig
from model.hrg_ssa.label_words import label_words_from
from model.hrg_ssa.model import HrgSsa
from model.serving.calibration import Calibration, Thresholds
from model.text.sentence_encoder import TextEncoder
from state.window import Recurrence

NAME: Final = "hrg-ssa"
READABLE: Final = (2, FORMAT)  # what 3 brought is PCGNet's


@dataclass(frozen=True, slots=True, kw_only=True)
class HrgCheckpoint(Described):
    """A loaded HRG-SSA."""

    config: HrgSsaConfig
    text: TextEncoder

    def model(self) -> HrgSsa:
        """Build the model, in evaluation mode."""
        model = HrgSsa(self.config)
        model.load_state_dict(dict(self.weights))
        return model.eval()

    def under(self, **settings: Any) -> HrgCheckpoint:
        """The same weights with other settings, less those that such a model has no use for."""
        config = replace(self.config, **settings)
        names = HrgSsa(config).state_dict().keys()
        return replace(self, config=config, weights={n: self.weights[n] for n in names})


def save_hrg_checkpoint(
    folder: Path,
    model: HrgSsa,
    *,
    calibration: Calibration,
    thresholds: Thresholds,
    extractors: Mapping[str, str],
    card: str,
    text: TextEncoder,
    version: str = "1",
) -> str:
    """Write a checkpoint folder and return its digest, as PCGNet's `save_checkpoint`."""
    settings = {
        "name": NAME,
        "version": version,
        "model": asdict(model.config),
        "calibration": asdict(calibration),
        "thresholds": asdict(thresholds),
        "extractors": dict(extractors),
    }
    return write_files(folder, model.state_dict(), settings, text, card)


def load_hrg_checkpoint(folder: Path) -> HrgCheckpoint:
    """Read and verify a checkpoint folder. Raises `CheckpointError`."""
    weights, settings, tuned, digest = read_files(folder)
    with fitting(folder):
        return _parse(weights, settings, tuned, digest)


def _parse(weights: bytes, settings: bytes, tuned: bytes, digest: str) -> HrgCheckpoint:
    config = json.loads(settings)
    if config["format"] not in READABLE or config["name"] != NAME:
        raise ValueError(f"format {config['format']} of {config['name']}")
    text = text_encoder_from(config.get("text_encoder"), tuned)
    if text is None:
        raise ValueError("it names no text encoder")
    return HrgCheckpoint(
        config=_model_config(config["model"]), text=text, **described(config, weights, digest)
    )


def _model_config(stored: Mapping[str, Any]) -> HrgSsaConfig:
    fields: dict[str, Any] = dict(stored)
    for name in ("labels", "node_layers", "research"):
        fields[name] = tuple(fields[name])
    fields["recurrence"] = Recurrence(**fields["recurrence"])
    fields["words"] = label_words_from(fields["words"])
    return HrgSsaConfig(**fields)
