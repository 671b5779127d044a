"""PCGNet, one utterance of each of many conversations: the dense form that serves.

Same weights and same mathematics as `model.pcgnet.model.Pcgnet`, which see. Every operation works
on rows apart from each other, and matrix products go through `model.serving.row_stable`, so that
with a proven batch size a row's bytes do not depend on the other rows.

Shapes: B rows (conversations), W past slots (right-aligned: slot W - 1 is the utterance before),
slot W the utterance itself, M = 3 modalities, H hidden, heads x D = H, S values a row stores.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from model.interface import MODALITIES
from model.pcgnet.config import PERSONA, PcgnetConfig
from model.pcgnet.graph import INTER, INTRA, SAME_TIME, TO_ERC, TO_ES
from model.serving.row_stable import RowLinear, RowLinears, row_linear, tile_of, tiled
from state.window import ArraySpec, StateSpec

TORCH_DTYPES: Final = {
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
}
SLOPE: Final = 0.2
NOT_HEARD: Final = 0  # else INTRA (1) or INTER (2)


def state_spec(config: PcgnetConfig, model_digest: str) -> StateSpec:
    """What a conversation keeps between utterances; 6.66 KiB are written a step at H=200.

    Per utterance the attention values of both graphs and the persona; per conversation the context
    GRU; per speaker the three speaker GRUs, and of the speaker's last utterance the shift node and
    the log-probabilities of its emotions.
    """
    h, m, dtype = config.hidden, len(MODALITIES), config.store_dtype
    return StateSpec(
        utterance=(
            ArraySpec("persona_value", (m, h), dtype),
            ArraySpec("graph_value", (m, h), dtype),
            ArraySpec("persona", (config.persona,), dtype),
        ),
        conversation=(ArraySpec("context_h", (2, h), dtype),),
        speaker=(
            ArraySpec("speaker_h", (m, 2, h), dtype),
            ArraySpec("shift_node", (m, h), dtype),
            ArraySpec("emotion", (config.classes,), dtype),
        ),
        recurrence=config.recurrence,
        model_digest=model_digest,
    )


def multiply_adds(config: PcgnetConfig) -> int:
    """Multiply-adds of one step's matrix products (twice that in FLOP), shift head included."""
    h, m, c = config.hidden, len(MODALITIES), config.classes
    projections = sum(config.widths[name] for name in MODALITIES) * h
    grus = (1 + m) * 2 * 2 * 3 * h * h
    gates = (2 * m + 2 * m + m + 2 * m) * h * h  # speaker, persona, interactive (D1 z; D2 y)
    values = 2 * m * h * h
    heads = m * h * c + 3 * m * h * c * c  # evidence is columns of the shift head's product
    return projections + grus + gates + values + heads


class StepInput(NamedTuple):
    """What a step reads, on its device."""

    inputs: Tensor  # float32, flat: [B, width] of each of `INPUTS`, then padding; 0 where absent
    present: Tensor  # [4, B, 1] bool
    ring: Tensor  # [B, W, row] stored dtype, right-aligned, zero where there is no utterance
    relation: Tensor  # [B, W + 2] int32: rows of the score table, see `relation_codes`
    hidden: Tensor  # [2, 4, B, H] stored dtype: layers of the context and speaker GRUs; 0 where new
    said_before: Tensor  # [B, 3 H + C] stored dtype: shift node, emotions; zero where new
    room: Tensor  # float32, flat, B * `room_per_row` or more: overwritten, see `room_per_row`


