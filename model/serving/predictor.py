"""Shared by all predictors: loading, encoding where possible, and reading answers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from msgspec import structs
from numpy.typing import NDArray

from model.errors import CheckpointError, EncoderMissing, NotFinite
from model.interface import Doubt, ModelInfo, Prediction, ServingOptions, Turn
from model.serving.device import (
    STORE_DTYPES,
    chosen_device,
    device_errors,
    not_finite,
    overridden,
)
from model.serving.row_stable import sample_window
from state.window import Applied, Recurrence, StateSpec, Window

Computed = tuple[NDArray[np.float32], NDArray[np.uint8]]
"""Probabilities [rows, C + C * C]; bytes to store [rows, row + conversation + speaker]."""


class CheckpointPredictor(ABC):
    """A checkpoint on a device: a `model.interface.Predictor`, called by one thread."""

    load_checkpoint: ClassVar[Any]  # a model's: reads and verifies a folder

    def __init__(
        self,
        checkpoint: Any,
        device: torch.device,
        encoder: Path | None,
        *,
        spec: StateSpec,
        inputs: Mapping[str, int],
        tuned: frozenset[str],
    ) -> None:
        """Describe a `LoadedCheckpoint`; `inputs` and `tuned` are as in `ModelInfo`."""
        self.checkpoint, self._config, self._device = checkpoint, checkpoint.config, device
        self._encoder_folder = encoder
        self.spec, self.device = spec, str(device)
        self.info: ModelInfo = checkpoint.info(inputs, tuned)
        self._judge = checkpoint.judge()
        self._remembered_texts, self._texts_at_once = 0, 1  # see `ServingOptions`

    @classmethod
    def load(cls, path: Path, serving: ServingOptions) -> Self:
        """Load a checkpoint folder, see `model.registry.load_predictor`.

        Sets the process's number of torch threads: sizes are proven for it.
        """
        checkpoint = cls.load_checkpoint(path)
        if checkpoint.config.research:
            raise CheckpointError(
                f"checkpoint {path} is for research ({', '.join(checkpoint.config.research)}): it "
                "can be evaluated, not served; train one without these switches"
            )
        recurrence = overridden(checkpoint.config.recurrence, serving)
        weights = cls._weights_for(path, checkpoint, recurrence)
        config = replace(checkpoint.config, recurrence=recurrence)
        torch.set_num_threads(serving.threads)
        device = chosen_device(serving.device)
        with device_errors():
            try:
                checkpoint = replace(checkpoint, config=config, weights=weights)
                loaded = cls(checkpoint, device, serving.encoder)  # type: ignore[call-arg]
            except (KeyError, ValueError) as error:
                raise CheckpointError(
                    f"checkpoint {path}: weights and settings do not fit each other ({error}); "
                    "copy the checkpoint again or train it anew"
                ) from error
        loaded._remembered_texts = serving.remembered_texts
        loaded._texts_at_once = serving.texts_at_once
        return loaded

    @staticmethod
    def _weights_for(path: Path, checkpoint: Any, recurrence: Recurrence) -> Mapping[str, Any]:
        """Return the weights that serve a recurrence. Raises `CheckpointError`."""
        weights: Mapping[str, Any] = checkpoint.weights
        return weights

    @property
    @abstractmethod
    def _encoder(self) -> Any:
        """The text encoder, loaded once. Raises `EncoderMissing`."""

    def can_encode_text(self) -> bool:
        """Return True where an encoder of the model's text width is installed."""
        try:
            return bool(self._encoder.width == self._config.text)
        except EncoderMissing:
            return False

    @abstractmethod
    def predict(self, turns: Sequence[Turn]) -> list[Prediction]:
        """Predict a batch, see `model.interface.Predictor.predict`."""

    def begin(self, turns: Sequence[Turn]) -> Callable[[], list[Prediction]]:
        return partial(self.predict, turns)

    def device_memory_bytes(self) -> int:
        on_cuda = self._device.type == "cuda"
        return int(torch.cuda.memory_allocated(self._device)) if on_cuda else 0

    def _probabilities(self, emotion: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
        """Return probabilities before their maps [B, C + C * C] of logits."""
        fitted = self.checkpoint.calibration
        emotion = torch.softmax(emotion / fitted.emotion, dim=1)
        return torch.cat((emotion, torch.softmax(shift / fitted.shift, dim=1)), dim=1)

    def _sample_window(self, i: int, draw: torch.Generator) -> Window:
        """Draw the i-th window to prove sizes with: of every length in turn."""
        past = i % (self._config.recurrence.window + 1)
        return sample_window(self.spec, STORE_DTYPES[self._config.store_dtype], past, draw)

    def _doubts(self, turns: Sequence[Turn], unknown: Collection[int]) -> list[Doubt | None]:
        """Return why each turn's answer must abstain, None for most.

        `unknown` are the places of the texts whose words the encoder mostly does not know.
        """
        if self._judge is None:
            return [None] * len(turns)
        doubts: list[Doubt | None] = [self._judge.doubt(t.text, t.language) for t in turns]
        for place in unknown:
            doubts[place] = doubts[place] or "unknown_words"
        return doubts

    def _predictions(
        self,
        turns: Sequence[Turn],
        answers: Iterable[tuple[Sequence[int], Computed]],
        doubts: Sequence[Doubt | None],
    ) -> list[Prediction]:
        """Return the predictions of all turns; answers come by their places. Raises `NotFinite`."""
        predictions: dict[int, Prediction] = {}
        bad: list[int] = []
        for places, (numbers, stored) in answers:
            bad += [places[i] for i in not_finite(numbers, stored, self._config.store_dtype)]
            if not bad:
                for place, values, row in zip(places, numbers.tolist(), stored, strict=True):
                    found = self._prediction(turns[place], values, row)
                    predictions[place] = structs.replace(found, doubt=doubts[place])
        if bad:
            raise NotFinite(sorted(bad))
        return [predictions[place] for place in range(len(turns))]

    def _prediction(self, turn: Turn, values: list[float], stored: NDArray[np.uint8]) -> Prediction:
        classes, calibration = self._config.classes, self.checkpoint.calibration
        row_end = self.spec.row_bytes
        conversation_end = row_end + self.spec.conversation_bytes
        known = turn.speaker_id in turn.window.speakers
        shift, moved = calibration.stated_shift(values[classes:]) if known else (None, None)
        applied = Applied(  # views of the batch: `Window.push` copies them
            stored[:row_end], stored[row_end:conversation_end], stored[conversation_end:]
        )
        emotion = calibration.stated(values[:classes])
        return Prediction(emotion, shift, moved, tuple(self._used(turn)), applied)

    @abstractmethod
    def _used(self, turn: Turn) -> list[str]:
        """Return the inputs that an answer was read from."""


def bytes_of(computed: Computed) -> list[bytes]:
    """Return all bytes of each row, to prove sizes with."""
    return [a.tobytes() + s.tobytes() for a, s in zip(*computed, strict=True)]
