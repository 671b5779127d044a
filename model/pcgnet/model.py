"""PCGNet, causal, in its whole-conversation form (for training and as the oracle).

After "PCGNet: persona- and shift-aware emotion recognition in conversation" (SIGIR 2024), made
exactly incremental and repaired (docs/models.md A9). Order of the path: projections -> context
and speaker GRUs -> speaker gate -> persona attention -> persona gate -> interactive graph ->
interactive gate -> emotion head and shift head. `model.pcgnet.step` computes the same, one
utterance of many conversations at a time, with the same weights.

The shift head reads more than the paper's: evidence from the utterance alone, without its past. As
in a hidden Markov chain, the probability of a transition depends on the earlier belief and on new
evidence, which the nodes mix. Its logits of a pair are then added to the
emotion head's log-probabilities of the two utterances (a product of experts).

Shapes: N utterances, M = 3 modalities (text, audio, video), H hidden, C classes, P pairs, E edges.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch_geometric.nn import MessagePassing
from torch_geometric.utils import softmax

from model.interface import MODALITIES
from model.pcgnet.collate import Batch, ConversationTensors, Sequences, collate_conversations
from model.pcgnet.config import PERSONA, SLOPE, PcgnetConfig
from model.pcgnet.graph import FAR_RELATIONS, RELATIONS
from model.serving.device import STORE_DTYPES, require_research


@dataclass(frozen=True, slots=True)
class WholeOutput:
    """The result of one pass over whole conversations."""

    emotion: Tensor  # [N, C] logits
    shift: Tensor  # [P, C * C] logits, row = speaker's previous emotion, column = this one
    shift_alone: Tensor  # [P, C * C] the shift head's alone, which is trained
    pairs: Tensor  # [P, 2] (previous, this) utterance
    pair_vectors: Tensor  # [P, 6H] input of the shift head: for contrastive learning
    nodes: Tensor  # [N, 2, 3, H] ERC and ES nodes after the interactive gate


class SlotLinear(nn.Module):
    """`slots` linear layers side by side: [N, slots, I] -> [N, slots, O]."""

    def __init__(self, slots: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(slots, outputs, inputs))
        self.bias = nn.Parameter(torch.zeros(slots, outputs))
        for matrix in self.weight:
            nn.init.xavier_uniform_(matrix)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.baddbmm(self.bias[:, None], x.transpose(0, 1), self.weight.transpose(1, 2))
        return y.transpose(0, 1)


class GatedSum(nn.Module):
    """sigmoid(A x + a) * x + sigmoid(B y + b) * y, weights per slot.

    docs/models.md A2 #6, 9, 12.
    """

    def __init__(self, slots: int, width: int) -> None:
        super().__init__()
        self.first = SlotLinear(slots, width, width)
        self.second = SlotLinear(slots, width, width)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.mix(self.first(x), x, y)

    def mix(self, first: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """Return the sum, from `first` = A x + a."""
        return torch.addcmul(torch.sigmoid(first) * x, torch.sigmoid(self.second(y)), y)


class CausalGru(nn.Module):
    """`cells` parallel two-layer GRUs over the same runs; states are rounded as they are stored."""

    def __init__(
        self, cells: int, width: int, dropout: float, store: torch.dtype, reads: int | None = None
    ) -> None:
        """Let each cell read `reads` numbers; None: `width`."""
        super().__init__()
        self.dropout, self.store, self.cells, self.width = dropout, store, cells, width
        bound = self.width**-0.5
        for layer in range(2):
            for name, shape in (
                ("w_ih", (self.cells, 3 * self.width, reads or width)),
                ("w_hh", (self.cells, 3 * self.width, self.width)),
                ("b_ih", (self.cells, 3 * self.width)),
                ("b_hh", (self.cells, 3 * self.width)),
            ):
                value = torch.empty(shape).uniform_(-bound, bound)
                self.register_parameter(f"{name}{layer}", nn.Parameter(value))

    def forward(self, x: Tensor, runs: Sequences, rounding: bool) -> Tensor:
        """[N, cells, H] -> [N, cells, H]; each run starts from zero."""
        y = self._layer(0, x.transpose(0, 1), runs, rounding)
        y = F.dropout(y, self.dropout, self.training)
        return self._layer(1, y, runs, rounding).transpose(0, 1)

    def _layer(self, layer: int, x: Tensor, runs: Sequences, rounding: bool) -> Tensor:
        """[cells, N, H] -> [cells, N, H], in the utterances' order."""
        return self._packed(layer, x[:, runs.order], runs, rounding)[:, runs.place]

    def _packed(self, layer: int, x: Tensor, runs: Sequences, rounding: bool) -> Tensor:
        w_ih, w_hh, b_ih, b_hh = (
            self.get_parameter(f"{name}{layer}") for name in ("w_ih", "w_hh", "b_ih", "b_hh")
        )
        gates = torch.baddbmm(b_ih[:, None], x, w_ih.transpose(1, 2))  # [cells, N, 3H]
        w_hh_t, bias = w_hh.transpose(1, 2), b_hh[:, None]
        h = x.new_zeros(self.cells, runs.sizes[0], self.width)
        states = []
        for step in torch.split(gates, list(runs.sizes), dim=1):
            h = h[:, : step.shape[1]]
            h = _gru_cell(step, torch.baddbmm(bias, h, w_hh_t), h)
            h = as_stored(h, self.store) if rounding else h
            states.append(h)
        return torch.cat(states, dim=1)


