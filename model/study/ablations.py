"""Models that lack or add a part, to measure what it is worth; none of them can be served.

The settings of such a model name its parts in `research`. `ablated` gives a plan or a checkpoint
the network that they name; without it such a network is not built.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from model.checkpoint_files import LoadedCheckpoint
from model.hrg_ssa.collate import Talk, TalkBatch
from model.hrg_ssa.config import HrgSsaConfig
from model.hrg_ssa.model import NO_LABEL, HrgSsa, HybridGraph, Past
from model.pcgnet.collate import Batch, ConversationTensors, Sequences
from model.pcgnet.config import PcgnetConfig
from model.pcgnet.graph import TO_ES
from model.pcgnet.model import CausalGru, Pcgnet
from model.registry import load_any

Subject = TypeVar("Subject")


def load(folder: Path) -> LoadedCheckpoint:
    """Read and verify a checkpoint of any model, for research or not. Raises `CheckpointError`."""
    return ablated(load_any(folder))


def ablated(subject: Subject) -> Subject:
    """Return a plan or a checkpoint with the network that its settings name."""
    config = getattr(subject, "config")  # noqa: B009 -- of a dataclass of any model
    if not getattr(config, "research", ()):
        return subject
    return _replaced(subject, network=network_of(config))


def under(checkpoint: LoadedCheckpoint, **settings: Any) -> LoadedCheckpoint:
    """Return the same weights under other settings, less those that such a model has no use for."""
    config = _replaced(checkpoint.config, **settings)
    weights = {name: checkpoint.weights[name] for name in network_of(config)(config).state_dict()}
    return ablated(replace(checkpoint, config=config, weights=weights))


def network_of(config: Any) -> type[Any]:
    """Return the network's class for a model's settings. Raises `ValueError` on unknown parts."""
    network, parts = PARTS[type(config)]
    if not set(config.research) <= set(parts):
        raise ValueError(f"research knows {', '.join(parts)}, not {config.research!r}")
    bases = tuple(parts[name] for name in config.research) or (network,)
    return type("Ablated", bases, {"research": config.research})


def _replaced(subject: Subject, **changes: Any) -> Subject:
    changed: Subject = replace(subject, **changes)  # type: ignore[type-var]
    return changed


# PCGNet ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class BothWays(Sequences):
    """Runs of utterances, and the same runs from their ends."""

    backwards: Sequences


class BothWaysGru(CausalGru):
    """The paper's BiGRU: twice the cells of half the width, the second half from the runs' ends.

    Each layer reads both directions.
    """

    def __init__(self, cells: int, width: int, dropout: float, store: torch.dtype) -> None:
        if width % 2:
            raise ValueError(f"hidden={width} does not split into two directions")
        super().__init__(2 * cells, width // 2, dropout, store, reads=width)

    def _layer(self, layer: int, x: Tensor, runs: Sequences, rounding: bool) -> Tensor:
        assert isinstance(runs, BothWays)
        back = runs.backwards
        packed = torch.cat((x[:, runs.order], x[:, back.order]))  # both have the same sizes
        ahead, behind = self._packed(layer, packed, runs, rounding).chunk(2)
        return torch.cat((ahead[:, runs.place], behind[:, back.place]), dim=2)


class Bidirectional(Pcgnet):
    """Reads the future too: the price of causality."""

    gru = BothWaysGru

    def collate(self, conversations: Sequence[ConversationTensors]) -> Batch:
        batch = super().collate(conversations)
        return replace(batch, context=both_ways(batch.context), speaker=both_ways(batch.speaker))


def both_ways(runs: Sequences) -> BothWays:
    """Pack the same runs from their ends too."""
    sizes, place = np.array(runs.sizes), runs.place.numpy()
    starts = np.cumsum(sizes) - sizes
    step = np.searchsorted(starts, place, side="right") - 1
    rank = place - starts[step]  # of a run, the longest first
    length = np.searchsorted(-sizes, -rank)  # steps of the run
    mirrored = starts[length - 1 - step] + rank
    back = Sequences(torch.from_numpy(np.argsort(mirrored)), torch.from_numpy(mirrored), runs.sizes)
    return BothWays(runs.order, runs.place, runs.sizes, back)


class NoGraph(Pcgnet):
    """Without edges between utterances: a node's own loop is left."""

    def collate(self, conversations: Sequence[ConversationTensors]) -> Batch:
        batch = super().collate(conversations)
        own = batch.persona_edges[:, batch.persona_edges[0] == batch.persona_edges[1]]
        loops = batch.graph_edges[0] == batch.graph_edges[1]
        return _with_edges(replace(batch, persona_edges=own), loops & (batch.relation < TO_ES))


