"""Turns to one buffer of bytes: what a step reads, in one transfer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from model.config import INPUTS, MODALITIES, PERSONA, PcgnetConfig
from model.graph import INTER, INTRA
from model.pcgnet_step import NOT_HEARD, TORCH_DTYPES, StepInput
from model.predictor import Tensor, Turn
from state.window import StateSpec

ALIGN: Final = 64  # bytes: sections start on a cache line


class TurnBuffer:
    """Room for `rows` turns, filled again and again. Rows beyond the turns given are zero."""

    def __init__(self, rows: int, config: PcgnetConfig, spec: StateSpec) -> None:
        self._config, self._spec = config, spec
        window = config.recurrence.window
        self._state_bytes = spec.conversation_bytes + spec.speaker_bytes
        self._sections: dict[str, tuple[int, torch.dtype, tuple[int, ...]]] = {}
        store = TORCH_DTYPES[config.store_dtype]
        end = 0
        for name, dtype, shape in (
            *((name, torch.float32, (rows, width)) for name, width in config.widths.items()),
            ("present", torch.bool, (rows, len(INPUTS))),
            ("before", torch.float32, (rows,)),
            ("relation", torch.int32, (rows, window)),
            ("ring", store, (rows, window, spec.row_bytes // store.itemsize)),
            ("state", store, (rows, self._state_bytes // store.itemsize)),
        ):
            self._sections[name] = (end, dtype, shape)
            size = int(np.prod(shape)) * dtype.itemsize
            end += -(-size // ALIGN) * ALIGN
        self._bytes = np.zeros(end, np.uint8)
        self._here = self._cut(torch.from_numpy(self._bytes))
        self._inputs = {name: self._array(name, np.float32) for name in INPUTS}
        self._present = self._array("present", np.bool_)
        self._before = self._array("before", np.float32)
        self._relation: NDArray[np.int32] = self._array("relation", np.int32).view(np.int32)
        self._unheard = np.arange(window, dtype=np.int32) + window * NOT_HEARD
        self._ring = self._array("ring", np.uint8).reshape(rows, window, spec.row_bytes)
        self._state = self._array("state", np.uint8).reshape(rows, self._state_bytes)

    def fill(self, turns: Sequence[Turn]) -> None:
        """Write the turns; what is absent is zero, so that no earlier batch shows through."""
        self._bytes.fill(0)
        window = self._relation.shape[1]
        self._before.fill(-np.inf)
        self._relation[:] = self._unheard
        for row, turn in enumerate(turns):
            self._fill_inputs(row, turn)
            self._fill_state(row, turn)
            codes = heard(turn)
            if codes:
                self._relation[row, -len(codes) :] += np.array(codes, np.int32) * window

    def on(self, device: torch.device) -> StepInput:
        """Return what was filled in, on a device. On a CPU it is this buffer: read it at once."""
        if device.type == "cpu":
            return self._here
        return self._cut(torch.from_numpy(self._bytes).to(device))

    def _cut(self, everything: torch.Tensor) -> StepInput:
        parts = {}
        for name, (start, dtype, shape) in self._sections.items():
            size = int(np.prod(shape)) * dtype.itemsize
            parts[name] = everything[start : start + size].view(dtype).view(shape)
        inputs = {name: parts.pop(name) for name in INPUTS}
        return StepInput(inputs=inputs, **parts)

    def _fill_inputs(self, row: int, turn: Turn) -> None:
        for column, name in enumerate(MODALITIES):
            vector = turn.features.get(name)
            if vector is not None and self._inputs[name].shape[1]:
                self._inputs[name][row] = numbers(vector)
                self._present[row, column] = True
        if turn.persona is not None:
            self._inputs["persona"][row] = turn.persona
            self._present[row, PERSONA] = True

    def _fill_state(self, row: int, turn: Turn) -> None:
        window = turn.window
        kept = len(window.rows)
        if kept:
            self._ring[row, -kept:] = window.rows
            self._before[row] = 0.0
        cut = self._spec.conversation_bytes
        if window.arrays is not None:
            self._state[row, :cut] = window.arrays
        speaker = window.speakers.get(turn.speaker_id)
        if speaker is not None:
            self._state[row, cut:] = speaker.arrays

    def _array(self, name: str, dtype: type[np.generic]) -> NDArray[np.generic]:
        start, torch_dtype, shape = self._sections[name]
        size = int(np.prod(shape)) * torch_dtype.itemsize
        raw = self._bytes[start : start + size]
        return raw if dtype is np.uint8 else raw.view(dtype).reshape(shape)


def heard(turn: Turn) -> list[int]:
    """Say INTRA or INTER of each past utterance this one listens to, the latest last.

    From the speaker's previous utterance on; from the session's first for a speaker not known.
    """
    window, speaker = turn.window, turn.speaker_id
    known = window.speakers.get(speaker)
    oldest = window.count - len(window.row_speakers)  # session index of the oldest row
    begin = max(0, (known.last_index if known else 0) - oldest)
    return [INTRA if name == speaker else INTER for name in window.row_speakers[begin:]]


def numbers(vector: Tensor) -> NDArray[np.float32]:
    """Read a feature vector as float32 [n]; exact from every wire type."""
    if vector.dtype == "bfloat16":
        return (np.frombuffer(vector.data, "<u2").astype("<u4") << 16).view(np.float32)
    kind = "<f2" if vector.dtype == "float16" else "<f4"
    return np.frombuffer(vector.data, kind).astype(np.float32)
