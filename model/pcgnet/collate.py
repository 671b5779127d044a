"""Conversations to one batch of tensors for the whole-conversation form.

Everything the recurrence decides (sessions, remembered speakers, their previous utterances) is
computed here, once, as integers; `Pcgnet` only follows them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from model.interface import INPUTS
from model.pcgnet.config import PcgnetConfig
from model.pcgnet.graph import interactive_edges, persona_edges
from model.recurrence import Ints, check_shapes, first_in_reach, follow_speakers


@dataclass(frozen=True, slots=True)
class ConversationTensors:
    """One conversation of T utterances, as features; rows not `present` may be anything."""

    text: Tensor  # [T, text] float32; width 0 where the model has no such input
    audio: Tensor  # [T, audio]
    video: Tensor  # [T, video]
    persona: Tensor  # [T, persona]
    present: Tensor  # [T, 4] bool, columns as in `INPUTS`
    speakers: tuple[str, ...]  # [T]
    session_start: Tensor | None = None  # [T] bool; None: one session


@dataclass(frozen=True, slots=True)
class Sequences:
    """Runs of utterances that share a recurrent state, packed time-major, longest run first."""

    order: Tensor  # [N] utterance at each packed place
    place: Tensor  # [N] packed place of each utterance
    sizes: tuple[int, ...]  # unfinished runs at each step; sums to N


@dataclass(frozen=True, slots=True)
class Batch:
    """Utterances of all conversations, one after the other; N utterances, P pairs."""

    inputs: dict[str, Tensor]  # text, audio, video, persona: [N, width], zero where absent
    present: Tensor  # [N, 4] bool
    context: Sequences  # by session
    speaker: Sequences  # by session, speaker and stay in memory
    persona_edges: Tensor  # [2, E1] utterances
    graph_edges: Tensor  # [2, E2] nodes: utterance * 6 + task * 3 + modality
    relation: Tensor  # [E2]
    distance: Tensor  # [E2] float32, utterances back
    pairs: Tensor  # [P, 2] (speaker's previous utterance, this one), by this one
    conversation: Tensor  # [N] number of the conversation

    def __len__(self) -> int:
        return int(self.present.shape[0])


def collate_conversations(
    conversations: Sequence[ConversationTensors], config: PcgnetConfig
) -> Batch:
    """Flatten conversations and lay out sequences, pairs and both graphs.

    Raises ValueError without a conversation, or naming the conversation and field whose size does
    not fit `config`.
    """
    if not conversations:
        raise ValueError("a batch needs at least one conversation")
    for number, conversation in enumerate(conversations):
        check_shapes(number, conversation, {**config.widths, "present": len(INPUTS)})
    lengths = np.array([len(c.speakers) for c in conversations], dtype=np.int64)
    runs = follow_speakers(conversations, config.recurrence.max_speakers)
    first = first_in_reach(runs.session, runs.previous, config.recurrence.window)
    persona, graph = persona_edges(first), interactive_edges(first, runs.session, runs.speaker)
    here = np.arange(len(first), dtype=np.int64)
    has_previous = runs.previous >= 0
    pairs = np.stack((runs.previous[has_previous], here[has_previous]), axis=1)
    usable = torch.tensor([width > 0 for width in config.widths.values()])
    present = torch.cat([c.present for c in conversations]).bool() & usable
    inputs = {}
    for column, name in enumerate(INPUTS):
        values = torch.cat([getattr(c, name) for c in conversations]).float()
        # where, not a product: absent rows may be NaN
        inputs[name] = torch.where(present[:, column, None], values, torch.zeros(()))
    return Batch(
        inputs=inputs,
        present=present,
        context=_pack(runs.session),
        speaker=_pack(runs.run),
        persona_edges=torch.from_numpy(np.stack((persona.source, persona.target))),
        graph_edges=torch.from_numpy(np.stack((graph.source, graph.target))),
        relation=torch.from_numpy(graph.relation),
        distance=torch.from_numpy(graph.distance.astype(np.float32)),
        pairs=torch.from_numpy(pairs),
        conversation=torch.from_numpy(np.repeat(np.arange(len(lengths)), lengths)),
    )


def _pack(run: Ints) -> Sequences:
    _, group, counts = np.unique(run, return_inverse=True, return_counts=True)
    by_group = np.argsort(group, kind="stable")
    step = np.empty_like(run)
    step[by_group] = np.arange(len(run)) - np.repeat(np.cumsum(counts) - counts, counts)
    rank = np.empty(len(counts), dtype=np.int64)
    rank[np.argsort(-counts, kind="stable")] = np.arange(len(counts))
    order = np.lexsort((rank[group], step))
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    sizes = tuple(int(n) for n in np.bincount(step))
    return Sequences(torch.from_numpy(order), torch.from_numpy(place), sizes)
