"""What lies in the store against what was recomputed: I4, and the bounds of I7.

A state is read when its conversation is first met in the log, and compared when the log has been
recomputed up to its position; until then only digests of it are kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Literal

from state.redis_reader import Held, States
from state.window import Conversation, StateKey, StateSpec
from stream.ports import Record
from stream.verify.outputs import Outputs
from stream.verify.report import Report, Terms, Violation


class StoredStates:
    """The states of one partition's conversations at a time."""

    def __init__(
        self, states: States, spec: StateSpec, outputs: Outputs, terms: Terms, report: Report
    ) -> None:
        self._states, self._spec, self._outputs = states, spec, outputs
        self._terms, self._report = terms, report
        self._arrays = terms.tolerance is None  # else they may differ in their last digits
        self._waiting: dict[str, tuple[int, Mapping[str, bytes]]] = {}
        self._compared: dict[str, int] = {}  # conversation -> stored position

    def meet(self, conversations: Sequence[str], record: Record) -> None:
        """Look up conversations that are heard for the first time from `record` on."""
        topic_id = self._terms.topic_id
        keys = [StateKey(one, topic_id, record.partition) for one in conversations]
        for key, found in zip(keys, self._states.read(keys), strict=True):
            if found is None:
                self._report.count("states_missing")
            else:
                self._check_bounds(key, found, record.topic)
                self._keep(key, found, record.topic)

    def _check_bounds(self, key: StateKey, found: Held, topic: str) -> None:
        r = self._spec.recurrence
        for what, n, limit in (
            ("rows", found.rows, r.window),
            ("utterance ids", found.ids, r.duplicate_horizon),
            ("stored outputs", found.outputs, self._terms.max_uncommitted),
        ):
            if n > limit:
                self._violated("I7", f"{n} {what}, at most {limit}", key, found, topic)
        if any(ttl < 0 for ttl in found.ttl_ms):
            self._violated("I7", "one of its keys never expires", key, found, topic)

    def _keep(self, key: StateKey, found: Held, topic: str) -> None:
        """Keep what a state must be compared with at its position."""
        conversation = found.loaded.conversation
        if found.loaded.corrupt is not None:
            self._violated("I4", found.loaded.corrupt, key, found, topic)
        elif found.loaded.foreign:
            self._report.count("states_foreign")
        elif conversation is not None:
            parts = parts_of(conversation, arrays=self._arrays)
            self._waiting[key.conversation_id] = (found.loaded.offset, parts)
            session = conversation.session
            if session.truncated and conversation.window.count:
                self._outputs.starts.setdefault((key.partition, session.first_offset), True)

    def compare(self, conversation: str, record: Record, known: Sequence[Conversation]) -> None:
        """I4, where `record` is at the stored position: one of `known` must be what is stored."""
        self._check_behind(conversation, record, known)
        offset, stored = self._waiting.get(conversation, (-1, {}))
        if offset != record.offset:
            return
        del self._waiting[conversation]
        self._compared[conversation] = offset
        candidates = [parts_of(c, arrays=self._arrays) for c in known if c.offset == offset]
        if stored in candidates:
            self._report.count("states")
            return
        nearest = max(candidates, key=lambda c: len(c.items() & stored.items()), default={})
        differ = ", ".join(name for name, part in stored.items() if nearest.get(name) != part)
        says = f"the stored state differs in: {differ}"
        self._report.violated(
            Violation("I4", says, record.topic, record.partition, offset, conversation)
        )

    def _check_behind(
        self, conversation: str, record: Record, known: Sequence[Conversation]
    ) -> None:
        """I4, too: what is committed is not missing from a state that is there."""
        stored = self._compared.get(conversation)
        committed = record.offset < self._terms.committed.get(record.partition, 0)
        if stored is None or not committed or any(c.offset != record.offset for c in known):
            return
        del self._compared[conversation]  # said once
        says = f"the stored state ends at {stored}, and {record.offset} was applied and committed"
        self._report.violated(
            Violation("I4", says, record.topic, record.partition, stored, conversation)
        )

    def end_partition(self, topic: str, partition: int) -> None:
        """What was not met by then is ahead of the log, behind it, or at no position of its own."""
        low, end = self._terms.lows.get(partition, 0), self._terms.ends.get(partition, 0)
        for conversation, (offset, _) in self._waiting.items():
            if offset >= end:
                self._report.count("states_moved_on")
            elif offset < low:
                self._report.count("before_log")
            else:
                says = "the stored position is none that changes this conversation"
                self._report.violated(Violation("I4", says, topic, partition, offset, conversation))
        self._waiting.clear()
        self._compared.clear()

    def _violated(
        self, invariant: Literal["I4", "I7"], says: str, key: StateKey, found: Held, topic: str
    ) -> None:
        offset = found.loaded.offset
        self._report.violated(
            Violation(invariant, says, topic, key.partition, offset, key.conversation_id)
        )


def parts_of(known: Conversation, *, arrays: bool) -> dict[str, bytes]:
    """8 bytes for each part of a state, so that what differs can be named.

    Without `arrays`, only what does not depend on arithmetic: positions, ids and counts.
    """
    window = known.window
    heard = [(who, s.last_index, s.last_utterance_id) for who, s in window.speakers.items()]
    parts = {
        "session": repr(known.session).encode(),
        "clock": b"%d" % known.clock_ms,
        "count": b"%d" % window.count,
        "rows' ids": repr((window.row_utterances, window.row_speakers)).encode(),
        "speakers": repr(heard).encode(),
        "ids of the duplicate horizon": known.recent,
    }
    if arrays:
        parts |= {
            "arrays of the rows": window.rows.tobytes(),
            "arrays of the conversation": b"" if window.arrays is None else window.arrays.tobytes(),
            "arrays of the speakers": b"".join(
                s.arrays.tobytes() for s in window.speakers.values()
            ),
            "state of the alert rule": known.alert,
        }
    return {name: blake2b(part, digest_size=8).digest() for name, part in parts.items()}
