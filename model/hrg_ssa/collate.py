"""Conversations to one batch for HRG-SSA: token states, windows and pairs, worked out once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from model.hrg_ssa.config import FELT, HrgSsaConfig
from model.recurrence import check_shapes, follow_speakers


@dataclass(frozen=True, slots=True)
class Talk:
    """One conversation of T utterances; values that are not `present` are not read."""

    states: tuple[Tensor, ...]  # T of [tokens, text], usually float16; no token: no words
    audio: Tensor  # [T, audio] float32
    video: Tensor  # [T, video]
    present: Tensor  # [T, 2] bool: audio, video
    speakers: tuple[str, ...]  # [T]
    session_start: Tensor | None = None  # [T] bool; None: one session


@dataclass(frozen=True, slots=True)
class TalkBatch:
    """Utterances of all conversations, one after the other; N utterances, P pairs."""

    states: tuple[Tensor, ...]  # N of [tokens, text]
    felt: tuple[Tensor, Tensor]  # audio, video: [N, width], zero where absent
    present: Tensor  # [N, 2] bool
    past: Tensor  # [N, W] utterances of each window, right-aligned; -1: none
    speaker: Tensor  # [N] a number per session and speaker
    pairs: Tensor  # [P, 2] (speaker's previous utterance, this one), by this one
    turn: Tensor  # [N] place in its conversation; stays on the CPU, as the next
    conversation: Tensor  # [N] number of the conversation

    def __len__(self) -> int:
        return len(self.states)

    def on(self, device: torch.device) -> TalkBatch:
        """Return the batch for a model on `device`; `inputs` moves the token states."""
        audio, video = self.felt
        names = ("present", "past", "speaker", "pairs")
        moved = {name: getattr(self, name).to(device) for name in names}
        return replace(self, felt=(audio.to(device), video.to(device)), **moved)

    def inputs(self, rows: Tensor) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor], Tensor]:
        """Return the arguments of `HrgSsa.encode` for utterances [B], numbers on the CPU."""
        states, there = padded([self.states[i] for i in rows.tolist()])
        felt, device = (self.felt[0][rows], self.felt[1][rows]), self.present.device
        return states.to(device), there.to(device), felt, self.present[rows]

    def window_speakers(self, rows: Tensor) -> Tensor:
        """Return the speaker in each slot of the windows, the utterance itself last: [B, W + 1]."""
        past = self.past[rows]
        before = torch.where(past >= 0, self.speaker[past.clamp_min(0)], past)
        return torch.cat((before, self.speaker[rows, None]), dim=1)


def collate_talks(talks: Sequence[Talk], config: HrgSsaConfig) -> TalkBatch:
    """Lay out windows and pairs. Raises ValueError where a size does not fit `config`."""
    if not talks:
        raise ValueError("a batch needs at least one conversation")
    for number, talk in enumerate(talks):
        widths: dict[str, int] = {name: config.widths[name] for name in FELT}
        check_shapes(number, talk, widths | {"present": len(FELT)})
        one_each = len(talk.states) == len(talk.speakers)
        if not one_each or any(s.shape[1] != config.text for s in talk.states):
            raise ValueError(
                f"conversation {number}: the model needs token states of {config.text} numbers for "
                "each utterance"
            )
    lengths = np.array([len(t.speakers) for t in talks], dtype=np.int64)
    spoken = follow_speakers(talks, config.recurrence.max_speakers)
    here = np.arange(len(spoken.session), dtype=np.int64)
    past = here[:, None] - np.arange(config.recurrence.window, 0, -1)  # [N, W]
    past = np.where(past < spoken.session[:, None], -1, past)
    paired = spoken.previous >= 0
    present = torch.cat([t.present for t in talks]).bool()
    present = present & torch.tensor([config.widths[name] > 0 for name in FELT])
    return TalkBatch(
        states=tuple(state for t in talks for state in t.states),
        felt=(_felt(talks, "audio", present[:, 0]), _felt(talks, "video", present[:, 1])),
        present=present,
        past=torch.from_numpy(past),
        speaker=torch.from_numpy(spoken.speaker),
        pairs=torch.from_numpy(np.stack((spoken.previous[paired], here[paired]), axis=1)),
        turn=torch.cat([torch.arange(n) for n in lengths.tolist()]),
        conversation=torch.from_numpy(np.repeat(np.arange(len(lengths)), lengths)),
    )


def padded(states: Sequence[Tensor], length: int = 0) -> tuple[Tensor, Tensor]:
    """Return token states [B, L, text] float32 and their mask [B, L].

    L is the longest's, at least 1 and `length`.
    """
    longest = max(1, length, *(len(state) for state in states))
    out = torch.zeros(len(states), longest, states[0].shape[1])
    there = torch.zeros(len(states), longest, dtype=torch.bool)
    for row, state in enumerate(states):
        out[row, : len(state)] = state
        there[row, : len(state)] = True
    return out, there


def _felt(talks: Sequence[Talk], name: str, present: Tensor) -> Tensor:
    values = torch.cat([getattr(t, name) for t in talks]).float()
    # where, not a product: what is absent may be NaN
    return torch.where(present[:, None], values, torch.zeros(()))
