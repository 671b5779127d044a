"""HRG-SSA, causal and incremental: the whole model, from token states to the label sentence.

After "Hybrid Relational Graphs with Sentiment-laden Semantic Alignment for multimodal emotion
recognition in conversation" (IJCAI 2025), changed to read its own answers instead of gold labels
and each past utterance once (see docs/decisions.md). Order of the path: token states of a
frozen encoder -> audio, video and text stacks that cross with each other -> one node a modality ->
hybrid relational graph over the window -> T5-style decoder over the utterance's own tokens, the
memory of the past, and the utterance's nodes after the graph -> label sentence; and a shift head.
Past utterances are labelled with the emotion and sentiment that the model predicted for them. An
untrained model ignores the past: both of its paths begin at zero, see `Decoder`.

`HrgSsa.forward` goes over whole conversations, `HrgSsa.step` over one utterance of each of many;
both consist of `encode`, `decide` and `remember`.

Shapes: N utterances, B rows of a step, L tokens, d width, W past slots (right-aligned: slot W - 1
is the utterance before), n = W + 1 slots with the utterance itself last, k pooled vectors, M = 3
nodes (text, audio, video), T tokens of a label sentence, C classes, P pairs, I the inner width of
attention (heads x head width).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.hrg_ssa.collate import Talk, TalkBatch, collate_talks
from model.hrg_ssa.config import FELT, NODES, HrgSsaConfig
from model.serving.device import STORE_DTYPES, require_research
from model.serving.row_stable import TILE, RowLinear, row_linear

SLOPE: Final = 0.2  # of LeakyReLU in the graph
BUCKETS: Final = 32  # of T5's relative positions
FAR: Final = 128  # tokens back: from there on they share the last bucket
CHUNK: Final = 64  # utterances of about one length that are encoded together: little padding
NO_LABEL: Final = -1  # in place of a past label
WORDS, PAST, OWN_NODES = range(3)  # a decoder block's cross-attentions, in this order

KeysValues = tuple[Tensor, Tensor]  # each [.., I]


class Encoded(NamedTuple):
    """Utterances as encoded, before any label."""

    words: Tensor  # [B, L, d] H of the paper
    there: Tensor  # [B, L] bool
    nodes: Tensor  # [B, M, d] X, A and V before the graph


class Past(NamedTuple):
    """The past of each utterance, as the decoder and the graph read it."""

    pooled: Sequence[KeysValues]  # by decoder block, [B, W, k, I]
    nodes: Tensor  # [B, W, M, d] labelled, before the graph
    speaker: Tensor  # [B, n] numbers, the utterance's own last; -1: empty slot


class Decision(NamedTuple):
    """The model's answer to an utterance."""

    emotion: Tensor  # [B, C] scores of the emotion words at their slot
    sentence: Tensor  # [B, T, d] decoder states, see `vocabulary_scores`
    spoke: Tensor  # [B, shift_width + C] input of the shift head, as stored
    nodes: Tensor  # [B, n, M, d] after the graph


class Memory(NamedTuple):
    """A labelled utterance as later ones read it, rounded as it is stored."""

    pooled: Tensor  # [B, k, d]
    nodes: Tensor  # [B, M, d]


@dataclass(frozen=True, slots=True)
class WholeTalks:
    """The result of one pass over whole conversations."""

    emotion: Tensor  # [N, C]
    shift: Tensor  # [P, C * C]
    pairs: Tensor  # [P, 2] (previous, this) utterance
    sentence: Tensor  # [N, T, d] decoder states under the given sentences
    history: Tensor  # [N] the labels that later utterances read
    stored_nodes: Tensor  # [N, M, d] labelled nodes before the graph
    graph_nodes: Tensor  # [N, n, M, d] nodes of each utterance's window after the graph


