"""The worker's loop: poll, batch, step, produce, commit. One thread owns everything in here.

A record is committed only after its state is saved and all it sends is acknowledged; whatever goes
wrong before, the batch is done again and repeats bytes (`pipeline`). While the store or the broker
is away, partitions are paused and polling goes on, so that membership is kept and nothing queues.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from threading import Event
from typing import Final

import structlog
from msgspec.structs import replace

from model.fault_points import reach
from model.interface import Predictor
from state.store import Store, StoreChanged, StoreUnavailable
from state.window import StateKey
from stream.answers.outbox import Wire
from stream.events.cloudevents import Timing
from stream.events.decode import Decoder
from stream.events.messages import Utterance
from stream.events.poison import Poison
from stream.ports import (
    NO_TIMESTAMP,
    CommitRefused,
    DeliveryFailed,
    LogReader,
    LogUnavailable,
    Outgoing,
    Record,
    Sink,
    Source,
    Start,
    Transactions,
)
from stream.settings import Settings
from stream.worker.batcher import Batcher, Item
from stream.worker.health import Health
from stream.worker.observe import Observer
from stream.worker.partitions import Partitions
from stream.worker.pipeline import Doubt, Pipeline, Result, Step
from stream.worker.rebuild import Disputed
from stream.worker.recovery import Recovery
from stream.worker.window_cache import WindowCache

IDLE_POLL_S: Final = 0.1  # how long an idle worker waits for a record, and so for a stop
HOUSEKEEPING_S: Final = 1.0
STANDBY_AFTER_S: Final = 5.0  # a member without a partition by then stands by
FLUSH_S: Final = 1.0
POLL_BATCHES: Final = 4  # batches' worth of records in one poll

log = structlog.get_logger()

Trace = Callable[[Step, int, float], None]
"""Told of each batch that is answered: when it ended (epoch ms), and how many seconds it took."""


class Worker:
    """Follows one topic with one model and one store until told to stop.

    `now_ms` is the wall clock (compared with broker time only), `clock_s` a monotonic one.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        source: Source,
        reader: LogReader,
        sink: Sink,
        transactions: Transactions | None = None,
        store: Store,
        predictor: Predictor,
        observer: Observer,
        health: Health,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        clock_s: Callable[[], float] = time.monotonic,
        trace: Trace | None = None,
    ) -> None:
        self._trace = trace
        self.settings, self.health = settings, health
        self._source, self._sink, self._store, self._predictor = source, sink, store, predictor
        self._now_ms, self._clock_s = now_ms, clock_s
        self._decoder = Decoder(predictor.info.inputs, predictor.info.own_extractors)
        self._observer = observer
        self._cache = WindowCache(settings.cache_conversations, clock_s)
        self._wire = wire_of(settings)
        self._pipeline = Pipeline(
            predictor, store, self._cache, self._wire, now_ms=now_ms, clock_s=clock_s
        )
        self._batcher = Batcher(
            settings.batch_max, settings.batch_deadline_ms / 1000, settings.max_uncommitted
        )
        self._partitions = Partitions()
        self._recovery = Recovery(
            self._partitions,
            reader=reader,
            store=store,
            predictor=predictor,
            now_ms=now_ms,
            clock_s=clock_s,
        )
        self._paused: set[int] = set()
        self._transactions = transactions  # None: answers go to the sink, offsets to the source
        self._held: tuple[Item, ...] = ()  # a batch to be done again
        self._retry_at = 0.0
        self._next_commit = 0.0
        self._next_housekeeping = 0.0
        self._began = clock_s()
        self._full = False
        self._ahead: set[int] = set()  # partitions that fill more than their share of the queue
        self._commit_failed = False

    def run(self, stop: Event) -> bool:
        """Work until `stop` is set, then drain; true when all that was done is committed."""
        self._source.subscribe(self)
        while not stop.is_set():
            self.turn()
        return self.drain()

    def turn(self) -> None:
        """One turn: read, work, commit what is due, pause or resume."""
        self._read()
        try:
            self._claim()
            self._rebuild_some()
            self._work()
        except StoreChanged as error:
            self._distrust(error)
        now = self._clock_s()
        if now >= self._next_commit or self._commit_presses():
            self._commit()
        if now >= self._next_housekeeping:
            self._housekeep(now)
        self._balance()  # last: what became suspect in this turn is not read in the next

    def _commit_presses(self) -> bool:
        """Whether a partition may not go on before a commit, and the last commit was well."""
        return not self._commit_failed and any(self._batcher.full(p) for p in self._partitions)

    def drain(self) -> bool:
        """Commit what is done and leave the group, within the drain budget.

        What is queued or in flight is left to the next owner: it was never committed.
        """
        self.health.draining = True
        reach("F10")
        until = self._clock_s() + self.settings.drain_budget_s
        self._commit()
        while self._partitions.committable() and self._clock_s() < until:
            self._source.poll(1, IDLE_POLL_S)
            self._commit()
        done = not self._partitions.committable()
        self._source.close()
        log.info("drained", committed=done)
        return done

    # Assignments, told by the source from inside `poll`.

    def assigned(self, starts: Mapping[int, Start]) -> None:
        """Own these partitions from now on: claim a fence token for each."""
        for partition, start in starts.items():
            self._partitions.add(partition, start)
            self._paused.discard(partition)
        self._observer.rebalanced("assigned", len(starts))
        self._observer.gaps(sum(start.gap for start in starts.values()))
        self.health.joined = True
        self._balance()
        log.info("partitions assigned", partitions=sorted(starts))

    def revoked(self, partitions: Sequence[int]) -> None:
        """Commit what is done of these and forget them."""
        reach("F9")
        self._commit(partitions)
        self._drop(partitions)
        self._observer.rebalanced("revoked", len(partitions))
        log.info("partitions revoked", partitions=sorted(partitions))

    def lost(self, partitions: Sequence[int]) -> None:
        """Forget these: they are somebody else's already."""
        self._drop(partitions)
        self._observer.rebalanced("lost", len(partitions))
        log.warning("partitions lost", partitions=sorted(partitions))

    def _drop(self, partitions: Sequence[int]) -> None:
        self._partitions.remove(partitions)
        self._forget(partitions)
        self._recovery.drop(partitions)
        self._paused.difference_update(partitions)
        self._ahead.difference_update(partitions)
        self._observer.left(self._wire_topic, partitions)

    def _forget(self, partitions: Sequence[int]) -> None:
        """Drop everything in flight of these partitions, and their cached windows."""
        self._batcher.drop(partitions)
        self._held = tuple(i for i in self._held if i.record.partition not in partitions)
        for partition in partitions:
            self._cache.drop_partition(partition)

    def _restart(self, partition: int, *, disputed: bool) -> int:
        """Read a partition again from its committed offset, under a new claim."""
        offset = self._partitions.restart(partition, disputed=disputed)
        self._forget([partition])
        self._source.seek(partition, offset)
        return offset

    def _dispute(self, partition: int) -> None:
        """Somebody else may own this partition: drop it, and read it again if it is ours."""
        offset = self._restart(partition, disputed=True)
        self._retry_at = self._clock_s() + self.settings.retry_ms / 1000
        log.warning("partition disputed", partition=partition, offset=offset)

    def _suspect(self, partition: int, doubts: Mapping[StateKey, Doubt]) -> None:
        """The store has not what it must have: rebuild this partition before it goes on."""
        self._commit([partition])
        owned = self._partitions[partition]
        owned.suspect, owned.note = True, ""
        owned.doubted |= doubts
        offset = self._restart(partition, disputed=False)
        log.warning(
            "partition suspect: its states are checked against the log",
            partition=partition,
            offset=offset,
            doubts=dict(Counter(doubts.values())),
        )

    def _distrust(self, error: StoreChanged) -> None:
        """The store is another one than we knew: all partitions are suspect."""
        log.warning("state store changed", reason=str(error))
        self._held = ()
        self._recovery.forget()
        for partition in list(self._partitions):
            self._suspect(partition, {})

    def _claim(self) -> None:
        """Claim a fence token where there is none; a disputed partition must commit first."""
        if self._clock_s() < self._retry_at:
            return
        for partition in self._partitions.unclaimed():
            owned = self._partitions[partition]
            try:
                if owned.disputed:
                    self._source.commit({partition: owned.resume_at}, {partition: owned.note})
                self._recovery.judge(owned)
                owned.token = self._store.claim(self._source.topic_id, partition)
                owned.disputed = False
                self._store_answered()
            except (StoreUnavailable, CommitRefused, LogUnavailable) as error:
                self._later(error)
                log.warning("claim postponed", partition=partition, reason=str(error))
                return

    def _rebuild_some(self) -> None:
        """Rebuild the states of a suspect partition, a slice a turn."""
        if self._clock_s() < self._retry_at:
            return
        try:
            whole = self._recovery.advance(self._source.topic_id)
        except Disputed as met:
            self._dispute(met.partition)
        except (StoreUnavailable, LogUnavailable) as error:
            log.warning("rebuild postponed", reason=str(error))
            self._later(error)
        else:
            if whole is not None:
                self._observer.rebuilt(whole.restored)

    # Read.

    @property
    def _wire_topic(self) -> str:
        return self.settings.utterances

    def _read(self) -> None:
        # So the queue never holds more than `high_water` and one poll.
        records = self._source.poll(POLL_BATCHES * self.settings.batch_max, self._wait_s())
        polled_at, polled_ms = self._clock_s(), self._now_ms()
        if records:
            reach("F1")
        for record in records:
            self._partitions[record.partition].watermark.admit(record.offset)
            self._batcher.put(self._decoded(record, polled_at, polled_ms))
        newest_ms = max((record.timestamp_ms for record in records), default=NO_TIMESTAMP)
        self._observer.read(len(records), (newest_ms - polled_ms) / 1000)

    def _wait_s(self) -> float:
        """How long the next poll may wait for a record."""
        if self._recovery.busy:
            return 0.0
        if self._held:
            return min(IDLE_POLL_S, max(0.0, self._retry_at - self._clock_s()))
        due = self._batcher.wait_s(self._clock_s())
        return IDLE_POLL_S if due is None else min(IDLE_POLL_S, due)

    def _decoded(self, record: Record, polled_at: float, polled_ms: int) -> Item:
        began = self._clock_s()
        decoded = self._decoder.decode(record)
        message = decoded.message
        key = None
        if isinstance(message, Utterance):
            key = StateKey(message.conversation_id, self._source.topic_id, record.partition)
        elif isinstance(message, Poison):
            log.warning(
                "record refused",
                reason=message.reason.value,
                partition=record.partition,
                offset=record.offset,
            )
        wait_ms = 0 if record.timestamp_ms == NO_TIMESTAMP else polled_ms - record.timestamp_ms
        decode_s = self._clock_s() - began
        wait_s = max(0, wait_ms) / 1000
        return Item(record, message, key, polled_at, wait_s, decode_s, decoded.envelope)

    # Work.

    def _work(self) -> None:
        """Do the held batch again, or the next one if it is time."""
        now = self._clock_s()
        if self._held and now < self._retry_at:
            return
        batch = self._held or self._batcher.next_batch(now)
        if not batch:
            return
        try:
            if self._held:
                self._store.check()  # a store that came back empty needs our function again
            step = self._step(batch, now)
            self._finish(step, now)
        except (StoreUnavailable, DeliveryFailed, LogUnavailable) as error:
            self._hold(batch, error)
        else:
            self._held = ()
            self._batcher.finish(batch)
            for partition, doubts in step.suspect.items():
                if partition in self._partitions:
                    self._suspect(partition, doubts)

    def _step(self, batch: Sequence[Item], now: float) -> Step:
        """Run the batch; what was fenced is tried once more where the broker says it is ours."""
        idle_s = self._predictor.spec.recurrence.idle_s
        step = self._pipeline.step(batch, self._partitions.leases(now, idle_s))
        self._store_answered()
        self._observer.operated(step)
        if not step.fenced:
            return step
        ours = self._still_ours({i.record.partition for i in step.fenced}, step.met_token)
        again = [i for i in step.fenced if i.record.partition in ours]
        retried = self._pipeline.step(again, self._partitions.leases(now, idle_s))
        self._observer.operated(retried)
        step.results += retried.results
        step.suspect |= retried.suspect
        for partition in sorted({i.record.partition for i in retried.fenced}):
            self._dispute(partition)
        return step

    def _still_ours(self, partitions: set[int], met_token: int) -> set[int]:
        """Partitions whose commit the broker accepts, claimed anew; the others are dropped."""
        ours: set[int] = set()
        for partition in sorted(partitions):
            owned = self._partitions[partition]
            offset = self._partitions.committable([partition]).get(partition, owned.resume_at)
            try:
                self._commit_now({partition: offset})
            except CommitRefused:
                self._dispute(partition)
                continue
            self._confirm({partition: offset})
            owned.token = self._store.claim(self._source.topic_id, partition, met_token + 1)
            ours.add(partition)
        return ours

    def _finish(self, step: Step, began: float) -> None:
        """Produce, wait for the acknowledgements, and account for each record."""
        produced_at = self._clock_s()
        if self._transactions is not None:
            self._finish_records(step, began)
            self._commit()  # sends what lies below the watermarks
        else:
            for result in step.results:
                self._sink.produce(self._timed(result, step, began))
            reach("F7")
            self._flush()
            self._finish_records(step, began)
        acked_at = self._clock_s()
        self._observer.answered(step, began, produced_at, acked_at)
        if self._trace is not None:
            self._trace(step, self._now_ms(), acked_at - began)

    def _finish_records(self, step: Step, began: float) -> None:
        """All records of a batch are done; what must go with their offsets is kept until then."""
        for result in step.results:
            record = result.item.record
            if record.partition in self._partitions:
                owned = self._partitions[record.partition]
                owned.watermark.finish(record.offset, result.outcome)
                if self._transactions is not None:
                    owned.unsent[record.offset] = self._timed(result, step, began)

    def _timed(self, result: Result, step: Step, began: float) -> list[Outgoing]:
        """What a record sends, predictions with their timing in headers."""
        if result.event is None:
            return list(result.send)
        item, now = result.item, self._clock_s()
        timing = Timing(
            queue_ms=(item.fetch_wait_s + began - item.polled_at) * 1000,
            state_ms=(step.times.load_s + step.times.save_s) * 1000,
            compute_ms=step.times.infer_s * 1000,
            end_to_end_ms=(item.fetch_wait_s + now - item.polled_at) * 1000,
            produced_at_ms=self._now_ms(),
        ).headers()
        prediction, *alerts = result.send
        return [replace(prediction, headers=(*prediction.headers, *timing)), *alerts]

    def _flush(self) -> None:
        """Wait for all acknowledgements. Raises `DeliveryFailed` after the delivery timeout."""
        until = self._clock_s() + self.settings.delivery_timeout_ms / 1000 + FLUSH_S
        while not self._sink.flush(FLUSH_S):
            self.health.broker = False
            if self._clock_s() >= until:
                raise DeliveryFailed("the broker did not acknowledge in time")
        self.health.broker = True

    def _hold(self, batch: tuple[Item, ...], error: Exception) -> None:
        """Keep a batch that must be done again, and stop reading until it is."""
        self._held = tuple(i for i in batch if i.record.partition in self._partitions)
        self._later(error)
        log.warning("batch held", records=len(batch), reason=str(error))

    def _later(self, error: Exception) -> None:
        """Something is away: try again after a while."""
        self._retry_at = self._clock_s() + self.settings.retry_ms / 1000
        if isinstance(error, StoreUnavailable):
            self._store_away()

    def _store_away(self) -> None:
        self.health.store = False
        self._observer.store_away()

    def _store_answered(self) -> None:
        self.health.store = True

    # Commit.

    def _commit(self, partitions: Sequence[int] | None = None) -> None:
        """Commit the contiguous watermarks; a failure is met again at the next commit."""
        began = self._clock_s()
        self._next_commit = began + self.settings.commit_interval_ms / 1000
        offsets = self._partitions.committable(partitions)
        if not offsets:
            return
        reach("F8")
        try:
            self._commit_now(offsets)
        except (CommitRefused, LogUnavailable, DeliveryFailed) as error:
            self.health.broker = isinstance(error, CommitRefused)
            self._next_commit = began + self.settings.retry_ms / 1000
            self._commit_failed = True
            log.warning("commit failed", offsets=offsets, reason=str(error))
            return
        self._commit_failed = False
        self._confirm(offsets)
        self._observer.committed_in(self._clock_s() - began)

    def _commit_now(self, offsets: Mapping[int, int]) -> None:
        """Commit offsets, in a transaction together with all answers below them."""
        notes = self._partitions.notes(offsets)
        if self._transactions is None:
            self._source.commit(offsets, notes)
            return
        answers = self._partitions.unsent_below(offsets)
        reach("F7")
        self._transactions.commit(answers, offsets, notes)

    def _confirm(self, offsets: Mapping[int, int]) -> None:
        """The broker holds these offsets: outcomes below them are final and counted."""
        for partition, offset in offsets.items():
            owned = self._partitions[partition]
            owned.committed = offset
            owned.sent_below(offset)
            records = owned.watermark.read_below(offset)
            outcomes = owned.watermark.confirm(offset)
            self._batcher.committed(partition, len(outcomes))
            self._observer.final(records, outcomes)

    # Flow.

    def _balance(self) -> None:
        """Pause what may not be read now, resume what may."""
        if self._batcher.depth >= self.settings.high_water:
            self._full = True
        elif self._batcher.depth <= self.settings.low_water:
            self._full = False
        self._ahead = {p for p in self._partitions if self._over_share(p)}
        held_up = self._full or bool(self._held)
        waiting = self._partitions.unworkable() | self._ahead
        target = set(self._partitions) if held_up else waiting
        if leave := sorted(self._paused - target):
            self._source.resume(leave)
        if enter := sorted(target - self._paused):
            self._source.pause(enter)
        self._paused = target

    def _over_share(self, partition: int) -> bool:
        """Whether a partition fills its share of the queue, or did and has not drained since.

        The client fetches anew after a pause, the same partition first: without shares, whoever is
        first fills the queue each time and the others are not read for as long as overload lasts.
        """
        owned, depth = len(self._partitions), self._batcher.depths[partition]
        if partition in self._ahead:
            return depth * owned > self.settings.low_water
        return depth * owned >= self.settings.high_water

    def _housekeep(self, now: float) -> None:
        """Once a second: gauges, and whether the servers are there."""
        self._next_housekeeping = now + HOUSEKEEPING_S
        self._cache.drop_idle(self._predictor.spec.recurrence.idle_s)
        self.health.broker = self._source.reachable()
        if now - self._began > STANDBY_AFTER_S:
            self.health.joined = True  # more workers than partitions: standing by is ready, too
        try:
            self._store.verify()  # nothing else would tell while nobody speaks
            self._store_answered()
        except StoreUnavailable as error:
            self._store_away()
            log.warning("state store away", reason=str(error))
        except StoreChanged as error:
            self._distrust(error)
        self._observer.looked(
            health=self.health,
            topic=self._wire_topic,
            lag=self._unanswered(),
            queued=self._batcher.depth,
            paused=len(self._paused),
            cached=len(self._cache),
            device_bytes=self._predictor.device_memory_bytes(),
        )

    def _unanswered(self) -> dict[int, int]:
        """Records in the log that have no answer yet: not read, queued, or in a batch."""
        return {
            partition: unread + self._partitions[partition].watermark.waiting
            for partition, unread in self._source.lag().items()
            if partition in self._partitions
        }


def wire_of(settings: Settings) -> Wire:
    """Where and how the worker's answers are written."""
    return Wire(
        predictions=settings.predictions,
        shift_alerts=settings.shift_alerts,
        dead_letters=settings.dead_letters,
        encoding=settings.output_format,
        source=settings.source,
    )
