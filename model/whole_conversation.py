"""Probabilities of each utterance by the whole-conversation form, as the worker publishes them.

The other side of the model law, for tests, benchmarks and verification.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from model.checkpoint_files import find_checkpoint
from model.data.dataset import Dialogue
from model.registry import load_any
from model.scoring.calibrate import emotion_probabilities, shift_cells
from model.scoring.scores import Doubles
from model.serving.device import thread_count


@dataclass(frozen=True, slots=True)
class WholeAnswer:
    """Calibrated probabilities of one utterance."""

    emotion: Doubles  # [C]
    shift: Doubles | None  # [C, C] (speaker's previous emotion, this one); None: first utterance


@torch.no_grad()
def whole_answers(
    checkpoint: Path | None,
    dialogues: Sequence[Dialogue],
    *,
    encoder: Path | None = None,
    labels: Mapping[tuple[str, str], int] | None = None,
) -> dict[tuple[str, str], WholeAnswer]:
    """Return answers by (dialogue id, utterance id), from one pass over whole conversations.

    Runs under the stored precision of the checkpoint, as the worker does. For a model that reads
    its own earlier answers, `labels` are another form's, as label numbers by the same names:
    a near tie that falls the other way would change all later answers. Raises `CheckpointError`.
    """
    loaded = load_any(find_checkpoint(checkpoint))
    calibration, classes = loaded.calibration, loaded.config.classes
    names = [(d.dialogue_id, u) for d in dialogues for u in d.utterance_ids]
    past = None if labels is None else [labels[name] for name in names]
    with thread_count(1):
        out = loaded.whole(dialogues, encoder, past)
    emotion = emotion_probabilities(out.emotion.double().numpy(), calibration)
    shift = shift_cells(out.shift.double().numpy(), calibration).reshape(-1, classes, classes)
    pair_of = {int(now): pair for pair, now in enumerate(out.pairs[:, 1])}
    return {
        name: WholeAnswer(emotion[i], shift[pair_of[i]] if i in pair_of else None)
        for i, name in enumerate(names)
    }
