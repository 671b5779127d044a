"""Compute from the log the states that a partition must have at its committed offset.

Redis is a cache of a replayable log. A state that is missing, older than the log or of another
model is computed again, by the functions that serve, and written in its place; valid states stay.
Only conversations with an utterance within `idle_s` before the committed offset can continue: a
later utterance starts a new session anyway.

A conversation is replayed from its last pause of more than `idle_s`, where session and duplicate
horizon begin. Where the log does not reach back to one, or has lost records that may have been of
the session, the state is marked `truncated`.

A state of another model is recognised whenever it is loaded. So only those that were asked for must
be computed before the partition goes on; others follow while `PAUSE_S` lasts, some at least, those
that spoke last first, and the rest when they are asked for. What a model computed before another
one replaced it was set aside by the store (`Store.set_aside`), and is continued from there.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from model.interface import Prediction, Predictor
from state.store import Loaded, Restore, SaveResult, Store, StoreUnavailable
from state.window import Conversation, StateKey, apply_nothing
from stream.answers.apply import Model, Question, ask, change_of, drop
from stream.answers.predict import begin
from stream.events.decode import Decoder
from stream.events.messages import Utterance
from stream.events.poison import Poison
from stream.ports import NO_TIMESTAMP, Hole, Holes, LogReader, PortError, Record, lost_of
from stream.worker.batcher import Batcher, Item
from stream.worker.log_scan import REACH, LogCache, LogScan, LogStretch
from stream.worker.partitions import Owned

AT_ONCE: Final = 1_000  # conversations replayed together: bounds the memory of a rebuild
PAUSE_S: Final = 1.0  # a partition pauses so long for states that nobody has asked for yet
REPLAYED_AT_ONCE: Final = 48  # the largest batch of a CPU
READY_AHEAD: Final = 3  # batches that wait for the model, so that it is never idle
LOADED_AT_ONCE: Final = 100
HOLES_AT_ONCE: Final = 1_000
FOREVER: Final = 1 << 62


class Disputed(PortError):
    """A newer owner of the partition has written meanwhile."""

    def __init__(self, partition: int) -> None:
        super().__init__(f"a newer owner of partition {partition} has written")
        self.partition = partition


def pause_s(scanned_s: float) -> float:
    """Return how long a partition may pause for what can wait, after a scan of its log.

    Where the scan takes long, half of the time at least is spent on states.
    """
    return max(PAUSE_S, scanned_s)


def cause_of(loaded: Loaded) -> str:
    """Return why a state is computed again, as counted."""
    if loaded.foreign:
        return "other_model" if loaded.corrupt is None else "corrupt_state"
    return "missing_state" if loaded.conversation is None else "stale_state"


@dataclass(slots=True)
class Task:
    """One state to compute, from the records between two offsets, both included."""

    key: StateKey
    loaded: Loaded
    state: Conversation | None  # as computed so far; at first the older state to continue from
    first: int
    last: int
    cut: bool  # the log no longer has all of its session

    @property
    def cause(self) -> str:
        """The reason for the computation, as counted."""
        return cause_of(self.loaded)

    @property
    def can_wait(self) -> bool:
        """True for a whole state of another model: whoever loads it sees what it is."""
        return self.loaded.foreign and self.loaded.corrupt is None

    @property
    def result(self) -> Conversation | None:
        """The computed state; None where it is the one that is stored."""
        if self.state is None or self.loaded.conversation is None:
            return self.state
        return self.state if self.state.offset > self.loaded.offset else None


@dataclass(frozen=True, slots=True)
class InFlight:
    """A batch that the model has not answered yet."""

    batch: tuple[Item, ...]
    questions: list[tuple[Task, Question]]  # without those that repeat an id
    predictions: Callable[[], list[Prediction | Poison]]  # waits


class Rebuild:
    """The states of one partition. `run` works in slices, so that the caller may poll between."""

    def __init__(
        self,
        partition: int,
        owned: Owned,
        topic_id: str,
        *,
        reader: LogReader,
        store: Store,
        predictor: Predictor,
        now_ms: Callable[[], int],
    ) -> None:
        """Begin for a claimed partition; `owned` is read here only."""
        assert owned.token is not None, "claimed first"
        self.partition, self.committed = partition, owned.resume_at
        self.restored: Counter[str] = Counter()  # states, by cause
        self.records = 0  # replayed
        self.seconds = 0.0  # it took
        self.active = 0  # conversations that may go on
        self.left = 0  # states of another model that are computed when they are asked for
        self.at_once = owned.at_once  # of those, computed together
        self.blind_until_ms = NO_TIMESTAMP  # until then a conversation may have begun in a cut
        self.cut_below = 0  # a state that ends below may lack records
        self.lost: list[Hole] = []  # records that were removed from what was scanned
        self._token, self._doubted, self._topic_id = owned.token, owned.doubted, topic_id
        self._reader, self._log = reader, LogCache(reader, partition)
        self._store, self._predictor, self._now_ms = store, predictor, now_ms
        self._model = Model.of(predictor)
        self._decoder = Decoder(self._model.info.inputs, self._model.info.own_extractors)
        self._idle_ms = int(self._model.spec.recurrence.idle_s * 1000)

    def run(self) -> Iterator[None]:
        """Rebuild, one slice a step. Raises `Disputed` and the errors of store and log."""
        began = time.monotonic()
        low = self._reader.first(self.partition)
        scan = yield from self._scan(low)
        tasks = self._tasks(scan.conversations, low)
        self.active, scanned = len(scan.conversations), time.monotonic()
        yield
        must = [t for t in tasks if not t.can_wait or t.key in self._doubted]
        must += self._end([k for k in self._doubted if k.conversation_id not in scan.conversations])
        for at in range(0, len(must), AT_ONCE):
            yield from self._compute(must[at : at + AT_ONCE], scan, low)
        rest = [t for t in tasks if t.can_wait and t.key not in self._doubted]
        rest.sort(key=lambda t: t.last, reverse=True)  # the others may be over for good
        self.left = len(rest)
        yield from self._compute_others(rest, scan, low, pause_s(scanned - began), scanned)
        self.seconds = time.monotonic() - began

    def _compute_others(
        self, tasks: Sequence[Task], scan: LogScan, low: int, pause: float, began: float
    ) -> Iterator[None]:
        """Compute what can wait until `pause` seconds after `began`, one batch at least.

        A batch takes long for its first state and little longer for others. So the next batch has
        twice the states, also in the next check of the partition, unless one took longer than all
        may: otherwise a busy worker would check the log once for each conversation.
        """
        while self.left:
            computed, at = len(tasks) - self.left, time.monotonic()
            some = tasks[computed : computed + self.at_once]
            yield from self._compute(some, scan, low)
            self.left -= len(some)
            now = time.monotonic()
            grown = min(2 * self.at_once, AT_ONCE)
            self.at_once = grown if now - at < pause else max(1, self.at_once // 2)
            if now >= began + pause:
                return

    # Read the log.

    def _scan(self, low: int) -> Generator[None, None, LogScan]:
        """Scan back from the committed offset until it is known where each session began."""
        last = self._log.last_record(low, self.committed)
        since = low if last is None else self._at(last.timestamp_ms - self._idle_ms, low)
        scan = LogScan(self._idle_ms)
        next_ms = yield from self._feed(scan, since, self.committed, low, self._now_ms())
        if 0 < low >= since:
            # Retention removed what came before: a conversation may have begun there.
            self.blind_until_ms = self._first_ms(low) + self._idle_ms
            self.cut_below = low
        back_ms, longest_ms = self._idle_ms, self._model.spec.recurrence.max_session_s * 1000
        while since > low and back_ms < 2 * longest_ms and (unsettled := scan.unsettled):
            assert last is not None, "without a record nothing is unsettled"
            back_ms *= 2  # each scan reaches twice as far: few scans find the longest session
            since_ms, until = last.timestamp_ms - back_ms, since
            since = self._at(since_ms, low)
            earlier = LogScan(self._idle_ms, unsettled)
            next_ms = yield from self._feed(earlier, since, until, low, next_ms)
            scan.follow(earlier, since_ms)
        if since <= low:
            scan.reach_start(low, self._first_ms(low))
        for hole in self.lost:
            self.blind_until_ms = max(self.blind_until_ms, hole.until_ms + self._idle_ms)
            self.cut_below = max(self.cut_below, hole.end)
        return scan

    def _feed(
        self, scan: LogScan, first: int, end: int, low: int, next_ms: int
    ) -> Generator[None, None, int]:
        """Scan a stretch and look for lost records in it; `next_ms` is when the log goes on.

        Return the time of its first record.
        """
        begin = max(low, first - 1)  # there, a record shows that none is lost just before `first`
        holes, first_ms = Holes(begin), None
        for portion in self._log.read(begin, end):
            holes.add(portion)
            records = portion if begin == first else [r for r in portion if r.offset >= first]
            if records and first_ms is None:
                first_ms = records[0].timestamp_ms
            scan.add(records)
            yield
        holes.reach(end, next_ms)
        for at in range(0, len(holes.found), HOLES_AT_ONCE):
            some = holes.found[at : at + HOLES_AT_ONCE]
            self.lost += lost_of(self._reader, self.partition, some)
            yield
        return next_ms if first_ms is None else first_ms

    def _at(self, time_ms: int, low: int) -> int:
        return max(low, min(self._reader.at(self.partition, time_ms), self.committed))

    def _first_ms(self, low: int) -> int:
        """Return the time of the first record in the log; now where there is none."""
        portions = self._log.read(low, low + REACH)
        first = next((record for portion in portions for record in portion), None)
        return self._now_ms() if first is None else first.timestamp_ms

    # Compare it with the stored states.

    def _tasks(self, active: Mapping[str, LogStretch], low: int) -> list[Task]:
        """Return the states that are missing, older than the log or not readable."""
        keys = [StateKey(name, self._topic_id, self.partition) for name in active]
        tasks: list[Task] = []
        for at in range(0, len(keys), LOADED_AT_ONCE):
            some = keys[at : at + LOADED_AT_ONCE]
            for key, loaded in zip(some, self._store.load_many(some), strict=True):
                stretch = active[key.conversation_id]
                if loaded.conversation is None or loaded.offset < stretch.last:
                    tasks.append(self._task(key, loaded, stretch, low))
        return tasks

    def _task(self, key: StateKey, loaded: Loaded, stretch: LogStretch, low: int) -> Task:
        # An older state is continued, unless records after it have left the log.
        seed = loaded.conversation if loaded.offset + 1 >= low else None
        first = stretch.first if seed is None else loaded.offset + 1
        # Records above `committed` may be applied already: a state never goes back.
        last = max(stretch.last, loaded.offset)
        if seed is None:
            cut = not stretch.settled or self._lost_since(stretch.first_ms)
        elif cut := self._lost_after(first):
            seed = seed.cut()
        return Task(key, loaded, seed, first, last, cut)

    def _compute(self, tasks: Sequence[Task], scan: LogScan, low: int) -> Iterator[None]:
        """Compute states and write them where they differ."""
        active = [t for t in tasks if t.key.conversation_id in scan.conversations]
        self._continue([t for t in active if t.can_wait], scan, low)
        return self._replay(tasks)

    def _continue(self, tasks: Sequence[Task], scan: LogScan, low: int) -> None:
        """Let each continue what this model computed before another one took over."""
        for at in range(0, len(tasks), LOADED_AT_ONCE):
            some = tasks[at : at + LOADED_AT_ONCE]
            aside = self._store.load_aside([task.key for task in some])
            for task, seed in zip(some, aside, strict=True):
                began = scan.conversations[task.key.conversation_id].first
                # Not beyond what must be there (a store lost writes), nor of an earlier session.
                if seed is not None and max(began, low - 1) <= seed.offset <= task.last:
                    task.first = seed.offset + 1
                    task.cut = self._lost_after(task.first)
                    task.state = seed.cut() if task.cut else seed

    def _lost_after(self, first: int) -> bool:
        """Return whether a record from offset `first` on was removed."""
        return any(hole.end > first for hole in self.lost)

    def _lost_since(self, began_ms: int) -> bool:
        """Return whether a session that seems to begin then may have lost a record."""
        return any(hole.until_ms >= began_ms - self._idle_ms for hole in self.lost)

    # Ask, apply, restore.

    def _replay(self, tasks: Sequence[Task]) -> Iterator[None]:
        """Compute these states from the log and write them where they differ."""
        by_key = {task.key: task for task in tasks}
        # The worker's own: one utterance of a conversation in a batch, in log order.
        batcher = Batcher(REPLAYED_AT_ONCE, 0.0, max_uncommitted=FOREVER)
        flight: deque[InFlight] = deque()
        first, end = min(task.first for task in tasks), 1 + max(task.last for task in tasks)
        for portion in self._log.read(first, end):
            for record in portion:
                item = self._item(record, by_key)
                if item is not None:
                    batcher.put(item)
            yield from self._advance(batcher, flight, by_key, READY_AHEAD)
            yield
        yield from self._advance(batcher, flight, by_key, 0)
        changed = [(t, state) for t in tasks if (state := t.result) is not None]
        others = [task.key for task, _ in changed if task.can_wait]
        for at in range(0, len(others), LOADED_AT_ONCE):
            self._store.set_aside(others[at : at + LOADED_AT_ONCE], self._token)
        self._restore(Restore(t.key, self._token, t.loaded.offset, state) for t, state in changed)
        self.restored.update(task.cause for task, _ in changed)

    def _advance(
        self, batcher: Batcher, flight: deque[InFlight], tasks: Mapping[StateKey, Task], ahead: int
    ) -> Iterator[None]:
        """Step all batches that are due; up to `ahead` of them stay with the model on return."""
        while True:
            batch = batcher.next_batch(time.monotonic()) if len(flight) <= READY_AHEAD else ()
            if batch:
                flight.append(self._ask(batch, tasks))
            elif len(flight) > ahead or batcher.depth:
                done = flight.popleft()
                for (task, question), p in zip(done.questions, done.predictions(), strict=True):
                    task.state = change_of(question, p, self._model)[0].after
                # Only now may their conversations be admitted again: their states have moved.
                batcher.finish(done.batch)
                self.records += len(done.batch)
                yield
            else:
                return

    def _item(self, record: Record, tasks: Mapping[StateKey, Task]) -> Item | None:
        """Return a record that one of the states depends on; None for any other."""
        if record.key is None:
            return None
        key = StateKey(record.key.decode(errors="replace"), self._topic_id, self.partition)
        task = tasks.get(key)
        if task is None or not task.first <= record.offset <= task.last:
            return None
        message = self._decoder.decode(record).message
        if not isinstance(message, Utterance):
            return None  # it changed no state
        return Item(record, message, key, polled_at=0.0)

    def _ask(self, batch: tuple[Item, ...], tasks: Mapping[StateKey, Task]) -> InFlight:
        """Pass a batch to the model, as `Pipeline.step` does."""
        questions: list[tuple[Task, Question]] = []
        for item in batch:
            assert item.key is not None and isinstance(item.message, Utterance)
            task, spec = tasks[item.key], self._model.spec
            question = ask(item.record, item.message, task.state, spec, truncated=task.cut)
            if question.repeats is None:
                questions.append((task, question))
            elif (change := drop(question)) is not None:
                task.state = change.after
        turns = [question.turn(self._model.info) for _, question in questions]
        return InFlight(batch, questions, begin(self._predictor, turns))

    def _end(self, keys: Sequence[StateKey]) -> list[Task]:
        """Write the end of a session where a state cannot be read and is not active.

        Return those whose session began above the committed offset: they must be computed.
        """
        # Unchanged, it would be found unreadable, and the partition rebuilt, again and again.
        over = apply_nothing(None, spec=self._model.spec, offset=max(self.committed - 1, 0)).after
        tasks: list[Task] = []
        ended: list[tuple[str, Restore]] = []
        for key, stored in zip(keys, self._store.load_many(keys), strict=True):
            at = stored.offset
            if stored.foreign and at >= self.committed:
                # Another owner applied what is read again now: the position must not go back.
                tasks.append(Task(key, stored, None, self.committed, at, bool(self.lost)))
            elif stored.foreign:
                ended.append((cause_of(stored), Restore(key, self._token, at, over)))
        self._restore([restore for _, restore in ended])
        self.restored.update(cause for cause, _ in ended)
        return tasks

    def _restore(self, states: Iterable[Restore]) -> None:
        """Write the states whose stored offset has not changed since it was loaded."""
        restores = list(states)
        for at in range(0, len(restores), LOADED_AT_ONCE):
            for saved in self._store.restore_many(restores[at : at + LOADED_AT_ONCE]):
                if saved.result is SaveResult.FENCED:
                    raise Disputed(self.partition)
                if saved.result is not SaveResult.SAVED:
                    raise StoreUnavailable("a state changes while it is rebuilt")
