"""An HRG-SSA on disk: the folder that `model.checkpoint_files` describes, with this model's
settings.

The encoder is frozen and not in the folder: its digest is, and the weights that another
checkpoint's training added to it, where words are read through those (`encoder.safetensors`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch

from model.checkpoint_files import (
    FORMAT,
    LANGUAGES_FORMAT,
    LoadedCheckpoint,
    read_checkpoint,
)
from model.hrg_ssa.config import HrgSsaConfig
from model.hrg_ssa.label_words import label_words_from
from model.hrg_ssa.model import HrgSsa, WholeTalks
from model.text.sentence_encoder import TextEncoder

if TYPE_CHECKING:
    from model.data.dataset import Dialogue
    from model.scoring.answers import Answers

NAME: Final = "hrg-ssa"
READABLE: Final = (2, FORMAT, LANGUAGES_FORMAT)  # format 3 changed PCGNet alone


@dataclass(frozen=True, slots=True, kw_only=True)
class HrgCheckpoint(LoadedCheckpoint):
    """A loaded HRG-SSA."""

    config: HrgSsaConfig
    text: TextEncoder
    network: type[HrgSsa] = HrgSsa

    def __post_init__(self) -> None:
        if self.text is None:
            raise ValueError("it names no text encoder")

    def model(self) -> HrgSsa:
        """Build the model, in evaluation mode."""
        model = self.network(self.config)
        model.load_state_dict(dict(self.weights))
        return model.eval()

    def answers(self, dialogues: Sequence[Dialogue], encoder: Path | None) -> Answers:
        from model.hrg_ssa.whole import answer_talks, talks_of

        talks = talks_of(self.config, self.text, dialogues, encoder)
        return answer_talks(self.model(), dialogues, talks)

    def whole(
        self, dialogues: Sequence[Dialogue], encoder: Path | None, labels: Sequence[int] | None
    ) -> WholeTalks:
        from model.hrg_ssa.whole import talks_of

        model = self.model()
        batch = model.collate(talks_of(self.config, self.text, dialogues, encoder))
        out: WholeTalks = model(batch, None if labels is None else torch.tensor(labels))
        return out


def load_checkpoint(folder: Path) -> HrgCheckpoint:
    """Read and verify a checkpoint folder. Raises `CheckpointError`."""
    return read_checkpoint(folder, HrgCheckpoint, _config, READABLE)


def _config(words: dict[str, Any], **settings: Any) -> HrgSsaConfig:
    return HrgSsaConfig(**settings, words=label_words_from(words))
