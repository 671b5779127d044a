"""A PCGNet on disk: the folder of `model.checkpoint_files` with PCGNet's settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from model.checkpoint_files import LoadedCheckpoint, read_checkpoint, save_model
from model.pcgnet.config import PcgnetConfig

if TYPE_CHECKING:  # they import torch_geometric, which serving does without
    from model.data.dataset import Dialogue
    from model.pcgnet.model import Pcgnet, WholeOutput
    from model.scoring.answers import Answers

NAME: Final = "pcgnet"
save_checkpoint = partial(save_model, name=NAME)


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint(LoadedCheckpoint):
    """A loaded PCGNet."""

    config: PcgnetConfig
    network: type[Pcgnet] | None = None  # None: `Pcgnet`

    def model(self) -> Pcgnet:
        """Build the whole-conversation form, in evaluation mode."""
        from model.pcgnet.model import Pcgnet

        model = (self.network or Pcgnet)(self.config)
        model.load_state_dict(dict(self.weights))
        return model.eval()

    def answers(self, dialogues: Sequence[Dialogue], encoder: Path | None) -> Answers:
        from model.pcgnet.whole import answer
        from model.text.encode_sentences import prepared

        return answer(self.model(), prepared(self.text, dialogues, encoder))

    def whole(
        self, dialogues: Sequence[Dialogue], encoder: Path | None, labels: Sequence[int] | None
    ) -> WholeOutput:
        from model.pcgnet.whole import whole_output
        from model.text.encode_sentences import prepared

        return whole_output(self.model(), prepared(self.text, dialogues, encoder))


def load_checkpoint(folder: Path) -> Checkpoint:
    """Read and verify a checkpoint folder. Raises `CheckpointError`."""
    return read_checkpoint(folder, Checkpoint, PcgnetConfig)