class NoCrossTask(Pcgnet):
    """Without cross-task edges."""

    def collate(self, conversations: Sequence[ConversationTensors]) -> Batch:
        batch = super().collate(conversations)
        return _with_edges(batch, batch.relation < TO_ES)


def _with_edges(batch: Batch, chosen: Tensor) -> Batch:
    """Return the batch with only the chosen edges [E2] of its interactive graph."""
    return replace(
        batch,
        graph_edges=batch.graph_edges[:, chosen],
        relation=batch.relation[chosen],
        distance=batch.distance[chosen],
    )


class NoEvidence(Pcgnet):
    """The shift head has no evidence of the utterance alone."""

    def _with_evidence(self, shift: Tensor, x: Tensor, now: Tensor) -> Tensor:
        return shift


# HRG-SSA --------------------------------------------------------------------------------------


class GoldHistory(HrgSsa):
    """Reads the true emotions of the past: a leak."""

    def fixed_history(self, labels: Tensor) -> Tensor | None:
        return labels


class NoLabels(HrgSsa):
    """Reads the words of the past without their labels."""

    def fixed_history(self, labels: Tensor) -> Tensor | None:
        return torch.full_like(labels, NO_LABEL)


class NoPast(HrgSsa):
    """Reads nothing of the past."""

    def collate(self, talks: Sequence[Talk]) -> TalkBatch:
        batch = super().collate(talks)
        return replace(batch, past=torch.full_like(batch.past, -1))


class NoRelations(HrgSsa):
    """Without the graph."""

    def _related(self, nodes: Tensor, speaker: Tensor) -> Tensor:
        return nodes


class ExplicitGraph(HybridGraph):
    """Explicit edges alone."""

    def begin_implicit(self, c: HrgSsaConfig) -> None:
        """Make no scorer."""

    def with_implicit(self, bias: Tensor, x: Tensor, past: Tensor, explicit: Tensor) -> Tensor:
        return bias


class NoImplicit(HrgSsa):
    """Without implicit edges."""

    hybrid_graph = ExplicitGraph


class AllTokens(HrgSsa):
    """Stores the states of a past utterance's first `pooled` tokens, not means of all."""

    def _pooled(self, states: Tensor, there: Tensor, tag: Tensor) -> Tensor:
        """Put the label words first and zeros after."""
        k = self.config.pooled
        value = self.pool_norm(self.pool_value(states) + tag[:, None])
        first = torch.roll(torch.where(there[..., None], value, 0.0), 2, dims=1)[:, :k]
        return F.pad(first, (0, 0, 0, k - first.shape[1]))

    def _pooled_there(self, past: Past, there: Tensor) -> Tensor:
        # keys have no bias: of no token they are zero
        return super()._pooled_there(past, there) & (past.pooled[0][0] != 0).any(3).flatten(1)


PARTS: Final[Mapping[type, tuple[type, Mapping[str, type]]]] = {
    PcgnetConfig: (
        Pcgnet,
        {
            "bidirectional": Bidirectional,
            "no-graph": NoGraph,
            "no-cross-task": NoCrossTask,
            "no-evidence": NoEvidence,
        },
    ),
    HrgSsaConfig: (
        HrgSsa,
        {
            "gold-history": GoldHistory,
            "no-labels": NoLabels,
            "no-past": NoPast,
            "no-graph": NoRelations,
            "no-implicit": NoImplicit,
            "all-tokens": AllTokens,
        },
    ),
}
