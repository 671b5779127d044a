"""The memory of a conversation between utterances: plain frozen data, in and out.

A model declares a `StateSpec`; this module stores arrays of that shape per utterance (a ring of at
most W rows), per conversation and per speaker, and the position in the log, clock, session and
duplicate horizon that decide what an utterance can see. Arrays are raw bytes here; only the model
knows their meaning. Nothing in this module reads a clock, a network or the environment.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Final, Literal

import numpy as np
from msgspec import Struct
from msgspec.structs import replace
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]

NO_OFFSET: Final = -1
NO_CLOCK: Final = -1
LAYOUT: Final = 2  # of the stored bytes; part of every digest, so that another layout is foreign
HASH_BYTES: Final = 8  # of an utterance id
FIELDS_BYTES: Final = 8  # digest of an utterance's fields, opaque here
KNOWN_BYTES: Final = HASH_BYTES + FIELDS_BYTES  # one applied utterance in the duplicate horizon
ITEM_BYTES: Final = {"float16": 2, "bfloat16": 2, "float32": 4, "int32": 4}

DType = Literal["float16", "bfloat16", "float32", "int32"]


def read_numbers(
    dtype: Literal["float16", "bfloat16", "float32"], data: bytes
) -> NDArray[np.floating]:
    """Read little-endian numbers [n], exact in float32; bfloat16 becomes float32."""
    if dtype == "bfloat16":
        return (np.frombuffer(data, "<u2").astype("<u4") << 16).view("<f4")
    return np.frombuffer(data, "<f2" if dtype == "float16" else "<f4")


@dataclass(frozen=True, slots=True)
class ArraySpec:
    """One named array of the state, e.g. ``ArraySpec("f", (3, 200))``; little endian bytes."""

    name: str
    shape: tuple[int, ...]
    dtype: DType = "float16"

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * ITEM_BYTES[self.dtype]


@lru_cache(maxsize=64)  # called several times an utterance
def _nbytes(arrays: tuple[ArraySpec, ...]) -> int:
    return sum(array.nbytes for array in arrays)


@dataclass(frozen=True, slots=True)
class Recurrence:
    """Settings that decide what an utterance can see (docs/architecture.md §3b)."""

    window: int = 10
    max_speakers: int = 32
    idle_s: float = 900.0
    max_session_s: float = 43_200.0
    duplicate_horizon: int = 256

    def __post_init__(self) -> None:
        for name in ("window", "max_speakers", "idle_s", "max_session_s"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be greater than 0, not {getattr(self, name)!r}")
        if self.duplicate_horizon < 0:
            raise ValueError(f"duplicate_horizon must be >= 0, not {self.duplicate_horizon!r}")


@dataclass(frozen=True, slots=True)
class StateSpec:
    """The arrays of a model's state, and the recurrence they belong to.

    `digest` names the weights and the recurrence: a state written under another digest is never
    read (it is rebuilt, or the prediction says ``context.truncated``).
    """

    utterance: tuple[ArraySpec, ...]
    conversation: tuple[ArraySpec, ...]
    speaker: tuple[ArraySpec, ...]
    recurrence: Recurrence
    model_digest: str

    @property
    def row_bytes(self) -> int:
        return _nbytes(self.utterance)

    @property
    def conversation_bytes(self) -> int:
        return _nbytes(self.conversation)

    @property
    def speaker_bytes(self) -> int:
        return _nbytes(self.speaker)

    @property
    def digest(self) -> str:
        """16 hex digits over model digest, recurrence settings and the layouts of the bytes."""
        r = self.recurrence
        arrays = (*self.utterance, *self.conversation, *self.speaker)
        layout = [(a.name, a.shape, a.dtype) for a in arrays]
        settings = (r.window, r.max_speakers, r.idle_s, r.max_session_s, r.duplicate_horizon)
        text = repr((LAYOUT, self.model_digest, settings, layout))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


class StateKey(Struct, frozen=True):
    """One state: a conversation on one partition of one topic (a recreated topic is another)."""

    conversation_id: str
    topic_id: str
    partition: int


class Speaker(Struct, frozen=True):
    """State of one speaker of the session."""

    last_index: int  # session index of this speaker's latest utterance
    last_utterance_id: str
    arrays: Bytes  # [speaker_bytes]


class Applied(Struct, frozen=True):
    """The arrays a model returned for one utterance, as raw bytes in the layout of the spec.

    May be views of a whole batch: `Window.push` copies them.
    """

    row: Bytes  # [row_bytes]
    arrays: Bytes  # [conversation_bytes]
    speaker: Bytes  # [speaker_bytes]


class Window(Struct, frozen=True):
    """The part of a session a model may see: its last W utterances, oldest first, and its speakers.

    `speakers` is ordered by latest utterance, oldest first, and never longer than
    `Recurrence.max_speakers`. `rows[i]`, `row_speakers[i]` and `row_utterances[i]` belong together.
    The session index of ``rows[-1]`` is ``count - 1``.
    """

    rows: Bytes  # [n <= W, row_bytes]
    row_speakers: tuple[str, ...]
    row_utterances: tuple[str, ...]
    arrays: Bytes | None  # [conversation_bytes]; None before the first utterance of a session
    speakers: Mapping[str, Speaker]
    count: int  # utterances of the session so far

    @staticmethod
    def empty(spec: StateSpec) -> Window:
        """Return the window a session starts with."""
        rows: Bytes = np.empty((0, spec.row_bytes), np.uint8)
        return Window(rows, (), (), None, MappingProxyType({}), 0)

    def push(
        self,
        recurrence: Recurrence,
        applied: Applied,
        *,
        utterance_id: str,
        speaker_id: str,
    ) -> tuple[Window, tuple[str, ...]]:
        """Append one utterance; return the new window and the speakers it drops.

        The oldest row beyond W is dropped, and so is the least recent speaker beyond the limit.
        Arrays are copied: a view would keep the buffer of the whole batch alive.
        """
        keep = recurrence.window - 1
        old = self.rows[-keep:] if keep else self.rows[:0]
        speakers = dict(self.speakers)
        speakers.pop(speaker_id, None)
        speakers[speaker_id] = Speaker(self.count, utterance_id, applied.speaker.copy())
        forgotten = tuple(speakers)[: max(0, len(speakers) - recurrence.max_speakers)]
        for name in forgotten:
            del speakers[name]
        window = Window(
            rows=np.concatenate((old, applied.row[None, :])),
            row_speakers=((self.row_speakers[-keep:] if keep else ()) + (speaker_id,)),
            row_utterances=((self.row_utterances[-keep:] if keep else ()) + (utterance_id,)),
            arrays=applied.arrays.copy(),
            speakers=MappingProxyType(speakers),
            count=self.count + 1,
        )
        return window, forgotten


class Session(Struct, frozen=True):
    """One session of a conversation; nothing before its first utterance is seen in it."""

    started_ms: int
    first_offset: int  # offset of the session's first utterance (`context.first_position`)
    truncated: bool = False  # true when earlier utterances of the session could not be seen
    ended: bool = False  # the last utterance had `end_of_conversation`
    last_seq: int | None = None


class Conversation(Struct, frozen=True):
    """All the state of one `StateKey` after the utterance at `offset`."""

    window: Window
    session: Session
    offset: int  # last position applied
    clock_ms: int  # max of the record timestamps applied
    # The last applied utterances, oldest first: of each the hash of its id and of its fields.
    recent: bytes = b""
    alert: bytes = b""  # alert rule state, opaque here
    id_reused: bool = False  # since the last answer an utterance was dropped: its id was another's

    def cut(self) -> Conversation:
        """Return it with a session that could not see all of its earlier utterances."""
        return replace(self, session=replace(self.session, truncated=True))

    def fields_of(self, utterance_id: str) -> bytes | None:
        """Return the digest of the fields applied under this id within the duplicate horizon."""
        wanted = utterance_hash(utterance_id)
        at = self.recent.find(wanted)
        while at != -1 and at % KNOWN_BYTES:
            at = self.recent.find(wanted, at + 1)
        return None if at == -1 else self.recent[at + HASH_BYTES : at + KNOWN_BYTES]


class Opening(Struct, frozen=True):
    """The conversation a record is applied to, `before`, and what the record restarts."""

    before: Conversation
    new_session: bool
    horizon_cleared: bool  # an idle gap: earlier ids are no duplicates any more


class Change(Struct, frozen=True):
    """The effect of one record: all a store needs to go from the state before to `after`."""

    after: Conversation
    new_session: bool = False  # delete rows and speakers of the old session first
    row_appended: bool = False  # false for a record dead-lettered late: arrays unchanged
    speaker_id: str | None = None  # whose entry changed
    forgotten: tuple[str, ...] = ()  # speakers beyond the limit
    known: bytes | None = None  # appended to `recent`
    horizon_cleared: bool = False


def utterance_hash(utterance_id: str) -> bytes:
    """Return the 8 bytes that represent an utterance id in the duplicate horizon."""
    return hashlib.blake2b(utterance_id.encode(), digest_size=HASH_BYTES).digest()


def clock_at(timestamp_ms: int, stored: Conversation | None) -> int:
    """Return the conversation's clock at a record; it never goes back, so -1 moves nothing."""
    return max(timestamp_ms, NO_CLOCK if stored is None else stored.clock_ms)


