"""PCGNet for serving: one utterance of each of many conversations, in dense tensors.

Same weights and same mathematics as `model.pcgnet.model.Pcgnet`, in the same order; "#n" and
"A2.n" number the equations of docs/models.md A2. Rows are computed apart from each other, and
matrix products use `model.serving.row_stable`, so that with a proven batch size a row's bytes do
not depend on the other rows.

Shapes: B rows (conversations), W past slots (right-aligned: slot W - 1 is the previous utterance),
slot W the utterance itself, M = 3 modalities, H hidden, heads x D = H, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from model.interface import MODALITIES
from model.pcgnet.config import PERSONA, SLOPE, PcgnetConfig
from model.pcgnet.graph import FAR_RELATIONS, INTER, INTRA, SAME_TIME, TASKS, TO_ERC, TO_ES
from model.serving.device import STORE_DTYPES
from model.serving.row_stable import (
    RowLinear,
    RowLinears,
    apply_tiled,
    row_linear,
    tile_of,
    tiled,
)
from state.window import ArraySpec, StateSpec

M: Final = len(MODALITIES)
CELL_INPUTS: Final = (0, 0, 1, 2)  # modality read by the GRUs: context, then a speaker's three
MASKED: Final = 0  # relation of a past slot out of reach; else INTRA (1) or INTER (2)


def state_spec(config: PcgnetConfig, model_digest: str) -> StateSpec:
    """Return the specification of a conversation's stored arrays; a step writes 6.66 KiB at H=200.

    Per utterance the attention values of both graphs and the persona; per conversation the context
    GRU; per speaker the three speaker GRUs, and of the speaker's last utterance the shift node and
    the log-probabilities of its emotions.
    """
    h, dtype = config.hidden, config.store_dtype
    return StateSpec(
        utterance=(
            ArraySpec("persona_value", (M, h), dtype),
            ArraySpec("graph_value", (M, h), dtype),
            ArraySpec("persona", (config.persona,), dtype),
        ),
        conversation=(ArraySpec("context_h", (2, h), dtype),),
        speaker=(
            ArraySpec("speaker_h", (M, 2, h), dtype),
            ArraySpec("shift_node", (M, h), dtype),
            ArraySpec("emotion", (config.classes,), dtype),
        ),
        recurrence=config.recurrence,
        model_digest=model_digest,
    )


def multiply_adds(config: PcgnetConfig) -> int:
    """Return the multiply-adds of a step's matrix products, half of its FLOP."""
    h, c = config.hidden, config.classes
    projections = sum(config.widths[name] for name in MODALITIES) * h
    grus = (1 + M) * 2 * 2 * 3 * h * h
    gates = (2 * M + 2 * M + M + 2 * M) * h * h  # speaker, persona, interactive (D1 z; D2 y)
    values = 2 * M * h * h
    heads = M * h * c + 3 * M * h * c * c  # evidence is columns of the shift head's product
    return projections + grus + gates + values + heads


class StepInput(NamedTuple):
    """The arguments of a step, on its device."""

    inputs: Tensor  # float32, flat: [B, width] of each of `INPUTS`, then padding; 0 where absent
    present: Tensor  # [4, B, 1] bool
    ring: Tensor  # [B, W, row] stored dtype, right-aligned, zero where there is no utterance
    relation: Tensor  # [B, W + 2] int32: rows of the bias table, see `relation_codes`
    hidden: Tensor  # [2, 4, B, H] stored dtype: layers of the context and speaker GRUs; 0 where new
    previous: Tensor  # [B, M H + C] stored dtype: the speaker's shift node, emotions; 0 where new
    scratch: Tensor  # float32, flat, B * `scratch_per_row` or more; overwritten


