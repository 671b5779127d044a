"""PCGNet, one utterance of each of many conversations: the dense form that serves.

Same weights and same mathematics as `model.pcgnet.Pcgnet`, which see. Every operation works on rows
apart from each other, and matrix products go through `model.rows`, so that with a proven batch
size a row's bytes do not depend on the other rows.

Shapes: B rows (conversations), W past slots (right-aligned: slot W - 1 is the utterance before),
slot W the utterance itself, M = 3 modalities, H hidden, heads x D = H, S values a row stores.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional as F

from model.config import INPUTS, MODALITIES, PERSONA, PcgnetConfig
from model.graph import INTER, INTRA, SAME_TIME, TO_ERC, TO_ES
from model.rows import RowLinear, row_linear
from state.window import ArraySpec, StateSpec

TORCH_DTYPES: Final = {
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
}
SLOPE: Final = 0.2
NOT_HEARD: Final = 0  # else INTRA (1) or INTER (2)


def state_spec(config: PcgnetConfig, model_digest: str) -> StateSpec:
    """What a conversation keeps between utterances; 6.65 KiB are written a step at H=200.

    Per utterance the attention values of both graphs and the persona; per conversation the context
    GRU; per speaker the three speaker GRUs and the shift node of the speaker's last utterance.
    """
    h, m, dtype = config.hidden, len(MODALITIES), config.store_dtype
    return StateSpec(
        utterance=(
            ArraySpec("persona_value", (m, h), dtype),
            ArraySpec("graph_value", (m, h), dtype),
            ArraySpec("persona", (config.persona,), dtype),
        ),
        conversation=(ArraySpec("context_h", (2, h), dtype),),
        speaker=(ArraySpec("speaker_h", (m, 2, h), dtype), ArraySpec("shift_node", (m, h), dtype)),
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
    return projections + grus + gates + values + m * h * c + 2 * m * h * c * c


@dataclass(frozen=True, slots=True)
class StepInput:
    """What a step reads, on its device."""

    inputs: dict[str, Tensor]  # [B, width] float32; zero where absent
    present: Tensor  # [B, 4] bool
    ring: Tensor  # [B, W, row] stored dtype, right-aligned, zero where there is no utterance
    relation: Tensor  # [B, W] int32: slot + W * (NOT_HEARD, INTRA or INTER)
    before: Tensor  # [B] float32: 0, or -inf where slot W - 1 holds no utterance
    state: Tensor  # [B, 11 H] stored dtype: context_h, speaker_h, shift_node; zero where new

    def flat(self) -> tuple[Tensor, ...]:
        """All tensors, in one order."""
        rest = (self.present, self.ring, self.relation, self.before, self.state)
        return (*(self.inputs[name] for name in INPUTS), *rest)

    @staticmethod
    def of(*flat: Tensor) -> StepInput:
        """The inverse of `flat`."""
        return StepInput(dict(zip(INPUTS, flat, strict=False)), *flat[len(INPUTS) :])


@dataclass(frozen=True, slots=True)
class StepOutput:
    """What a step returns, on its device."""

    emotion: Tensor  # [B, C] logits
    shift: Tensor  # [B, C * C] logits; meaningless where the speaker is new
    stored: Tensor  # [B, row + 11 H] stored dtype: the new ring row, then the state as above
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
            name: self._slots(f"project.{name}", 1, config.widths[name], h)[0]
            for name in MODALITIES
            if config.widths[name]
        }
        self._norm = {}  # offset and scale: (x - mean) / deviation = offset + x * scale
        for name, width in config.widths.items():
            mean, scale = self._take(f"{name}_mean", width), self._take(f"{name}_scale", width)
            self._norm[name] = (-mean * scale, scale)
        self._row = 6 * h + config.persona
        self._missing = self._take("missing", m, h)[:, None]  # [M, 1, H]
        self._missing_persona = self._take("missing_persona", config.persona)
        self._gru = [self._gru_layer(layer) for layer in range(2)]
        self._speaker_gate = self._gate("speaker_gate", m)
        self._persona_gate = self._slots("persona_gate.second", m, h, h)
        self._graph_gate = self._slots("graph_gate.second", 1, h, h)[0]
        self._persona_value = self._stacked("persona_attention.value", "persona_gate.first", m)
        self._graph_value = self._stacked("graph_attention.value", "graph_gate.first", 1)[0]
        self._emotion_head = self._linear("emotion_head", m * h, c)
        self._shift_head = self._linear("shift_head", 2 * m * h, c * c)
        self._compose_persona()
        self._compose_graph()
        self._weights = {}

    def __call__(self, x: StepInput) -> StepOutput:
        """One utterance a row. Padding rows are rows like others.

        Sizes are plain integers and parts are taken by narrow and select, because the step is
        recorded (`pcgnet_predictor`): a size asked of a tensor, or a ``:``, is an operation there.
        """
        h, rows = self.config.hidden, len(x.state)
        window = self.config.recurrence.window
        past = torch.empty(rows, window + 1, self._row, device=x.ring.device)
        past.narrow(1, 0, window).copy_(x.ring)  # [B, W + 1, row] float32
        now = past.select(1, window)  # [B, row]
        now.narrow(1, 6 * h, self.config.persona).copy_(self._persona(x))
        projected = self._projected(x)  # [M, B, H]
        hidden = x.state.narrow(1, 0, 8 * h).view(rows, 4, 2, h).permute(2, 1, 0, 3).contiguous()
        hidden, context, speaker = self._recur(projected, hidden.float())
        gate, other = self._speaker_gate
        context_gate, speaker_gate = _each(gate, context.unbind()), _each(other, speaker.unbind())
        f = _gated(context_gate, context, speaker_gate, speaker)  # [M, B, H]
        both = _each(self._persona_value, f.unbind())  # [M, B, 2H]
        value = self._rounded(both.narrow(2, 0, h)).transpose(0, 1)
        now.narrow(1, 0, 3 * h).view(rows, 3, h).copy_(value)
        r = self._hear_persona(past, x.relation).transpose(0, 1)
        r = F.elu(r, inplace=True) + f
        gate_r = _each(self._persona_gate, r.contiguous().unbind())
        z = _gated(both.narrow(2, h, h), f, gate_r, r).transpose(0, 1).contiguous()  # [B, M, H]
        both = self._graph_value(z.view(rows * 3, h)).view(rows, 3, 2 * h)
        value = self._rounded(both.narrow(2, 0, h))
        now.narrow(1, 3 * h, 3 * h).view(rows, 3, h).copy_(value)
        node = z.unsqueeze(1) + self._task  # [B, 2, M, H]
        gate_z = both.narrow(2, h, h).unsqueeze(1) + self._task_gate
        heard = F.elu(self._hear_graph(past, x), inplace=True) + node
        gate_y = self._graph_gate(heard.view(rows * 6, h)).view(rows, 2, 3, h)
        nodes = _gated(gate_z, node, gate_y, heard)
        return self._answer(x, nodes, past, hidden)

    def _answer(self, x: StepInput, nodes: Tensor, past: Tensor, hidden: Tensor) -> StepOutput:
        h, rows = self.config.hidden, len(nodes)
        before = x.state.narrow(1, 8 * h, 3 * h).float()  # [B, 3H]
        erc, es = nodes.view(rows, 2, 3 * h).unbind(1)
        emotion = self._emotion_head(F.relu(erc))
        shift = self._shift_head(F.relu(torch.cat((before, es), dim=1)))
        state = hidden.permute(2, 1, 0, 3).reshape(rows, 8 * h)
        now = past.select(1, self.config.recurrence.window)
        stored = torch.cat((now, state, es), dim=1).to(self.store)
        return StepOutput(emotion, shift, stored, nodes)

    def _projected(self, x: StepInput) -> Tensor:
        parts = [
            self._project[name](self._normalised(x, name))
            if name in self._project
            else self._missing[column].expand(len(x.present), -1)
            for column, name in enumerate(MODALITIES)
        ]
        there = x.present.narrow(1, 0, PERSONA).t().unsqueeze(2)  # [M, B, 1]
        return torch.where(there, torch.stack(parts), self._missing)

    def _persona(self, x: StepInput) -> Tensor:
        there = x.present.narrow(1, PERSONA, 1)
        p = torch.where(there, self._normalised(x, INPUTS[PERSONA]), self._missing_persona)
        return self._rounded(p)

    def _normalised(self, x: StepInput, name: str) -> Tensor:
        offset, scale = self._norm[name]
        clip = self.config.input_clip
        return torch.addcmul(offset, x.inputs[name], scale).clamp_(-clip, clip)

    def _rounded(self, x: Tensor) -> Tensor:
        """Cast to the stored precision."""
        return x.to(self.store)

    def _as_stored(self, x: Tensor) -> Tensor:
        """Round to the stored precision, in float32."""
        return x.to(self.store).float()

    def _recur(self, x: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Advance the four GRUs: [M, B, H] and [2, 4, B, H] -> state, context and speaker views.

        Cells: context (text), speaker text, speaker audio, speaker video.
        """
        text, audio, video = x.unbind()
        below: tuple[Tensor, ...] = (text, text, audio, video)
        layers = []
        for (w_ih, w_hh), h in zip(self._gru, hidden.unbind(), strict=True):
            gates = _each(w_ih, below)  # [4, B, 3H]
            new = self._as_stored(
                _gru_cell(gates, _each(w_hh, h.unbind()), h, self.config.hidden)
            )  # [4, B, H]
            layers.append(new)
            below = new.unbind()
        context = x.clone()  # [M, B, H]
        context.select(0, 0).add_(new.select(0, 0))
        return torch.stack(layers), context, new.narrow(0, 1, 3)

    def _hear_persona(self, past: Tensor, relation: Tensor) -> Tensor:
        """[B, W + 1, row] -> [B, M, H]: attention over what was heard, and itself."""
        h, heads = self.config.hidden, self.config.persona_heads
        rows, window, persona = len(past), self.config.recurrence.window, self.config.persona
        # [B, W + 1, M, heads, D]
        v = past.narrow(2, 0, 3 * h).view(rows, window + 1, 3, heads, h // heads)
        p = past.narrow(2, 6 * h, persona).reshape(rows * (window + 1), persona)
        keys = torch.addmm(self._key_bias, p, self._key).view(rows, window + 1, 2, 3, heads)
        content = (v * self._persona_content).sum(-1).add_(self._content_bias)
        source, target = (content.unsqueeze(2) * keys).unbind(2)  # [B, W + 1, M, heads]
        score = F.leaky_relu(source + target.narrow(1, window, 1), SLOPE)
        unheard = F.embedding(relation, self._unheard).unsqueeze(3)
        score.narrow(1, 0, window).add_(unheard)
        weight = torch.softmax(score, dim=1).unsqueeze(4)
        return (v * weight).sum(1).view(rows, 3, h) + self._persona_bias

    def _hear_graph(self, past: Tensor, x: StepInput) -> Tensor:
        """[B, W + 1, row] -> [B, 2, M, H]: attention of the utterance's six nodes."""
        h, heads, window = (
            self.config.hidden,
            self.config.graph_heads,
            self.config.recurrence.window,
        )
        rows = len(past)
        # [B, W + 1, M, heads, D]
        u = past.narrow(2, 3 * h, 3 * h).view(rows, window + 1, 3, heads, h // heads)
        own = u.select(1, window)
        source = (u * self._graph_source).sum(-1)  # [B, W + 1, M, heads]
        target = (own * self._graph_target).sum(-1).view(rows, 1, 1, 3, heads)
        bias = F.embedding(x.relation, self._past_bias).view(rows, window, 2, 1, heads)
        cross = source.narrow(1, window - 1, 2).unsqueeze(2) + self._cross_bias
        cross.select(1, 0).add_(x.before.view(rows, 1, 1, 1))
        score = torch.cat(
            (
                source.narrow(1, 0, window).unsqueeze(2) + bias,  # same task and modality, past
                source.select(1, window).view(rows, 3, 1, 1, heads) + self._own_bias,  # modalities
                cross,  # other task
            ),
            dim=1,
        ).add_(target)  # [B, W + 3 + 2, 2, M, heads]
        weight = torch.softmax(F.leaky_relu(score, SLOPE), dim=1).unsqueeze(5)
        cross = weight.narrow(1, window + 3, 2)
        back = torch.cat((weight.narrow(1, 0, window), cross.narrow(1, 1, 1)), dim=1)
        back.select(1, window - 1).add_(cross.select(1, 0))
        heard = (back * u.unsqueeze(2)).sum(1)  # [B, 2, M, heads, D]
        heard += (weight.narrow(1, window, 3) * own.view(rows, 3, 1, 1, heads, -1)).sum(1)
        heard += torch.addcmul(self._task_value, cross.sum(1), self._task_turn)
        return heard.view(rows, 2, 3, h) + self._graph_bias

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
        window = self.config.recurrence.window
        unheard = torch.zeros(3, window, 1, device=key.device)
        unheard[NOT_HEARD] = -torch.inf
        self._unheard = unheard.flatten(0, 1)  # [3 W, 1]

    def _compose_graph(self) -> None:
        """Tabulate what a score adds to content: relation, distance, and both ends' task."""
        h, heads = self.config.hidden, self.config.graph_heads
        at, d = "graph_attention.", h // heads
        self._graph_source = self._take(at + "source", heads, d)
        self._graph_target = self._take(at + "target", heads, d)
        self._task = self._take("task", 2, h)[:, None]  # [2, 1, H]
        self._task_gate = self._task @ self._take("graph_gate.first.weight", 1, h, h)[0].t()
        self._graph_bias = self._take(at + "bias", h)
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
        self._past_bias = table.flatten(2).flatten(0, 1)  # [3 W, 2 heads]
        own = torch.stack([relation[SAME_TIME], relation[SAME_TIME + 3]])
        self._own_bias = (own + as_source + as_target)[:, None].repeat(1, 3, 1)  # [2, M, heads]
        other = as_source.flip(0) + as_target  # into ERC from ES, into ES from ERC
        into = torch.stack([relation[TO_ERC], relation[TO_ES]]) + other  # [2, heads]
        step = torch.stack([reach[TO_ERC], reach[TO_ES]]) * back[-1]
        self._cross_bias = torch.stack([into + step, into])[:, :, None]  # [2, 2, 1, heads]
        self._task_value = task[:, None]  # [2, 1, heads, D]
        self._task_turn = (task.flip(0) - task)[:, None]

    def _take(self, name: str, *shape: int) -> Tensor:
        tensor = self._weights[name]
        if tuple(tensor.shape) != shape:
            raise ValueError(f"{name} is {tuple(tensor.shape)}, the settings need {shape}")
        return tensor

    def _slots(self, name: str, slots: int, inputs: int, outputs: int) -> list[RowLinear]:
        weight = self._take(f"{name}.weight", slots, outputs, inputs)
        bias = self._take(f"{name}.bias", slots, outputs)
        return [row_linear(w, b) for w, b in zip(weight, bias, strict=True)]

    def _stacked(self, first: str, second: str, slots: int) -> list[RowLinear]:
        """Two layers that read the same input, as one of twice the width."""
        h = self.config.hidden
        weight = [self._take(f"{n}.weight", slots, h, h) for n in (first, second)]
        bias = [self._take(f"{n}.bias", slots, h) for n in (first, second)]
        pairs = zip(torch.cat(weight, 1), torch.cat(bias, 1), strict=True)
        return [row_linear(w, b) for w, b in pairs]

    def _linear(self, name: str, inputs: int, outputs: int) -> RowLinear:
        weight = self._take(f"{name}.weight", outputs, inputs)
        return row_linear(weight, self._take(f"{name}.bias", outputs))

    def _gate(self, name: str, slots: int) -> tuple[list[RowLinear], list[RowLinear]]:
        h = self.config.hidden
        return self._slots(f"{name}.first", slots, h, h), self._slots(f"{name}.second", slots, h, h)

    def _gru_layer(self, layer: int) -> tuple[list[RowLinear], list[RowLinear]]:
        h, layers = self.config.hidden, []
        for end in ("ih", "hh"):
            cells = []
            for gru, n in (("context", 1), ("speaker", 3)):
                weight = self._take(f"{gru}.w_{end}{layer}", n, 3 * h, h)
                bias = self._take(f"{gru}.b_{end}{layer}", n, 3 * h)
                cells += [row_linear(w, b) for w, b in zip(weight, bias, strict=True)]
            layers.append(cells)
        return layers[0], layers[1]


def _gru_cell(x_gates: Tensor, h_gates: Tensor, h: Tensor, width: int) -> Tensor:
    rz = x_gates.narrow(2, 0, 2 * width).add_(h_gates.narrow(2, 0, 2 * width)).sigmoid_()
    n = x_gates.narrow(2, 2 * width, width)
    n = n.addcmul_(rz.narrow(2, 0, width), h_gates.narrow(2, 2 * width, width)).tanh_()
    return torch.lerp(n, h, rz.narrow(2, width, width))


def _each(layers: Sequence[RowLinear], parts: Sequence[Tensor]) -> Tensor:
    """Each layer on its part: [slots, B, outputs]."""
    return torch.stack([layer(part) for layer, part in zip(layers, parts, strict=True)])


def _gated(first: Tensor, x: Tensor, second: Tensor, y: Tensor) -> Tensor:
    """sigmoid(first) * x + sigmoid(second) * y."""
    return (torch.sigmoid(first) * x).addcmul_(second.sigmoid_(), y)