def life_ms(clock_ms: int, now_ms: int, recurrence: Recurrence) -> int:
    """Return how long the state of a conversation must be stored.

    A missing key proves that a session is over, so it must outlive the session by the log's clock.
    That may be ahead of `now_ms` (the broker's clock jumped), by `max_session_s` at most.
    """
    ahead = min(max(0, clock_ms - now_ms), int(recurrence.max_session_s * 1000))
    return int(2 * recurrence.idle_s * 1000) + ahead


def open_at(
    stored: Conversation | None,
    *,
    spec: StateSpec,
    timestamp_ms: int,
    offset: int,
    truncated: bool,
) -> Opening:
    """Return the session that the record at `offset` belongs to. Pure: worker and oracle agree.

    A session ends after the utterance with ``end_of_conversation``, when the clock jumps by more
    than ``idle_s``, or ``max_session_s`` after it began. `truncated` marks a session that starts
    here *without* stored state (docs/architecture.md §3d); it is ignored otherwise.
    """
    clock_ms = clock_at(timestamp_ms, stored)
    r = spec.recurrence
    if stored is None:
        session = Session(clock_ms, offset, truncated=truncated)
        fresh = Conversation(Window.empty(spec), session, NO_OFFSET, clock_ms)
        return Opening(fresh, new_session=True, horizon_cleared=True)
    idle = clock_ms - stored.clock_ms > r.idle_s * 1000
    too_long = clock_ms - stored.session.started_ms > r.max_session_s * 1000
    # Nothing that expires with the stored state outlives an idle gap: the log alone decides.
    before = replace(stored, recent=b"", id_reused=False) if idle else stored
    if not (idle or too_long or stored.session.ended):
        return Opening(before, new_session=False, horizon_cleared=False)
    # A session without an utterance yet (`apply_nothing`) passes its truncation on.
    unseen = stored.window.count == 0 and stored.session.truncated
    session = Session(clock_ms, offset, truncated=unseen)
    before = replace(before, window=Window.empty(spec), session=session, alert=b"")
    return Opening(before, new_session=True, horizon_cleared=idle)


