"""`emotrack serve --runtime faust`: a Faust app reads the topic, the same worker answers it.

For teams that run Faust. Faust joins the group, fetches and commits; its one agent (concurrency 1)
only hands records over, and `FaustSource` is the `Source` that the worker's loop polls. So batches,
`Pipeline.step`, fencing, replays, metrics and drain are the worker's own. Faust's acknowledgements
are off (`acks=False`): Faust acknowledges an event whose agent raised, and one that it skips after
a rebalance, and would commit past them. Only the worker's contiguous watermark is committed, and
each commit is read back from the broker before outputs below it are dropped. No tables, no
`exactly_once`, topics are never created.

docs/operations.md ("Behind Faust") lists the limits. For the code: a rebalance is eager, and a
revoke commits what is done within Faust's session timeout or leaves it to be replayed.
"""

from __future__ import annotations

import asyncio
import logging
import tempfile
import threading
from bisect import bisect_left
from collections.abc import Coroutine, Mapping, Sequence
from concurrent.futures import TimeoutError as NotInTime
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import faust
from faust.types import TP

from stream.brokers.kafka_admin import broker_addresses
from stream.brokers.kafka_config import close_quietly
from stream.brokers.kafka_watch import KafkaWatch, Tell
from stream.brokers.topic_reader import TopicReader
from stream.errors import BrokerUnreachable
from stream.ports import NO_TIMESTAMP, Assignments, CommitRefused, LogUnavailable, Record, Start
from stream.settings import Settings

STOP_S: Final = 20.0
CALL_S: Final = 10.0
CHECK_S: Final = 0.05  # interval at which the app's state is checked

Result = TypeVar("Result")


@dataclass(slots=True)
class PartitionBuffer:
    """Records of one partition from the committed one on: delivered before index `at`, else not.

    Faust does not reliably read a record again, so a seek goes back within this buffer.
    """

    position: int = -1  # offset to be delivered next; -1: not known before the first record
    records: list[Record] = field(default_factory=list)
    at: int = 0

    def take(self, count: int) -> list[Record]:
        """Return the next records, which count as delivered."""
        taken = self.records[self.at : self.at + count]
        self.at += len(taken)
        if taken:
            self.position = taken[-1].offset + 1
        return taken

    def seek(self, offset: int) -> None:
        """Deliver from `offset` on."""
        self.at = self._first_from(offset)
        self.position = offset

    def committed(self, offset: int) -> None:
        """Drop delivered records below `offset`."""
        done = min(self._first_from(offset), self.at)
        del self.records[:done]
        self.at -= done

    def _first_from(self, offset: int) -> int:
        return bisect_left(self.records, offset, key=lambda record: record.offset)


@dataclass(frozen=True, slots=True)
class OwnershipChange:
    """Partitions assigned or about to be revoked; `handled` is set when the worker is done."""

    assigned: bool
    buffers: Mapping[int, PartitionBuffer]
    handled: threading.Event = field(default_factory=threading.Event)


