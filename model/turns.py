"""Turns to one buffer of bytes: what a step reads, in one transfer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from model.config import INPUTS, MODALITIES, PERSONA, PcgnetConfig
from model.graph import INTER, INTRA
from model.pcgnet_step import TORCH_DTYPES, StepInput
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
            ("present", torch.float32, (rows, len(INPUTS))),
            ("started", torch.float32, (rows,)),
            ("relation", torch.int32, (rows, window)),
            ("ring", store, (rows, window, spec.row_bytes // store.itemsize)),
            ("state", store, (rows, self._state_bytes // store.itemsize)),
        ):
            self._sections[name] = (end, dtype, shape)
            size = int(np.prod(shape)) * dtype.itemsize
            end += -(-size // ALIGN) * ALIGN
        self._bytes = np.zeros(end, np.uint8)
        self._inputs = {name: self._array(name, np.float32) for name in INPUTS}
        self._present = self._array("present", np.float32)
        self._started = self._array("started", np.float32)
        self._relation = self._array("relation", np.int32)
        self._ring = self._array("ring", np.uint8).reshape(rows, window, spec.row_bytes)
        self._state = self._array("state", np.uint8).reshape(rows, self._state_bytes)

    def fill(self, turns: Sequence[Turn]) -> None:
        """Write the turns; what is absent is zero, so that no earlier batch shows through."""
        self._bytes.fill(0)
        window = self._relation.shape[1]
        self._relation[:] = np.arange(window, dtype=np.int32)  # NOT_HEARD, by slot
        for row, turn in enumerate(turns):
            self._fill_inputs(row, turn)
            self._fill_state(row, turn)
            for slot, code in heard(turn, window):
                self._relation[row, slot] = slot + code * window

    def on(self, device: torch.device) -> StepInput:
        """Return what was filled in, on a device. On a CPU it is this buffer: read it at once."""
        everything = torch.from_numpy(self._bytes).to(device)
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
                self._present[row, column] = 1.0
        if turn.persona is not None:
            self._inputs["persona"][row] = turn.persona
            self._present[row, PERSONA] = 1.0

    def _fill_state(self, row: int, turn: Turn) -> None:
        window = turn.window
        kept = len(window.rows)
        if kept:
            self._ring[row, -kept:] = window.rows
            self._started[row] = 1.0
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


def heard(turn: Turn, slots: int) -> list[tuple[int, int]]:
    """Return (slot, INTRA or INTER) for each past utterance this one listens to.

    From the speaker's previous utterance on; from the session's first for a speaker not known.
    """
    window = turn.window
    kept = len(window.row_speakers)
    known = window.speakers.get(turn.speaker_id)
    oldest = window.count - kept  # session index of the oldest row
    begin = max(0, (known.last_index if known else 0) - oldest)
    return [
        (slots - kept + k, INTRA if window.row_speakers[k] == turn.speaker_id else INTER)
        for k in range(begin, kept)
    ]


def numbers(vector: Tensor) -> NDArray[np.float32]:
    """Read a feature vector as float32 [n]; exact from every wire type."""
    if vector.dtype == "bfloat16":
        return (np.frombuffer(vector.data, "<u2").astype("<u4") << 16).view(np.float32)
    kind = "<f2" if vector.dtype == "float16" else "<f4"
    return np.frombuffer(vector.data, kind).astype(np.float32)