def apply(
    opening: Opening,
    applied: Applied,
    *,
    recurrence: Recurrence,
    utterance_id: str,
    fields: bytes,
    speaker_id: str,
    offset: int,
    timestamp_ms: int,
    end_of_conversation: bool = False,
    seq: int | None = None,
    alert: bytes = b"",
) -> Change:
    """Append one predicted utterance to the conversation that `open_at` returned.

    `fields` are `FIELDS_BYTES` that tell it from another one under the same id.
    """
    before = opening.before
    window, forgotten = before.window.push(
        recurrence, applied, utterance_id=utterance_id, speaker_id=speaker_id
    )
    known = utterance_hash(utterance_id) + fields
    if len(known) != KNOWN_BYTES:
        raise ValueError(f"the digest of the fields has {len(fields)} bytes, not {FIELDS_BYTES}")
    horizon = recurrence.duplicate_horizon * KNOWN_BYTES
    after = Conversation(
        window=window,
        session=replace(
            before.session,
            ended=end_of_conversation,
            last_seq=before.session.last_seq if seq is None else seq,
        ),
        offset=offset,
        clock_ms=clock_at(timestamp_ms, before),
        recent=(before.recent + known)[-horizon:] if horizon else b"",
        alert=alert,
    )
    return Change(
        after=after,
        new_session=opening.new_session,
        row_appended=True,
        speaker_id=speaker_id,
        forgotten=forgotten,
        known=known,
        horizon_cleared=opening.horizon_cleared,
    )


def apply_nothing(
    stored: Conversation | None, *, spec: StateSpec, offset: int, truncated: bool = False
) -> Change:
    """Move the position past a record that left no trace in the arrays (dead-lettered late).

    `truncated` is as for `open_at`: without stored state, the session that the next utterance
    starts takes it over.
    """
    if stored is None:
        # the next utterance starts a new session
        empty = Session(NO_CLOCK, offset, truncated=truncated, ended=True)
        stored = Conversation(Window.empty(spec), empty, NO_OFFSET, NO_CLOCK)
    return Change(after=replace(stored, offset=offset))


def apply_reused(stored: Conversation, *, offset: int) -> Change:
    """Move the position past an utterance that is dropped: its id is that of another one.

    The next answer says so (`Conversation.id_reused`); clock, session and horizon stay.
    """
    return Change(after=replace(stored, offset=offset, id_reused=True))
