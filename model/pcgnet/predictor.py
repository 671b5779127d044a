"""PCGNet for serving: windows and utterances in, calibrated predictions and new arrays out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Final, cast

import numpy as np
import torch
from msgspec import structs

from model.errors import EncoderMissing
from model.fault_points import reach
from model.interface import MODALITIES, Modality, Prediction, Tensor, Turn
from model.pcgnet.checkpoint import Checkpoint, load_checkpoint
from model.pcgnet.config import PcgnetConfig
from model.pcgnet.step import PcgnetStep, StepInput, scratch_per_row, state_spec
from model.pcgnet.turn_buffer import TurnBuffer
from model.serving.device import Answer, device_errors, traced
from model.serving.predictor import CheckpointPredictor, Computed, bytes_of
from model.serving.row_stable import CANDIDATE_SIZES, empty_turn, proven_sizes
from model.text.sentence_encoder import SentenceEncoder, TextRepeats, find_encoder

CUDA_SIZES: Final = (16, 64, 256, 1024)


class PcgnetPredictor(CheckpointPredictor):
    """A PCGNet on a device."""

    load_checkpoint = staticmethod(load_checkpoint)
    checkpoint: Checkpoint
    _config: PcgnetConfig

    def __init__(
        self, checkpoint: Checkpoint, device: torch.device, encoder: Path | None = None
    ) -> None:
        """Prove batch sizes on this machine: a fraction of a second."""
        config = checkpoint.config
        tuned = {"text"} if checkpoint.text is not None and checkpoint.text.delta else ()
        super().__init__(
            checkpoint,
            device,
            encoder,
            spec=state_spec(config, checkpoint.digest),
            inputs={name: width for name, width in config.widths.items() if width},
            tuned=frozenset(tuned),
        )
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
        turns = self._sample_turns(max(candidates))
        self.batch_sizes = proven_sizes(
            lambda rows: bytes_of(self._compute([turns[i] for i in rows])), len(turns), candidates
        )

    def warm_up(self) -> None:
        """Run each batch size once, and load and run the sentence encoder where there is one."""
        with device_errors():
            for size in self.batch_sizes:
                self._compute([empty_turn(self.spec)] * size)
        if self.can_encode_text():
            self._fitting_encoder().encode(["Hello."])

    @cached_property
    def _encoder(self) -> SentenceEncoder:
        repeats = TextRepeats(self._remembered_texts, self._texts_at_once)
        folder = find_encoder(self._encoder_folder)
        return SentenceEncoder.load(folder, self.checkpoint.text, repeats)

    def predict(self, turns: Sequence[Turn]) -> list[Prediction]:
        with device_errors():
            turns, unknown = self._with_text(turns)
            answers = ((c, self._compute([turns[i] for i in c])) for c in self._chunks(turns))
            return self._predictions(turns, answers, self._doubts(turns, unknown))

    def begin(self, turns: Sequence[Turn]) -> Callable[[], list[Prediction]]:
        """Predict in another thread, see `model.interface.Predictor.begin`."""
        with device_errors():
            turns, unknown = self._with_text(turns)
            # Filled here: another thread would wait for the GIL at every array it writes.
            pending = []
            for chunk in self._chunks(turns):
                buffer = self._filled([turns[i] for i in chunk])
                pending.append((chunk, self._background.submit(self._run, buffer, len(chunk))))
            doubts = self._doubts(turns, unknown)  # meanwhile

        def end() -> list[Prediction]:
            with device_errors():
                answers = ((chunk, answer.result()) for chunk, answer in pending)
                return self._predictions(turns, answers, doubts)

        return end

    def _chunks(self, turns: Sequence[Turn]) -> list[range]:
        """Return the places of the turns of each batch."""
        every, largest = range(len(turns)), self.batch_sizes[-1]
        return [every[at : at + largest] for at in range(0, len(turns), largest)]

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

        def step(*inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            out = self._step(StepInput(*inputs), rows)
            return self._probabilities(out.emotion, out.shift), out.stored

        return step

    def _used(self, turn: Turn) -> list[str]:
        widths = self._config.widths
        used: list[str] = [name for name in MODALITIES if name in turn.features and widths[name]]
        return used if turn.persona is None else [*used, "persona"]

    def _with_text(self, turns: Sequence[Turn]) -> tuple[Sequence[Turn], list[int]]:
        """Encode the raw text of turns without a text vector.

        Also return the places of those whose words the encoder mostly does not know.
        """
        raw = [i for i, t in enumerate(turns) if t.text is not None and "text" not in t.features]
        if not raw or not self._config.text:
            return turns, []
        encoder = self._fitting_encoder()
        tokens = [encoder.tokens(cast(str, turns[i].text)) for i in raw]
        vectors = encoder.encode_tokens(tokens)
        changed = list(turns)
        for i, vector in zip(raw, vectors, strict=True):
            text = Tensor("float16", vector.shape, vector.tobytes())
            changed[i] = structs.replace(turns[i], features={**turns[i].features, "text": text})
        known = zip(raw, tokens, strict=True)
        return changed, [i for i, ids in known if encoder.knows_little_of(ids)]

    def _fitting_encoder(self) -> SentenceEncoder:
        encoder = self._encoder
        if encoder.width != self._config.text:
            raise EncoderMissing(
                f"the sentence encoder gives {encoder.width} numbers, the model needs "
                f"{self._config.text}: name the model's own encoder folder with --encoder, or "
                "publish text vectors"
            )
        return encoder

    def _sample_turns(self, rows: int) -> list[Turn]:
        """Create different turns to prove sizes with, of any subset of inputs."""
        draw, seed = np.random.default_rng(0), torch.Generator().manual_seed(0)
        config, turns = self._config, []
        for i in range(rows):
            window = self._sample_window(i, seed)
            features: dict[Modality, Tensor] = {}
            for column, name in enumerate(MODALITIES):
                if config.widths[name] and (i >> column) % 2 == 0:
                    vector = draw.normal(size=config.widths[name]).astype(np.float32)
                    features[name] = Tensor("float32", vector.shape, vector.tobytes())
            persona = tuple(draw.uniform(size=config.persona).tolist()) if i % 3 else None
            turns.append(Turn(window, f"speaker {i % 4}", features, persona))
        return turns


load_predictor = PcgnetPredictor.load