def _gru_cell(x_gates: Tensor, h_gates: Tensor, h: Tensor) -> Tensor:
    width = h.shape[-1]
    rz = torch.sigmoid(x_gates[..., : 2 * width] + h_gates[..., : 2 * width])
    r, z = rz[..., :width], rz[..., width:]
    n = torch.tanh(torch.addcmul(x_gates[..., 2 * width :], r, h_gates[..., 2 * width :]))
    return torch.lerp(n, h, z)


def joint(before: Tensor, now: Tensor) -> Tensor:
    """Add each of `before` [P, C] (rows) to each of `now` [P, C] (columns): [P, C * C]."""
    return (before[:, :, None] + now[:, None, :]).flatten(1)


def as_stored(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Round to the stored precision; gradients pass straight through."""
    if dtype is torch.float32:
        return x
    rounded = x.detach().to(dtype).float()
    return x + (rounded - x.detach()) if x.requires_grad else rounded


class PersonaAttention(MessagePassing):  # type: ignore[misc]  # torch_geometric is untyped
    """Attention over the past whose keys are personas, gated by content (docs/models.md A2.1).

    One pass for the three modalities. The gate reads the head's own value (the paper's reads the
    whole feature), so that only the values are stored. Self-loops are in the edges.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__(aggr="add", node_dim=0)
        m, d = len(MODALITIES), width // heads
        self.heads = heads
        self.value = SlotLinear(m, width, width)
        self.key = SlotLinear(m, width, width)
        self.gate = nn.Parameter(torch.empty(m, heads, d))
        self.gate_bias = nn.Parameter(torch.ones(m, heads))
        self.source = nn.Parameter(torch.empty(m, heads, d))
        self.target = nn.Parameter(torch.empty(m, heads, d))
        self.bias = nn.Parameter(torch.zeros(m, width))
        for vector in (self.gate, self.source, self.target):
            nn.init.xavier_uniform_(vector)

    def forward(self, value: Tensor, persona: Tensor, edges: Tensor) -> Tensor:
        """Values [N, M, H] and projected personas [N, H] -> [N, M, H]."""
        n, m, width = value.shape
        v = value.reshape(n, m, self.heads, -1)
        gate = (v * self.gate).sum(-1) + self.gate_bias  # [N, M, heads]
        out: Tensor = self.propagate(
            edges,
            v=v,
            source=gate * self._key_score(self.source, persona),
            target=gate * self._key_score(self.target, persona),
            size=(n, n),
        )
        return out.reshape(n, m, width) + self.bias

    def _key_score(self, end: Tensor, persona: Tensor) -> Tensor:
        """a . (P p + b) as (P^T a) . p + a . b: [N, M, heads], without a key per utterance."""
        m, heads, d = end.shape
        onto = torch.einsum("mkd,mkdh->mkh", end, self.key.weight.view(m, heads, d, -1))
        offset = (end * self.key.bias.view(m, heads, d)).sum(-1)
        return (persona @ onto.flatten(0, 1).t()).view(-1, m, heads) + offset

    def message(
        self, v_j: Tensor, source_j: Tensor, target_i: Tensor, index: Tensor, size_i: int
    ) -> Tensor:
        return _attend(v_j, source_j + target_i, index, size_i)


