"""PCGNet for serving: windows and utterances in, calibrated predictions and new arrays out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import Final, Self, cast

import numpy as np
import torch
from msgspec import structs
from numpy.typing import NDArray

from model.errors import EncoderMissing, NotFinite
from model.fault_points import reach
from model.interface import (
    MODALITIES,
    Modality,
    Prediction,
    ServingOptions,
    Tensor,
    Turn,
)
from model.pcgnet.checkpoint import Checkpoint, load_checkpoint
from model.pcgnet.config import PcgnetConfig
from model.pcgnet.step import PcgnetStep, StepInput, scratch_per_row, state_spec
from model.pcgnet.turn_buffer import TurnBuffer
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
from model.serving.row_stable import (
    CANDIDATE_SIZES,
    empty_turn,
    proven_sizes,
    sample_window,
)
from model.text.sentence_encoder import SentenceEncoder, find_encoder
from state.window import Applied, StateSpec

CUDA_SIZES: Final = (16, 64, 256, 1024)

Computed = tuple[NDArray[np.float32], NDArray[np.uint8]]
"""Probabilities [rows, C + C * C]; bytes to store [rows, row + conversation + speaker]."""


class PcgnetPredictor:
    """A checkpoint on a device: a `model.interface.Predictor`, called by one thread."""

    def __init__(
        self, checkpoint: Checkpoint, device: torch.device, encoder: Path | None = None
    ) -> None:
        """Prove batch sizes on this machine: a fraction of a second."""
        config = checkpoint.config
        self.checkpoint = checkpoint
        self._config, self._device = config, device
        self._encoder_folder = encoder
        self._encoder: SentenceEncoder | None = None
        self.spec = state_spec(config, checkpoint.digest)
        self.device = str(device)
        tuned = {"text"} if checkpoint.text is not None and checkpoint.text.delta else ()
        inputs = {name: width for name, width in config.widths.items() if width}
        self.info = checkpoint.info(inputs, frozenset(tuned))
        self._step = PcgnetStep(config, checkpoint.weights, device)
        self._buffers: dict[int, list[TurnBuffer]] = {}  # by batch size; those not in use
        self._computing = Lock()  # one batch computes at a time: they share the scratch
        self._background = ThreadPoolExecutor(1, "emotrack-model")  # starts with its first work
        self._steps: dict[int, Answer] = {}  # by batch size; recorded on a CPU
        candidates = CANDIDATE_SIZES if device.type == "cpu" else CUDA_SIZES
        scratch = max(candidates) * scratch_per_row(config)
        self._scratch = torch.empty(scratch, device=device)  # of all batches, one at a time
        # Numbers of rows that batches are padded to, proven to give a row the same bytes.
        self.batch_sizes: tuple[int, ...] = candidates
        turns = _sample_turns(self.spec, config, max(candidates))

        def compute(numbers: Sequence[int]) -> list[bytes]:
            answers, stored = self._compute([turns[i] for i in numbers])
            return [a.tobytes() + s.tobytes() for a, s in zip(answers, stored, strict=True)]

        self.batch_sizes = proven_sizes(compute, len(turns), candidates)

    @classmethod
    def load(cls, path: Path, serving: ServingOptions) -> Self:
        """Load a checkpoint folder, see `model.registry.load_predictor`.

        Sets the process's number of torch threads: sizes are proven for it.
        """
        checkpoint = load_checkpoint(path)
        refuse_research(path, checkpoint.config.research)
        recurrence = overridden(checkpoint.config.recurrence, serving)
        config = replace(checkpoint.config, recurrence=recurrence)
        torch.set_num_threads(serving.threads)
        chosen = chosen_device(serving.device)
        with device_errors(), weights_that_fit(path):
            return cls(replace(checkpoint, config=config), chosen, serving.encoder)

    def warm_up(self) -> None:
        """Run each batch size once, and load and run the sentence encoder where there is one."""
        with device_errors():
            for size in self.batch_sizes:
                self._compute([empty_turn(self.spec)] * size)
        if self.can_encode_text():
            self._encode(["Hello."])

    def can_encode_text(self) -> bool:
        """Return True where an encoder of the model's text width is installed."""
        try:
            return self._text_encoder().width == self._config.text
        except EncoderMissing:
            return False

    def predict(self, turns: Sequence[Turn]) -> list[Prediction]:
        with device_errors():
            turns = self._with_text(turns)
            return self._all_read((c, self._compute(c)) for c in self._chunks(turns))

    def begin(self, turns: Sequence[Turn]) -> Callable[[], list[Prediction]]:
        """Predict in another thread, see `model.interface.Predictor.begin`."""
        with device_errors():
            turns = self._with_text(turns)
            # Filled here: another thread would wait for the GIL at every array it writes.
            pending = [
                (chunk, self._background.submit(self._run, self._filled(chunk), len(chunk)))
                for chunk in self._chunks(turns)
            ]

        def end() -> list[Prediction]:
            with device_errors():
                return self._all_read((chunk, answer.result()) for chunk, answer in pending)

        return end

    def _chunks(self, turns: Sequence[Turn]) -> list[Sequence[Turn]]:
        largest = self.batch_sizes[-1]
        return [turns[at : at + largest] for at in range(0, len(turns), largest)]

    def _all_read(self, answers: Iterable[tuple[Sequence[Turn], Computed]]) -> list[Prediction]:
        """Return the predictions of all chunks. Raises `NotFinite`."""
        predictions: list[Prediction] = []
        bad: list[int] = []
        seen = 0
        for chunk, (numbers, stored) in answers:
            bad += [seen + row for row in not_finite(numbers, stored, self._config.store_dtype)]
            seen += len(chunk)
            if not bad:
                predictions += self._read(chunk, numbers, stored)
        if bad:
            raise NotFinite(bad)
        return predictions

    def device_memory_bytes(self) -> int:
        if self._device.type != "cuda":
            return 0
        return int(torch.cuda.memory_allocated(self._device))

    def _compute(self, turns: Sequence[Turn]) -> Computed:
        return self._run(self._filled(turns), len(turns))

    def _filled(self, turns: Sequence[Turn]) -> TurnBuffer:
        size = next(s for s in self.batch_sizes if s >= len(turns))
        if size not in self._buffers:
            self._buffers[size] = []
            self._step.prepare(size)
        free = self._buffers[size]
        buffer = free.pop() if free else TurnBuffer(size, self._config, self.spec, self._scratch)
        buffer.fill(turns)
        return buffer

    def _run(self, buffer: TurnBuffer, count: int) -> Computed:
        """Compute the first `count` rows of a buffer, one transfer to the device and one back.

        The buffer is then free to be filled again.
        """
        size = buffer.rows
        with self._computing, torch.inference_mode():
            inputs = buffer.on(self._device)
            reach("F3")
            on_cpu = self._device.type == "cpu"
            if size not in self._steps:
                step = self._step_of(size)
                self._steps[size] = traced(step, inputs) if on_cpu else step
            numbers, stored = self._steps[size](*inputs)
            reach("F4")  # a device may still be computing
            stored = stored.view(torch.uint8)
            if not on_cpu:  # probabilities and bytes in one transfer
                cut, dtype = numbers.shape[1] * numbers.element_size(), numbers.dtype
                both = torch.cat((numbers.view(torch.uint8), stored), dim=1).cpu()
                numbers, stored = both[:, :cut].contiguous().view(dtype), both[:, cut:]
        self._buffers[size].append(buffer)
        return numbers.numpy()[:count], stored.numpy()[:count]

    def _step_of(self, rows: int) -> Answer:
        """Return the step of a batch size, which is a plain number in a recording.

        It returns probabilities before their maps [B, C + C * C] and the values to store.
        """
        temperature = self.checkpoint.calibration

        def step(*inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            out = self._step(StepInput(*inputs), rows)
            emotion = torch.softmax(out.emotion / temperature.emotion, dim=1)
            shift = torch.softmax(out.shift / temperature.shift, dim=1)
            return torch.cat((emotion, shift), dim=1), out.stored

        return step

    def _read(
        self, turns: Sequence[Turn], numbers: NDArray[np.float32], stored: NDArray[np.uint8]
    ) -> list[Prediction]:
        widths, classes = self._config.widths, self._config.classes
        calibration = self.checkpoint.calibration
        row_end = self.spec.row_bytes
        conversation_end = row_end + self.spec.conversation_bytes
        predictions = []
        for turn, values, row in zip(turns, numbers.tolist(), stored, strict=True):
            known = turn.speaker_id in turn.window.speakers
            shift, moved = calibration.stated_shift(values[classes:]) if known else (None, None)
            applied = Applied(  # views of the batch: `Window.push` copies them
                row[:row_end], row[row_end:conversation_end], row[conversation_end:]
            )
            used: list[str] = [
                name for name in MODALITIES if name in turn.features and widths[name]
            ]
            if turn.persona is not None:
                used.append("persona")
            emotion = calibration.stated(values[:classes])
            predictions.append(Prediction(emotion, shift, moved, tuple(used), applied))
        return predictions

    def _with_text(self, turns: Sequence[Turn]) -> Sequence[Turn]:
        """Encode the raw text of turns without a text vector."""
        raw = [i for i, t in enumerate(turns) if t.text is not None and "text" not in t.features]
        if not raw or not self._config.text:
            return turns
        vectors = self._encode([cast(str, turns[i].text) for i in raw])
        changed = list(turns)
        for i, vector in zip(raw, vectors, strict=True):
            text = Tensor("float16", vector.shape, vector.tobytes())
            changed[i] = structs.replace(turns[i], features={**turns[i].features, "text": text})
        return changed

    def _encode(self, texts: Sequence[str]) -> NDArray[np.float16]:
        encoder = self._text_encoder()
        if encoder.width != self._config.text:
            raise EncoderMissing(
                f"the sentence encoder gives {encoder.width} numbers, the model needs "
                f"{self._config.text}: name the model's own encoder folder with --encoder, or "
                "publish text vectors"
            )
        return encoder.encode(texts)

    def _text_encoder(self) -> SentenceEncoder:
        if self._encoder is None:
            folder = find_encoder(self._encoder_folder)
            self._encoder = SentenceEncoder.load(folder, self.checkpoint.text)
        return self._encoder


def _sample_turns(spec: StateSpec, config: PcgnetConfig, rows: int) -> list[Turn]:
    """Create different turns to prove sizes with: windows of every length, any subset of inputs."""
    draw, seed = np.random.default_rng(0), torch.Generator().manual_seed(0)
    dtype, turns = STORE_DTYPES[config.store_dtype], []
    for i in range(rows):
        window = sample_window(spec, dtype, i % (config.recurrence.window + 1), seed)
        features: dict[Modality, Tensor] = {}
        for column, name in enumerate(MODALITIES):
            if config.widths[name] and (i >> column) % 2 == 0:
                vector = draw.normal(size=config.widths[name]).astype(np.float32)
                features[name] = Tensor("float32", vector.shape, vector.tobytes())
        persona = tuple(draw.uniform(size=config.persona).tolist()) if i % 3 else None
        turns.append(Turn(window, f"speaker {i % 4}", features, persona))
    return turns
