"""The data path of a batch, from decoded records to outputs: start reading at `Pipeline.step`.

Load windows, replay what was applied before, predict the rest in one batch, run the alert rule,
save with fence and position, and return the outputs. The caller produces, flushes and then
commits; doing a batch again at any point repeats bytes and changes nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, assert_never

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from model.fault_points import reach
from model.interface import Predictor
from state.store import Loaded, Save, Saved, SaveResult, Store, StoreUnavailable
from state.window import NO_OFFSET, Conversation, StateKey
from stream.answers.apply import Answer, Model, Question, answer, ask, drop
from stream.answers.outbox import Sent, Wire, outgoing, sent_before, sent_for, stored_output
from stream.answers.predict import predict
from stream.answers.same_utterance import Repeats
from stream.events.dead_letter import dead_letter
from stream.events.messages import Outcome, PredictionEvent, Utterance
from stream.events.poison import Control, Poison, Reason
from stream.ports import NO_TIMESTAMP, Outgoing
from stream.worker.batcher import Item
from stream.worker.window_cache import Places, Split, WindowCache

ROUNDS: Final = 3  # tries before a state that keeps changing counts as unavailable


@dataclass(frozen=True, slots=True)
class Lease:
    """The terms on which a step may work on a partition."""

    token: int
    committed: int  # broker-confirmed: outputs below it are needed no more
    proves_new: bool  # the log was checked lately: no key means no earlier utterance
    seen_below: int = 0  # inactive conversations below this offset were seen to be over
    cut_below: int = 0  # records below this offset left the log before they were read
    blind_until_ms: int = NO_TIMESTAMP  # until then a conversation may have begun in the cut


class Result(Struct, frozen=True):
    """The outcome of one record, and the outputs to acknowledge before it may be committed."""

    item: Item
    outcome: Outcome
    send: tuple[Outgoing, ...] = ()
    event: PredictionEvent | None = None  # None unless predicted in this very step
    alerted: str | None = None  # the rule that fired
    state_bytes: int = 0  # arrays of the conversation afterwards
    reason: Reason | None = None  # of a dead letter
    replay: Literal["sent", "no_entry"] | None = None
    repeats: Repeats | None = None  # of a duplicate


Doubt = Literal["lost", "foreign", "damaged", "expired"]
"""A reason to rebuild a state: written and gone, of another model, unreadable, expired."""


@dataclass(slots=True)
class Step:
    """The outcome of a batch.

    `fenced` records met a newer owner: nothing of them was written. Records of a `suspect`
    partition may have no result: their states must be rebuilt from the log first.
    """

    results: list[Result] = field(default_factory=list)
    fenced: list[Item] = field(default_factory=list)
    # States to rebuild, by partition.
    suspect: dict[int, dict[StateKey, Doubt]] = field(default_factory=lambda: defaultdict(dict))
    met_token: int = 0  # the highest token met where fenced
    saves: list[SaveResult] = field(default_factory=list)
    splits: list[Split] = field(default_factory=list)  # conversations met on one more partition
    # Of each load: hit | found | missing | foreign | corrupt.
    loads: list[str] = field(default_factory=list)
    load_s: float = 0.0  # seconds in each stage
    infer_s: float = 0.0
    save_s: float = 0.0


class Opened(Struct, frozen=True):
    """One utterance between load and save."""

    item: Item
    key: StateKey
    lease: Lease
    loaded: Loaded
    question: Question


class Pipeline:
    """Executes batches against a model and a store; its only state is what the owner caches."""

    def __init__(
        self,
        predictor: Predictor,
        store: Store,
        cache: WindowCache,
        places: Places,
        wire: Wire,
        *,
        now_ms: Callable[[], int],
        clock_s: Callable[[], float],
    ) -> None:
        self._predictor, self._store, self._wire = predictor, store, wire
        self._cache, self._places = cache, places
        self._now_ms, self._clock_s = now_ms, clock_s
        self._model = Model.of(predictor)
        self._idle_ms = predictor.spec.recurrence.idle_s * 1000

    def step(self, items: Sequence[Item], leases: Mapping[int, Lease]) -> Step:
        """Give each record of a batch its outcome; at most one utterance of a conversation in it.

        Every item is in `results` or in `fenced` afterwards, or its partition in `suspect`. Raises
        `StoreUnavailable` (nothing is known to be written: do the batch again), `StoreChanged` and
        `DeviceLost`.
        """
        step = Step(results=[self._refused(i) for i in items if i.key is None])
        todo = [i for i in items if i.key is not None]
        for _ in range(ROUNDS):
            opened = self._open(todo, leases, step)  # replays and repeats end here
            answered = self._answer(opened, step)
            todo = []
            for (save, result), saved in zip(answered, self._save(answered, step), strict=True):
                if saved.result is SaveResult.SAVED:
                    step.results.append(result)
                elif saved.result is SaveResult.FENCED:
                    step.fenced.append(result.item)
                    step.met_token = max(step.met_token, saved.token)
                elif saved.result is SaveResult.LOST:
                    step.suspect[save.key.partition][save.key] = "lost"
                elif saved.result is SaveResult.REPLAY:
                    todo.append(result.item)  # again, from the state that the store has
                else:
                    assert_never(saved.result)
            if not todo:
                step.splits = self._places.found()
                return step
        raise StoreUnavailable(f"the state of {len(todo)} conversations keeps changing")

    def _refused(self, item: Item) -> Result:
        """Return the outcome of a record that reaches no conversation."""
        if isinstance(item.message, Poison):
            letter = dead_letter(item.record, item.message, topic=self._wire.topics.dead_letters)
            return Result(item, "dead_lettered", (letter,), reason=item.message.reason)
        assert isinstance(item.message, Control), "an utterance has a key"
        return Result(item, "control")

    def _open(self, items: Sequence[Item], leases: Mapping[int, Lease], step: Step) -> list[Opened]:
        """Load windows; replay positions applied before; open the rest at their records."""
        began = self._clock_s()
        loaded = self._load(items, step)
        self._places.note([i.key for i in items if i.key is not None])
        step.load_s += self._clock_s() - began
        reach("F2")
        opened: list[Opened] = []
        for item, found in zip(items, loaded, strict=True):
            if item.record.partition in step.suspect:
                continue
            if item.record.offset <= found.offset:
                step.results.append(self._replay(item, found))
                continue
            lease = leases[item.record.partition]
            if doubt := self._doubt(item, found, lease):
                assert item.key is not None
                step.suspect[item.key.partition][item.key] = doubt
                continue
            utterance = self._open_one(item, found, lease)
            repeats = utterance.question.repeats
            if repeats is not None and drop(utterance.question) is None:
                step.results.append(Result(item, "duplicate", repeats=repeats))
            else:
                opened.append(utterance)
        return opened

    def _load(self, items: Sequence[Item], step: Step) -> list[Loaded]:
        """Load the state of each item: from the cache, else in one round trip.

        A partition whose store holds less than the cache proves to have been written is suspect.
        """
        found: dict[StateKey, Loaded] = {}
        idle: dict[StateKey, Conversation] = {}
        applied: dict[StateKey, int] = {}  # position the store must hold at least
        for item in items:
            assert item.key is not None
            cached = self._cache.get(item.key)
            if cached is None:
                continue
            if cached.offset >= item.record.offset:
                applied[item.key] = cached.offset  # done before: its outputs are in the store
                continue
            if item.record.timestamp_ms - cached.clock_ms > self._idle_ms:
                idle[item.key] = cached  # its stored copy may have expired: load its position
                continue
            found[item.key] = Loaded(cached, cached.offset, {})
            step.loads.append("hit")
        missing = [i.key for i in items if i.key is not None and i.key not in found]
        if missing:
            for key, loaded in zip(missing, self._store.load_many(missing), strict=True):
                if loaded.foreign:
                    step.loads.append("foreign" if loaded.corrupt is None else "corrupt")
                else:
                    step.loads.append("missing" if loaded.conversation is None else "found")
                if key in idle and loaded.conversation is None and not loaded.foreign:
                    # Expired, not lost: it was cached, and the gap ends its session anyway.
                    loaded = replace(loaded, conversation=idle[key])
                if loaded.offset < applied.get(key, loaded.offset):
                    step.suspect[key.partition][key] = "lost"
                found[key] = loaded
        return [found[i.key] for i in items if i.key is not None]

    def _doubt(self, item: Item, found: Loaded, lease: Lease) -> Doubt | None:
        """Return why the loaded state must be rebuilt first; None where it need not be."""
        if found.conversation is not None:
            return None
        if found.foreign:
            # A rebuild leaves inactive states unchanged: their sessions are over.
            if NO_OFFSET < found.offset < lease.seen_below:
                return None
            return "foreign" if found.corrupt is None else "damaged"
        if not lease.proves_new and item.key is not None and self._places.was_known(item.key):
            return "lost"
        sent_ms = item.record.timestamp_ms
        # A missing key proves a new session only while its state cannot have expired yet.
        fresh = sent_ms != NO_TIMESTAMP and self._now_ms() - sent_ms < self._idle_ms
        return None if lease.proves_new or fresh else "expired"

    def _replay(self, item: Item, found: Loaded) -> Result:
        """Return the stored answer of a position applied before."""
        try:
            output = found.outputs[item.record.offset]
            sent = sent_before(output)
        except (KeyError, msgspec.DecodeError):  # a repeat then, or offsets were reset by hand
            return Result(item, "duplicate", replay="no_entry")
        reason = next((Reason(s.id) for s in sent if s.kind == "d"), None)
        outcome: Outcome = msgspec.convert(output.outcome, Outcome)
        repeats: Repeats | None = "other_utterance" if outcome == "duplicate" else None
        send = self._send(item, sent)
        return Result(item, outcome, send, reason=reason, replay="sent", repeats=repeats)

    def _send(self, item: Item, sent: Sequence[Sent]) -> tuple[Outgoing, ...]:
        """Return the records to write; equal arguments give equal bytes."""
        return tuple(outgoing(s, item.record, item.envelope, self._wire) for s in sent)

    def _open_one(self, item: Item, found: Loaded, lease: Lease) -> Opened:
        record, utterance, key = item.record, item.message, item.key
        assert isinstance(utterance, Utterance) and key is not None
        truncated = record.timestamp_ms < lease.blind_until_ms
        spec, moved = self._model.spec, self._places.is_split(key)
        question = ask(
            record, utterance, found.conversation, spec, truncated=truncated, moved=moved
        )
        if found.conversation is not None and found.offset < lease.cut_below and truncated:
            before = question.opening.before.cut()  # records may be lost unread
            # A record that is only passed over (`drop`, a dead letter) must not hide the loss.
            question = replace(
                question,
                opening=replace(question.opening, before=before),
                stored=found.conversation.cut(),
            )
        return Opened(item, key, lease, found, question)

    def _answer(self, opened: Sequence[Opened], step: Step) -> list[tuple[Save, Result]]:
        """Predict in one batch; return the compare-and-append and the result of each utterance."""
        began = self._clock_s()
        asked = [o for o in opened if o.question.repeats is None]
        turns = [o.question.turn(self._model.info) for o in asked]
        answered = [
            self._answered(o, answer(o.question, prediction, self._model))
            for o, prediction in zip(asked, predict(self._predictor, turns), strict=True)
        ]
        step.infer_s += self._clock_s() - began
        dropped = ((o, drop(o.question)) for o in opened if o.question.repeats is not None)
        answered += [self._answered(o, Answer("duplicate", c)) for o, c in dropped if c is not None]
        return answered

    def _answered(self, o: Opened, found: Answer) -> tuple[Save, Result]:
        """Return an answer as it is stored and as it is sent."""
        sent = sent_for(found, self._wire.encoding)
        spec, window = self._model.spec, found.change.after.window
        of_speakers = len(window.speakers) * spec.speaker_bytes
        result = Result(
            o.item,
            found.outcome,
            self._send(o.item, sent),
            event=found.event,
            alerted=None if found.alert is None else found.alert.rule,
            state_bytes=len(window.rows) * spec.row_bytes + spec.conversation_bytes + of_speakers,
            reason=None if found.poison is None else found.poison.reason,
            repeats=o.question.repeats,
        )
        save = Save(
            key=o.key,
            token=o.lease.token,
            expected_offset=o.loaded.offset,
            change=found.change,
            output=stored_output(found.outcome, sent),
            committed_offset=max(o.lease.committed, 0),
            replace_foreign=o.loaded.foreign,
        )
        return save, result

    def _save(self, answered: Sequence[tuple[Save, Result]], step: Step) -> list[Saved]:
        """Compare and append in one round trip; cache the states saved, drop the others."""
        if not answered:
            return []
        reach("F5")
        began = self._clock_s()
        saved = self._store.save_many([save for save, _ in answered])
        for (save, _), met in zip(answered, saved, strict=True):
            if met.result is SaveResult.SAVED:
                self._cache.put(save.key, save.change.after)
            else:
                self._cache.drop(save.key)
        reach("F6")
        step.saves += [s.result for s in saved]
        step.save_s += self._clock_s() - began
        return saved
