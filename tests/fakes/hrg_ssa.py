"""A small HRG-SSA of random weights in a folder, hearing the tiny encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from model.checkpoint_files import save_model
from model.hrg_ssa.checkpoint import NAME
from model.hrg_ssa.config import HrgSsaConfig
from model.hrg_ssa.model import HrgSsa
from model.serving.calibration import Calibration, Thresholds
from model.study.ablations import network_of
from model.text.sentence_encoder import TextEncoder, encoder_digest
from state.window import Recurrence
from tests.fakes.conversations import GENERATED_LABELS

SIZES: dict[str, Any] = {
    "text": 16, "width": 16, "heads": 2, "head_width": 8, "feed_forward": 24, "graph_heads": 2,
    "detector": 6, "pooled": 2, "shift_width": 8,
}  # fmt: skip


@torch.no_grad()
def hear_the_past(model: HrgSsa) -> None:
    """Make a fresh model hear the past, as training would: what leads from it begins at zero."""
    for parameter in model.parameters():
        if parameter.ndim >= 2 and not parameter.any():
            parameter.normal_(std=parameter.shape[-1] ** -0.5)


def write_small_hrg_ssa(folder: Path, encoder: Path, *, window: int = 4, **changes: Any) -> Path:
    """Write the checkpoint; returns its folder."""
    torch.manual_seed(5)
    labels = changes.pop("labels", GENERATED_LABELS)
    languages = changes.pop("languages", None)
    config = HrgSsaConfig(labels, recurrence=Recurrence(window=window), **{**SIZES, **changes})
    model = network_of(config)(config)
    hear_the_past(model)
    with torch.no_grad():  # unlike answers: fresh weights say nearly the same of everything
        for parameter in model.parameters():
            parameter.copy_((2 * parameter).half().float())
    save_model(
        folder,
        model,
        name=NAME,
        calibration=Calibration(
            1.3,
            0.8,
            slope=0.7,
            offsets=tuple(0.1 * i for i in range(len(labels))),
            shift_map=(0.5, 1.4, -0.6),
        ),
        thresholds=Thresholds(),
        extractors={"text": "tiny", "audio": "generated", "video": "generated"},
        card="",
        text=TextEncoder(encoder_digest(encoder), "tiny", 2),
        languages=languages,
    )
    return folder
