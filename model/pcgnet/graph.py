"""Edges of the persona graph and of the interactive graph, from past utterances to later ones.

Utterances are numbered 0..N-1 over a whole batch, session by session, each in spoken order; so an
utterance's past within its session is a range of numbers, and edges are built without a loop over
them. All edges point from past (or same time) to present.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from model.recurrence import Ints

TASKS: Final = 2  # emotion recognition (ERC) 0, emotion shift (ES) 1
NODES: Final = 6  # nodes of one utterance: task * 3 + modality
RELATIONS: Final = 8
# Relation ids (docs/models.md A3): same utterance, same speaker, other speaker for ERC (0, 1, 2)
# and for ES (3, 4, 5); ERC -> ES (6); ES -> ERC (7).
SAME_TIME, INTRA, INTER = 0, 1, 2
TO_ES, TO_ERC = 6, 7
FAR_RELATIONS: Final = (1, 2, 4, 5, TO_ES, TO_ERC)  # relations that reach back in time
CROSS_TASK_SPAN: Final = 1  # cross-task edges reach the utterance itself and this many before it


@dataclass(frozen=True, slots=True)
class Edges:
    """Edges sorted by target. `relation` is empty for the persona graph."""

    source: Ints  # [E]
    target: Ints  # [E]
    relation: Ints  # [E], 0..7
    distance: Ints  # [E], utterances between target and source


def past_pairs(first: Ints) -> tuple[Ints, Ints]:
    """Return (j, i) for all first[i] <= j < i, sorted by i then j."""
    here = np.arange(len(first), dtype=np.int64)
    counts = here - first
    target = np.repeat(here, counts)
    within = np.arange(len(target)) - np.repeat(np.cumsum(counts) - counts, counts)
    return first[target] + within, target


def persona_edges(first: Ints) -> Edges:
    """Return edges between utterances, alike for each modality: past in reach, and a self-loop."""
    j, i = past_pairs(first)
    here = np.arange(len(first), dtype=np.int64)
    source, target = np.concatenate((j, here)), np.concatenate((i, here))
    return _sorted(source, target, np.zeros_like(source), target - source)


def interactive_edges(first: Ints, session: Ints, speaker: Ints) -> Edges:
    """Return edges between nodes (utterance * 6 + task * 3 + modality), of all eight relations."""
    here = np.arange(len(first), dtype=np.int64)
    j, i = past_pairs(first)
    relation_back = np.where(speaker[j] == speaker[i], INTRA, INTER).astype(np.int64)
    back = here[here - CROSS_TASK_SPAN >= session]  # targets whose cross-task edge reaches back
    cross_j = np.concatenate((here, back - CROSS_TASK_SPAN))
    cross_i = np.concatenate((here, back))
    parts: list[tuple[Ints, Ints, Ints]] = []
    for task in range(TASKS):
        other = 1 - task
        into = np.full_like(cross_i, TO_ERC if task == 0 else TO_ES)
        for m in range(3):
            node = task * 3 + m
            for m2 in range(3):
                same = np.full_like(here, SAME_TIME + 3 * task)
                parts.append((here * NODES + task * 3 + m2, here * NODES + node, same))
            parts.append((j * NODES + node, i * NODES + node, relation_back + 3 * task))
            parts.append((cross_j * NODES + other * 3 + m, cross_i * NODES + node, into))
    source, target, relation = (np.concatenate(column) for column in zip(*parts, strict=True))
    return _sorted(source, target, relation, target // NODES - source // NODES)


def _sorted(source: Ints, target: Ints, relation: Ints, distance: Ints) -> Edges:
    order = np.argsort(target, kind="stable")
    return Edges(source[order], target[order], relation[order], distance[order])