class FaustSource:
    """A `Source` fed by a Faust app, which runs on a thread and a loop of its own."""

    def __init__(self, settings: Settings, topic_id: str) -> None:
        self._settings, self._topic, self.topic_id = settings, settings.topics.utterances, topic_id
        self._reader, self._watch = TopicReader(settings), KafkaWatch(settings)
        self._listener: Assignments | None = None
        self._buffers: dict[int, PartitionBuffer] = {}
        self._paused: set[int] = set()
        self._changes: list[OwnershipChange] = []
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._fault: str | None = None
        self._app: Any = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="faust", daemon=True)

    def watch(self, tell: Tell) -> None:
        self._watch.start(tell)

    def subscribe(self, assignments: Assignments) -> None:
        self._listener = assignments
        self._thread.start()

    # Called on the worker's thread.

    def poll(self, max_records: int, timeout_s: float) -> list[Record]:
        with self._changed:
            self._changed.wait_for(
                lambda: self._changes or self._fault or self._has_records(), timeout_s
            )
            changes, self._changes = self._changes, []
        for n, change in enumerate(changes):
            try:
                self._handle(change)
            except BrokerUnreachable:  # the starting offsets are unknown: retry, in this order
                with self._changed:
                    self._changes[:0] = changes[n:]
                return []
        self._require_app()
        records: list[Record] = []
        with self._changed:
            for p, buffer in self._buffers.items():
                if p not in self._paused:
                    records += buffer.take(max_records - len(records))
            self._changed.notify_all()
        return records

    def _require_app(self) -> None:
        if self._fault is not None:
            raise LogUnavailable(f"the Faust app has ended: {self._fault}")

    def _has_records(self) -> bool:
        return any(b.at < len(b.records) for p, b in self._buffers.items() if p not in self._paused)

    def _handle(self, change: OwnershipChange) -> None:
        assert self._listener is not None
        if change.assigned:
            bounds = self._reader.bounds(self._topic)
            committed = self._reader.committed(self._topic, bounds)
            starts = {p: Start(committed[p], bounds[p].low) for p in change.buffers}
            for p, start in starts.items():
                change.buffers[p].position = max(start.committed, start.low)
            self._listener.assigned(starts)
        else:
            self._listener.revoked(tuple(change.buffers))
            with self._changed:
                for p, buffer in change.buffers.items():
                    if self._buffers.get(p) is buffer:  # else it was assigned again meanwhile
                        del self._buffers[p]
                        self._paused.discard(p)
        change.handled.set()

    def pause(self, partitions: Sequence[int]) -> None:
        self._paused.update(partitions)

    def resume(self, partitions: Sequence[int]) -> None:
        self._paused.difference_update(partitions)

    def seek(self, partition: int, offset: int) -> None:
        with self._changed:
            if partition in self._buffers:
                self._buffers[partition].seek(offset)

    def commit(self, offsets: Mapping[int, int], notes: Mapping[int, str]) -> None:
        self._require_app()
        wanted = {TP(self._topic, p): offset for p, offset in offsets.items()}
        # Faust skips partitions that are not assigned, and reports that all was committed.
        if not wanted.keys() <= self._app.consumer.assignment():
            raise CommitRefused(f"not ours any more: {sorted(offsets)}")
        if not self._call(self._app.consumer._commit(wanted)):
            raise CommitRefused("the group is rebalancing")
        try:
            found = self._reader.committed(self._topic, offsets)
        except BrokerUnreachable as error:
            raise LogUnavailable(str(error)) from None
        if any(found[p] < offset for p, offset in offsets.items()):
            raise CommitRefused(f"the broker holds {found}, not {dict(offsets)}")
        with self._changed:
            for p, offset in offsets.items():
                if p in self._buffers:
                    self._buffers[p].committed(offset)

    def lag(self) -> Mapping[int, int]:
        return {
            p: max(0, (self._app.consumer.highwater(TP(self._topic, p)) or 0) - buffer.position)
            for p, buffer in self._buffers.items()
            if buffer.position >= 0
        }

    def reachable(self) -> bool:
        return self._fault is None and self._watch.up

    def close(self) -> None:
        if self._buffers and self._listener is not None:
            listener, partitions = self._listener, tuple(self._buffers)
            close_quietly(lambda: listener.revoked(partitions))
            self._buffers.clear()
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(STOP_S)
        self._reader.close()
        self._watch.close()

    def _call(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        """Run a coroutine on the app's loop and wait for it. Raises `LogUnavailable`."""
        assert self._loop is not None
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result(CALL_S)
        except NotInTime:
            future.cancel()
            raise LogUnavailable("Faust did not answer in time") from None

    # Called on the app's thread.

    def _run(self) -> None:
        fault = "it was stopped"
        try:
            asyncio.run(self._serve())
        except Exception as error:  # raised again in the worker, which ends the process
            fault = repr(error)
        with self._changed:
            self._fault = fault
            for change in self._changes:
                change.handled.set()
            self._changed.notify_all()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        with tempfile.TemporaryDirectory(prefix="emotrack-faust-") as folder:
            self._app = app = make_app(self._settings, folder)
            topic = app.topic(self._topic, key_serializer="raw", value_serializer="raw", acks=False)
            app.agent(topic, name="emotrack.answer", concurrency=1)(self._hand_over)
            app.on_partitions_assigned.connect(self._on_assigned, weak=False)
            app.on_partitions_revoked.connect(self._on_revoked, weak=False)
            app.finalize()
            await app.start()
            while not (self._stopping.is_set() or app.crashed):
                await asyncio.sleep(CHECK_S)
            await app.stop()
            if app.crash_reason is not None:
                raise app.crash_reason

    async def _hand_over(self, stream: Any) -> None:
        """Pass records to the worker's bounded buffers, acknowledging none: the app's agent."""
        async for event in stream.noack().events():
            record = as_record(event.message)
            while not self._put(record):
                await asyncio.sleep(CHECK_S)

    def _put(self, record: Record) -> bool:
        """Queue a record for the worker; return false while the buffers are full."""
        with self._changed:
            buffer = self._buffers.get(record.partition)
            if buffer is None:
                return True  # its partition was revoked: the next owner reads it
            unread = sum(len(b.records) - b.at for b in self._buffers.values())
            if unread >= self._settings.high_water:
                return False
            buffer.records.append(record)
            self._changed.notify_all()
            return True

    async def _on_assigned(self, _app: Any, assigned: set[TP], **_: Any) -> None:
        buffers = {p: PartitionBuffer() for p in sorted(tp.partition for tp in assigned)}
        with self._changed:
            self._buffers = buffers
        self._notify(OwnershipChange(True, dict(buffers)))

    async def _on_revoked(self, _app: Any, revoked: set[TP], **_: Any) -> None:
        """Wait until the worker has committed what is done; Faust gives the partitions up then."""
        if not revoked:
            return
        change = OwnershipChange(False, {p: self._buffers[p] for _, p in revoked})
        self._notify(change)
        await asyncio.to_thread(change.handled.wait, self._settings.session_timeout_ms / 2000)

    def _notify(self, change: OwnershipChange) -> None:
        with self._changed:
            self._changes.append(change)
            self._changed.notify_all()


def make_app(settings: Settings, folder: str) -> Any:
    """Create a Faust app that only reads: no web server, tables, leader topic or discovery."""
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # ten lines a second without a broker
    session_s = settings.session_timeout_ms / 1000
    return faust.App(
        settings.group,
        broker=[f"kafka://{address}" for address in broker_addresses(settings.bootstrap)],
        broker_credentials=credentials(settings),
        broker_session_timeout=session_s,
        broker_heartbeat_interval=session_s / 4,  # `stream.brokers.takeover` tells both
        broker_request_timeout=max(90.0, 2 * session_s),
        broker_max_poll_interval=settings.max_poll_interval_ms / 1000,
        consumer_auto_offset_reset="earliest",
        processing_guarantee="at_least_once",
        stream_wait_empty=False,
        topic_allow_declare=False,
        topic_disable_leader=True,
        web_enabled=False,
        autodiscover=False,
        store="memory://",
        datadir=folder,
    )


def credentials(settings: Settings) -> Any:
    """Return our security settings as Faust's. Raises `ConfigError` for an unusable file."""
    security = settings.security
    context = security.context() if security.tls else None
    if security.sasl:
        return faust.SASLCredentials(
            username=security.username,
            password=security.password,
            mechanism=security.mechanism,
            ssl_context=context,
        )
    return None if context is None else faust.SSLCredentials(context)


def as_record(message: Any) -> Record:
    """Return one of Faust's messages, whose time is in seconds, as a record."""
    time_s = message.timestamp
    headers = message.headers or ()
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    return Record(
        topic=message.topic,
        partition=message.partition,
        offset=message.offset,
        timestamp_ms=NO_TIMESTAMP if time_s is None else round(time_s * 1000),
        key=message.key,
        value=message.value,
        headers=tuple((name, value) for name, value in pairs),
    )