class Product(nn.Linear):
    """A linear layer; once packed, the fastest kernel for one step on this machine.

    Fewer rows than a kernel's tile would be added up in another order: they are repeated to one.
    """

    packed: RowLinear | None = None

    def pack(self) -> None:
        """Lay the weights out for serving: half the memory traffic where they are float16."""
        bias = torch.zeros(self.out_features) if self.bias is None else self.bias.detach()
        self.packed = row_linear(self.weight.detach(), bias.to(self.weight.device))

    def forward(self, x: Tensor) -> Tensor:
        """[.., I] -> [.., O]."""
        if self.packed is None:
            return super().forward(x)
        flat = x.reshape(-1, x.shape[-1])
        rows = len(flat)
        tile = flat if rows >= TILE else flat.repeat(TILE, 1)
        return self.packed(tile)[:rows].view(*x.shape[:-1], -1)


class Attention(nn.Module):
    """T5's: no biases, no scaling (it is in the initialisation), additive position bias."""

    def __init__(self, c: HrgSsaConfig) -> None:
        super().__init__()
        width, inner = c.width, c.heads * c.head_width
        self.heads, self.head_width, self.dropout = c.heads, c.head_width, c.dropout
        self.q = _linear(width, inner, (width * c.head_width) ** -0.5)
        self.k = _linear(width, inner, width**-0.5)
        self.v = _linear(width, inner, width**-0.5)
        self.o = _linear(inner, width, inner**-0.5)

    def keys_values(self, memory: Tensor) -> KeysValues:
        """[.., S, d] -> twice [.., S, I]."""
        return self.k(memory), self.v(memory)

    def forward(self, x: Tensor, memory: KeysValues, bias: Tensor) -> Tensor:
        """[B, T, d] reads [B, S, I]; `bias` broadcasts to [B, heads, T, S]."""
        q, k, v = (self._split(part) for part in (self.q(x), *memory))
        weight = torch.softmax(q @ k.transpose(2, 3) + bias, dim=3)  # [B, heads, T, S]
        weight = F.dropout(weight, self.dropout, self.training)
        y: Tensor = self.o((weight @ v).transpose(1, 2).flatten(2))
        return y

    def _split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.heads, self.head_width).transpose(1, 2)


class Block(nn.Module):
    """Self-attention, one cross-attention for each memory, feed-forward; pre-norm, residual.

    `alone`: the input is one vector, so there is no self-attention.
    """

    def __init__(self, c: HrgSsaConfig, memories: int, *, alone: bool = False) -> None:
        super().__init__()
        self.dropout = c.dropout
        self.own_norm = None if alone else nn.RMSNorm(c.width, eps=1e-6)
        self.own = None if alone else Attention(c)
        self.cross_norms = nn.ModuleList(nn.RMSNorm(c.width, eps=1e-6) for _ in range(memories))
        self.crosses = nn.ModuleList(Attention(c) for _ in range(memories))
        self.feed_norm = nn.RMSNorm(c.width, eps=1e-6)
        self.wi = _linear(c.width, c.feed_forward, c.width**-0.5)
        self.wo = _linear(c.feed_forward, c.width, c.feed_forward**-0.5)

    def forward(
        self, x: Tensor, source: Tensor, bias: Tensor, memories: Sequence[tuple[KeysValues, Tensor]]
    ) -> Tensor:
        """[B, T, d] -> [B, T, d]; self-attention reads `source` [B, S, d]."""
        if self.own is not None and self.own_norm is not None:
            own = self.own.keys_values(self.own_norm(source))
            x = x + self._dropped(self.own(self.own_norm(x), own, bias))
        for norm, cross, (memory, mask) in zip(
            self.cross_norms, self.crosses, memories, strict=True
        ):
            x = x + self._dropped(cross(norm(x), memory, mask))
        inner = self._dropped(F.relu(self.wi(self.feed_norm(x))))
        y: Tensor = x + self._dropped(self.wo(inner))
        return y

    def across(self, number: int, memory: Tensor) -> KeysValues:
        """Return keys and values of a cross-attention by number: [.., S, d] -> twice [.., S, I]."""
        return cast(Attention, self.crosses[number]).keys_values(memory)

    def _dropped(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training)