class GraphAttention(MessagePassing):  # type: ignore[misc]  # torch_geometric is untyped
    """Relation-aware attention over ERC and ES nodes (docs/models.md A2.2, A3).

    A source's score gets a bias per relation and head, and for relations that reach back a weight
    on log(1 + distance).
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__(aggr="add", node_dim=0)
        self.heads = heads
        self.value = SlotLinear(1, width, width)
        self.source = nn.Parameter(torch.empty(heads, width // heads))
        self.target = nn.Parameter(torch.empty(heads, width // heads))
        self.relation_bias = nn.Parameter(torch.empty(RELATIONS, heads))
        self.distance_weight = nn.Parameter(torch.empty(len(FAR_RELATIONS), heads))
        self.bias = nn.Parameter(torch.zeros(width))
        for vector in (self.source, self.target, self.relation_bias, self.distance_weight):
            nn.init.xavier_uniform_(vector)

    def forward(self, u: Tensor, edges: Tensor, relation: Tensor, distance: Tensor) -> Tensor:
        """Node values [nodes, H] -> [nodes, H]."""
        nodes, width = u.shape
        far = torch.tensor(FAR_RELATIONS, device=u.device)
        weights = u.new_zeros(RELATIONS, self.heads).index_copy(0, far, self.distance_weight)
        reach = weights[relation] * torch.log1p(distance)[:, None]
        out: Tensor = self.propagate(
            edges,
            v=u.reshape(nodes, self.heads, -1),
            source=u @ self._by_head(self.source),
            target=u @ self._by_head(self.target),
            bias=self.relation_bias[relation] + reach,
            size=(nodes, nodes),
        )
        return out.reshape(nodes, width).add_(self.bias)

    def _by_head(self, end: Tensor) -> Tensor:
        """[heads, D] -> [H, heads]: each head's vector in a column of its own."""
        own = torch.eye(self.heads, device=end.device)[:, None]  # [heads, 1, heads]
        return (end[..., None] * own).flatten(0, 1)

    def message(
        self,
        v_j: Tensor,
        source_j: Tensor,
        target_i: Tensor,
        bias: Tensor,
        index: Tensor,
        size_i: int,
    ) -> Tensor:
        return _attend(v_j, source_j + target_i + bias, index, size_i)


def _attend(values: Tensor, score: Tensor, target: Tensor, nodes: int) -> Tensor:
    """Multiply values [E, ..., D] by the softmax of LeakyReLU(score [E, ...]) over each target.

    In place where no gradient needs the values.
    """
    weight: Tensor = softmax(F.leaky_relu(score, SLOPE), target, num_nodes=nodes)[..., None]
    return values * weight if torch.is_grad_enabled() else values.mul_(weight)


