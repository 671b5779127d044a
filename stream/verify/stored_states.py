"""The states in the store against the recomputed ones: I4, and the bounds of I7.

Workers may continue meanwhile, so a state is read once, when its conversation is first seen in the
log, and compared when the log has been recomputed up to its position. Until then only its digests
are in memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from hashlib import blake2b

from state.redis_reader import States, StoredState
from state.window import Conversation, StateKey, StateSpec
from stream.ports import Record
from stream.verify.outputs import Outputs
from stream.verify.report import Invariant, Position


class StoredStates:
    """The states of one partition's conversations at a time."""

    def __init__(self, states: States, spec: StateSpec, outputs: Outputs) -> None:
        self._states, self._spec, self._outputs = states, spec, outputs
        self._expectations, self._report = outputs.expectations, outputs.report
        self._pending: dict[str, tuple[int, Mapping[str, bytes]]] = {}  # position, digests
        self._compared: dict[str, int] = {}  # conversation -> stored position
        # The differences that a tolerance excuses (a GPU's last digits) are in the arrays, too.
        self._digests = partial(digests, arrays=self._expectations.tolerance is None)

    def meet(self, first: Mapping[str, Record]) -> None:
        """Read the states of conversations; `first` has the first record that is read of each."""
        topic_id = self._expectations.topic_id
        keys = [StateKey(name, topic_id, record.partition) for name, record in first.items()]
        for key, state in zip(keys, self._states.read(keys), strict=True):
            if state is None:
                self._report.count("states_missing")
                continue
            record = first[key.conversation_id]
            position = Position(record.topic, record.partition, state.loaded.offset)
            self._check_bounds(key.conversation_id, state, position)
            self._remember(key.conversation_id, state, position, record.offset)

    def _check_bounds(self, conversation: str, state: StoredState, position: Position) -> None:
        r = self._spec.recurrence
        for what, n, limit in (
            ("rows", state.rows, r.window),
            ("utterance ids", state.ids, r.duplicate_horizon),
            ("stored outputs", state.outputs, self._expectations.max_uncommitted),
        ):
            if n > limit:
                text = f"{n} {what}, at most {limit}"
                self._report.violated(Invariant.I7, text, position, conversation)
        if any(ttl < 0 for ttl in state.ttl_ms):
            text = "one of its keys never expires"
            self._report.violated(Invariant.I7, text, position, conversation)

    def _remember(
        self, conversation: str, state: StoredState, position: Position, first: int
    ) -> None:
        """Store the digests of a state for the comparison at its position.

        What began before `first`, where earlier records are not read, cannot be recomputed.
        """
        stored = state.loaded.conversation
        low = first if self._expectations.is_cut(position.partition) else 0
        if state.loaded.corrupt is not None:
            self._report.violated(Invariant.I4, state.loaded.corrupt, position, conversation)
        elif state.loaded.foreign:
            self._report.count("states_foreign")
        elif stored is not None and stored.session.first_offset < low:
            self._report.count("before_log")
        elif stored is not None:
            self._pending[conversation] = position.offset, self._digests(stored)
            if stored.session.truncated and stored.window.count:
                # A state is saved before its answers are sent: maybe none shows this session.
                start = position._replace(offset=stored.session.first_offset)
                self._outputs.starts.setdefault(start, True)

    def compare(
        self, conversation: str, record: Record, recomputed: Sequence[Conversation], *, sure: bool
    ) -> None:
        """Check I4 after `record`: at the stored position, one of `recomputed` equals the state.

        Past the stored position, no committed record may have changed the conversation. Where not
        `sure`, ids of utterances before what was read may be missing: a difference proves nothing.
        """
        excused = self._outputs.lost.excuses(record)
        applied = sure and not excused and all(c.offset == record.offset for c in recomputed)
        if applied and self._expectations.is_committed(record) and conversation in self._compared:
            stored_at = self._compared.pop(conversation)  # one violation a conversation
            self._report.violated(
                Invariant.I4,
                f"the stored state ends at {stored_at}, and {record.offset} was applied and "
                "committed",
                Position(record.topic, record.partition, stored_at),
                conversation,
            )
        offset, stored = self._pending.get(conversation, (-1, {}))
        if offset != record.offset:
            return
        del self._pending[conversation]
        self._compared[conversation] = offset
        candidates = [self._digests(c) for c in recomputed if c.offset == offset]
        if stored in candidates:
            self._report.count("states")
            return
        if excused or not sure:
            self._report.count("holed" if excused else "states_undecided")
            return
        nearest = max(candidates, key=lambda c: len(c.items() & stored.items()), default={})
        differ = ", ".join(name for name, part in stored.items() if nearest.get(name) != part)
        text = f"the stored state differs in: {differ}"
        self._report.violated(Invariant.I4, text, Position.of(record), conversation)

    def end_partition(self, topic: str, partition: int) -> None:
        """Check the states whose position was not reached: past the log, before it, or invalid."""
        for conversation, (offset, _) in self._pending.items():
            if offset >= self._expectations.ends.get(partition, 0):
                self._report.count("states_moved_on")
            elif self._expectations.is_before_log(partition, offset):
                self._report.count("before_log")
            elif self._outputs.lost.has(offset):
                self._report.count("holed")
            else:
                text = "the stored position is none that changes this conversation"
                position = Position(topic, partition, offset)
                self._report.violated(Invariant.I4, text, position, conversation)
        self._pending.clear()
        self._compared.clear()


def digests(conversation: Conversation, *, arrays: bool) -> dict[str, bytes]:
    """Return 8 bytes for each part of a state, so that a violation can name what differs.

    Without `arrays`, only of the parts that no arithmetic enters: positions, ids and counts.
    """
    window = conversation.window
    speakers = [(who, s.last_index, s.last_utterance_id) for who, s in window.speakers.items()]
    parts = {
        "session": repr(conversation.session).encode(),
        "clock": b"%d" % conversation.clock_ms,
        "count": b"%d" % window.count,
        "rows' ids": repr((window.row_utterances, window.row_speakers)).encode(),
        "speakers": repr(speakers).encode(),
        "ids of the duplicate horizon": conversation.recent,
        "id_reused": b"%d" % conversation.id_reused,
    }
    if arrays:
        parts |= {
            "arrays of the rows": window.rows.tobytes(),
            "arrays of the conversation": b"" if window.arrays is None else window.arrays.tobytes(),
            "arrays of the speakers": b"".join(
                s.arrays.tobytes() for s in window.speakers.values()
            ),
            "state of the alert rule": conversation.alert,
        }
    return {name: blake2b(part, digest_size=8).digest() for name, part in parts.items()}