def input_floats(config: PcgnetConfig, rows: int) -> int:
    """Return the length of `StepInput.inputs`: whole cache lines.

    A remainder after whole vectors would be computed by other instructions.
    """
    return -(-rows * sum(config.widths.values()) // 16) * 16


def scratch_per_row(config: PcgnetConfig) -> int:
    """Return the length of a row's ring and its messages, see `Ring`."""
    h, slots = config.hidden, config.recurrence.window + 1
    return slots * (2 * M * h + config.persona) + slots * 2 * M * h


def relation_codes(window: int) -> tuple[int, int, int]:
    """Return the bias table's rows for the utterance itself, the previous one, and no previous one.

    Past slot i has row i + W * (MASKED, INTRA or INTER).
    """
    return 3 * window, 3 * window + 1, 3 * window + 2


class StepOutput(NamedTuple):
    """The result of a step, on its device."""

    emotion: Tensor  # [B, C] logits
    shift: Tensor  # [B, C * C] logits; meaningless where the speaker is new
    stored: Tensor  # [B, row + 11 H + C] stored dtype: the new ring row, then the state as above


class Ring(NamedTuple):
    """Sources of both attentions: W past utterances, and in slot W the one being computed.

    The first four are views of one tensor, filled in as the step proceeds.
    """

    row: Tensor  # [B, row] slot W, to be stored
    persona_value: Tensor  # [B, W + 1, M * H]
    graph_value: Tensor  # [B, W + 1, M * H]
    persona: Tensor  # [B, W + 1, persona]
    graph_bias: Tensor  # [B, W + 2, 2 * heads] of relation, distance and tasks; -inf: no edge
    persona_bias: Tensor  # [B, W + 1, 1] 0 or -inf: no edge
    messages: Tensor  # [2, B * (W + 1) * M * H] to be overwritten with products of the values


class PcgnetStep:
    """The weights of PCGNet, laid out for one step."""

    def __init__(
        self, config: PcgnetConfig, weights: Mapping[str, Tensor], device: torch.device
    ) -> None:
        """Raises KeyError or ValueError where `weights` are not those of `config`."""
        self.config = config
        self.store = STORE_DTYPES[config.store_dtype]
        self._weights = {name: tensor.to(device) for name, tensor in weights.items()}
        h, c = config.hidden, config.classes
        self._project = {
            column: self._slots(f"project.{name}", 1, config.widths[name], h)[0]
            for column, name in enumerate(MODALITIES)
            if config.widths[name]
        }
        none = torch.zeros(h, device=device)
        biases = [self._project[i].bias if i in self._project else none for i in range(M)]
        self._project_bias = torch.stack(biases)[:, None]  # [M, 1, H]
        self._mean_scale = [
            (self._take(f"{name}_mean", width), self._take(f"{name}_scale", width))
            for name, width in config.widths.items()
        ]
        self._normalise: dict[int, tuple[Tensor, Tensor, list[int]]] = {}  # by rows
        self._row_sizes = M * h, M * h, config.persona  # as in `state_spec`
        self._missing = self._take("missing", M, h)[:, None]  # [M, 1, H]
        self._missing_persona = self._take("missing_persona", config.persona)
        self._gru_x, self._gru_h, self._gru_n_bias = self._recurrent_layers()
        first, second = (self._slots(f"speaker_gate.{n}", M, h, h) for n in ("first", "second"))
        self._speaker_gates = RowLinears(first + second)
        self._persona_first = self._stacked("persona_attention.value", "persona_gate.first", M)
        self._persona_gate = RowLinears(self._slots("persona_gate.second", M, h, h))
        self._graph_first = self._stacked("graph_attention.value", "graph_gate.first", 1)
        self._graph_gate = self._slots("graph_gate.second", 1, h, h)[0]
        emotion = self._take("emotion_head.weight", c, M * h), self._take("emotion_head.bias", c)
        self._emotion_head = row_linear(*emotion)
        self._shift_head = self._shift_and_evidence(M * h, c)
        self._compose_persona()
        self._compose_graph()
        self._weights = {}

    def prepare(self, rows: int) -> None:
        """Lay out the normalisation of `rows` rows: (x - mean) * scale = offset + x * scale."""
        sizes = [rows * width for width in self.config.widths.values()]
        padding = input_floats(self.config, rows) - sum(sizes)
        offset = torch.cat([(-mean * scale).repeat(rows) for mean, scale in self._mean_scale])
        scale = torch.cat([scale.repeat(rows) for _, scale in self._mean_scale])
        padded = F.pad(offset, (0, padding)), F.pad(scale, (0, padding))
        self._normalise[rows] = (*padded, [*sizes, padding])

    def __call__(self, x: StepInput, rows: int) -> StepOutput:
        """Compute one utterance a row; `rows` includes padding and was `prepare`d.

        Sizes are plain integers and parts are taken by split, narrow and select, because the step
        is recorded (`model.serving.device.traced`): reading a size of a tensor and each `:` of an
        index are operations of the recording, with which one conversation took 4 % longer.
        """
        h, c = self.config.hidden, self.config.classes
        ring = self._ring(x, rows)
        features, persona = self._inputs(x, rows)  # [M, B, H], [B, persona]
        # Copied, because the context is added to the text in place.
        alone = features.transpose(0, 1).reshape(rows, M * h)
        context, speaker, states = self._recurrent(features, x.hidden, rows)
        gates = self._speaker_gates(torch.cat((context, speaker)), rows).sigmoid_()
        gate_c, gate_s = gates.split_with_sizes((M, M))
        f = (gate_c * context).addcmul_(gate_s, speaker)  # #6: [M, B, H]
        z = self._with_persona(f, persona, ring, rows)  # [B, M, H]
        nodes = self._with_graph(z, ring, rows)  # [B, 2, M, H]
        erc, es = nodes.view(rows, 2, M * h).unbind(1)
        emotion = apply_tiled(self._emotion_head, F.relu(erc), rows)  # #13: [B, C]
        log_p = torch.log_softmax(emotion, dim=1)
        es_before, log_p_before = x.previous.float().split_with_sizes((M * h, c), dim=1)
        pair = torch.cat((es_before, es, alone), dim=1).relu_()  # [B, 3 M H]
        shift = apply_tiled(self._shift_head, pair, rows)  # #14: [B, C * C]
        cells = shift.view(rows, c, c)  # pooled with both utterances' emotions, in place of `shift`
        cells.add_(log_p.unsqueeze(1)).add_(log_p_before.unsqueeze(2))
        stored = torch.cat((ring.row, states, es, log_p), dim=1).to(self.store)
        return StepOutput(emotion, shift, stored)

    def _ring(self, x: StepInput, rows: int) -> Ring:
        """Copy the past into `x.scratch` as float32, and look up each slot's biases.

        The scratch is the same memory in every step: with new memory each time, 10 MB at H=200,
        a step of 48 rows took 3 % longer.
        """
        h, window, width = self.config.hidden, self.config.recurrence.window, sum(self._row_sizes)
        slots = rows * (window + 1)
        past = x.scratch.narrow(0, 0, slots * width).view(rows, window + 1, width)
        past.narrow(1, 0, window).copy_(x.ring)
        persona_value, graph_value, persona = past.split_with_sizes(self._row_sizes, dim=2)
        bias = F.embedding(x.relation, self._bias_table)  # [B, W + 2, 2 heads + 1]
        graph_bias, persona_bias = bias.split_with_sizes((2 * self.config.graph_heads, 1), dim=2)
        return Ring(
            past.select(1, window),
            persona_value,
            graph_value,
            persona,
            graph_bias,
            persona_bias.narrow(1, 0, window + 1),
            x.scratch.narrow(0, slots * width, slots * 2 * M * h).view(2, slots * M * h),
        )

    def _inputs(self, x: StepInput, rows: int) -> tuple[Tensor, Tensor]:
        """#3: normalise and project the modalities [M, B, H]; the persona [B, persona] as stored.

        All inputs are normalised by one operation, on whole cache lines.
        """
        clip = self.config.input_clip
        offset, scale, sizes = self._normalise[rows]
        flat = torch.addcmul(offset, x.inputs, scale).clamp_(-clip, clip)
        parts = torch.split_with_sizes(flat, sizes)
        # A modality without a projection stays as allocated: it is never present.
        raw = torch.empty(M, tile_of(rows), self.config.hidden, device=flat.device)
        products = raw.unbind()
        for column, layer in self._project.items():
            layer.multiply(tiled(parts[column].view(rows, -1), rows), products[column])
        raw = raw.narrow(1, 0, rows).add_(self._project_bias)
        projected = torch.where(x.present.narrow(0, 0, PERSONA), raw, self._missing)
        persona = parts[PERSONA].view(rows, -1)
        persona = torch.where(x.present.select(0, PERSONA), persona, self._missing_persona)
        return projected, persona.to(self.store)

    def _recurrent(self, x: Tensor, hidden: Tensor, rows: int) -> tuple[Tensor, Tensor, Tensor]:
        """#4, 5: return context [M, B, H], speaker [M, B, H] and new states [B, 8 H] of four GRUs.

        Cells: context (text), speaker text, speaker audio, speaker video. The context is `x`,
        to whose text the first cell's output is added in place.
        """
        h = self.config.hidden
        before = hidden.float()  # [2, 4, B, H]
        h_gates = self._gru_h(before.view(8, rows, h), rows).view(2, 4, rows, 3 * h)
        y, layers = x, []
        for layer, (old, gates) in enumerate(zip(before.unbind(), h_gates.unbind(), strict=True)):
            reads = CELL_INPUTS if layer == 0 else None
            x_gates = self._gru_x[layer].multiply(y, rows, reads)  # [4, B, 3H]
            y = _gru_cell(x_gates, gates, self._gru_n_bias[layer], old, h)  # [4, B, H]
            y = y.to(self.store).float()  # as stored
            layers.append(y.transpose(0, 1))
        x.select(0, 0).add_(y.select(0, 0))
        return x, y.narrow(0, 1, M), torch.stack(layers, dim=2).view(rows, 8 * h)

    def _with_persona(self, f: Tensor, persona: Tensor, ring: Ring, rows: int) -> Tensor:
        """#7-9: attend by persona (r), and gate: sigmoid(.f) * f + sigmoid(.r) * r: [B, M, H]."""
        h, now = self.config.hidden, self.config.recurrence.window
        value, gate_f = self._persona_first(f, rows).split_with_sizes((h, h), dim=2)
        value = value.to(self.store).transpose(0, 1)
        ring.persona_value.select(1, now).view(rows, M, h).copy_(value)
        ring.persona.select(1, now).copy_(persona)
        y = F.elu(self._persona_attention(ring, rows), inplace=True)  # [B, M, H]
        r = f + y.transpose(0, 1)  # [M, B, H]
        z = _gated(gate_f, f, self._persona_gate(r, rows), r)
        return z.transpose(0, 1).contiguous()

    def _persona_attention(self, ring: Ring, rows: int) -> Tensor:
        """A2.1: attend with gated personas as keys, over the past in reach and itself.

        Returns sum_j softmax_j(LeakyReLU(source_j + target)) v_j + bias: [B, M, H].
        """
        h, heads = self.config.hidden, self.config.persona_heads
        window = self.config.recurrence.window
        shape = (rows, window + 1, M, heads, h // heads)
        v = ring.persona_value.view(shape)
        messages = ring.messages.select(0, 0).view(shape)
        # g(v): [B, W + 1, M, heads], and a . P p for a node as source and as target
        gate = torch.mul(v, self._content_gate, out=messages).sum(-1).add_(self._content_bias)
        p = ring.persona.view(rows * (window + 1), self.config.persona)
        key = torch.addmm(self._key_bias, p, self._key).view(rows, window + 1, 2, M, heads)
        source, target = (gate.unsqueeze(2) * key).unbind(2)  # [B, W + 1, M, heads]
        score = source + target.narrow(1, window, 1)
        score = F.leaky_relu_(score.add_(ring.persona_bias.unsqueeze(3)), SLOPE)
        weight = torch.softmax(score, dim=1).unsqueeze(4)
        y = torch.mul(v, weight, out=messages).sum(1)  # [B, M, heads, D]
        return y.view(rows, M, h).add_(self._persona_bias)

    def _with_graph(self, z: Tensor, ring: Ring, rows: int) -> Tensor:
        """#10-12: attend over the graph for both tasks' nodes z + t, and gate them.

        [B, M, H] -> [B, 2, M, H]. By linearity W (z + t) = W z + W t: the task's part of each
        product was computed in advance.
        """
        h, now = self.config.hidden, self.config.recurrence.window
        both = self._graph_first(z.view(1, rows * M, h), rows * M)
        value, gate = both.view(rows, M, 2 * h).split_with_sizes((h, h), dim=2)  # W z, D1 z
        ring.graph_value.select(1, now).view(rows, M, h).copy_(value.to(self.store))
        node = z.unsqueeze(1) + self._task  # [B, 2, M, H]
        gate_node = gate.unsqueeze(1) + self._task_gate
        y = F.elu(self._graph_attention(ring, rows), inplace=True).add_(node)
        gate_y = self._graph_gate(y.view(rows * 2 * M, h)).view(rows, 2, M, h)
        return _gated(gate_node, node, gate_y, y)

    def _graph_attention(self, ring: Ring, rows: int) -> Tensor:
        """A2.2: return sum_j weight_j (u_j + W t_j) + bias of the utterance's nodes: [B, 2, M, H].

        A source of the other task has the same u, only its W t differs. So the two weights of the
        previous utterance are summed, and W t is added last: the own task's, and its difference
        to the other's times the weight `other`.
        """
        h, heads = self.config.hidden, self.config.graph_heads
        window = self.config.recurrence.window
        u = ring.graph_value.view(rows, window + 1, M, heads, h // heads)
        own = u.select(1, window)  # [B, M, heads, D]
        weight = self._graph_weights(u, own, ring, rows).unsqueeze(5)
        other_now, other_previous = weight.select(1, window), weight.select(1, window + 1)
        other = other_now + other_previous  # [B, 2, M, heads, 1]
        weight.select(1, window - 1).add_(other_previous)
        messages = ring.messages.view(rows, window + 1, 2, M, heads, -1)
        y = torch.mul(weight.narrow(1, 0, window + 1), u.unsqueeze(2), out=messages).sum(1)
        y += (weight.narrow(1, window + 2, M) * own.view(rows, M, 1, 1, heads, -1)).sum(1)
        y += torch.addcmul(self._task_value, other, self._task_difference)
        return y.view(rows, 2, M, h)

    def _graph_weights(self, u: Tensor, own: Tensor, ring: Ring, rows: int) -> Tensor:
        """Return the softmax of LeakyReLU(source_j + target + bias_j): [B, W + 5, 2, M, heads].

        Sources: W past utterances of the same task; of the other task the utterance itself (W) and
        the previous one (W + 1); the M modalities of the utterance.
        """
        heads, window = self.config.graph_heads, self.config.recurrence.window
        messages = ring.messages.select(0, 0).view(rows, window + 1, M, heads, -1)
        source = torch.mul(u, self._graph_source, out=messages).sum(-1)  # [B, W + 1, M, heads]
        target = (own * self._graph_target).sum(-1).view(rows, 1, 1, M, heads)
        modalities = source.select(1, window).view(rows, M, 1, 1, heads) + self._own_bias
        past = torch.cat((source, source.narrow(1, window - 1, 1)), dim=1)  # [B, W + 2, M, heads]
        past = past.unsqueeze(2) + ring.graph_bias.view(rows, window + 2, 2, 1, heads)
        score = torch.cat((past, modalities), dim=1).add_(target)  # [B, W + 5, 2, M, heads]
        return torch.softmax(F.leaky_relu_(score, SLOPE), dim=1)

    def _compose_persona(self) -> None:
        """Fold projection, key and attention vectors: a key's score is linear in the persona."""
        h, heads = self.config.hidden, self.config.persona_heads
        d, width = h // heads, self.config.persona
        at = "persona_attention."
        key = self._take(at + "key.weight", M, h, h).view(M, heads, d, h)
        key_bias = self._take(at + "key.bias", M, h).view(M, heads, d)
        ends = torch.stack([self._take(at + end, M, heads, d) for end in ("source", "target")])
        onto = torch.einsum("emkd,mkdh->emkh", ends, key)  # [2, M, heads, H]
        projection = self._take("persona_projection.weight", 1, h, width)[0]
        offset = self._take("persona_projection.bias", 1, h)[0]
        self._key = (onto @ projection).flatten(0, 2).t().contiguous()  # [persona, 2 M heads]
        self._key_bias = (onto @ offset + (ends * key_bias).sum(-1)).flatten()
        self._content_gate = self._take(at + "gate", M, heads, d)
        self._content_bias = self._take(at + "gate_bias", M, heads)
        self._persona_bias = self._take(at + "bias", M, h)

    def _compose_graph(self) -> None:
        """Compute the tasks' parts of values, gates and scores, and tabulate the scores' biases."""
        h, heads = self.config.hidden, self.config.graph_heads
        at, d = "graph_attention.", h // heads
        self._graph_source = self._take(at + "source", heads, d)
        self._graph_target = self._take(at + "target", heads, d)
        self._task = self._take("task", TASKS, h)[:, None]  # [2, 1, H]
        self._task_gate = self._task @ self._take("graph_gate.first.weight", 1, h, h)[0].t()
        bias = self._take(at + "bias", h).view(heads, d)
        value = self._task @ self._take(at + "value.weight", 1, h, h)[0].t()
        value = value.view(TASKS, heads, d)  # W t
        self._task_value = value[:, None] + bias  # [2, 1, heads, D]
        self._task_difference = (value.flip(0) - value)[:, None]
        as_source = (value * self._graph_source).sum(-1)  # [2, heads]
        as_target = (value * self._graph_target).sum(-1)
        relation = self._take(at + "relation_bias", 8, heads)
        own = torch.stack([relation[SAME_TIME], relation[SAME_TIME + 3]])
        self._own_bias = (own + as_source + as_target)[:, None].repeat(1, M, 1)  # [2, M, heads]
        self._bias_table = self._tabulate(relation, as_source, as_target)

    def _tabulate(self, relation: Tensor, as_source: Tensor, as_target: Tensor) -> Tensor:
        """Return the graph's and the persona's score biases [3 W + 3, 2 heads + 1].

        Rows as in `relation_codes`; columns ERC heads, ES heads, then 0 or -inf of the persona.
        """
        heads, window = self.config.graph_heads, self.config.recurrence.window
        weights = self._take("graph_attention.distance_weight", len(FAR_RELATIONS), heads)
        far = dict(zip(FAR_RELATIONS, weights, strict=True))
        distance = torch.log1p(torch.arange(window, 0, -1.0, device=weights.device))[:, None]
        past = torch.full((3, window, TASKS, heads), -torch.inf, device=weights.device)
        for task in range(TASKS):
            for code in (INTRA, INTER):
                r = code + 3 * task
                ends = as_source[task] + as_target[task]
                past[code, :, task] = relation[r] + far[r] * distance + ends
        ends = as_source.flip(0) + as_target  # into ERC from ES, into ES from ERC
        itself = torch.stack([relation[TO_ERC], relation[TO_ES]]) + ends  # [2, heads]
        previous = itself + torch.stack([far[TO_ERC], far[TO_ES]]) * distance[-1]
        other_task = torch.stack([itself, previous, torch.full_like(itself, -torch.inf)])
        graph = torch.cat((past.flatten(0, 1), other_task)).flatten(1)
        persona = torch.zeros(len(graph), 1, device=weights.device)
        persona[:window] = -torch.inf
        return torch.cat((graph, persona), dim=1)

    def _take(self, name: str, *shape: int) -> Tensor:
        tensor = self._weights[name]
        if tuple(tensor.shape) != shape:
            raise ValueError(f"{name} is {tuple(tensor.shape)}, the settings need {shape}")
        return tensor

    def _slots(self, name: str, slots: int, inputs: int, outputs: int) -> list[RowLinear]:
        weight = self._take(f"{name}.weight", slots, outputs, inputs)
        return list(map(row_linear, weight, self._take(f"{name}.bias", slots, outputs)))

    def _stacked(self, first: str, second: str, slots: int) -> RowLinears:
        """Return two layers that read the same input, as one of twice the width."""
        h = self.config.hidden
        weight = [self._take(f"{n}.weight", slots, h, h) for n in (first, second)]
        bias = [self._take(f"{n}.bias", slots, h) for n in (first, second)]
        return RowLinears(list(map(row_linear, torch.cat(weight, 1), torch.cat(bias, 1))))

    def _shift_and_evidence(self, width: int, classes: int) -> RowLinear:
        """Return both heads as one layer, [9H] -> [C * C]; evidence is alike for every *from*."""
        weight = self._take("shift_head.weight", classes**2, 2 * width)
        evidence = self._take("evidence_head.weight", classes, width)
        bias = self._take("shift_head.bias", classes**2)
        bias = bias + self._take("evidence_head.bias", classes).repeat(classes)
        return row_linear(torch.cat((weight, evidence.repeat(classes, 1)), dim=1), bias)

    def _recurrent_layers(self) -> tuple[list[RowLinears], RowLinears, list[Tensor]]:
        """Return products of inputs, by layer, and of all old states; n's biases, by layer.

        The old states do not wait for the layer below, so their products are one call. Biases of r
        and z are summed into it; n's bias is added apart, because r scales the old state's.
        """
        h = self.config.hidden
        inputs, states, biases, n_biases = [], [], [], []
        for layer in range(2):
            x_layers, h_layers = self._cells(f"ih{layer}"), self._cells(f"hh{layer}")
            bias = torch.stack([cell.bias for cell in h_layers])
            x_bias = torch.stack([cell.bias for cell in x_layers])
            bias[:, : 2 * h] += x_bias[:, : 2 * h]
            inputs.append(RowLinears(x_layers))
            states += h_layers
            biases.append(bias)
            n_biases.append(x_bias[:, None, 2 * h :].contiguous())
        return inputs, RowLinears(states, torch.cat(biases)[:, None]), n_biases

    def _cells(self, end: str) -> list[RowLinear]:
        h = self.config.hidden
        cells: list[RowLinear] = []
        for gru, n in (("context", 1), ("speaker", M)):
            weight = self._take(f"{gru}.w_{end}", n, 3 * h, h)
            cells += map(row_linear, weight, self._take(f"{gru}.b_{end}", n, 3 * h))
        return cells


def _gru_cell(x_gates: Tensor, h_gates: Tensor, n_bias: Tensor, h: Tensor, width: int) -> Tensor:
    """Gates r, z and n of input and old state [4, B, 3H], the old state [4, B, H] -> [4, B, H]."""
    x_rz, x_n = x_gates.split_with_sizes((2 * width, width), dim=2)
    h_rz, h_n = h_gates.split_with_sizes((2 * width, width), dim=2)
    r, z = x_rz.add_(h_rz).sigmoid_().split_with_sizes((width, width), dim=2)
    n = x_n.add_(n_bias).addcmul_(r, h_n).tanh_()
    return torch.lerp(n, h, z)


def _gated(first: Tensor, x: Tensor, second: Tensor, y: Tensor) -> Tensor:
    """Return sigmoid(first) * x + sigmoid(second) * y."""
    return (torch.sigmoid(first) * x).addcmul_(second.sigmoid_(), y)
