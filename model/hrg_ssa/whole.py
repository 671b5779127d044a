"""What an HRG-SSA answers to whole conversations, each told what the model itself said before."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from model.data.dataset import Dialogue
from model.hrg_ssa.collate import Talk, TalkBatch
from model.hrg_ssa.config import FELT, HrgSsaConfig
from model.hrg_ssa.model import HrgSsa, WholeTalks
from model.interface import INPUTS
from model.scoring.answers import Answers, answers_to
from model.text.sentence_encoder import TextEncoder, find_encoder
from model.text.token_encoder import TokenEncoder, token_states


def talk_of(dialogue: Dialogue, states: tuple[Tensor, ...], config: HrgSsaConfig) -> Talk:
    """A dialogue as the model reads it; an input the set or the model lacks is never present."""
    present = np.zeros((len(dialogue), len(FELT)), np.bool_)
    columns = {}
    for i, name in enumerate(FELT):
        width = config.widths[name]
        if name in dialogue.features and width:
            columns[name] = torch.from_numpy(dialogue.features[name])
            present[:, i] = dialogue.present[:, INPUTS.index(name)]
        else:
            columns[name] = torch.zeros(len(dialogue), width)
    return Talk(
        states, columns["audio"], columns["video"], torch.from_numpy(present), dialogue.speakers
    )


@torch.no_grad()
def run(model: HrgSsa, batch: TalkBatch, labels: Tensor) -> WholeTalks:
    """One pass in evaluation mode; the true `labels` [N] are for models that are told them."""
    training = model.training
    out: WholeTalks = model.eval()(batch, model.given(labels))
    model.train(training)
    return out


def talks_of(
    config: HrgSsaConfig, text: TextEncoder, dialogues: Sequence[Dialogue], folder: Path | None
) -> list[Talk]:
    """Dialogues as a model reads them, their sentences through the encoder `text`.

    Its base is in `folder` (None: the installed one). Raises `EncoderMissing`.
    """
    words = TokenEncoder.load(find_encoder(folder), text, most_tokens=config.most_tokens)
    states = token_states(words, dialogues)
    return [talk_of(d, found, config) for d, found in zip(dialogues, states, strict=True)]


def answer_talks(model: HrgSsa, dialogues: Sequence[Dialogue], talks: Sequence[Talk]) -> Answers:
    """Run over whole dialogues, on the model's device; what has no label is heard, not scored."""
    device = next(model.parameters()).device

    def run_part(part: slice) -> WholeTalks:
        batch = model.collate(talks[part]).on(device)
        labels = np.concatenate([d.labels for d in dialogues[part]])
        return run(model, batch, torch.from_numpy(labels).to(device))

    return answers_to(dialogues, model.config.classes, run_part)
