"""Sessions, speakers and each utterance's reach into the past, as integers, by `Recurrence`.

For whole conversations of any model; numpy only.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


class Spoken(Protocol):
    """The part of a conversation that decides which speakers are remembered."""

    @property
    def speakers(self) -> tuple[str, ...]: ...

    @property
    def session_start(self) -> Any: ...  # [T] bool, or None: one session


def check_shapes(number: int, conversation: Spoken, widths: Mapping[str, int]) -> None:
    """Raise ValueError naming the field of a conversation that is not of [utterances, width]."""
    if not conversation.speakers:
        raise ValueError(f"conversation {number} has no utterance")
    for name, width in widths.items():
        shape = tuple(getattr(conversation, name).shape)
        needed = len(conversation.speakers), width
        if shape != needed:
            raise ValueError(f"conversation {number}: {name} is {shape}, the model needs {needed}")


@dataclass(frozen=True, slots=True)
class SpeakerRuns:
    """The session, speaker and previous utterance of each of N utterances."""

    session: Ints  # [N] first utterance of its session
    speaker: Ints  # [N] a number per session and speaker name
    run: Ints  # [N] a number per stay of a speaker in memory
    previous: Ints  # [N] speaker's previous utterance while remembered, or -1


def follow_speakers(conversations: Sequence[Spoken], limit: int) -> SpeakerRuns:
    """Follow sessions and speakers; only the `limit` most recent speakers are remembered."""
    session, speaker, run, previous = [], [], [], []
    numbers: dict[tuple[int, int, str], int] = {}
    runs, here, begins = 0, 0, 0
    for c, conversation in enumerate(conversations):
        starts = conversation.session_start
        known: OrderedDict[str, tuple[int, int]] = OrderedDict()  # least recent first
        for t, name in enumerate(conversation.speakers):
            if t == 0 or (starts is not None and bool(starts[t])):
                begins = here
                known.clear()
            run_id, last = known.pop(name, (runs, -1))
            runs += last < 0
            known[name] = (run_id, here)
            if len(known) > limit:
                known.popitem(last=False)
            session.append(begins)
            speaker.append(numbers.setdefault((c, begins, name), len(numbers)))
            run.append(run_id)
            previous.append(last)
            here += 1
    columns = (np.array(x, dtype=np.int64) for x in (session, speaker, run, previous))
    return SpeakerRuns(*columns)


def first_in_reach(session: Ints, previous: Ints, window: int) -> Ints:
    """Return the earliest utterance in reach: the speaker's previous, else the session's first.

    `session` [N] is the number of each session's first utterance, `previous` [N] that of the
    speaker's previous utterance or -1. Clipped to the last `window` utterances of each, so
    that a node never changes once it exists (docs/models.md A8).
    """
    here = np.arange(len(session), dtype=np.int64)
    start = np.where(previous >= 0, previous, session)
    clipped: Ints = np.maximum(start, here - window)
    return clipped
