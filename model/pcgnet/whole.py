"""PCGNet over whole dialogues: for evaluation and the model law."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from model.data.dataset import Dialogue
from model.interface import INPUTS
from model.pcgnet.collate import ConversationTensors
from model.pcgnet.config import PcgnetConfig
from model.pcgnet.model import Pcgnet, WholeOutput
from model.scoring.answers import Answers, answers_to


def conversation_tensors(dialogue: Dialogue, config: PcgnetConfig) -> ConversationTensors:
    """Return a dialogue as tensors; an input that the set or the model lacks is never present.

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
def answer(model: Pcgnet, dialogues: Sequence[Dialogue]) -> Answers:
    """Run `model` over whole dialogues; utterances without a label are read but not scored."""
    return answers_to(
        dialogues, model.config.classes, lambda part: whole_output(model, dialogues[part])
    )


def whole_output(model: Pcgnet, dialogues: Sequence[Dialogue]) -> WholeOutput:
    """Run `model` once over the dialogues, laid out as one batch, in evaluation mode."""
    tensors = [conversation_tensors(d, model.config) for d in dialogues]
    out: WholeOutput = model.eval()(model.collate(tensors))
    return out