class PositionBias(nn.Module):
    """T5's relative positions, looking back only; one table for all blocks of a stack."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.table = nn.Embedding(BUCKETS, heads)

    def forward(self, positions: Tensor, length: int) -> Tensor:
        """Return the bias of queries at `positions` [.., T] over `length` keys.

        [.., heads, T, length].
        """
        keys = torch.arange(length, device=positions.device)
        back = positions[..., None] - keys
        bias: Tensor = self.table(_bucket(back.clamp_min(0))).movedim(-1, -3)
        return bias.masked_fill((back < 0).unsqueeze(-3), -torch.inf)


class FusionStack(nn.Module):
    """One modality's stack (docs/models.md B2 #4-6): self-attention, and across to the others."""

    def __init__(self, c: HrgSsaConfig, *, alone: bool) -> None:
        """Create a stack, `alone` for audio and video, which are one vector each."""
        super().__init__()
        self.position = None if alone else PositionBias(c.heads)
        self.blocks = nn.ModuleList(Block(c, 1, alone=alone) for _ in range(c.stack_layers))
        self.norm = nn.RMSNorm(c.width, eps=1e-6)

    def forward(self, x: Tensor, last: Tensor, memory: Tensor, mask: Tensor) -> Tensor:
        """[B, L, d] -> the node [B, d]: the state at `last` [B].

        The uppermost block is computed at that place alone.
        """
        length = x.shape[1]
        everywhere = torch.arange(length, device=x.device)
        for number, block in enumerate(self.blocks):
            across = [(cast(Block, block).across(0, memory), mask)]
            if number < len(self.blocks) - 1:
                x = block(x, x, self._bias(everywhere, length), across)
            else:
                end = torch.take_along_dim(x, last[:, None, None], 1)  # [B, 1, d]
                x = block(end, x, self._bias(last[:, None], length), across)
        node: Tensor = self.norm(x).squeeze(1)
        return node

    def _bias(self, positions: Tensor, length: int) -> Tensor:
        if self.position is None:
            return torch.zeros((), device=positions.device)
        bias: Tensor = self.position(positions, length)
        return bias


class HybridGraph(nn.Module):
    """The hybrid relational graph over a window's nodes, each modality with weights of its own.

    Explicit edges: itself, the previous utterance, all of the same speaker. Implicit edges
    (docs/models.md B3, B8) are scored for a target over its past; an open edge adds the log
    of its score to the attention, which makes the scorer trainable. The messages are added to a
    node through `out`, which begins at zero.
    """

    def __init__(self, c: HrgSsaConfig) -> None:
        super().__init__()
        m, d, head = len(NODES), c.width, c.width // c.graph_heads
        self.heads, self.dropout = c.graph_heads, c.dropout
        layers = range(c.graph_layers)
        self.value = nn.ParameterList(_matrices(m, d, d) for _ in layers)
        self.out = nn.ParameterList(nn.Parameter(torch.zeros(m, d, d)) for _ in layers)
        self.source = nn.ParameterList(_rows(m, c.graph_heads, head) for _ in layers)
        self.target = nn.ParameterList(_rows(m, c.graph_heads, head) for _ in layers)
        self.scale = nn.ParameterList(nn.Parameter(torch.ones(m, 1, d)) for _ in layers)
        self.begin_implicit(c)

    def begin_implicit(self, c: HrgSsaConfig) -> None:
        """Create the scorer of implicit edges."""
        self.relation = _matrices(len(NODES), c.width, c.detector)  # R of the paper
        self.ends = _rows(2, len(NODES), c.detector)  # u, v

    def forward(self, nodes: Tensor, speaker: Tensor) -> Tensor:
        """[B, n, M, d] and speakers [B, n] -> [B, n, M, d]."""
        rows, slots, m, d = nodes.shape
        x = nodes.permute(2, 0, 1, 3).reshape(m, rows * slots, d)
        bias = self.edges(x, speaker)  # [M, B, n, n]
        for value, out, source, target, scale in zip(
            self.value, self.out, self.source, self.target, self.scale, strict=True
        ):
            v = torch.bmm(x, value).view(m, rows, slots, self.heads, -1)
            score = (v * target[:, None, None]).sum(4)[:, :, :, None]  # [M, B, n, 1, heads]
            score = score + (v * source[:, None, None]).sum(4)[:, :, None]  # [M, B, n, n, heads]
            score = F.leaky_relu(score, SLOPE) + bias[..., None]
            weight = torch.softmax(score, dim=3).permute(0, 1, 4, 2, 3)  # [M, B, heads, n, n]
            y = (weight @ v.transpose(2, 3)).transpose(2, 3).reshape(m, rows * slots, d)
            y = torch.bmm(F.rms_norm(y, (d,), eps=1e-6) * scale, out)
            x = x + F.dropout(y, self.dropout, self.training)
        return x.view(m, rows, slots, d).permute(1, 2, 0, 3)

    def edges(self, x: Tensor, speaker: Tensor) -> Tensor:
        """Return each source's (last axis) score bias for each target; -inf where no edge is."""
        slots = speaker.shape[1]
        at = torch.arange(slots, device=x.device)
        back = at[:, None] - at  # [n, n]
        there = speaker >= 0
        both = there[:, :, None] & there[:, None, :]
        same = speaker[:, :, None] == speaker[:, None, :]
        explicit = (back == 0) | (both & ((back == 1) | (same & (back > 0))))  # [B, n, n]
        none = torch.full((), -torch.inf, device=x.device)
        bias = torch.where(explicit, torch.zeros((), device=x.device), none)
        bias = bias.expand(len(x), *bias.shape)
        return self.with_implicit(bias, x, both & (back >= 0), explicit)

    def with_implicit(self, bias: Tensor, x: Tensor, past: Tensor, explicit: Tensor) -> Tensor:
        """Open the implicit edges [M, B, n, n] whose scores are above chance."""
        rows, slots = past.shape[:2]
        r = torch.bmm(x, self.relation)  # [M, B * n, R]
        ends = (r * self.ends[:, :, None]).sum(3).view(2, len(x), rows, slots)
        logit = elu(ends[0][:, :, None] + ends[1][..., None])  # [M, B, n, n]
        # an empty slot has no past: any finite number will do, it is never an edge
        log_p = torch.log_softmax(logit.masked_fill(~past, -1e9), dim=3)
        count = past.sum(2, keepdim=True).clamp_min(1)
        chosen = past & ~explicit & (log_p > -torch.log(count.float()))
        return torch.where(chosen, log_p, bias)


