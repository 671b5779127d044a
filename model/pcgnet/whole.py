"""PCGNet over whole dialogues: for evaluation and the model law."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from torch import Tensor

from model.data.dataset import UNLABELLED, Dialogue
from model.interface import INPUTS
from model.pcgnet.collate import ConversationTensors, collate_conversations
from model.pcgnet.config import PcgnetConfig
from model.pcgnet.model import Pcgnet
from model.scoring.answers import Answers

BATCH_DIALOGUES: Final = 64


def conversation_tensors(dialogue: Dialogue, config: PcgnetConfig) -> ConversationTensors:
    """A dialogue as the model reads it; an input the set or the model lacks is never present.

    Raises ValueError when a vector's width is not the model's.
    """
    present = torch.from_numpy(dialogue.present.copy())
    columns: dict[str, Tensor] = {}
    for i, name in enumerate(INPUTS):
        width = config.widths[name]
        if name in dialogue.features and width:
            columns[name] = torch.from_numpy(dialogue.features[name])
        else:
            columns[name] = torch.zeros(len(dialogue), width)
            present[:, i] = False
    return ConversationTensors(present=present, speakers=dialogue.speakers, **columns)


@torch.no_grad()
def answer(model: Pcgnet, dialogues: Sequence[Dialogue], *, rounding: bool = True) -> Answers:
    """Run `model` over whole dialogues; utterances without a label are heard but not scored."""
    training = model.training
    model.eval()
    emotion, shift, labels, shifts, owner, pair_owner = [], [], [], [], [], []
    classes = model.config.classes
    for start in range(0, len(dialogues), BATCH_DIALOGUES):
        part = dialogues[start : start + BATCH_DIALOGUES]
        tensors = [conversation_tensors(d, model.config) for d in part]
        batch = collate_conversations(tensors, model.config)
        out = model(batch, rounding=rounding)
        truth = np.concatenate([d.labels for d in part])
        number = batch.conversation.numpy() + start
        before, now = truth[out.pairs[:, 0].numpy()], truth[out.pairs[:, 1].numpy()]
        known, both = truth != UNLABELLED, (before != UNLABELLED) & (now != UNLABELLED)
        emotion.append(out.emotion.double().numpy()[known])
        labels.append(truth[known])
        owner.append(number[known])
        shift.append(out.shift.double().numpy()[both])
        shifts.append((before * classes + now)[both])
        pair_owner.append(number[out.pairs[:, 1].numpy()][both])
    model.train(training)
    return Answers(
        emotion=np.concatenate(emotion),
        labels=np.concatenate(labels),
        dialogue=np.concatenate(owner),
        shift=np.concatenate(shift),
        shifts=np.concatenate(shifts),
        pair_dialogue=np.concatenate(pair_owner),
        dialogues=len(dialogues),
    )
