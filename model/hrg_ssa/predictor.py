"""HRG-SSA for serving: windows and words in, calibrated predictions and new arrays out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np
import torch
from msgspec import structs

from model.errors import CheckpointError
from model.fault_points import reach
from model.hrg_ssa.checkpoint import HrgCheckpoint, load_checkpoint
from model.hrg_ssa.collate import padded
from model.hrg_ssa.config import FELT, NODES, HrgSsaConfig
from model.hrg_ssa.model import Product
from model.interface import Prediction, Turn
from model.serving.device import STORE_DTYPES, Answer, device_errors, traced
from model.serving.predictor import CheckpointPredictor, Computed, bytes_of
from model.serving.row_stable import empty_turn, proven_sizes
from model.text.sentence_encoder import find_encoder
from model.text.token_encoder import TokenEncoder
from state.window import ArraySpec, Recurrence, StateSpec, read_numbers

# Utterances are padded to one of these lengths in tokens, each to its own and not its batch's
# longest; longer ones are rare and run alone, exact by construction.
LENGTHS: Final = (12, 24)
SIZES: Final = (1, 2, 4, 8, 16)


def state_spec(config: HrgSsaConfig, model_digest: str) -> StateSpec:
    """Return the arrays that a conversation stores: 5.3 KiB an utterance at d=384, k=4; no words.

    Per utterance the pooled vectors, the three nodes before the graph and the emotion and sentiment
    that the model answered; per speaker the shift head's input of the last answer.
    """
    d, dtype = config.width, config.store_dtype
    return StateSpec(
        utterance=(
            ArraySpec("pooled", (config.pooled, d), dtype),
            ArraySpec("nodes", (len(NODES), d), dtype),
            ArraySpec("label_words", (2,), dtype),
        ),
        conversation=(),
        speaker=(ArraySpec("spoke", (config.spoke_width,), dtype),),
        recurrence=config.recurrence,
        model_digest=model_digest,
    )


class HrgSsaPredictor(CheckpointPredictor):
    """An HRG-SSA on a device."""

    load_checkpoint = staticmethod(load_checkpoint)
    checkpoint: HrgCheckpoint
    _config: HrgSsaConfig

    def __init__(
        self, checkpoint: HrgCheckpoint, device: torch.device, encoder: Path | None = None
    ) -> None:
        """Prove batch sizes on this machine: a few seconds."""
        widths = checkpoint.config.widths
        super().__init__(
            checkpoint,
            device,
            encoder,
            spec=state_spec(checkpoint.config, checkpoint.digest),
            inputs={n: widths[n] for n in FELT if widths[n]},  # text comes as words, no vector
            tuned=frozenset({"text"}),
        )
        self._model = checkpoint.model().to(device).requires_grad_(False)
        for module in self._model.modules():
            if isinstance(module, Product):
                module.pack()
        self._traced: dict[tuple[int, int], Answer] = {}  # by length and size
        # Proven numbers of rows by padded length in tokens.
        self.batch_sizes = {length: self._prove(length) for length in LENGTHS}

    @staticmethod
    def _weights_for(
        path: Path, checkpoint: HrgCheckpoint, recurrence: Recurrence
    ) -> Mapping[str, torch.Tensor]:
        trained = checkpoint.config.recurrence.window
        if recurrence.window > trained:
            raise CheckpointError(
                f"checkpoint {path} was trained to hear {trained} past "
                f"utterances, not {recurrence.window}: set EMOTRACK_WINDOW no higher, or train one"
            )
        weights = dict(checkpoint.weights)
        if recurrence.window < trained:  # the tags of the nearest slots are left
            weights["past_tag"] = weights["past_tag"][-recurrence.window :]
        return weights

    def warm_up(self) -> None:
        """Load and run the encoder where there is one; proving has run everything else."""
        if self.can_encode_text():
            self._encoder.states("Hello.")

    def predict(self, turns: Sequence[Turn]) -> list[Prediction]:
        with device_errors():
            none, states, read, unknown = torch.zeros(0, self._config.text), [], [], []
            for place, turn in enumerate(turns):
                state = none if turn.text is None else self._encoder.states(turn.text)
                states.append(state)
                read.append(turn if len(state) else structs.replace(turn, text=None))
                if turn.text is not None and self._encoder.knows_little_of(turn.text):
                    unknown.append(place)
            doubts = self._doubts(turns, unknown)
            return self._predictions(read, self._answers(turns, states), doubts)

    def _answers(
        self, turns: Sequence[Turn], states: Sequence[torch.Tensor]
    ) -> Iterator[tuple[Sequence[int], Computed]]:
        """Answer utterances of about one length together."""
        by_length: dict[int, list[int]] = {}
        for i, state in enumerate(states):
            tokens = len(state)
            length = next((length for length in LENGTHS if tokens <= length), tokens)
            by_length.setdefault(length, []).append(i)
        for length, rows in by_length.items():
            largest = self.batch_sizes.get(length, (1,))[-1]
            for at in range(0, len(rows), largest):
                chunk = rows[at : at + largest]
                yield (
                    chunk,
                    self._compute([turns[i] for i in chunk], [states[i] for i in chunk], length),
                )

    def _compute(
        self, turns: Sequence[Turn], states: Sequence[torch.Tensor], length: int
    ) -> Computed:
        """Return probabilities [rows, C + C * C] and bytes to store [rows, row + speaker]."""
        config, count = self._config, len(turns)
        size = next(s for s in self.batch_sizes.get(length, (1,)) if s >= count)
        blank = [empty_turn(self.spec)] * (size - count)
        rows = [*turns, *blank]
        words = [*states, *(torch.zeros(0, config.text),) * len(blank)]
        ring, speaker, before = self._past(rows)
        felt, present = _felt(rows, config)
        with torch.inference_mode():
            parts = (*padded(words, length), *felt, present, ring, speaker, before)
            inputs = tuple(part.to(self._device) for part in parts)
            reach("F3")
            if (length, size) not in self._traced:
                usual = self._device.type == "cpu" and length in LENGTHS
                step = traced(self._answer, inputs) if usual else self._answer
                self._traced[length, size] = step
            numbers, stored = self._traced[length, size](*inputs)
            reach("F4")  # on a device, the answer is still on its way
        return numbers.cpu().numpy()[:count], stored.cpu().view(torch.uint8).numpy()[:count]

    def _answer(
        self, tokens: torch.Tensor, there: torch.Tensor, audio: torch.Tensor, video: torch.Tensor,
        present: torch.Tensor, ring: torch.Tensor, speaker: torch.Tensor, before: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
        """Return probabilities before their maps [B, C + C * C] and values to store [B, values]."""
        c = self._config
        values = ring.float()  # [B, W, row]
        ends = c.pooled * c.width, (c.pooled + len(NODES)) * c.width
        shape = (len(ring), c.recurrence.window, -1, c.width)
        pooled = values[..., : ends[0]].reshape(shape)
        nodes = values[..., ends[0] : ends[1]].reshape(shape)
        encoded = self._model.encode(tokens, there, (audio, video), present)
        emotion, shift, stored = self._model.step(encoded, pooled, nodes, speaker, before.float())
        numbers = self._probabilities(emotion, shift)
        return numbers, stored.to(STORE_DTYPES[c.store_dtype]).contiguous()

    def _past(self, turns: Sequence[Turn]) -> tuple[torch.Tensor, ...]:
        """Gather each row's stored past, right-aligned: rows, speakers, the last answer."""
        c, spec, rows = self._config, self.spec, len(turns)
        window, dtype = c.recurrence.window, STORE_DTYPES[c.store_dtype]
        ring = np.zeros((rows, window, spec.row_bytes), np.uint8)
        spoke = np.zeros((rows, spec.speaker_bytes), np.uint8)
        speaker = np.full((rows, window + 1), -1, np.int64)
        for row, turn in enumerate(turns):
            names = turn.window.row_speakers
            number = {name: i for i, name in enumerate(dict.fromkeys((*names, turn.speaker_id)))}
            speaker[row, window] = number[turn.speaker_id]
            if names:
                ring[row, -len(names) :] = turn.window.rows
                speaker[row, window - len(names) : window] = [number[name] for name in names]
            known = turn.window.speakers.get(turn.speaker_id)
            if known is not None:
                spoke[row] = known.arrays
        stored = torch.from_numpy(ring).view(dtype), torch.from_numpy(spoke).view(dtype)
        return stored[0], torch.from_numpy(speaker), stored[1]

    def _used(self, turn: Turn) -> list[str]:
        felt = [name for name in FELT if name in turn.features and self._config.widths[name]]
        return [*felt] if turn.text is None else ["text", *felt]

    @cached_property
    def _encoder(self) -> TokenEncoder:
        return TokenEncoder.load(
            find_encoder(self._encoder_folder),
            self.checkpoint.text,
            most_tokens=self._config.most_tokens,
            remembered=self._remembered_texts,
        )

    def _prove(self, length: int) -> tuple[int, ...]:
        """Return the batch sizes that answer as single rows do, on varied windows and words."""
        draw = torch.Generator().manual_seed(length)
        samples = []
        for i in range(max(SIZES)):
            window = self._sample_window(i, draw)
            tokens = torch.randn(i % (length + 1), self._config.text, generator=draw)
            samples.append((Turn(window, f"speaker {i % 4}", {}), tokens))
        self.batch_sizes = {length: SIZES}

        def compute(chosen: Sequence[int]) -> list[bytes]:
            turns, states = zip(*(samples[i] for i in chosen), strict=True)
            return bytes_of(self._compute(turns, states, length))

        return proven_sizes(compute, len(samples), SIZES)


def _felt(turns: Sequence[Turn], config: HrgSsaConfig) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Return audio and video [rows, width], zero where absent, and their presence [rows, 2]."""
    present = torch.zeros(len(turns), len(FELT), dtype=torch.bool)
    columns = []
    for i, name in enumerate(FELT):
        values = np.zeros((len(turns), config.widths[name]), np.float32)
        for row, turn in enumerate(turns):
            vector = turn.features.get(name)
            if vector is not None and config.widths[name]:
                values[row] = read_numbers(vector.dtype, vector.data)
                present[row, i] = True
        columns.append(torch.from_numpy(values))
    return columns, present


load_predictor = HrgSsaPredictor.load