class Decoder(nn.Module):
    """T5-style, tied embeddings; its upper blocks read the nodes too (docs/models.md B2 #11).

    The past has a cross-attention of its own, whose output begins at zero and grows as far as it
    helps: reading it in one attention with the utterance's own tokens lost accuracy
    (docs/decisions.md). It may attend to nothing, too: a slot whose key and value are zero.
    """

    def __init__(self, c: HrgSsaConfig) -> None:
        super().__init__()
        self.dropout, self.node_layers = c.dropout, c.node_layers
        self.embed = nn.Embedding(c.label_words.size, c.width)
        self.position = PositionBias(c.heads)
        self.blocks = nn.ModuleList(
            Block(c, 3 if number in c.node_layers else 2) for number in range(c.decoder_layers)
        )
        for block in self.blocks:
            nn.init.zeros_(cast(Attention, cast(Block, block).crosses[PAST]).o.weight)
        self.norm = nn.RMSNorm(c.width, eps=1e-6)

    def past_keys_values(self, pooled: Tensor) -> list[KeysValues]:
        """Return each block's keys and values of pooled vectors [.., d]."""
        return [cast(Block, block).across(PAST, pooled) for block in self.blocks]

    def forward(
        self, sentence: Tensor, encoded: Encoded, past: Sequence[KeysValues], past_mask: Tensor,
        nodes: Tensor,
    ) -> Tensor:  # fmt: skip
        """Token numbers [B, T] -> states [B, T, d], scaled for the tied embeddings.

        `past` is tagged and flat, [B, W k, I] by block; `nodes` [B, M, d] are the utterance's own.
        """
        x = F.dropout(self.embed(sentence), self.dropout, self.training)
        places = torch.arange(x.shape[1], device=x.device)
        bias = self.position(places, x.shape[1])
        spoken = _mask(encoded.there)[:, None, None]
        open_mask = torch.zeros((), device=x.device)
        past_mask = F.pad(past_mask, (1, 0))  # the slot of nothing
        for number, (block, (key, value)) in enumerate(zip(self.blocks, past, strict=True)):
            across = cast(Block, block).across
            before = F.pad(key, (0, 0, 1, 0)), F.pad(value, (0, 0, 1, 0))
            read = [(across(WORDS, encoded.words), spoken), (before, past_mask)]
            if number in self.node_layers:
                read.append((across(OWN_NODES, nodes), open_mask))
            x = block(x, x, bias, read)
        x = F.dropout(self.norm(x), self.dropout, self.training)
        scaled: Tensor = x * x.shape[2] ** -0.5
        return scaled


