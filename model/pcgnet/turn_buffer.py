"""Turns to one buffer of bytes: all arguments of a step, moved in one transfer."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Final

import numpy as np
import torch

from model.interface import INPUTS, MODALITIES, Turn
from model.pcgnet.config import PERSONA, PcgnetConfig
from model.pcgnet.graph import INTER, INTRA
from model.pcgnet.step import MASKED, StepInput, input_floats, relation_codes
from model.serving.device import STORE_DTYPES
from state.window import StateSpec, read_numbers

ALIGN: Final = 64  # bytes: sections start on a cache line


class TurnBuffer:
    """A buffer of `rows` turns, filled batch after batch. Rows beyond the filled ones are zero."""

    def __init__(
        self, rows: int, config: PcgnetConfig, spec: StateSpec, scratch: torch.Tensor
    ) -> None:
        """Take the `scratch` that a step computes in, on the step's device."""
        self.rows, self._scratch = rows, scratch
        window, h = config.recurrence.window, config.hidden
        store = STORE_DTYPES[config.store_dtype]
        self._sections: dict[str, tuple[int, torch.dtype, tuple[int, ...]]] = {}
        end = 0
        for name, dtype, shape in (
            ("inputs", torch.float32, (input_floats(config, rows),)),
            ("present", torch.bool, (len(INPUTS), rows, 1)),
            ("relation", torch.int32, (rows, window + 2)),
            ("ring", store, (rows, window, spec.row_bytes // store.itemsize)),
            ("hidden", store, (2, 4, rows, h)),
            ("previous", store, (rows, len(MODALITIES) * h + config.classes)),
        ):
            self._sections[name] = (end, dtype, shape)
            size = math.prod(shape) * dtype.itemsize
            end += -(-size // ALIGN) * ALIGN
        bytes_ = np.zeros(end + ALIGN, np.uint8)
        begin = -bytes_.ctypes.data % ALIGN  # kernels may compute unaligned input differently
        self._bytes = bytes_[begin : begin + end]
        self._on_cpu = self._cut(torch.from_numpy(self._bytes))
        self._alive = keep_alive(self._on_cpu)
        parts = self._on_cpu
        flat, self._inputs, at = parts.inputs.numpy(), {}, 0
        for name, width in config.widths.items():
            self._inputs[name] = flat[at : at + rows * width].reshape(rows, width)
            at += rows * width
        self._present, self._relation = parts.present[..., 0].numpy(), parts.relation.numpy()
        self._ring, self._hidden, self._previous = (
            part.view(torch.uint8).numpy() for part in (parts.ring, parts.hidden, parts.previous)
        )
        now, self._before, nothing_before = relation_codes(window)
        masked = np.arange(window, dtype=np.int32) + window * MASKED
        self._no_past = np.append(masked, np.array([now, nothing_before], np.int32))

    def fill(self, turns: Sequence[Turn]) -> None:
        """Write the turns over those of the last batch; everything absent is zero."""
        self._bytes.fill(0)
        window = self._ring.shape[1]
        self._relation[:] = self._no_past
        for row, turn in enumerate(turns):
            self._fill_inputs(row, turn)
            self._fill_state(row, turn)
            codes = past_relations(turn)
            if codes:
                self._relation[row, window - len(codes) : window] += np.multiply(
                    codes, window, dtype=np.int32
                )

    def on(self, device: torch.device) -> StepInput:
        """Return the filled tensors on a device. On a CPU they are views of this buffer."""
        if device.type == "cpu":
            return self._on_cpu
        return self._cut(torch.from_numpy(self._bytes).to(device))

    def _cut(self, everything: torch.Tensor) -> StepInput:
        parts = {}
        for name, (start, dtype, shape) in self._sections.items():
            size = math.prod(shape) * dtype.itemsize
            parts[name] = everything[start : start + size].view(dtype).view(shape)
        return StepInput(scratch=self._scratch, **parts)

    def _fill_inputs(self, row: int, turn: Turn) -> None:
        for column, name in enumerate(MODALITIES):
            vector = turn.features.get(name)
            if vector is not None and self._inputs[name].shape[1]:
                self._inputs[name][row] = read_numbers(vector.dtype, vector.data)
                self._present[column, row] = True
        if turn.persona is not None:
            self._inputs["persona"][row] = turn.persona
            self._present[PERSONA, row] = True

    def _fill_state(self, row: int, turn: Turn) -> None:
        window, hidden = turn.window, self._hidden
        past = len(window.rows)
        if past:
            self._ring[row, -past:] = window.rows
            self._relation[row, -1] = self._before
        if window.arrays is not None:
            hidden[:, 0, row] = window.arrays.reshape(2, -1)
        speaker = window.speakers.get(turn.speaker_id)
        if speaker is not None:
            cut = 6 * hidden.shape[3]
            hidden[:, 1:, row] = speaker.arrays[:cut].reshape(3, 2, -1).transpose(1, 0, 2)
            self._previous[row] = speaker.arrays[cut:]


def keep_alive(tensors: StepInput) -> object:
    """Return a C++ reference to the tensors, to be stored for as long as a step uses them.

    Without one they are referenced only from Python, and torch takes the GIL to pass them into a
    step and to drop them: 13 waits a step, of up to 5 ms each while another thread is busy.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated, but there is no other such container
        return torch.jit.script(list(tensors))


def past_relations(turn: Turn) -> list[int]:
    """Return INTRA or INTER for each past utterance in reach of this one, the latest last.

    In reach is the session from the speaker's previous utterance on; for a new speaker, all of it.
    """
    window, speaker = turn.window, turn.speaker_id
    known = window.speakers.get(speaker)
    oldest = window.count - len(window.row_speakers)  # session index of the oldest row
    begin = max(0, (known.last_index if known else 0) - oldest)
    return [INTRA if name == speaker else INTER for name in window.row_speakers[begin:]]