def input_floats(config: PcgnetConfig, rows: int) -> int:
    """Numbers in `StepInput.inputs`: whole cache lines.

    What is left over after whole vectors would be computed by other instructions.
    """
    return -(-rows * sum(config.widths.values()) // 16) * 16


def room_per_row(config: PcgnetConfig) -> int:
    """Numbers that a row's past and its messages take while it is computed.

    They live in one place from step to step: for batches of 48 they are megabytes.
    """
    h, slots = config.hidden, config.recurrence.window + 1
    return slots * (6 * h + config.persona) + slots * 2 * len(MODALITIES) * h


def relation_codes(window: int) -> tuple[int, int, int]:
    """Rows of the score table of an utterance itself, of one before it, and of none before it.

    Past slot i has row i + W * (NOT_HEARD, INTRA or INTER).
    """
    return 3 * window, 3 * window + 1, 3 * window + 2


@dataclass(frozen=True, slots=True)
class StepOutput:
    """What a step returns, on its device."""

    emotion: Tensor  # [B, C] logits
    shift: Tensor  # [B, C * C] logits; meaningless where the speaker is new
    stored: Tensor  # [B, row + 11 H + C] stored dtype: the new ring row, then the state as above
    nodes: Tensor  # [B, 2, 3, H] ERC and ES nodes


class PcgnetStep:
    """The weights, laid out for one step."""

    def __init__(
        self, config: PcgnetConfig, weights: Mapping[str, Tensor], device: torch.device
    ) -> None:
        """Raises KeyError or ValueError where `weights` are not those of `config`."""
        self.config = config
        self.store = TORCH_DTYPES[config.store_dtype]
        self._weights = {name: tensor.to(device) for name, tensor in weights.items()}
        h, c, m = config.hidden, config.classes, len(MODALITIES)
        self._project = {
            column: self._slots(f"project.{name}", 1, config.widths[name], h)[0]
            for column, name in enumerate(MODALITIES)
            if config.widths[name]
        }
        none = torch.zeros(h, device=device)
        biases = [self._project[i].bias if i in self._project else none for i in range(m)]
        self._project_bias = torch.stack(biases)[:, None]
        self._norm = [
            (self._take(f"{name}_mean", width), self._take(f"{name}_scale", width))
            for name, width in config.widths.items()
        ]
        self._flat_norm: dict[int, tuple[Tensor, Tensor, list[int]]] = {}  # by rows
        self._row = 6 * h + config.persona
        self._missing = self._take("missing", m, h)[:, None]  # [M, 1, H]
        self._missing_persona = self._take("missing_persona", config.persona)
        self._gru_x, self._gru_h, self._gru_n = self._recurrent()
        first, second = (self._slots(f"speaker_gate.{n}", m, h, h) for n in ("first", "second"))
        self._speaker_gate = RowLinears(first + second)
        self._persona_gate = RowLinears(self._slots("persona_gate.second", m, h, h))
        self._graph_gate = self._slots("graph_gate.second", 1, h, h)[0]
        self._persona_value = self._stacked("persona_attention.value", "persona_gate.first", m)
        self._graph_value = self._stacked("graph_attention.value", "graph_gate.first", 1)
        self._emotion_head = self._linear("emotion_head", m * h, c)
        self._shift_head = self._shift_and_evidence(m * h, c)
        self._compose_persona()
        self._compose_graph()
        self._weights = {}

    def prepare(self, rows: int) -> None:
        """Lay out what a step of `rows` rows needs: (x - mean) * scale = offset + x * scale."""
        sizes = [rows * width for width in self.config.widths.values()]
        padding = input_floats(self.config, rows) - sum(sizes)
        offset = torch.cat([(-mean * scale).repeat(rows) for mean, scale in self._norm])
        scale = torch.cat([scale.repeat(rows) for _, scale in self._norm])
        both = F.pad(offset, (0, padding)), F.pad(scale, (0, padding))
        self._flat_norm[rows] = (*both, [*sizes, padding])

    def __call__(self, x: StepInput, rows: int) -> StepOutput:
        """One utterance a row, of a number of rows that was `prepare`d. Padding is rows too.

        Sizes are plain integers and parts are taken by narrow and select, because the step is
        recorded (`pcgnet_predictor`): a size asked of a tensor, or a ``:``, is an operation there.
        """
        h, row = self.config.hidden, self._row
        window = self.config.recurrence.window
        slots = rows * (window + 1)
        past = x.room.narrow(0, 0, slots * row).view(rows, window + 1, row)
        past.narrow(1, 0, window).copy_(x.ring)  # [B, W + 1, row] float32
        room = x.room.narrow(0, slots * row, slots * 6 * h)
        now = past.select(1, window)  # [B, row]
        projected, persona = self._inputs(x, rows)  # [M, B, H], [B, persona]
        now.narrow(1, 6 * h, self.config.persona).copy_(persona)
        # A copy, before the context is added to the text.
        own = projected.transpose(0, 1).reshape(rows, 3 * h)
        speaker, state = self._recur(projected, x.hidden, rows)  # [M, B, H], [B, 8 H]
        f = self._speaker_gated(projected, speaker, rows)
        both = self._persona_value(f, rows)  # [M, B, 2H]
        value = self._rounded(both.narrow(2, 0, h)).transpose(0, 1)
        now.narrow(1, 0, 3 * h).view(rows, 3, h).copy_(value)
        scores = F.embedding(x.relation, self._scores)  # [B, W + 2, 2 heads + 1]
        r = f + F.elu(self._hear_persona(past, scores, room, rows), inplace=True).transpose(0, 1)
        gate_r = self._persona_gate(r, rows)
        z = _gated(both.narrow(2, h, h), f, gate_r, r).transpose(0, 1).contiguous()  # [B, M, H]
        both = self._graph_value(z.view(1, rows * 3, h), rows * 3).view(rows, 3, 2 * h)
        value = self._rounded(both.narrow(2, 0, h))
        now.narrow(1, 3 * h, 3 * h).view(rows, 3, h).copy_(value)
        node = z.unsqueeze(1) + self._task  # [B, 2, M, H]
        gate_z = both.narrow(2, h, h).unsqueeze(1) + self._task_gate
        heard = F.elu(self._hear_graph(past, scores, room, rows), inplace=True).add_(node)
        gate_y = self._graph_gate(heard.view(rows * 6, h)).view(rows, 2, 3, h)
        nodes = _gated(gate_z, node, gate_y, heard)
        return self._answer(x.said_before.float(), nodes, own, (now, state), rows)

    def _answer(
        self,
        before: Tensor,
        nodes: Tensor,
        own: Tensor,
        stored: tuple[Tensor, Tensor],
        rows: int,
    ) -> StepOutput:
        width, classes = 3 * self.config.hidden, self.config.classes
        erc, es = nodes.view(rows, 2, width).unbind(1)
        emotion = self._emotion_head(tiled(F.relu(erc), rows)).narrow(0, 0, rows)
        pair = torch.cat((before.narrow(1, 0, width), es, own), dim=1).relu_()
        shift = self._shift_head(tiled(pair, rows)).narrow(0, 0, rows)
        said = torch.log_softmax(emotion, dim=1)
        cells = shift.view(rows, classes, classes).add_(said.unsqueeze(1))
        cells.add_(before.narrow(1, width, classes).unsqueeze(2))
        kept = torch.cat((*stored, es, said), dim=1).to(self.store)
        return StepOutput(emotion, shift, kept, nodes)

    def _inputs(self, x: StepInput, rows: int) -> tuple[Tensor, Tensor]:
        """Normalise all inputs at once; project the modalities, and round the persona."""
        clip = self.config.input_clip
        offset, scale, sizes = self._flat_norm[rows]
        flat = torch.addcmul(offset, x.inputs, scale).clamp_(-clip, clip)
        parts = torch.split_with_sizes(flat, sizes)
        raw = torch.empty(len(MODALITIES), tile_of(rows), self.config.hidden, device=flat.device)
        into = raw.unbind()
        for column, layer in self._project.items():
            layer.multiply(tiled(parts[column].view(rows, -1), rows), into[column])
        raw = raw.narrow(1, 0, rows).add_(self._project_bias)
        projected = torch.where(x.present.narrow(0, 0, PERSONA), raw, self._missing)
        persona = parts[PERSONA].view(rows, -1)
        persona = torch.where(x.present.select(0, PERSONA), persona, self._missing_persona)
        return projected, self._rounded(persona)

    def _speaker_gated(self, context: Tensor, speaker: Tensor, rows: int) -> Tensor:
        """The context and what the speaker adds, each through its gate: [M, B, H]."""
        gate = self._speaker_gate(torch.cat((context, speaker)), rows).sigmoid_()
        return (gate.narrow(0, 0, 3) * context).addcmul_(gate.narrow(0, 3, 3), speaker)

    def _rounded(self, x: Tensor) -> Tensor:
        """Cast to the stored precision."""
        return x.to(self.store)

    def _recur(self, x: Tensor, hidden: Tensor, rows: int) -> tuple[Tensor, Tensor]:
        """Advance the four GRUs: speaker outputs [M, B, H] and the new state [B, 8 H].

        Cells: context (text), speaker text, speaker audio, speaker video. The context's output is
        added to `x`, which becomes the context of every modality.
        """
        h = self.config.hidden
        before = hidden.float()  # [2, 4, B, H]
        h_gates = self._gru_h(before.view(8, rows, h), rows).view(2, 4, rows, 3 * h)
        new, layers = x, []
        slots: tuple[int, ...] | None = (0, 0, 1, 2)
        for layer, old, gates in zip(range(2), before.unbind(), h_gates.unbind(), strict=True):
            x_gates = self._gru_x[layer].multiply(new, rows, slots)  # [4, B, 3H]
            new = _gru_cell(x_gates, gates, self._gru_n[layer], old, h)
            new = new.to(self.store).float()  # as stored
            slots = None
            layers.append(new.transpose(0, 1))
        x.select(0, 0).add_(new.select(0, 0))
        return new.narrow(0, 1, 3), torch.stack(layers, dim=2).view(rows, 8 * h)

    def _hear_persona(self, past: Tensor, scores: Tensor, room: Tensor, rows: int) -> Tensor:
        """[B, W + 1, row] -> [B, M, H]: attention over what was heard, and itself."""
        h, heads = self.config.hidden, self.config.persona_heads
        window, persona = self.config.recurrence.window, self.config.persona
        # [B, W + 1, M, heads, D]
        v = past.narrow(2, 0, 3 * h).view(rows, window + 1, 3, heads, h // heads)
        p = past.view(rows * (window + 1), self._row).narrow(1, 6 * h, persona)
        keys = torch.addmm(self._key_bias, p, self._key).view(rows, window + 1, 2, 3, heads)
        room = room.narrow(0, 0, rows * (window + 1) * 3 * h).view(
            rows, window + 1, 3, heads, h // heads
        )
        content = torch.mul(v, self._persona_content, out=room).sum(-1).add_(self._content_bias)
        source, target = (content.unsqueeze(2) * keys).unbind(2)  # [B, W + 1, M, heads]
        score = source + target.narrow(1, window, 1)
        unheard = scores.narrow(1, 0, window + 1).narrow(2, 2 * self.config.graph_heads, 1)
        score = F.leaky_relu_(score.add_(unheard.unsqueeze(3)), SLOPE)
        weight = torch.softmax(score, dim=1).unsqueeze(4)
        return torch.mul(v, weight, out=room).sum(1).view(rows, 3, h).add_(self._persona_bias)

    def _hear_graph(self, past: Tensor, scores: Tensor, room: Tensor, rows: int) -> Tensor:
        """[B, W + 1, row] -> [B, 2, M, H]: attention of the utterance's six nodes.

        Slots of the softmax: W past ones of the same task, the utterance itself and the one before
        of the other task, and the three modalities of the utterance.
        """
        h, heads = self.config.hidden, self.config.graph_heads
        window = self.config.recurrence.window
        # [B, W + 1, M, heads, D]
        u = past.narrow(2, 3 * h, 3 * h).view(rows, window + 1, 3, heads, h // heads)
        own = u.select(1, window)
        half = room.narrow(0, 0, rows * (window + 1) * 3 * h).view(
            rows, window + 1, 3, heads, h // heads
        )
        source = torch.mul(u, self._graph_source, out=half).sum(-1)  # [B, W + 1, M, heads]
        target = (own * self._graph_target).sum(-1).view(rows, 1, 1, 3, heads)
        modalities = source.select(1, window).view(rows, 3, 1, 1, heads) + self._own_bias
        source = torch.cat((source, source.narrow(1, window - 1, 1)), dim=1).unsqueeze(2)
        source = source + scores.narrow(2, 0, 2 * heads).view(rows, window + 2, 2, 1, heads)
        score = torch.cat((source, modalities), dim=1).add_(target)  # [B, W + 5, 2, M, heads]
        weight = torch.softmax(F.leaky_relu_(score, SLOPE), dim=1).unsqueeze(5)
        before = weight.select(1, window + 1)
        other = weight.select(1, window) + before
        weight.select(1, window - 1).add_(before)
        room = room.view(rows, window + 1, 2, 3, heads, -1)
        heard = torch.mul(weight.narrow(1, 0, window + 1), u.unsqueeze(2), out=room).sum(1)
        heard += (weight.narrow(1, window + 2, 3) * own.view(rows, 3, 1, 1, heads, -1)).sum(1)
        heard += torch.addcmul(self._task_value, other, self._task_turn)
        return heard.view(rows, 2, 3, h)

    def _compose_persona(self) -> None:
        """Fold projection, key and attention vectors: a key's score is linear in the persona."""
        h, heads, m = self.config.hidden, self.config.persona_heads, len(MODALITIES)
        d, width = h // heads, self.config.persona
        at = "persona_attention."
        key = self._take(at + "key.weight", m, h, h).view(m, heads, d, h)
        key_bias = self._take(at + "key.bias", m, h).view(m, heads, d)
        ends = torch.stack([self._take(at + end, m, heads, d) for end in ("source", "target")])
        onto = torch.einsum("emkd,mkdh->emkh", ends, key)  # [2, M, heads, H]
        projection = self._take("persona_projection.weight", 1, h, width)[0]
        offset = self._take("persona_projection.bias", 1, h)[0]
        self._key = (onto @ projection).flatten(0, 2).t().contiguous()  # [persona, 2 M heads]
        self._key_bias = (onto @ offset + (ends * key_bias).sum(-1)).flatten()
        self._persona_content = self._take(at + "gate", m, heads, d)
        self._content_bias = self._take(at + "gate_bias", m, heads)
        self._persona_bias = self._take(at + "bias", m, h)

    def _compose_graph(self) -> None:
        """Tabulate what a score adds to content: relation, distance, and both ends' task."""
        h, heads = self.config.hidden, self.config.graph_heads
        at, d = "graph_attention.", h // heads
        self._graph_source = self._take(at + "source", heads, d)
        self._graph_target = self._take(at + "target", heads, d)
        self._task = self._take("task", 2, h)[:, None]  # [2, 1, H]
        self._task_gate = self._task @ self._take("graph_gate.first.weight", 1, h, h)[0].t()
        offset = self._take(at + "bias", h).view(heads, d)
        task = self._task @ self._take(at + "value.weight", 1, h, h)[0].t()
        task = task.view(2, heads, d)
        as_source, as_target = (
            (task * self._graph_source).sum(-1),
            (task * self._graph_target).sum(-1),
        )
        relation = self._take(at + "relation_bias", 8, heads)
        far = self._take(at + "distance_weight", 6, heads)
        reach = {INTRA: far[0], INTER: far[1], INTRA + 3: far[2], INTER + 3: far[3]}
        reach |= {TO_ES: far[4], TO_ERC: far[5]}
        window = self.config.recurrence.window
        back = torch.log1p(torch.arange(window, 0, -1.0, device=task.device))[:, None]  # [W, 1]
        table = torch.full((3, window, 2, heads), -torch.inf, device=task.device)
        for t in range(2):
            for code in (INTRA, INTER):
                r = code + 3 * t
                ends = as_source[t] + as_target[t]
                table[code, :, t] = relation[r] + reach[r] * back + ends
        own = torch.stack([relation[SAME_TIME], relation[SAME_TIME + 3]])
        self._own_bias = (own + as_source + as_target)[:, None].repeat(1, 3, 1)  # [2, M, heads]
        other = as_source.flip(0) + as_target  # into ERC from ES, into ES from ERC
        into = torch.stack([relation[TO_ERC], relation[TO_ES]]) + other  # [2, heads]
        step = torch.stack([reach[TO_ERC], reach[TO_ES]]) * back[-1]
        missing = torch.full_like(into, -torch.inf)
        others = torch.stack([into, into + step, missing])
        self._scores = self._score_table(table.flatten(0, 1), others)
        self._task_value = task[:, None] + offset  # [2, 1, heads, D]
        self._task_turn = (task.flip(0) - task)[:, None]

    def _score_table(self, past: Tensor, others: Tensor) -> Tensor:
        """Rows as in `relation_codes`: what each score of the graph adds, and of the persona."""
        window = self.config.recurrence.window
        unheard = torch.zeros(3 * window + 3, 1, device=past.device)
        unheard[:window] = -torch.inf
        return torch.cat((torch.cat((past, others)).flatten(1), unheard), dim=1)

    def _take(self, name: str, *shape: int) -> Tensor:
        tensor = self._weights[name]
        if tuple(tensor.shape) != shape:
            raise ValueError(f"{name} is {tuple(tensor.shape)}, the settings need {shape}")
        return tensor

    def _slots(self, name: str, slots: int, inputs: int, outputs: int) -> list[RowLinear]:
        weight = self._take(f"{name}.weight", slots, outputs, inputs)
        bias = self._take(f"{name}.bias", slots, outputs)
        return [row_linear(w, b) for w, b in zip(weight, bias, strict=True)]

    def _stacked(self, first: str, second: str, slots: int) -> RowLinears:
        """Two layers that read the same input, as one of twice the width."""
        h = self.config.hidden
        weight = [self._take(f"{n}.weight", slots, h, h) for n in (first, second)]
        bias = [self._take(f"{n}.bias", slots, h) for n in (first, second)]
        pairs = zip(torch.cat(weight, 1), torch.cat(bias, 1), strict=True)
        return RowLinears([row_linear(w, b) for w, b in pairs])

    def _linear(self, name: str, inputs: int, outputs: int) -> RowLinear:
        weight = self._take(f"{name}.weight", outputs, inputs)
        return row_linear(weight, self._take(f"{name}.bias", outputs))

    def _shift_and_evidence(self, width: int, classes: int) -> RowLinear:
        """Both heads as one layer, [9H] -> [C * C]: evidence is the same for every *from*."""
        weight = self._take("shift_head.weight", classes**2, 2 * width)
        evidence = self._take("evidence_head.weight", classes, width)
        bias = self._take("shift_head.bias", classes**2)
        own_bias = self._take("evidence_head.bias", classes)
        return row_linear(
            torch.cat((weight, evidence.repeat(classes, 1)), dim=1), bias + own_bias.repeat(classes)
        )

    def _recurrent(self) -> tuple[list[RowLinears], RowLinears, list[Tensor]]:
        """The GRUs' products with what is below, by layer; with all old states; biases of n.

        The old states do not wait for the layer below, so theirs are one call. Biases of r and z
        are summed into it; n's bias is added apart, because r scales the old state's.
        """
        h = self.config.hidden
        below, old, biases, apart = [], [], [], []
        for layer in range(2):
            x_layers, h_layers = self._cells(f"ih{layer}"), self._cells(f"hh{layer}")
            bias = torch.stack([cell.bias for cell in h_layers])
            x_bias = torch.stack([cell.bias for cell in x_layers])
            bias[:, : 2 * h] += x_bias[:, : 2 * h]
            below.append(RowLinears(x_layers))
            old += h_layers
            biases.append(bias)
            apart.append(x_bias[:, None, 2 * h :].contiguous())
        return below, RowLinears(old, torch.cat(biases)[:, None]), apart

    def _cells(self, end: str) -> list[RowLinear]:
        h, cells = self.config.hidden, []
        for gru, n in (("context", 1), ("speaker", 3)):
            weight = self._take(f"{gru}.w_{end}", n, 3 * h, h)
            bias = self._take(f"{gru}.b_{end}", n, 3 * h)
            cells += [row_linear(w, b) for w, b in zip(weight, bias, strict=True)]
        return cells


def _gru_cell(x_gates: Tensor, h_gates: Tensor, n_bias: Tensor, h: Tensor, width: int) -> Tensor:
    """[4, B, 3H] of gates r, z and n of input and old state, and the old state -> [4, B, H]."""
    rz = x_gates.narrow(2, 0, 2 * width).add_(h_gates.narrow(2, 0, 2 * width)).sigmoid_()
    n = x_gates.narrow(2, 2 * width, width).add_(n_bias)
    n = n.addcmul_(rz.narrow(2, 0, width), h_gates.narrow(2, 2 * width, width)).tanh_()
    return torch.lerp(n, h, rz.narrow(2, width, width))


def _gated(first: Tensor, x: Tensor, second: Tensor, y: Tensor) -> Tensor:
    """sigmoid(first) * x + sigmoid(second) * y."""
    return (torch.sigmoid(first) * x).addcmul_(second.sigmoid_(), y)