class HrgSsa(nn.Module):
    """The model; in evaluation mode it draws no random number.

    `model.study.ablations` derives from it.
    """

    research: ClassVar[tuple[str, ...]] = ()  # as in the settings it is built from
    hybrid_graph: ClassVar[type[HybridGraph]] = HybridGraph

    def __init__(self, config: HrgSsaConfig) -> None:
        super().__init__()
        require_research(config.research, self.research)
        c = self.config = config
        d, window = c.width, c.recurrence.window
        self.store = STORE_DTYPES[c.store_dtype]
        self.text_projection = Product(c.text, d)
        if c.text == d:  # the encoder's states are a good start
            nn.init.eye_(self.text_projection.weight)
            nn.init.zeros_(self.text_projection.bias)
        self.text_norm = nn.RMSNorm(c.width, eps=1e-6)
        for name in FELT:
            width = c.widths[name]
            self.register_module(f"{name}_projection", Product(width, d) if width else None)
            self.register_buffer(f"{name}_mean", torch.zeros(width))
            self.register_buffer(f"{name}_scale", torch.ones(width))
        self.missing = nn.Parameter(torch.randn(len(NODES), d))  # where an input is absent
        self.stacks = nn.ModuleList(FusionStack(c, alone=name != "text") for name in NODES)
        self.graph = self.hybrid_graph(c)
        self.pool_query = nn.Parameter(torch.randn(c.pooled, d) * d**-0.5)
        self.pool_value = _linear(d, d, d**-0.5)
        self.pool_norm = nn.RMSNorm(c.width, eps=1e-6)
        self.told = Product(2 * d, d)  # emotion and sentiment word of a past utterance
        self.past_tag = nn.Parameter(0.1 * torch.randn(window, 2, d))  # how far back, whose
        self.node_tag = nn.Parameter(0.1 * torch.randn(len(NODES), d))
        self.decoder = Decoder(c)
        self.shift_node = Product(d, c.shift_width)
        self.shift_head = Product(2 * c.shift_width, c.classes**2)
        self.shift_prior = nn.Parameter(torch.full((), 0.3))  # of the joint of label-word scores
        words = c.label_words
        self._sentiment = [words.sentiments[s] for s in c.sentiment_classes]
        self._prompt = [words.start, *words.prefix]

    def forward(
        self, batch: TalkBatch, history: Tensor | None = None, sentence: Tensor | None = None
    ) -> WholeTalks:
        """Go over whole conversations.

        `history` [N] are the labels that later utterances read (`NO_LABEL`: none), and `sentence`
        [N, T] the decoder's input, else the forced prefix. Without a history each utterance reads
        the model's own answers to the earlier ones: not differentiable.
        """
        sentence = self.prompt(len(batch)) if sentence is None else sentence
        if history is None:
            return self._in_order(batch, sentence)
        return self._at_once(batch, history, sentence)

    def collate(self, talks: Sequence[Talk]) -> TalkBatch:
        """Lay conversations out, see `collate_talks`."""
        return collate_talks(talks, self.config)

    def fixed_history(self, labels: Tensor) -> Tensor | None:
        """Return the labels [N] that later utterances read; None: the model's own answers."""
        return None

    def step(
        self, encoded: Encoded, pooled: Tensor, nodes: Tensor, speaker: Tensor, before: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Answer one utterance of each row after its stored past, given as float32.

        `pooled` [B, W, k, d], `nodes` [B, W, M, d] and `speaker` [B, n] are the past (`Past`),
        `before` [B, shift_width + C] is `Decision.spoke` of the speaker's last one. Returns emotion
        [B, C] and shift [B, C * C] logits and the values to store [B, values]: pooled vectors,
        nodes, the two label words' numbers, and `Decision.spoke`.
        """
        past = Past(self.decoder.past_keys_values(pooled), nodes, speaker)
        decision = self.decide(encoded, past, self.prompt(len(speaker)))
        label = decision.emotion.argmax(1)
        memory = self.remember(encoded, label)
        words = torch.stack((label, self._sentiments(label)), dim=1).float()
        stored = (memory.pooled.flatten(1), memory.nodes.flatten(1), words, decision.spoke)
        return decision.emotion, self.shift(before, decision.spoke), torch.cat(stored, dim=1)

    def encode(
        self, states: Tensor, there: Tensor, felt: Sequence[Tensor], present: Tensor
    ) -> Encoded:
        """Encode token states [B, L, text], their mask, audio and video [B, width], [B, 2] present.

        A row without a word gets a learned vector as its only token.
        """
        words = F.dropout(self.text_projection(states), self.config.input_dropout, self.training)
        spoken = there.any(1)
        words = torch.where(spoken[:, None, None], self.text_norm(words), self.missing[0])
        first = torch.zeros_like(there)
        first[:, 0] = True
        there = torch.where(spoken[:, None], there, first)
        a, v = (
            self._felt(i, name, x, present[:, i])
            for i, (name, x) in enumerate(zip(FELT, felt, strict=True))
        )
        at_end, start = there.sum(1) - 1, torch.zeros(len(there), dtype=torch.long, device=a.device)
        mask = _mask(there)[:, None, None]  # [B, 1, 1, L]
        both = torch.stack((a, v), dim=1)  # a' and v' of the paper: [B, 2, d]
        text = self.stacks[0](words, at_end, both, torch.zeros((), device=a.device))
        audio = self.stacks[1](a[:, None], start, words, mask)
        video = self.stacks[2](v[:, None], start, words, mask)
        return Encoded(words, there, torch.stack((text, audio, video), dim=1))

    def decide(self, encoded: Encoded, past: Past, sentence: Tensor) -> Decision:
        """Decide the emotion of an utterance after its past, from the sentence or its prefix."""
        states, nodes = self.decode(encoded, past, sentence)
        words = self.config.label_words
        slot = states[:, words.emotion_slot]  # [B, d]
        # fewer rows than a kernel's tile would be added up in another order
        tile = slot if self.training or len(slot) >= TILE else slot.repeat(TILE, 1)
        emotion = (tile @ self.decoder.embed.weight[list(words.emotions)].t())[: len(slot)]
        node = F.relu(self.shift_node(slot * slot.shape[1] ** 0.5))
        spoke = torch.cat((node, torch.log_softmax(emotion.detach(), 1)), dim=1)
        return Decision(emotion, states, as_stored(spoke, self.store), nodes)

    def decode(self, encoded: Encoded, past: Past, sentence: Tensor) -> tuple[Tensor, Tensor]:
        """Return decoder states [B, T, d] of a sentence's tokens, and the graph's nodes."""
        speaker = past.speaker
        same, there = speaker == speaker[:, -1:], speaker >= 0  # [B, n]
        nodes = torch.cat((past.nodes, encoded.nodes[:, None]), dim=1)  # [B, n, M, d]
        nodes = self._related(nodes, speaker)
        keys, mask = self._tagged(past, same[:, :-1], there[:, :-1])
        own = nodes[:, -1] + self.node_tag
        return self.decoder(sentence, encoded, keys, mask, own), nodes

    def _related(self, nodes: Tensor, speaker: Tensor) -> Tensor:
        """Nodes [B, n, M, d] after the graph."""
        related: Tensor = self.graph(nodes, speaker)
        return related

    def shift(self, before: Tensor, now: Tensor) -> Tensor:
        """Return logits [P, C * C], row = previous emotion, of two answers [P, shift_width + C].

        A head on both answers' states, plus the joint of their label-word scores.
        """
        width = self.config.shift_width
        pair = torch.cat((before[:, :width], now[:, :width]), dim=1)
        pair = F.dropout(pair, self.config.input_dropout, self.training)
        joint = before[:, width:, None] + now[:, None, width:]  # [P, C, C]
        logits: Tensor = self.shift_head(pair) + self.shift_prior * joint.flatten(1)
        return logits

    def remember(self, encoded: Encoded, label: Tensor) -> Memory:
        """Label an utterance [B] and pool it for later ones (`NO_LABEL`: without label words)."""
        known, number = label >= 0, label.clamp_min(0)
        emotion = torch.tensor(self.config.label_words.emotions, device=label.device)[number]
        words = torch.stack((emotion, self._sentiments(number, words=True)), dim=1)
        word_states = self.decoder.embed(words)  # [B, 2, d]
        tag = torch.where(known[:, None], self.told(word_states.flatten(1)), 0.0)  # [B, d]
        states = torch.cat((encoded.words, word_states), dim=1)  # the labelled utterance
        there = torch.cat((encoded.there, known[:, None].expand(-1, 2)), dim=1)
        return Memory(
            as_stored(self._pooled(states, there, tag), self.store),
            as_stored(encoded.nodes + tag[:, None], self.store),
        )

    def _pooled(self, states: Tensor, there: Tensor, tag: Tensor) -> Tensor:
        """Pool token and label-word states: [B, L + 2, d] -> [B, k, d]."""
        value = self.pool_value(states)
        weight = (self.pool_query @ states.transpose(1, 2)) + _mask(there)[:, None]  # [B, k, L + 2]
        pooled: Tensor = self.pool_norm(torch.softmax(weight, dim=2) @ value + tag[:, None])
        return pooled

    def vocabulary_scores(self, states: Tensor) -> Tensor:
        """Score the next token: decoder states [.., d] -> [.., V]."""
        scores: Tensor = states @ self.decoder.embed.weight.t()
        return scores

    def prompt(self, rows: int) -> Tensor:
        """Return the forced prefix, up to the marker before the emotion: [rows, T]."""
        return torch.tensor([self._prompt], device=self.past_tag.device).expand(rows, -1)

    def _tagged(self, past: Past, same: Tensor, there: Tensor) -> tuple[list[KeysValues], Tensor]:
        """Tag the pooled past with distance and speaker: [B, W k, I] by block; and its mask."""
        tags = self.decoder.past_keys_values(self.past_tag)  # keys are linear: tagged after it
        dropout = self.config.input_dropout  # without it train's past is learned by heart
        tagged = []
        for block, tag in zip(past.pooled, tags, strict=True):
            parts = []
            for pooled, table in zip(block, tag, strict=True):
                added = torch.where(same[..., None], table[:, 1], table[:, 0])  # [B, W, I]
                part = F.dropout(pooled + added[:, :, None], dropout, self.training)
                parts.append(part.flatten(1, 2))
            tagged.append((parts[0], parts[1]))
        return tagged, _mask(self._pooled_there(past, there))[:, None, None]

    def _pooled_there(self, past: Past, there: Tensor) -> Tensor:
        """Return which pooled vectors [B, W k] of the past exist."""
        return there.repeat_interleave(self.config.pooled, 1)

    def _felt(self, i: int, name: str, x: Tensor, present: Tensor) -> Tensor:
        layer = self.get_submodule(f"{name}_projection") if self.config.widths[name] else None
        if layer is None:
            return self.missing[1 + i].expand(len(x), -1)
        clip = self.config.input_clip
        x = (x - self.get_buffer(f"{name}_mean")) * self.get_buffer(f"{name}_scale")
        projected: Tensor = layer(x.clamp(-clip, clip))
        return torch.where(present[:, None], projected, self.missing[1 + i])

    def _sentiments(self, label: Tensor, *, words: bool = False) -> Tensor:
        """Return the sentiment of each label [B]: its number, or its token."""
        table = self._sentiment if words else self.config.sentiment_classes
        return torch.tensor(table, device=label.device)[label]

    def _at_once(self, batch: TalkBatch, history: Tensor, sentence: Tensor) -> WholeTalks:
        lengths = torch.tensor([len(state) for state in batch.states])
        chunks = torch.split(torch.argsort(lengths, stable=True), CHUNK)
        back = torch.argsort(torch.cat(chunks))
        encoded = [self.encode(*batch.inputs(rows)) for rows in chunks]
        memory = [self.remember(e, history[rows]) for e, rows in zip(encoded, chunks, strict=True)]
        pooled = self.decoder.past_keys_values(torch.cat([m.pooled for m in memory])[back])
        nodes = torch.cat([m.nodes for m in memory])[back]
        decisions = [
            self.decide(e, past_of(batch, rows, pooled, nodes), sentence[rows])
            for e, rows in zip(encoded, chunks, strict=True)
        ]
        return self._whole(batch, chunks, decisions, history, nodes)

    @torch.no_grad()
    def _in_order(self, batch: TalkBatch, sentence: Tensor) -> WholeTalks:
        c, total, device = self.config, len(batch), self.past_tag.device
        inner = c.heads * c.head_width
        empty = torch.zeros(total, c.pooled, inner, device=device)
        pooled = [(empty.clone(), empty.clone()) for _ in range(c.decoder_layers)]
        nodes = torch.zeros(total, len(NODES), c.width, device=device)
        label = torch.full((total,), NO_LABEL, device=device)
        turns = range(int(batch.turn.max()) + 1)
        order, decisions = [torch.nonzero(batch.turn == turn).squeeze(1) for turn in turns], []
        for rows in order:
            encoded = self.encode(*batch.inputs(rows))
            past = past_of(batch, rows, pooled, nodes)
            decisions.append(self.decide(encoded, past, sentence[rows]))
            label[rows] = decisions[-1].emotion.argmax(1)
            memory = self.remember(encoded, label[rows])
            nodes[rows] = memory.nodes
            new = self.decoder.past_keys_values(memory.pooled)
            for (keys, values), (new_keys, new_values) in zip(pooled, new, strict=True):
                keys[rows], values[rows] = new_keys, new_values
        return self._whole(batch, order, decisions, label, nodes)

    def _whole(
        self, batch: TalkBatch, order: Sequence[Tensor], decisions: Sequence[Decision],
        history: Tensor, nodes: Tensor,
    ) -> WholeTalks:  # fmt: skip
        """Put decisions of some order into the batch's; answer the pairs."""
        back = torch.argsort(torch.cat(list(order)))
        parts = zip(*decisions, strict=True)
        emotion, states, spoke, graph = (torch.cat(part)[back] for part in parts)
        shift = self.shift(*spoke[batch.pairs].unbind(1))
        return WholeTalks(emotion, shift, batch.pairs, states, history, nodes, graph)


def elu(x: Tensor) -> Tensor:
    """ELU whose bytes do not depend on a number's position in the tensor, as those of `F.elu` do.

    torch computes the last few numbers by other instructions than the rest: the last row of a batch
    differed in the last bit of its scores, seen in one of MELD's 2,610 test utterances.
    """
    return torch.where(x > 0, x, torch.expm1(x.clamp_max(0.0)))


def as_stored(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Round to the stored precision; gradients pass."""
    return x if dtype is torch.float32 else x.to(dtype).float()


def past_of(batch: TalkBatch, rows: Tensor, pooled: Sequence[KeysValues], nodes: Tensor) -> Past:
    """Gather the past of `rows` [B] from all utterances' memories; -1 gathers row 0, masked."""
    at = batch.past[rows].clamp_min(0)  # [B, W]
    return Past([(k[at], v[at]) for k, v in pooled], nodes[at], batch.window_speakers(rows))


def _mask(there: Tensor) -> Tensor:
    """Return the additive mask of a bool one: 0 where true, else -inf; float32."""
    return torch.zeros(there.shape, device=there.device).masked_fill(~there, -torch.inf)


def _bucket(back: Tensor) -> Tensor:
    """Return T5's bucket of a distance: exact up to half of them, then logarithmic."""
    exact = BUCKETS // 2
    far = torch.log(back.clamp_min(1).float() / exact) / math.log(FAR / exact)
    far = exact + (far * (BUCKETS - exact)).long()
    return torch.where(back < exact, back, far.clamp_max(BUCKETS - 1))


def _linear(inputs: int, outputs: int, deviation: float) -> Product:
    layer = Product(inputs, outputs, bias=False)
    nn.init.normal_(layer.weight, std=deviation)
    return layer


def _matrices(count: int, inputs: int, outputs: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(count, inputs, outputs) * inputs**-0.5)


def _rows(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(*shape) * shape[-1] ** -0.5)
