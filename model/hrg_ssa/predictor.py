"""HRG-SSA for serving: windows and words in, calibrated predictions and new arrays out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Final, Self

import numpy as np
import torch
from numpy.typing import NDArray

from model.errors import CheckpointError, EncoderMissing, NotFinite
from model.fault_points import reach
from model.hrg_ssa.checkpoint import HrgCheckpoint, load_hrg_checkpoint
from model.hrg_ssa.collate import padded
from model.hrg_ssa.config import FELT, NODES, HrgSsaConfig
from model.hrg_ssa.model import Product
from model.interface import ModelInfo, Prediction, ServingOptions, Turn
from model.interface import numbers as read_vector
from model.serving.device import (
    STORE_DTYPES,
    Answer,
    chosen_device,
    device_errors,
    not_finite,
    overridden,
    refuse_research,
    traced,
    weights_that_fit,
)
from model.serving.row_stable import empty_turn, proven_sizes, sample_window
from model.text.sentence_encoder import find_encoder
from model.text.token_encoder import TokenEncoder
from state.window import Applied, ArraySpec, StateSpec

# Utterances are padded to one of these lengths in tokens, each to its own and not its batch's
# longest; longer ones are rare and run alone, exact by construction.
LENGTHS: Final = (12, 24)
SIZES: Final = (1, 2, 4, 8, 16)

Bytes2 = NDArray[np.uint8]
Floats2 = NDArray[np.float32]


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


class HrgSsaPredictor:
    """A checkpoint on a device: a `model.interface.Predictor`, for one thread at a time."""

    def __init__(
        self, checkpoint: HrgCheckpoint, device: torch.device, encoder: Path | None = None
    ) -> None:
        """Prove batch sizes on this machine: a few seconds."""
        self.checkpoint = checkpoint
        self._config, self._device = checkpoint.config, device
        self._encoder_folder = encoder
        self._spec = state_spec(checkpoint.config, checkpoint.digest)
        self._model = checkpoint.model().to(device).requires_grad_(False)
        for module in self._model.modules():
            if isinstance(module, Product):
                module.pack()
        self._traced: dict[tuple[int, int], Answer] = {}  # by length and size
        self._sizes = {length: self._prove(length) for length in LENGTHS}

    @classmethod
    def load(cls, path: Path, serving: ServingOptions) -> Self:
        """Load a checkpoint folder, see `model.registry.load_predictor`."""
        checkpoint = load_hrg_checkpoint(path)
        config = checkpoint.config
        refuse_research(path, config.research)
        recurrence = overridden(config.recurrence, serving)
        if recurrence.window > config.recurrence.window:
            raise CheckpointError(
                f"checkpoint {path} was trained to hear {config.recurrence.window} past "
                f"utterances, not {recurrence.window}: set EMOTRACK_WINDOW no higher, or train one"
            )
        weights = dict(checkpoint.weights)
        if recurrence.window < config.recurrence.window:  # the tags of the nearest slots are left
            weights["past_tag"] = weights["past_tag"][-recurrence.window :]
        torch.set_num_threads(serving.threads)
        chosen = chosen_device(serving.device)
        config = replace(config, recurrence=recurrence)
        with device_errors(), weights_that_fit(path):
            checkpoint = replace(checkpoint, config=config, weights=weights)
            return cls(checkpoint, chosen, serving.encoder)

    @property
    def info(self) -> ModelInfo:
        """The checkpoint's description; text comes as words, so it is no vector input."""
        c = self.checkpoint
        inputs: dict[str, int] = {n: c.config.widths[n] for n in FELT if c.config.widths[n]}
        return c.info(inputs, frozenset({"text"}))

    @property
    def spec(self) -> StateSpec:
        return self._spec

    @property
    def device(self) -> str:
        return str(self._device)

    @property
    def batch_sizes(self) -> dict[int, tuple[int, ...]]:
        """Proven numbers of rows by padded length in tokens."""
        return self._sizes

    def warm_up(self) -> None:
        """Load and run the encoder where there is one; proving has run everything else."""
        if self.can_encode_text():
            self._words.states("Hello.")

    def can_encode_text(self) -> bool:
        """Return True where the checkpoint's own text encoder is installed."""
        try:
            return self._words.width == self._config.text
        except EncoderMissing:
            return False

    def begin(self, turns: Sequence[Turn]) -> Callable[[], list[Prediction]]:
        return partial(self.predict, turns)

    def predict(self, turns: Sequence[Turn]) -> list[Prediction]:
        with device_errors():
            none = torch.zeros(0, self._config.text)
            states = [
                none if turn.text is None else self._words.states(turn.text) for turn in turns
            ]
            by_length: dict[int, list[int]] = {}
            for i, state in enumerate(states):
                tokens = len(state)
                length = next((length for length in LENGTHS if tokens <= length), tokens)
                by_length.setdefault(length, []).append(i)
            predictions: dict[int, Prediction] = {}
            bad: list[int] = []
            for length, rows in by_length.items():
                largest = self._sizes.get(length, (1,))[-1]
                for at in range(0, len(rows), largest):
                    chunk = rows[at : at + largest]
                    numbers, stored = self._compute(
                        [turns[i] for i in chunk], [states[i] for i in chunk], length
                    )
                    bad += [chunk[i] for i in not_finite(numbers, stored, self._config.store_dtype)]
                    for i, values, row in zip(chunk, numbers.tolist(), stored, strict=True):
                        predictions[i] = self._read(turns[i], len(states[i]) > 0, values, row)
        if bad:
            raise NotFinite(sorted(bad))
        return [predictions[i] for i in range(len(turns))]

    def device_memory_bytes(self) -> int:
        on_cuda = self._device.type == "cuda"
        return int(torch.cuda.memory_allocated(self._device)) if on_cuda else 0

    def _compute(
        self, turns: Sequence[Turn], states: Sequence[torch.Tensor], length: int
    ) -> tuple[Floats2, Bytes2]:
        """Return probabilities [rows, C + C * C] and bytes to store [rows, row + speaker]."""
        config, count = self._config, len(turns)
        size = next(s for s in self._sizes.get(length, (1,)) if s >= count)
        blank = [empty_turn(self._spec)] * (size - count)
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
        c, fitted = self._config, self.checkpoint.calibration
        values = ring.float()  # [B, W, row]
        ends = c.pooled * c.width, (c.pooled + len(NODES)) * c.width
        shape = (len(ring), c.recurrence.window, -1, c.width)
        pooled = values[..., : ends[0]].reshape(shape)
        nodes = values[..., ends[0] : ends[1]].reshape(shape)
        encoded = self._model.encode(tokens, there, (audio, video), present)
        emotion, shift, stored = self._model.step(encoded, pooled, nodes, speaker, before.float())
        emotion = torch.softmax(emotion / fitted.emotion, dim=1)
        shift = torch.softmax(shift / fitted.shift, dim=1)
        numbers = torch.cat((emotion, shift), dim=1)
        return numbers, stored.to(STORE_DTYPES[c.store_dtype]).contiguous()

    def _past(self, turns: Sequence[Turn]) -> tuple[torch.Tensor, ...]:
        """Gather each row's stored past, right-aligned: rows, speakers, the last answer."""
        c, spec, rows = self._config, self._spec, len(turns)
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

    def _read(
        self, turn: Turn, spoken: bool, values: list[float], stored: NDArray[np.uint8]
    ) -> Prediction:
        classes, row_end = self._config.classes, self._spec.row_bytes
        calibration = self.checkpoint.calibration
        known = turn.speaker_id in turn.window.speakers
        shift, moved = calibration.stated_shift(values[classes:]) if known else (None, None)
        used = ["text"] if spoken else []
        used += [name for name in FELT if name in turn.features and self._config.widths[name]]
        applied = Applied(  # copies: a view would keep the whole batch alive
            row=stored[:row_end].copy(),
            arrays=np.empty(0, np.uint8),
            speaker=stored[row_end:].copy(),
        )
        stated = calibration.stated(values[:classes])
        return Prediction(stated, shift, moved, tuple(used), applied)

    @cached_property
    def _words(self) -> TokenEncoder:
        return TokenEncoder.load(
            find_encoder(self._encoder_folder),
            self.checkpoint.text,
            most_tokens=self._config.most_tokens,
        )

    def _prove(self, length: int) -> tuple[int, ...]:
        """Return the batch sizes that answer as single rows do, on varied windows and words."""
        c, draw = self._config, torch.Generator().manual_seed(length)
        samples = []
        for i in range(max(SIZES)):
            past = i % (c.recurrence.window + 1)
            window = sample_window(self._spec, STORE_DTYPES[c.store_dtype], past, draw)
            tokens = torch.randn(i % (length + 1), c.text, generator=draw)
            samples.append((Turn(window, f"speaker {i % 4}", {}), tokens))
        self._sizes = {length: SIZES}

        def compute(chosen: Sequence[int]) -> list[bytes]:
            turns, states = zip(*(samples[i] for i in chosen), strict=True)
            numbers, stored = self._compute(turns, states, length)
            return [a.tobytes() + s.tobytes() for a, s in zip(numbers, stored, strict=True)]

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
                values[row] = read_vector(vector)
                present[row, i] = True
        columns.append(torch.from_numpy(values))
    return columns, present
