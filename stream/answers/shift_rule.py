"""The one built-in alert rule: a speaker's emotion has probably just shifted.

Pure: `decide` goes from rule state and shift probability to new state and whether it fires. Its
state is a few bytes for each speaker inside the conversation record, opaque to the store; it names
the rule by digest, and the state of another rule is never read.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal

from msgspec import Struct

from model.interface import ModelInfo

MAX_SPEAKERS: Final = 32
_VERSION: Final = 1
_HEAD: Final = struct.Struct("<B8s")
_SPEAKER: Final = struct.Struct("<8sBH")


@dataclass(frozen=True, slots=True)
class ShiftRule:
    """Fire where the calibrated shift probability reaches `enter`.

    After firing, a speaker is re-armed by a probability below `exit` (hysteresis) and silent for
    `cooldown` further utterances of that speaker.
    """

    enter: float
    exit: float
    cooldown: int = 3
    name: str = "emotion_shift"
    severity: Literal["info", "warning", "critical"] = "warning"

    def __post_init__(self) -> None:
        if not 0.0 <= self.exit <= self.enter <= 1.0:
            raise ValueError(
                f"need 0 <= exit <= enter <= 1, not exit={self.exit!r} and enter={self.enter!r}"
            )
        if not 0 <= self.cooldown <= 0xFFFF:
            raise ValueError(f"cooldown must be 0..65535 utterances, not {self.cooldown!r}")

    @property
    def digest(self) -> str:
        """16 hex digits over everything that decides when it fires and what its alerts contain."""
        text = repr((_VERSION, self.name, self.enter, self.exit, self.cooldown, self.severity))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def rule_of(info: ModelInfo) -> ShiftRule:
    """Return the built-in rule at the operating point fitted on the checkpoint's dev split."""
    return ShiftRule(enter=info.shift_threshold, exit=info.shift_exit)


class _Watch(Struct, frozen=True):
    """The rule's memory of one speaker."""

    armed: bool = True
    silent_for: int = 0
    doubted: bool = False  # the last utterance was: nothing follows from a shift away from it


def decide(
    rule: ShiftRule,
    state: bytes,
    speaker_id: str,
    shift_probability: float | None,
    *,
    doubted: bool = False,
) -> tuple[bytes, bool]:
    """Return the new rule state of a conversation and whether an alert fires.

    `state` is the result of the last call, b"" at a session's start. `shift_probability` is None
    for a speaker's first utterance (of the session, or since being forgotten): nothing fires and
    the speaker is armed. An utterance that is `doubted` (`Prediction.doubt`) fires nothing and
    changes nothing of armed and silent; a shift away from it fires nothing and arms no one. Of more
    than 32 speakers, the one silent for longest is forgotten.
    """
    watches = _read(rule, state)
    speaker = hashlib.blake2b(speaker_id.encode(), digest_size=8).digest()
    before, fired = watches.pop(speaker, _Watch()), False
    if doubted:
        after = _Watch(before.armed, before.silent_for, doubted=True)
    elif shift_probability is None:
        after = _Watch()
    elif before.doubted:
        after = _Watch(before.armed, max(0, before.silent_for - 1))
    elif before.armed and before.silent_for == 0 and shift_probability >= rule.enter:
        after, fired = _Watch(armed=False, silent_for=rule.cooldown), True
    else:
        armed = before.armed or shift_probability < rule.exit
        after = _Watch(armed, max(0, before.silent_for - 1))
    watches[speaker] = after
    latest = list(watches.items())[-MAX_SPEAKERS:]
    packed = [
        _SPEAKER.pack(speaker, w.armed | w.doubted << 1, w.silent_for) for speaker, w in latest
    ]
    return _head(rule) + b"".join(packed), fired


def largest_move(shift: Sequence[float], labels: Sequence[str]) -> tuple[str, str]:
    """Return the first largest off-diagonal cell (from, to) of a flattened C x C matrix."""
    width = len(labels)
    moves = (cell for cell in range(width * width) if cell // width != cell % width)
    best = max(moves, key=shift.__getitem__)
    return labels[best // width], labels[best % width]


def _read(rule: ShiftRule, state: bytes) -> dict[bytes, _Watch]:
    """Return the watches by 8-byte hash of the speaker's id, the last one to speak last.

    Empty for the state of another rule.
    """
    if len(state) < _HEAD.size or state[: _HEAD.size] != _head(rule):
        return {}
    body = state[_HEAD.size :]
    whole = len(body) - len(body) % _SPEAKER.size
    return {
        speaker: _Watch(bool(bits & 1), silent_for, bool(bits & 2))
        for speaker, bits, silent_for in _SPEAKER.iter_unpack(body[:whole])
    }


@lru_cache(maxsize=8)
def _head(rule: ShiftRule) -> bytes:
    return _HEAD.pack(_VERSION, bytes.fromhex(rule.digest))
