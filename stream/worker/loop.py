"""The worker's loop: poll, batch, step, produce, commit. One thread owns everything in here.

Predict, save, produce, then commit: a record is committed only after its state is saved and all its
outputs are acknowledged. After a failure before that, the batch is done again and repeats bytes
(`pipeline`). The states of a partition (above the line) and of the loop, any of them at once:

===============  ============================================  =====================================
state            entered when                                  left when
===============  ============================================  =====================================
unclaimed        assigned, disputed or suspect                 `_claim` has a fence token for it
disputed         a fence or a refused commit may mean another  the broker accepts a commit for it,
                 owner; it is read again from the last commit  and `_claim` has a new fence token
suspect          assigned; a state of it is missing or torn;   `Recovery` trusts the store, or has
                 the store was replaced (all partitions)       rebuilt the states from the log
ahead            its share of the queue reaches high water     its share is down to low water
---------------  --------------------------------------------  -------------------------------------
full             the queue reaches high water                  the queue is down to low water
batch pending    store or broker fails during a batch          the batch is done, its partitions are
                                                               read again, or the store was replaced
waiting          store or broker fails; a partition disputed   `retry_ms` have passed
commit failed    a commit is refused or not answered           a commit is accepted
===============  ============================================  =====================================

An unclaimed, suspect or ahead partition is paused; all are while the queue is full or a batch is
pending (`Backpressure`). Polling continues, which maintains the membership. While waiting, nothing
is claimed, rebuilt or done again. After a failed commit the next one comes when it is due, not as
soon as a partition may release no more without it.
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
from stream.events.cloudevents import (
    COMPUTE_MS,
    END_TO_END_MS,
    PRODUCED_AT,
    QUEUE_MS,
    STATE_MS,
    rfc3339,
)
from stream.events.decode import Decoder
from stream.events.messages import Utterance
from stream.events.poison import Poison
from stream.ports import (
    NO_TIMESTAMP,
    CommitRefused,
    DeliveryFailed,
    Hole,
    LogReader,
    LogUnavailable,
    Outgoing,
    OutputRefused,
    Record,
    Sink,
    Source,
    Start,
    TopicChanged,
    Transactions,
    lost_of,
)
from stream.settings import Settings
from stream.worker.backpressure import IDLE_POLL_S, Backpressure
from stream.worker.batcher import Batcher, Item
from stream.worker.notices import Notices
from stream.worker.observe import Health, Observer, Servers
from stream.worker.partitions import Owned, Partitions, Watermark
from stream.worker.pipeline import Doubt, Pipeline, Result, Step
from stream.worker.rebuild import Disputed
from stream.worker.recovery import Recovery, Settling
from stream.worker.window_cache import Places, WindowCache

HOUSEKEEPING_S: Final = 1.0
STANDBY_AFTER_S: Final = 5.0  # a member without a partition by then stands by
FLUSH_S: Final = 1.0
POLL_BATCHES: Final = 4  # batches' worth of records in one poll

log = structlog.get_logger()

Trace = Callable[[Step, int, float], None]
"""Called with each answered batch, the time of its end (epoch ms), and its seconds."""


class Worker:
    """The worker of one topic, with one model and one store.

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
        self._topic = settings.topics.utterances
        self._source, self._sink, self._store, self._predictor = source, sink, store, predictor
        self._now_ms, self._clock_s = now_ms, clock_s
        self._decoder = Decoder(predictor.info.inputs, predictor.info.own_extractors)
        self._observer, self._servers = observer, Servers(health, observer, clock_s)
        self._cache = WindowCache(settings.cache_conversations, clock_s)
        wire = Wire(settings.topics, settings.output_format, settings.source)
        self._places = Places(
            store,
            capacity=max(settings.cache_conversations, settings.batch_max),
            again_s=predictor.spec.recurrence.idle_s,
            clock_s=clock_s,
        )
        self._pipeline = Pipeline(
            predictor, store, self._cache, self._places, wire, now_ms=now_ms, clock_s=clock_s
        )
        self._notices = Notices()
        self._batcher = Batcher(
            settings.batch_max, settings.batch_deadline_ms / 1000, settings.max_uncommitted
        )
        self._partitions = Partitions()
        self._recovery = Recovery(self._partitions, reader, store, predictor, now_ms, clock_s)
        self._settling = Settling()
        self._flow = Backpressure(settings.high_water, settings.low_water, settings.retry_ms / 1000)
        self._transactions = transactions  # None: answers go to the sink, offsets to the source
        self._pending: tuple[Item, ...] = ()  # a batch to be done again
        self._next_commit = 0.0
        self._next_housekeeping = 0.0
        self._began = clock_s()
        self._commit_failed = False

    def run(self, stop: Event) -> bool:
        """Work until `stop` is set, then drain; return whether all that was done is committed."""
        self._source.watch(self._servers.saw)
        self._source.subscribe(self)
        while not stop.is_set():
            self.turn()
        return self.drain()

    def turn(self) -> None:
        """Do one turn: read, work, commit what is due, pause or resume."""
        self._read()
        try:
            self._claim()
            self._rebuild_some()
            self._work()
        except StoreChanged as error:
            self._distrust(error)
        now = self._clock_s()
        presses = not self._commit_failed and any(self._batcher.full(p) for p in self._partitions)
        if now >= self._next_commit or presses:
            self._commit()
        if now >= self._next_housekeeping:
            self._housekeep(now)
        self._balance()  # last: what became suspect in this turn is not read in the next

    def drain(self) -> bool:
        """Commit what is done and leave the group, within the drain budget.

        Records queued or in flight are left to the next owner: they were never committed. Answers
        that the broker refuses are left to it at once, since only a person can help there.
        """
        self.health.draining = True
        reach("F10")
        until = self._clock_s() + self.settings.drain_budget_s
        self._commit()
        while self._partitions.committable() and self.health.outputs and self._clock_s() < until:
            self._source.poll(1, IDLE_POLL_S)
            self._commit()
        done = not self._partitions.committable()
        self._drop(list(self._partitions))  # or leaving the group would try the commit once more
        self._source.close()
        log.info("drained", committed=done)
        return done

    # Assignments: the source calls these from inside `poll`.

    def assigned(self, starts: Mapping[int, Start]) -> None:
        """Own these partitions from now on: claim a fence token for each."""
        for partition, start in starts.items():
            self._partitions[partition] = Owned(start, committed=start.committed, note=start.note)
        self._flow.forget(starts)
        gaps = sum(start.gap for start in starts.values())
        self._observer.rebalanced("assigned", len(starts), gaps)
        self.health.joined = True
        self._settling.assigned(self._clock_s())
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
        """Forget these, uncommitted: another member owns them already."""
        self._drop(partitions)
        self._observer.rebalanced("lost", len(partitions))
        log.warning("partitions lost", partitions=sorted(partitions))

    def _drop(self, partitions: Sequence[int]) -> None:
        for partition in partitions:
            self._partitions.pop(partition, None)
        self._forget(partitions)
        self._recovery.drop(partitions)
        self._flow.forget(partitions)
        self._observer.left(self._topic, partitions)

    def _forget(self, partitions: Sequence[int]) -> None:
        """Drop everything in flight of these partitions, and their cached windows."""
        self._batcher.drop(partitions)
        self._pending = tuple(i for i in self._pending if i.record.partition not in partitions)
        for partition in partitions:
            self._cache.drop_partition(partition)
            self._places.drop_partition(partition)

    def _restart(self, partition: int, *, disputed: bool) -> int:
        """Read a partition again from its committed offset, under a new claim."""
        owned = self._partitions[partition]
        owned.watermark, owned.token, owned.unsent = Watermark(), None, {}
        owned.disputed |= disputed
        owned.next = owned.resume_at
        self._forget([partition])
        self._source.seek(partition, owned.resume_at)
        return owned.resume_at

    def _dispute(self, partition: int) -> None:
        """Drop in-flight work of a partition that may be another member's: commit, then claim."""
        offset = self._restart(partition, disputed=True)
        self._flow.postpone(self._clock_s())
        log.warning("partition disputed", per="partition", partition=partition, offset=offset)

    def _suspect(self, partition: int, doubts: Mapping[StateKey, Doubt]) -> None:
        """Mark a partition for a rebuild: the store does not hold its states."""
        self._commit([partition])  # the rest is read again
        owned = self._partitions[partition]
        owned.suspect, owned.note = True, ""
        owned.doubted |= doubts
        offset = self._restart(partition, disputed=False)
        # States of another model are expected after a change of it, and met one after the other.
        (log.debug if set(doubts.values()) == {"foreign"} else log.warning)(
            "partition suspect: its states are checked against the log",
            partition=partition,
            offset=offset,
            doubts=dict(Counter(doubts.values())),
        )

    def _distrust(self, error: StoreChanged) -> None:
        """Suspect all partitions: the store is not the one their states were saved in."""
        log.warning("state store changed", reason=str(error))
        self._pending = ()
        self._recovery.forget()
        for partition in list(self._partitions):
            self._suspect(partition, {})

    def _claim(self) -> None:
        """Claim a fence token where there is none; a disputed partition must commit first."""
        if not self._flow.may_try(self._clock_s()):
            return
        for partition, owned in sorted(self._partitions.items()):
            if owned.token is not None:
                continue
            try:
                if owned.disputed:
                    # Only the broker knows the owner: a token claimed without asking it could
                    # fence the true one.
                    note = owned.note_at(self._now_ms())
                    self._source.commit({partition: owned.resume_at}, {partition: note})
                self._recovery.judge(owned)
                owned.token = self._store.claim(self._source.topic_id, partition)
                owned.disputed = False
                self._servers.store_up()
            except (StoreUnavailable, CommitRefused, LogUnavailable) as error:
                self._later(error)
                log.warning("claim postponed", per="reason", partition=partition, reason=str(error))
                return

    def _rebuild_some(self) -> None:
        """Rebuild the states of a suspect partition, one slice a turn."""
        if not self._flow.may_try(self._clock_s()):
            return
        try:
            rebuilt = self._recovery.advance(self._source.topic_id)
        except Disputed as met:
            self._dispute(met.partition)
        except (StoreUnavailable, LogUnavailable) as error:
            log.warning("rebuild postponed", per="reason", reason=str(error))
            self._later(error)
        else:
            if rebuilt is not None:
                self._observer.rebuilt(rebuilt.restored)

    # Read.

    def _read(self) -> None:
        now = self._clock_s()
        wait_s = self._flow.wait_s(
            now,
            rebuilding=self._recovery.busy,
            pending=bool(self._pending),
            due_s=self._batcher.wait_s(now),
        )
        # One poll is bounded, so the queue never holds more than `high_water` and one poll.
        records = self._source.poll(POLL_BATCHES * self.settings.batch_max, wait_s)
        polled_at, polled_ms = self._clock_s(), self._now_ms()
        if records:
            reach("F1")
            records = self._without_doubt(records)
        for record in records:
            # In log order and before the work: no offset above an unfinished one is committed.
            self._partitions[record.partition].watermark.admit(record.offset)
            self._batcher.put(self._decoded(record, polled_at, polled_ms))
        newest_ms = max((record.timestamp_ms for record in records), default=NO_TIMESTAMP)
        self._observer.read(len(records), (newest_ms - polled_ms) / 1000)

    def _without_doubt(self, records: list[Record]) -> list[Record]:
        """Note the records that left the log before they were read: contexts may lack them.

        Return the records, without those of a partition whose log cannot be looked at: they are
        read again.
        """
        holes: dict[int, list[Hole]] = {}
        for record in records:
            owned = self._partitions[record.partition]
            if record.offset > owned.next:
                hole = Hole(owned.next, record.offset, record.timestamp_ms)
                holes.setdefault(record.partition, []).append(hole)
            elif record.offset < owned.resume_at:
                raise self._gone_back(record)
            owned.next = record.offset + 1
        doubtful = {p for p, found in holes.items() if not self._look_into(p, found)}
        return [r for r in records if r.partition not in doubtful] if doubtful else records

    def _gone_back(self, record: Record) -> TopicChanged:
        topic, group = record.topic, self.settings.group
        return TopicChanged(
            f"partition {record.partition} of {topic} begins anew at {record.offset}, below the "
            f"offset that group {group} has committed: its log was truncated (an unclean leader "
            "election) or made anew, and new records would be taken for repeats. Delete the "
            f"group's offsets (`kafka-consumer-groups.sh --delete-offsets --group {group} --topic "
            f"{topic} --bootstrap-server {self.settings.bootstrap}`) and the states (FLUSHDB of "
            "that Redis), and start the workers again: what the log holds is answered again"
        )

    def _look_into(self, partition: int, holes: Sequence[Hole]) -> bool:
        """Tell lost records from a transaction's markers; return whether that was possible."""
        owned, first = self._partitions[partition], holes[0].first
        try:
            lost = lost_of(self._recovery.reader, partition, holes)
        except LogUnavailable as error:
            log.warning(
                "offsets are missing: read again",
                per=("partition", "reason"),
                partition=partition,
                reason=str(error),
            )
            owned.next = first
            self._source.seek(partition, first)
            return False
        for hole in lost:
            owned.lose(hole, int(self._predictor.spec.recurrence.idle_s * 1000))
        if lost:
            offsets = sum(hole.end - hole.first for hole in lost)
            self._observer.lost(offsets)
            log.warning(
                "records left the log before they were read: contexts are said to be truncated",
                partition=partition,
                offsets=offsets,
                first=lost[0].first,
            )
        return True

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
                per="reason",
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
        """Do the pending batch again, or the next one if it is time."""
        now = self._clock_s()
        if self._pending and not self._flow.may_try(now):
            return
        batch = self._pending or self._batcher.next_batch(now)
        if not batch:
            return
        try:
            if self._pending:
                self._store.check()  # a store that came back empty needs our function again
            step = self._step(batch, now)
            self._finish(step, now)
        except (StoreUnavailable, DeliveryFailed, LogUnavailable) as error:
            # Done again, before anything else is read.
            self._pending = tuple(i for i in batch if i.record.partition in self._partitions)
            self._later(error)
            self._report("batch held", error, records=len(batch))
        else:
            self._pending = ()
            self.health.outputs |= self._transactions is None
            self._batcher.finish(batch)  # saved: the next utterance of each conversation may go
            for partition, doubts in step.suspect.items():
                if partition in self._partitions:
                    self._suspect(partition, doubts)

    def _step(self, batch: Sequence[Item], now: float) -> Step:
        """Run the batch; fenced records are tried once more where the broker confirms ownership."""
        idle_s = self._predictor.spec.recurrence.idle_s
        step = self._pipeline.step(batch, self._partitions.leases(now, idle_s))
        self._servers.store_up()
        self._account(step)
        if not step.fenced:
            return step
        ours = self._still_ours({i.record.partition for i in step.fenced}, step.met_token)
        again = [i for i in step.fenced if i.record.partition in ours]
        retried = self._pipeline.step(again, self._partitions.leases(now, idle_s))
        self._account(retried)
        step.results += retried.results
        step.suspect |= retried.suspect
        for partition in sorted({i.record.partition for i in retried.fenced}):
            self._dispute(partition)
        return step

    def _account(self, step: Step) -> None:
        """Count a step's store operations, and log the splits it found."""
        self._observer.operated(step)
        if step.splits:
            self._notices.splits(step.splits)

    def _still_ours(self, partitions: set[int], met_token: int) -> set[int]:
        """Claim again the partitions whose commit the broker accepts; drop the others.

        A fence shows that another worker claimed later, not that it is the owner: it may have been
        expelled. The broker decides, and `met_token` + 1 fences the worker it decides against.
        """
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
        """Produce, wait for the acknowledgements, and account for each record.

        All states of the step are saved by now. `DeliveryFailed` is raised before the records are
        accounted for: the watermarks stay, and the batch is done again.
        """
        produced_at = self._clock_s()
        if self._transactions is not None:
            self._finish_records(step, began)
            self._commit()  # an answer goes out in the transaction that commits its offset
        else:
            for result in step.results:
                self._sink.produce(self._timed(result, step, began))
            reach("F7")
            self._flush()
            self._finish_records(step, began)
        acked_at = self._clock_s()
        self._observer.answered(step, began, produced_at, acked_at)
        if reused := [r for r in step.results if r.repeats == "other_utterance"]:
            self._notices.reused(reused)
        if self._trace is not None:
            self._trace(step, self._now_ms(), acked_at - began)

    def _finish_records(self, step: Step, began: float) -> None:
        """Move the watermarks: a batch carries its offsets, so only its records are finished."""
        for result in step.results:
            record = result.item.record
            if record.partition in self._partitions:
                owned = self._partitions[record.partition]
                owned.watermark.finish(record.offset, result.outcome)
                if self._transactions is not None:
                    owned.unsent[record.offset] = self._timed(result, step, began)

    def _timed(self, result: Result, step: Step, began: float) -> list[Outgoing]:
        """Return the outputs of a record, predictions with their timing in headers.

        In headers only: the value must be the same bytes when it is sent again.
        """
        if result.event is None:
            return list(result.send)
        item, now = result.item, self._clock_s()
        timing = (
            (QUEUE_MS, b"%.3f" % ((item.fetch_wait_s + began - item.polled_at) * 1000)),
            (STATE_MS, b"%.3f" % ((step.load_s + step.save_s) * 1000)),
            (COMPUTE_MS, b"%.3f" % (step.infer_s * 1000)),
            (END_TO_END_MS, b"%.3f" % ((item.fetch_wait_s + now - item.polled_at) * 1000)),
            (PRODUCED_AT, rfc3339(self._now_ms()).encode()),
        )
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

    def _report(self, event: str, error: Exception, **facts: object) -> None:
        """Log a fault; as an error where the broker refuses an answer, so that somebody acts."""
        self.health.outputs = not isinstance(error, OutputRefused)
        say = log.warning if self.health.outputs else log.error
        say(event, per="reason", **facts, reason=str(error))

    def _later(self, error: Exception) -> None:
        """Wait before the next try: `error` tells which server is away."""
        self._flow.postpone(self._clock_s())
        if isinstance(error, StoreUnavailable):
            self._servers.store_away(str(error))

    # Commit.

    def _commit(self, partitions: Sequence[int] | None = None) -> None:
        """Commit up to the watermarks; after a failure the next try commits as much or more."""
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
            self._report("commit failed", error, offsets=offsets)
            return
        self._commit_failed = False
        self.health.outputs |= self._transactions is not None
        self._confirm(offsets)
        self._observer.committed_in(self._clock_s() - began)

    def _commit_now(self, offsets: Mapping[int, int]) -> None:
        """Commit offsets, in a transaction together with all answers below them."""
        now_ms = self._now_ms()
        notes = {p: self._partitions[p].note_at(now_ms) for p in offsets}
        if self._transactions is None:
            self._source.commit(offsets, notes)
            return
        answers = self._partitions.unsent_below(offsets)
        reach("F7")
        self._transactions.commit(answers, offsets, notes)

    def _confirm(self, offsets: Mapping[int, int]) -> None:
        """Count the outcomes below these offsets, which the broker has stored: they are final.

        Not earlier: a record that is read again would be counted twice.
        """
        for partition, offset in offsets.items():
            owned = self._partitions[partition]
            owned.committed = offset
            owned.unsent = {at: sent for at, sent in owned.unsent.items() if at >= offset}
            records = owned.watermark.read_below(offset)
            outcomes = owned.watermark.confirm(offset)
            self._batcher.committed(partition, len(outcomes))
            self._observer.final(records, outcomes)

    # Flow.

    def _balance(self) -> None:
        """Pause the partitions that may not be read now, resume those that may."""
        pause, resume = self._flow.balance(
            self._batcher.depths,
            owned=self._partitions,
            unworkable=self._partitions.unworkable(),
            pending=bool(self._pending),
        )
        if resume:
            self._source.resume(resume)
        if pause:
            self._source.pause(pause)

    def _housekeep(self, now: float) -> None:
        """Set the gauges, and check the servers; once a second."""
        self._next_housekeeping = now + HOUSEKEEPING_S
        self._cache.drop_idle(self._predictor.spec.recurrence.idle_s)
        self.health.broker = self._source.reachable()
        checking = bool(self._partitions.checking())
        self.health.checked = self._settling.is_ready(now, checking=checking)
        if now - self._began > STANDBY_AFTER_S:
            self.health.joined = True  # more workers than partitions: standing by is ready, too
        try:
            self._store.verify()  # without traffic, nothing else queries the store
            self._places.look(self._source.topic_id, sorted(self._partitions))
            self._servers.store_up()
        except StoreUnavailable as error:
            self._servers.store_away(str(error))
        except StoreChanged as error:
            self._distrust(error)
        self._observer.gauges(
            health=self.health,
            topic=self._topic,
            lag=self._partitions.unanswered(
                self._source.lag(), seen_when_committed=self._transactions is not None
            ),
            owned=len(self._partitions),
            checking=len(self._partitions.checking()),
            queued=self._batcher.depth,
            paused=len(self._flow.paused),
            cached=len(self._cache),
            device_bytes=self._predictor.device_memory_bytes(),
        )