class Pcgnet(nn.Module):
    """The weights, and the whole-conversation form; `model.study.ablations` derives from it."""

    research: ClassVar[tuple[str, ...]] = ()  # must equal that of its settings
    gru: ClassVar[type[CausalGru]] = CausalGru

    def __init__(self, config: PcgnetConfig) -> None:
        super().__init__()
        require_research(config.research, self.research)
        self.config = config
        h, c, m = config.hidden, config.classes, len(MODALITIES)
        store = STORE_DTYPES[config.store_dtype]
        for name, width in config.widths.items():  # normalisation, set from the training split
            self.register_buffer(f"{name}_mean", torch.zeros(width))
            self.register_buffer(f"{name}_scale", torch.ones(width))  # 1 / standard deviation
        inputs = {name: config.widths[name] for name in MODALITIES if config.widths[name]}
        self.project = nn.ModuleDict({n: SlotLinear(1, width, h) for n, width in inputs.items()})
        self.missing = nn.Parameter(torch.randn(m, h) * 0.1)
        self.missing_persona = nn.Parameter(torch.zeros(config.persona))
        self.context = self.gru(1, h, config.gru_dropout, store)
        self.speaker = self.gru(m, h, config.gru_dropout, store)
        self.speaker_gate = GatedSum(m, h)
        self.persona_projection = SlotLinear(1, config.persona, h)
        self.persona_attention = PersonaAttention(h, config.persona_heads)
        self.persona_gate = GatedSum(m, h)
        self.task = nn.Parameter(torch.randn(2, h) * 0.1)
        self.graph_attention = GraphAttention(h, config.graph_heads)
        self.graph_gate = GatedSum(1, h)
        self.emotion_head = nn.Linear(m * h, c)
        self.shift_head = nn.Linear(2 * m * h, c * c)
        self.evidence_head = nn.Linear(m * h, c)
        for head in (self.emotion_head, self.shift_head, self.evidence_head):
            nn.init.xavier_uniform_(head.weight)
            nn.init.zeros_(head.bias)

    def normalise(self, name: str, x: Tensor) -> Tensor:
        """[N, width] -> [N, width], bounded by `input_clip`."""
        centred = (x - self.get_buffer(f"{name}_mean")) * self.get_buffer(f"{name}_scale")
        return centred.clamp(-self.config.input_clip, self.config.input_clip)

    def forward(self, batch: Batch, *, rounding: bool = True) -> WholeOutput:
        """Answer whole conversations in one pass.

        With `rounding`, values that a step would store are rounded to `config.store_dtype`, so that
        the answers are those of `PcgnetStep`; gradients pass straight through.
        """
        store = STORE_DTYPES[self.config.store_dtype] if rounding else torch.float32
        x = self._inputs(batch)  # [N, 3, H]
        # The GRU's output is added to its input: with the utterance's vector behind gated layers
        # alone, dev weighted F1 of a MELD run was 1.8 points lower (56.6, not 58.4; H=128).
        context = x[:, :1] + self.context(x[:, :1], batch.context, rounding)  # [N, 1, H]
        context = torch.cat((context, x[:, 1:]), dim=1)  # [N, 3, H]
        f = self.speaker_gate(context, self.speaker(x, batch.speaker, rounding))
        z = self.persona_gate(f, self._with_persona(f, batch, store))
        nodes = self._with_graph(z, batch, store)  # [N, 2, 3, H]
        emotion = self.emotion_head(self._head_input(nodes[:, 0]))
        before, now = batch.pairs.unbind(1)
        pair = torch.stack((as_stored(nodes[:, 1], store)[before], nodes[now, 1]), dim=1)
        pair = self._head_input(pair)  # [P, 6H]
        alone = self._with_evidence(self.shift_head(pair), x, now)
        log_p = F.log_softmax(emotion, dim=1)
        shift = alone + joint(as_stored(log_p, store)[before], log_p[now])
        return WholeOutput(emotion, shift, alone, batch.pairs, pair, nodes)

    def collate(self, conversations: Sequence[ConversationTensors]) -> Batch:
        """Lay conversations out as the model reads them, see `collate_conversations`."""
        return collate_conversations(conversations, self.config)

    def _with_evidence(self, shift: Tensor, x: Tensor, now: Tensor) -> Tensor:
        """Add the evidence of the utterance alone to the shift head's logits [P, C * C]."""
        evidence = self.evidence_head(self._head_input(x))  # [N, C]
        logits: Tensor = shift + evidence[now].repeat(1, self.config.classes)
        return logits

    def _head_input(self, x: Tensor) -> Tensor:
        return F.relu(F.dropout(x.flatten(1), self.config.head_dropout, self.training))

    def _inputs(self, batch: Batch) -> Tensor:
        parts = []
        for column, name in enumerate(MODALITIES):
            missing = self.missing[column].expand(len(batch), -1)
            if name not in self.project:
                parts.append(missing)
                continue
            x = self.normalise(name, batch.inputs[name])
            x = F.dropout(x, self.config.input_dropout, self.training)
            x = self.project[name](x[:, None])[:, 0]
            parts.append(torch.where(batch.present[:, column, None], x, missing))
        return torch.stack(parts, dim=1)

    def _with_persona(self, f: Tensor, batch: Batch, store: torch.dtype) -> Tensor:
        p = self.normalise("persona", batch.inputs["persona"])
        p = torch.where(batch.present[:, PERSONA, None], p, self.missing_persona)
        p = as_stored(p, store)
        f = F.dropout(f, self.config.persona_dropout, self.training)
        value = as_stored(self.persona_attention.value(f), store)
        persona = self.persona_projection(p[:, None])[:, 0]  # [N, H]
        y = self.persona_attention(value, persona, batch.persona_edges)
        return f + F.elu(F.dropout(y, self.config.persona_dropout, self.training))

    def _with_graph(self, z: Tensor, batch: Batch, store: torch.dtype) -> Tensor:
        n, m, h = z.shape
        z = F.dropout(z, self.config.graph_dropout, self.training)
        node = (z[:, None] + self.task[:, None]).reshape(n * 2 * m, 1, h)  # task, then modality
        first = self.graph_gate.first  # D (z + t) = D z + D t, as for the values below
        gate = first(z.reshape(n * m, 1, h)).reshape(n, 1, m, h)
        gate = (gate + (self.task @ first.weight[0].T)[:, None]).reshape(node.shape)
        value = self.graph_attention.value
        u = as_stored(value(z.reshape(n * m, 1, h)), store).reshape(n, 1, m, h)
        u = u + (self.task @ value.weight[0].T)[:, None]  # W (z + t) = W z + W t: [N, 2, 3, H]
        y = self.graph_attention(
            u.reshape(n * 2 * m, h), batch.graph_edges, batch.relation, batch.distance
        )
        y = F.elu(F.dropout(y, self.config.graph_dropout, self.training))
        return self.graph_gate.mix(gate, node, node + y[:, None]).reshape(n, 2, m, h)
