"""What a partition's states must hold at its committed offset, computed anew from the log.

Redis is a cache of a replayable log (architecture §3e). A state that is missing, older than the log
says or of another model is computed again, by the functions that serve, and written in its place;
what is whole stays. Only conversations heard within `idle_s` before the committed offset can go on:
whoever speaks after that starts a new session anyway.

A conversation is replayed from its last pause of more than `idle_s`, where session and duplicate
horizon begin. Where the log does not reach back to one, the state says `truncated`.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Container, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import structlog

from model.interface import ModelInfo, Prediction, Predictor
from state.store import Loaded, Restore, SaveResult, Store, StoreUnavailable
from state.window import Conversation, Opening, StateKey, apply_nothing, open_at
from stream.answers.build_events import rule_of
from stream.answers.predict import as_turn, begin
from stream.answers.shift_rule import ShiftRule
from stream.events.decode import decode
from stream.events.messages import Utterance
from stream.events.poison import Poison
from stream.ports import NO_TIMESTAMP, LogReader, PortError, Record
from stream.worker.batcher import Batcher, Item
from stream.worker.log_cache import Remembered
from stream.worker.pipeline import Doubt, change_of

AT_ONCE: Final = 1_000  # conversations replayed together: bounds the memory of a rebuild
REPLAYED_AT_ONCE: Final = 48  # the largest batch of a CPU
READY_AHEAD: Final = 3  # batches that wait for the model, so that it never waits for us
LOADED_AT_ONCE: Final = 100
PROGRESS_S: Final = 5.0
REACH: Final = 64  # how much further each look for the last record reaches: markers hold none
FOREVER: Final = 1 << 62

log = structlog.get_logger()


class Disputed(PortError):
    """A newer owner of the partition has written meanwhile."""

    def __init__(self, partition: int) -> None:
        super().__init__(f"a newer owner of partition {partition} has written")
        self.partition = partition


@dataclass(slots=True)
class Heard:
    """What a stretch of the log says of one conversation."""

    first: int  # offset to replay from
    first_ms: int
    last: int
    last_ms: int
    settled: bool = False  # nothing before `first` belongs to its session or horizon

    def add(self, record: Record, idle_ms: int) -> None:
        """Take in the next record; after a pause all begins anew."""
        if record.timestamp_ms - self.last_ms > idle_ms:
            self.first, self.first_ms, self.settled = record.offset, record.timestamp_ms, True
        self.last, self.last_ms = record.offset, max(self.last_ms, record.timestamp_ms)

    def follow(self, earlier: Heard | None, since_ms: int, idle_ms: int) -> None:
        """Take in what the stretch before, which begins at `since_ms`, says."""
        if self.first_ms - (since_ms if earlier is None else earlier.last_ms) > idle_ms:
            self.settled = True
        elif earlier is not None:
            self.first, self.first_ms = earlier.first, earlier.first_ms
            self.settled = earlier.settled


@dataclass(frozen=True, slots=True)
class Task:
    """One state to compute anew, from the records between two offsets, both included."""

    key: StateKey
    loaded: Loaded
    seed: Conversation | None  # the older state to go on from
    first: int
    last: int
    cut: bool  # the log does not reach back to where its session began

    @property
    def cause(self) -> str:
        """As counted."""
        if self.loaded.foreign:
            return "other_model" if self.loaded.corrupt is None else "corrupt_state"
        return "missing_state" if self.loaded.conversation is None else "stale_state"


@dataclass(frozen=True, slots=True)
class Asked:
    """A batch that is with the model."""

    batch: tuple[Item, ...]
    opened: list[tuple[Item, Utterance, Opening]]  # without duplicates
    answers: Callable[[], list[Prediction | Poison]]  # waits


@dataclass(slots=True)
class Rebuild:
    """The states of one partition. `run` works in slices, so that the caller may poll between."""

    partition: int
    committed: int  # the next offset the group will read
    token: int
    doubted: Mapping[StateKey, Doubt]  # known to be gone or unreadable
    topic: str
    topic_id: str
    reader: LogReader
    store: Store
    predictor: Predictor
    now_ms: Callable[[], int]
    restored: Counter[str] = field(default_factory=Counter)  # states, by cause
    records: int = 0  # replayed
    blind_until_ms: int = NO_TIMESTAMP  # until then a conversation may have begun in what was cut
    _info: ModelInfo = field(init=False)
    _rule: ShiftRule = field(init=False)
    _log: Remembered = field(init=False)

    def __post_init__(self) -> None:
        self._log = Remembered(self.reader, self.partition)
        self._info = self.predictor.info
        self._rule = rule_of(self._info)

    def run(self) -> Iterator[None]:
        """Do it all, a slice a step. Raises `Disputed` and what the store and the log raise."""
        began = time.monotonic()
        low = self.reader.first(self.partition)
        heard = yield from self._listen(low)
        tasks = self._tasks(heard, low)
        yield
        for at in range(0, len(tasks), AT_ONCE):
            yield from self._replay(tasks[at : at + AT_ONCE])
        self._end([key for key in self.doubted if key.conversation_id not in heard])
        log.info(
            "states checked against the log",
            partition=self.partition,
            active=len(heard),
            restored=dict(self.restored),
            records=self.records,
            seconds=round(time.monotonic() - began, 2),
        )

    @property
    def _idle_ms(self) -> int:
        return int(self.predictor.spec.recurrence.idle_s * 1000)

    # What the log says.

    def _listen(self, low: int) -> Generator[None, None, dict[str, Heard]]:
        """Who was heard within `idle_s` before the committed offset, and since when."""
        last_ms = self._last_ms(low)
        since = low if last_ms is None else self._at(last_ms - self._idle_ms, low)
        heard = yield from self._stretch(since, self.committed, None)
        self._see_cut(low, since)
        recurrence = self.predictor.spec.recurrence
        back_ms = self._idle_ms
        while since > low and back_ms < 2 * recurrence.max_session_s * 1000:
            unsettled = {name for name, one in heard.items() if not one.settled}
            if not unsettled:
                break
            assert last_ms is not None, "without a record nobody is unsettled"
            back_ms *= 2  # each look reaches twice as far
            since_ms, until = last_ms - back_ms, since
            since = self._at(since_ms, low)
            earlier = yield from self._stretch(since, until, unsettled)
            for name in unsettled:
                heard[name].follow(earlier.get(name), since_ms, self._idle_ms)
        if since <= low:
            low_ms = self._first_ms(low)
            for one in heard.values():
                one.settled |= low == 0 or one.first_ms - low_ms > self._idle_ms
        return heard

    def _stretch(
        self, first: int, end: int, only: Container[str] | None
    ) -> Generator[None, None, dict[str, Heard]]:
        """What the records of a stretch say of each conversation, or of `only` some."""
        heard: dict[str, Heard] = {}
        for portion in self._log.read(first, end):
            for record in portion:
                name = (record.key or b"").decode(errors="replace")
                if only is not None and name not in only:
                    continue
                at, sent_ms = record.offset, record.timestamp_ms
                one = heard.setdefault(name, Heard(at, sent_ms, at, sent_ms))
                one.add(record, self._idle_ms)
            yield
        return heard

    def _at(self, time_ms: int, low: int) -> int:
        return max(low, min(self.reader.at(self.partition, time_ms), self.committed))

    def _last_ms(self, low: int) -> int | None:
        """Time of the last record before the committed offset; None where the log holds none."""
        reach = 1
        while True:
            first = max(low, self.committed - reach)
            found = [r for part in self._log.read(first, self.committed) for r in part]
            if found:
                return found[-1].timestamp_ms
            if first <= low:
                return None
            reach *= REACH

    def _first_ms(self, low: int) -> int:
        """Time of the first record that is left; now where there is none."""
        for part in self._log.read(low, low + REACH):
            for record in part:
                return record.timestamp_ms
        return self.now_ms()

    def _see_cut(self, low: int, since: int) -> None:
        """Where the look ended at the log's cut start, some may have been heard just before it."""
        if 0 < low >= since:
            self.blind_until_ms = self._first_ms(low) + self._idle_ms

    # What must be computed.

    def _tasks(self, heard: Mapping[str, Heard], low: int) -> list[Task]:
        """The states that are missing, older than the log or not readable."""
        keys = [StateKey(name, self.topic_id, self.partition) for name in heard]
        tasks: list[Task] = []
        for at in range(0, len(keys), LOADED_AT_ONCE):
            some = keys[at : at + LOADED_AT_ONCE]
            for key, loaded in zip(some, self.store.load_many(some), strict=True):
                one = heard[key.conversation_id]
                if loaded.conversation is not None and loaded.offset >= one.last:
                    continue
                # An older state is gone on from, unless what followed it has left the log.
                seed = loaded.conversation if loaded.offset + 1 >= low else None
                first = one.first if seed is None else loaded.offset + 1
                last = max(one.last, loaded.offset)  # what was applied last is replayed to its end
                cut = seed is None and not one.settled
                tasks.append(Task(key, loaded, seed, first, last, cut))
        return tasks

    # How.

    def _replay(self, tasks: Sequence[Task]) -> Iterator[None]:
        """Compute these states from the log and write them where they differ."""
        known = {task.key: task.seed for task in tasks}
        batcher = Batcher(REPLAYED_AT_ONCE, 0.0, max_uncommitted=FOREVER)
        by_key = {task.key: task for task in tasks}
        first = min(task.first for task in tasks)
        asked: deque[Asked] = deque()
        for portion in self._log.read(first, 1 + max(t.last for t in tasks)):
            for record in portion:
                item = self._item(record, by_key)
                if item is not None:
                    batcher.put(item)
            yield from self._advance(batcher, asked, by_key, known, READY_AHEAD)
            yield
        yield from self._advance(batcher, asked, by_key, known, 0)
        self._write(tasks, known)

    def _advance(
        self,
        batcher: Batcher,
        asked: deque[Asked],
        tasks: Mapping[StateKey, Task],
        known: dict[StateKey, Conversation | None],
        ahead: int,
    ) -> Iterator[None]:
        """Step what can be stepped; up to `ahead` batches stay with the model on return."""
        while True:
            batch = batcher.next_batch(time.monotonic()) if len(asked) <= READY_AHEAD else ()
            if batch:
                asked.append(self._ask(batch, tasks, known))
            elif len(asked) > ahead or batcher.depth:
                done = asked.popleft()
                self._learn(done, tasks, known)
                batcher.finish(done.batch)
                self.records += len(done.batch)
                yield
            else:
                return

    def _item(self, record: Record, tasks: Mapping[StateKey, Task]) -> Item | None:
        """A record that one of the states must see; None for any other."""
        if record.key is None:
            return None
        key = StateKey(record.key.decode(errors="replace"), self.topic_id, self.partition)
        task = tasks.get(key)
        if task is None or not task.first <= record.offset <= task.last:
            return None
        message = decode(
            record.value,
            record.key,
            record.headers,
            topic=self.topic,
            inputs=self._info.inputs,
            only=self._info.own_extractors,
        )
        if not isinstance(message, Utterance):
            return None  # it touched no state
        return Item(record, message, key, polled_at=0.0)

    def _ask(
        self,
        batch: tuple[Item, ...],
        tasks: Mapping[StateKey, Task],
        known: Mapping[StateKey, Conversation | None],
    ) -> Asked:
        """Give a batch to the model, as `Pipeline.step` would."""
        spec, inputs = self.predictor.spec, self._info.inputs
        opened: list[tuple[Item, Utterance, Opening]] = []
        for item in batch:
            key, record, utterance = item.key, item.record, item.message
            assert key is not None and isinstance(utterance, Utterance)
            opening = open_at(
                known[key],
                spec=spec,
                timestamp_ms=record.timestamp_ms,
                offset=record.offset,
                truncated=tasks[key].cut,
            )
            if not opening.before.is_recent(utterance.utterance_id):
                opened.append((item, utterance, opening))
        turns = [as_turn(u, o.before.window, inputs) for _, u, o in opened]
        return Asked(batch, opened, begin(self.predictor, turns))

    def _learn(
        self,
        asked: Asked,
        tasks: Mapping[StateKey, Task],
        known: dict[StateKey, Conversation | None],
    ) -> None:
        """What `Pipeline.step` would leave in the store of these, by the same functions."""
        spec = self.predictor.spec
        for (item, utterance, opening), answer in zip(asked.opened, asked.answers(), strict=True):
            key, record = item.key, item.record
            assert key is not None
            if isinstance(answer, Poison):
                change = apply_nothing(
                    known[key], spec=spec, offset=record.offset, truncated=tasks[key].cut
                )
            else:
                change, _ = change_of(
                    opening, utterance, record, answer, self._rule, spec.recurrence
                )
            known[key] = change.after

    def _write(self, tasks: Sequence[Task], known: Mapping[StateKey, Conversation | None]) -> None:
        """Put the computed states in place of what is stored."""
        changed = [
            (task, found)
            for task in tasks
            if (found := known[task.key]) is not None
            and (task.loaded.conversation is None or found.offset > task.loaded.offset)
        ]
        self._restore([(t.key, t.loaded.offset, c) for t, c in changed])
        self.restored.update(task.cause for task, _ in changed)

    def _end(self, keys: Sequence[StateKey]) -> None:
        """What cannot be read and was not heard of lately is over: say so in its place."""
        nobody = apply_nothing(None, spec=self.predictor.spec, offset=max(self.committed - 1, 0))
        stored = zip(keys, self.store.load_many(keys), strict=True)
        over = [(key, found.offset, nobody.after) for key, found in stored if found.foreign]
        self._restore(over)
        if over:
            self.restored["corrupt_state"] += len(over)

    def _restore(self, states: Sequence[tuple[StateKey, int, Conversation]]) -> None:
        restores = [Restore(key, self.token, expected, c) for key, expected, c in states]
        for at in range(0, len(restores), LOADED_AT_ONCE):
            for saved in self.store.restore_many(restores[at : at + LOADED_AT_ONCE]):
                if saved.result is SaveResult.FENCED:
                    raise Disputed(self.partition)
                if saved.result is not SaveResult.SAVED:
                    raise StoreUnavailable("a state changes while it is rebuilt")
