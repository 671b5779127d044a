"""PCGNet over whole dialogues: for evaluation and the model law."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from model.data.dataset import Dialogue, columns_of
from model.interface import INPUTS
from model.pcgnet.collate import ConversationTensors
from model.pcgnet.config import PcgnetConfig
from model.pcgnet.model import Pcgnet, WholeOutput
from model.scoring.answers import Answers, answers_to


def conversation_tensors(dialogue: Dialogue, config: PcgnetConfig) -> ConversationTensors:
    """Return a dialogue as tensors; an input that the set or the model lacks is never present.

    Raises ValueError when a vector's width is not the model's.
    """
    columns, present = columns_of(dialogue, INPUTS, config.widths)
    tensors = {name: torch.from_numpy(values) for name, values in columns.items()}
    return ConversationTensors(
        **tensors, present=torch.from_numpy(present), speakers=dialogue.speakers
    )


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
