"""The models by name, and what is loaded by it: checkpoints and predictors.

A model is imported when one of its kind is asked for.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from model.errors import CheckpointError
from model.interface import Predictor

if TYPE_CHECKING:  # torch comes with them
    from model.hrg_ssa.checkpoint import HrgCheckpoint
    from model.hrg_ssa.predictor import HrgSsaPredictor
    from model.pcgnet.checkpoint import Checkpoint
    from model.pcgnet.predictor import PcgnetPredictor
    from model.text.sentence_encoder import TextEncoder

    AnyCheckpoint = Checkpoint | HrgCheckpoint


def load_any(folder: Path) -> AnyCheckpoint:
    """Read and verify a checkpoint of either model. Raises `CheckpointError`."""
    from model.checkpoint_files import kind_of
    from model.hrg_ssa.checkpoint import NAME, load_hrg_checkpoint
    from model.pcgnet.checkpoint import load_checkpoint

    return load_hrg_checkpoint(folder) if kind_of(folder) == NAME else load_checkpoint(folder)


def text_encoder_of(named: Path) -> TextEncoder:
    """Return the text encoder of a checkpoint; raises `CheckpointError` where it has none."""
    from model.checkpoint_files import find_checkpoint

    text = load_any(find_checkpoint(named)).text
    if text is None:
        raise CheckpointError(f"checkpoint {named} has no text encoder to hear words through")
    return text


def load_predictor(
    path: Path | None = None,
    *,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    window: int | None = None,
    idle_s: float | None = None,
    max_session_s: float | None = None,
    threads: int = 1,
    encoder: Path | None = None,
) -> Predictor:
    """Load a checkpoint folder (the shipped one when `path` is None) for serving.

    `path` may be the name of a model whose checkpoint is shipped, "pcgnet" or "hrg-ssa".
    `window`, `idle_s` and `max_session_s` override the recurrence stored in the checkpoint and are
    part of `StateSpec.digest`. Raises `CheckpointError` naming file, reason and cure.
    """
    from model.checkpoint_files import find_checkpoint, kind_of

    folder = find_checkpoint(path)
    kind: type[PcgnetPredictor | HrgSsaPredictor]
    if kind_of(folder) == "hrg-ssa":
        from model.hrg_ssa.predictor import HrgSsaPredictor

        kind = HrgSsaPredictor
    else:
        from model.pcgnet.predictor import PcgnetPredictor

        kind = PcgnetPredictor
    return kind.load(
        folder,
        device=device,
        window=window,
        idle_s=idle_s,
        max_session_s=max_session_s,
        threads=threads,
        encoder=encoder,
    )
