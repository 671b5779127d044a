"""Answers of an HRG-SSA to whole conversations, after its own answers to earlier utterances."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from model.data.dataset import Dialogue, columns_of
from model.hrg_ssa.collate import Talk, TalkBatch
from model.hrg_ssa.config import FELT, HrgSsaConfig
from model.hrg_ssa.model import HrgSsa, WholeTalks
from model.scoring.answers import Answers, answers_to
from model.text.sentence_encoder import TextEncoder, find_encoder
from model.text.token_encoder import TokenEncoder, token_states


def talk_of(dialogue: Dialogue, states: tuple[Tensor, ...], config: HrgSsaConfig) -> Talk:
    """Lay out a dialogue; an input that the set or the model lacks is never present."""
    columns, present = columns_of(dialogue, FELT, config.widths)
    audio, video = (torch.from_numpy(values) for values in columns.values())
    return Talk(states, audio, video, torch.from_numpy(present), dialogue.speakers)


@torch.no_grad()
def run(model: HrgSsa, batch: TalkBatch, labels: Tensor) -> WholeTalks:
    """Make one pass in evaluation mode; the true `labels` [N] are for models that read them."""
    training = model.training
    out: WholeTalks = model.eval()(batch, model.fixed_history(labels))
    model.train(training)
    return out


def talks_of(
    config: HrgSsaConfig, text: TextEncoder, dialogues: Sequence[Dialogue], folder: Path | None
) -> list[Talk]:
    """Lay out dialogues, their sentences through the encoder `text`.

    Its base is in `folder` (None: the installed one). Raises `EncoderMissing`.
    """
    words = TokenEncoder.load(find_encoder(folder), text, most_tokens=config.most_tokens)
    states = token_states(words, dialogues)
    return [talk_of(d, own, config) for d, own in zip(dialogues, states, strict=True)]


def answer_talks(model: HrgSsa, dialogues: Sequence[Dialogue], talks: Sequence[Talk]) -> Answers:
    """Run over whole dialogues on the model's device; the unlabelled are read, not scored."""
    device = next(model.parameters()).device

    def run_part(part: slice) -> WholeTalks:
        batch = model.collate(talks[part]).on(device)
        labels = np.concatenate([d.labels for d in dialogues[part]])
        return run(model, batch, torch.from_numpy(labels).to(device))

    return answers_to(dialogues, model.config.classes, run_part)
