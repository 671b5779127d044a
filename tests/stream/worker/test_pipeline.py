"""A batch on the memory store: what is answered, what is repeated, what is kept from neighbours."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from model.errors import DeviceLost
from model.interface import ModelInfo, Prediction, Predictor, Turn
from state.memory_store import Memory, MemoryStore
from state.store import Loaded, Save, Saved, SaveResult, Store, StoreUnavailable
from state.window import Recurrence, StateKey, StateSpec
from stream.answers.outbox import Wire
from stream.events.decode import Decoder
from stream.events.messages import PredictionEvent, ShiftAlert, TopicNames, Utterance
from stream.ports import Outgoing, Record
from stream.worker.batcher import Item
from stream.worker.pipeline import Lease, Pipeline, Result, Step
from stream.worker.window_cache import Places, WindowCache

WIRE = Wire(TopicNames("test."), "json", "/test")
T0 = 1_700_000_000_000
READS = msgspec.json.Decoder(PredictionEvent)


@dataclass
class Bench:
    """One partition's log, a pipeline on it, and a hand clock in milliseconds."""

    predictor: Predictor
    memory: Memory = field(default_factory=Memory)
    now_ms: int = T0
    offset: int = 0
    cache: WindowCache = field(default_factory=lambda: WindowCache(100))
    lease: Lease = field(default_factory=lambda: Lease(1, -1, proves_new=True))
    leases: dict[int, Lease] = field(default_factory=dict)  # of other partitions

    def __post_init__(self) -> None:
        self.store = MemoryStore(
            self.predictor.spec, now=lambda: self.now_ms / 1000, memory=self.memory
        )
        self.pipeline_places = self.places(self.store)
        self.pipeline = Pipeline(
            self.predictor,
            self.store,
            self.cache,
            self.pipeline_places,
            WIRE,
            now_ms=lambda: self.now_ms,
            clock_s=lambda: self.now_ms / 1000,
        )

    def places(self, store: Store) -> Places:
        return Places(
            store,
            capacity=100,
            again_s=self.predictor.spec.recurrence.idle_s,
            clock_s=lambda: self.now_ms / 1000,
        )

    def item(self, conversation: str = "c", **fields: Any) -> Item:
        """The next record of the log."""
        said = {
            "conversation_id": conversation,
            "utterance_id": f"u{self.offset}",
            "speaker_id": "ann",
            "text": f"words {self.offset}",
        }
        value = json.dumps(said | fields).encode()
        return self.raw(value, str((said | fields)["conversation_id"]).encode())

    def raw(self, value: bytes | None, key: bytes | None) -> Item:
        record = Record("u", 0, self.offset, self.now_ms, key, value)
        self.offset += 1
        decoded = Decoder(self.predictor.info.inputs).decode(record)
        message = decoded.message
        name = message.conversation_id if isinstance(message, Utterance) else None
        state = None if name is None else StateKey(name, "id", 0)
        return Item(record, message, state, 0.0, envelope=decoded.envelope)

    def step(self, *items: Item) -> Step:
        return self.pipeline.step(items, self.leases | {0: self.lease})

    def one(self, item: Item) -> Result:
        (result,) = self.step(item).results
        return result

    def successor(self, predictor: Predictor | None = None) -> Bench:
        """Another worker on the same store: it knows nothing but what was saved."""
        return Bench(
            predictor or self.predictor, self.memory, self.now_ms, self.offset, lease=self.lease
        )


@pytest.fixture
def bench(predictor: Predictor) -> Bench:
    return Bench(predictor)


def event(result: Result) -> PredictionEvent:
    assert result.event is not None
    return result.event


def sent(results: Sequence[Result], topic: str) -> list[Outgoing]:
    return [o for r in results for o in r.send if o.topic == topic]


def test_an_utterance_is_predicted_from_its_context(bench: Bench) -> None:
    first = event(bench.one(bench.item()))
    second = event(bench.one(bench.item(speaker_id="bob")))
    third = event(bench.one(bench.item()))
    assert (first.shift, second.shift) == (None, None)
    assert third.shift is not None
    assert third.shift.previous_utterance_id == "u0"
    assert [e.context.utterances for e in (first, second, third)] == [0, 1, 2]
    assert third.context.oldest_utterance_id == "u0"
    assert third.context.first_position == 0
    assert not third.context.truncated
    assert sum(third.probabilities.values()) == pytest.approx(1, abs=1e-5)
    assert third.emotion == max(third.probabilities, key=lambda e: third.probabilities[e])


def test_what_is_sent_is_what_was_decided(bench: Bench) -> None:
    result = bench.one(bench.item())
    (out,) = result.send
    assert READS.decode(out.value or b"") == result.event
    headers = dict(out.headers)
    assert headers["ce_id"] == event(result).prediction_id.encode()
    assert headers["ce_time"] == b"2023-11-14T22:13:20.000Z"
    assert out.key == b"c"


@given(st.data())
@settings(deadline=None, max_examples=60)
def test_a_batch_answers_like_singles_and_a_replay_changes_nothing(
    make_predictor: Callable[..., Predictor], data: st.DataObject
) -> None:
    """Any interleaving in any batches, any of them done again by any worker: the same bytes."""
    predictor = make_predictor()
    turns = data.draw(st.lists(st.sampled_from("abc"), min_size=1, max_size=25))
    alone, together = Bench(predictor), Bench(predictor)
    items = [together.item(name) for name in turns]
    expected = {i.record.offset: alone.one(i) for i in items}
    queue = list(items)
    while queue:
        batch: list[Item] = []
        for one in list(queue):
            if len(batch) == 3 or any(one.key == b.key for b in batch):
                break
            batch.append(one)
            queue.remove(one)
        step = together.step(*batch)
        again = together.successor() if data.draw(st.booleans()) else together
        repeated = again.step(*batch)
        for result in (*step.results, *repeated.results):
            wanted = expected[result.item.record.offset]
            assert result.send == wanted.send
            assert result.outcome == wanted.outcome
        assert {r.replay for r in repeated.results} == {"sent"}
        together = again


def test_the_same_id_again_is_a_duplicate_without_effect(bench: Bench) -> None:
    bench.one(bench.item(utterance_id="same"))
    before = bench.memory.states.copy()
    again = bench.one(bench.item(utterance_id="same"))
    assert (again.outcome, again.send, again.replay) == ("duplicate", (), None)
    assert bench.memory.states == before
    assert event(bench.one(bench.item())).context.utterances == 1


def test_another_utterance_under_a_known_id_is_no_answer_and_never_silent(bench: Bench) -> None:
    bench.one(bench.item(utterance_id="same"))
    item = bench.item(utterance_id="same", text="other words")
    dropped = bench.one(item)
    assert (dropped.outcome, dropped.send, dropped.replay) == ("duplicate", (), None)
    assert dropped.repeats == "other_utterance"
    again = bench.successor().one(item)
    assert (again.outcome, again.send, again.replay) == ("duplicate", (), "sent")
    assert again.repeats == "other_utterance", "the worker that met it first may have died silent"
    next_one = bench.item()
    told = bench.successor().one(next_one)
    assert event(told).flags == ["id_reused"] and event(told).context.utterances == 1
    assert bench.one(next_one).send == told.send, "stored, so a replay says it too"
    bench.cache.drop(StateKey("c", "id", 0))
    assert event(bench.one(bench.item())).flags == []


def test_late_fields_are_told_from_a_repeat_and_change_nothing(bench: Bench) -> None:
    said: dict[str, Any] = {"utterance_id": "same", "text": "words"}
    bench.one(bench.item(**said))
    before = bench.memory.states.copy()
    voice: dict[str, Any] = {"features": {"audio": {"tensor": [0.5, 0.5]}}}
    assert bench.one(bench.item(**said)).repeats == "utterance_id"
    assert bench.one(bench.item(**said, **voice)).repeats == "late_fields"
    assert bench.memory.states == before
    assert event(bench.one(bench.item())).flags == []


def test_a_batch_of_dropped_utterances_alone_asks_the_model_nothing(bench: Bench) -> None:
    for name in ("a", "b"):
        bench.one(bench.item(name, utterance_id="same"))
    items = [bench.item(name, utterance_id="same", text="other words") for name in ("a", "b")]
    step = bench.step(*items, bench.item("c"))
    kinds = {r.item.record.offset: (r.outcome, r.repeats) for r in step.results}
    assert kinds[2] == kinds[3] == ("duplicate", "other_utterance")
    assert kinds[4][1] is None and len(step.results) == 3
    assert [s.value for s in step.saves] == ["saved"] * 3


def on_partition(item: Item, partition: int) -> Item:
    """The record, had another partitioner chosen."""
    assert item.key is not None
    record = structs.replace(item.record, partition=partition)
    return structs.replace(item, record=record, key=structs.replace(item.key, partition=partition))


def test_answers_of_a_conversation_on_two_partitions_say_moved(bench: Bench) -> None:
    """The second partition's at once, the first one's as soon as its owner has looked."""
    bench.leases[1] = bench.lease
    alone, first = bench.one(bench.item("alone")), bench.one(bench.item())
    assert event(first).flags == []
    second = bench.step(on_partition(bench.item(), 1))
    assert event(second.results[0]).flags == ["moved"]
    assert [(s.conversation_id, s.partitions) for s in second.splits] == [("c", (0, 1))]
    assert event(bench.one(bench.item())).flags == [], "its owner does not know yet"
    bench.pipeline_places.look("id", [0, 1])
    item = bench.item()
    third = bench.step(item)
    assert event(third.results[0]).flags == ["moved"] and third.splits == []
    assert bench.successor().one(item).send == third.results[0].send
    assert event(bench.one(bench.item("alone"))).flags == event(alone).flags == []


def test_a_new_owner_knows_at_its_first_answer_that_a_conversation_is_split(bench: Bench) -> None:
    bench.leases[1] = bench.lease
    bench.one(bench.item())
    bench.step(on_partition(bench.item(), 1))
    step = bench.successor().step(bench.item())
    assert event(step.results[0]).flags == ["moved"]
    assert step.splits == [], "found and counted once"


def test_a_split_is_known_for_as_long_as_the_conversation_goes_on(bench: Bench) -> None:
    """Its note in the store is renewed before it expires, and read again."""
    bench.leases[1] = bench.lease
    bench.one(bench.item())
    for _ in range(10):
        bench.now_ms += 800_000
        bench.one(bench.item())
    step = bench.step(on_partition(bench.item(), 1))
    assert event(step.results[0]).flags == ["moved"]
    bench.now_ms += 2_000_000
    assert event(bench.step(on_partition(bench.item(), 1)).results[0]).flags == []


def test_the_same_id_after_an_idle_gap_is_a_new_utterance(bench: Bench) -> None:
    bench.one(bench.item(utterance_id="same"))
    bench.now_ms += 901_000
    assert bench.one(bench.item(utterance_id="same")).outcome != "duplicate"


def test_a_session_ends_at_its_end_of_conversation_and_the_next_is_empty(bench: Bench) -> None:
    bench.one(bench.item())
    bench.one(bench.item(end_of_conversation=True))
    after = event(bench.one(bench.item()))
    assert after.context.utterances == 0
    assert after.shift is None
    assert after.context.first_position == 2


def test_a_seq_gap_and_disorder_are_flagged_and_change_no_order(bench: Bench) -> None:
    flags = [event(bench.one(bench.item(seq=seq))).flags for seq in (0, 1, 3, 2, 4)]
    assert flags == [[], [], ["seq_gap"], ["seq_disorder"], []]


def test_an_applied_position_without_output_sends_nothing(bench: Bench) -> None:
    items = [bench.item(), bench.item(), bench.item()]
    for one in items:
        bench.lease = replace(bench.lease, committed=one.record.offset)
        bench.one(one)
    result = bench.successor().one(items[0])
    assert (result.outcome, result.send, result.replay) == ("duplicate", (), "no_entry")


def test_poison_and_control_reach_no_conversation(bench: Bench) -> None:
    step = bench.step(bench.raw(b"{", b"c"), bench.raw(None, b"c"), bench.item())
    assert [r.outcome for r in step.results[:2]] == ["dead_lettered", "control"]
    (letter,) = sent(step.results, WIRE.topics.dead_letters)
    assert (letter.value, letter.key) == (b"{", b"c")
    assert len(bench.memory.states) == 1


def vectors(audio: float) -> dict[str, Any]:
    return {"features": {"audio": {"tensor": [audio, 0.5]}}}


def test_an_offender_is_dead_lettered_and_its_neighbours_never_notice(
    make_predictor: Callable[..., Predictor],
) -> None:
    clean, dirty = Bench(make_predictor()), Bench(make_predictor())
    wanted, got = [], []
    for _ in range(3):
        a, b = clean.item("a", **vectors(1.0)), clean.item("b", **vectors(1.0))
        wanted += clean.step(a, b).results
        bad = structs.replace(
            dirty.item("bad", **vectors(500.0)), record=structs.replace(a.record, key=b"bad")
        )
        dirty.offset = clean.offset
        step = dirty.step(bad, a, b)
        got += [r for r in step.results if r.item.key != bad.key]
        (late,) = [r for r in step.results if r.item.key == bad.key]
        assert (late.outcome, late.reason) == ("dead_lettered", "not_finite_result")
    assert [r.send for r in got] == [r.send for r in wanted]


def test_a_late_dead_letter_is_repeated_byte_for_byte_and_leaves_the_arrays(bench: Bench) -> None:
    bench.one(bench.item(**vectors(1.0)))
    bad = bench.item(**vectors(500.0))
    first = bench.one(bad)
    again = bench.successor().one(bad)
    assert (again.send, again.outcome, again.replay) == (first.send, "dead_lettered", "sent")
    assert dict(first.send[0].headers)["emotrack_dlq_reason"] == b"not_finite_result"
    assert first.send[0].value == bad.record.value
    assert event(bench.one(bench.item(**vectors(1.0)))).context.utterances == 1


def test_a_device_without_room_halves_the_batch_and_answers_the_same(
    make_predictor: Callable[..., Predictor],
) -> None:
    large, small = Bench(make_predictor()), Bench(make_predictor(largest_batch=1))
    items = [large.item(name) for name in "abcde"]
    wanted = large.step(*items).results
    assert [r.send for r in small.step(*items).results] == [r.send for r in wanted]


def test_what_is_too_large_for_the_device_alone_is_dead_lettered(
    make_predictor: Callable[..., Predictor],
) -> None:
    bench = Bench(make_predictor(largest_batch=0))
    assert bench.one(bench.item()).reason == "device_exhausted"


def test_raw_text_without_an_encoder_names_how_to_install_one(
    make_predictor: Callable[..., Predictor],
) -> None:
    bench = Bench(make_predictor(encodes_text=False))
    step = bench.step(
        bench.item("a"), bench.item("b", **vectors(1.0)), bench.item("c", text=None, **vectors(1))
    )
    by_key = {r.item.key.conversation_id: r for r in step.results if r.item.key}
    letter = dict(by_key["a"].send[0].headers)
    assert letter["emotrack_dlq_reason"] == b"no_text_encoder"
    assert b"pip install --no-deps" in letter["emotrack_dlq_message"]  # type: ignore[operator]
    assert event(by_key["b"]).modalities_used == ["audio"]
    assert event(by_key["c"]).modalities_used == ["audio"]


def test_an_older_owner_is_fenced_and_writes_nothing(bench: Bench) -> None:
    bench.one(bench.item())
    newer = bench.successor()
    newer.lease = Lease(5, -1, proves_new=True)
    newer.one(newer.item())
    before = bench.memory.states.copy()
    bench.offset = newer.offset
    step = bench.step(stale := bench.item())
    assert (step.results, step.fenced, step.met_token) == ([], [stale], 5)
    assert bench.memory.states == before


def doubted(step: Step) -> dict[str, str]:
    """Conversations the step would not build upon, and why."""
    assert not step.results
    return {
        key.conversation_id: doubt for keys in step.suspect.values() for key, doubt in keys.items()
    }


def test_a_cached_window_the_store_has_lost_is_never_built_upon(bench: Bench) -> None:
    bench.one(bench.item())
    bench.memory.states.clear()
    assert doubted(bench.step(bench.item())) == {"c": "lost"}


def test_a_store_that_went_back_in_time_is_never_built_upon(bench: Bench) -> None:
    """A failover may lose the last writes."""
    bench.one(bench.item())
    ((key, (expires, entries)),) = bench.memory.states.items()
    older = type(entries)(*(m.copy() for m in (getattr(entries, f) for f in FIELDS)))
    bench.one(bench.item())
    bench.memory.states[key] = (expires, older)
    assert doubted(bench.step(bench.item())) == {"c": "lost"}


def test_other_partitions_of_a_batch_do_not_suffer(bench: Bench) -> None:
    bench.one(bench.item())
    bench.memory.states.clear()
    lost, well = bench.item(), bench.item("well")
    record = structs.replace(well.record, partition=1)
    well = structs.replace(well, record=record, key=StateKey("well", "id", 1))
    step = bench.pipeline.step([lost, well], {0: bench.lease, 1: bench.lease})
    assert [r.item for r in step.results] == [well]
    assert set(step.suspect) == {0}


FIELDS = ("rows", "fields", "ids", "outputs")


def test_a_missing_state_is_new_only_where_that_is_proven(bench: Bench) -> None:
    bench.lease = replace(bench.lease, proves_new=False)
    fresh = bench.item("fresh")
    assert not event(bench.one(fresh)).context.truncated
    old = bench.item("old")
    bench.now_ms += 900_000
    assert doubted(bench.step(old)) == {"old": "expired"}
    bench.lease = replace(bench.lease, proves_new=True)
    assert not event(bench.one(old)).context.truncated


def test_a_state_that_was_deleted_alone_is_rebuilt_by_the_next_owner(bench: Bench) -> None:
    """redis/redis#9044: one key is gone, and nothing else tells that it was ever there."""
    for name in ("gone", "kept"):
        bench.one(bench.item(name))
    del bench.memory.states[StateKey("gone", "id", 0)]
    bench.now_ms += 61_000
    bench.lease = replace(bench.lease, proves_new=False)
    later = bench.successor()
    step = later.step(later.item("gone"), later.item("new"))
    assert doubted(step) == {"gone": "lost"}
    later = bench.successor()
    assert event(later.one(later.item("kept"))).context.utterances == 1


def test_a_worker_that_was_killed_between_note_and_state_costs_no_rebuild(bench: Bench) -> None:
    bench.store.note_many([StateKey("c", "id", 0)])
    bench.now_ms += 30_000
    bench.lease = replace(bench.lease, proves_new=False)
    assert event(bench.one(bench.item())).context.utterances == 0


def test_what_may_have_begun_in_a_cut_log_is_truncated(bench: Bench) -> None:
    before = bench.item("before")
    bench.now_ms += 1
    after = bench.item("after")
    bench.lease = replace(bench.lease, blind_until_ms=bench.now_ms)
    assert event(bench.one(before)).context.truncated
    assert not event(bench.one(after)).context.truncated


def test_a_state_older_than_a_gap_in_the_log_is_truncated(bench: Bench) -> None:
    bench.one(bench.item())
    bench.lease = replace(bench.lease, cut_below=3, blind_until_ms=bench.now_ms + 1)
    bench.offset = 3
    assert event(bench.one(bench.item())).context.truncated
    assert event(bench.one(bench.item())).context.truncated, "until the session ends"
    bench.one(bench.item(end_of_conversation=True))
    assert not event(bench.one(bench.item())).context.truncated


@pytest.mark.parametrize(
    "between",
    [
        {"utterance_id": "u0", "text": "other words"},
        {"features": {"audio": {"tensor": [9e3, 0]}}},
    ],
    ids=["a reused id", "a dead letter"],
)
def test_a_record_that_is_passed_over_does_not_hide_a_gap_in_the_log(
    bench: Bench, between: dict[str, Any]
) -> None:
    """It moves the position beyond the gap, which the next answer must still tell of."""
    bench.one(bench.item())
    bench.lease = replace(bench.lease, cut_below=3, blind_until_ms=bench.now_ms + 1)
    bench.offset = 3
    assert bench.one(bench.item(**between)).event is None
    assert event(bench.one(bench.item())).context.truncated


def test_the_state_of_another_model_is_never_read(
    bench: Bench, make_predictor: Callable[..., Predictor]
) -> None:
    last = bench.item()
    first = bench.one(last)
    other = bench.successor(make_predictor(recurrence=Recurrence(window=5)))
    assert other.one(last).send == first.send, "stored outputs are replayed whoever wrote them"
    following = other.item()
    assert doubted(other.step(following)) == {"c": "foreign"}
    other.lease = replace(other.lease, seen_below=1)  # a rebuild found nobody active below 1
    result = event(other.one(following))
    assert (result.context.utterances, result.context.truncated) == (0, False)
    assert event(other.one(other.item())).context.utterances == 1


class TimedOut(MemoryStore):
    """Applies a save and loses the answer, once."""

    lose = True

    def save_many(self, saves: Sequence[Save]) -> list[Saved]:
        saved = super().save_many(saves)
        if self.lose:
            self.lose = False
            raise StoreUnavailable("timed out")
        return saved


def test_a_save_whose_answer_was_lost_has_one_effect(bench: Bench) -> None:
    pipeline = Pipeline(
        bench.predictor,
        store := TimedOut(
            bench.predictor.spec, memory=bench.memory, now=lambda: bench.now_ms / 1000
        ),
        bench.cache,
        bench.places(store),
        WIRE,
        now_ms=lambda: bench.now_ms,
        clock_s=lambda: 0.0,
    )
    item = bench.item()
    with pytest.raises(StoreUnavailable):
        pipeline.step([item], {0: bench.lease})
    (result,) = pipeline.step([item], {0: bench.lease}).results
    assert result.replay == "sent"
    other = Bench(bench.predictor)
    assert result.send == other.one(item).send


class NeverThere(MemoryStore):
    def save_many(self, saves: Sequence[Save]) -> list[Saved]:
        return [Saved(SaveResult.REPLAY, 0, s.change.after.offset) for s in saves]


def test_a_state_that_keeps_changing_is_tried_again_later(bench: Bench) -> None:
    pipeline = Pipeline(
        bench.predictor,
        store := NeverThere(bench.predictor.spec),
        bench.cache,
        bench.places(store),
        WIRE,
        now_ms=lambda: bench.now_ms,
        clock_s=lambda: 0.0,
    )
    with pytest.raises(StoreUnavailable, match="keeps changing"):
        pipeline.step([bench.item()], {0: bench.lease})


def test_an_alert_follows_its_prediction_and_names_it(bench: Bench) -> None:
    results: list[Result] = []
    for i in range(12):
        loud: dict[str, Any] = {
            "features": {"text": {"tensor": [0, 6.0 * (i % 2), 6.0 * (1 - i % 2), 0]}}
        }
        results.append(bench.one(bench.item(**loud)))
    alerts = [
        msgspec.json.decode(o.value or b"", type=ShiftAlert)
        for o in sent(results, WIRE.topics.shift_alerts)
    ]
    assert alerts, "such swings are what the rule is for"
    events = {event(r).prediction_id: event(r) for r in results}
    for alert in alerts:
        of = events[alert.prediction_id]
        assert of.shift is not None
        assert (alert.from_, alert.to) == (of.shift.from_, of.shift.to)
        assert alert.probability >= bench.predictor.info.shift_threshold
        assert alert.utterance_id == of.utterance_id
    headers = dict(sent(results, WIRE.topics.shift_alerts)[0].headers)
    assert headers["ce_causationid"].startswith(b"u-0-")  # type: ignore[union-attr]


def test_a_lost_device_is_not_survived(predictor: Predictor) -> None:
    class Gone:
        """A device that fell off the bus."""

        info: ModelInfo = predictor.info
        spec: StateSpec = predictor.spec
        device = "cuda:0"

        def warm_up(self) -> None: ...

        def can_encode_text(self) -> bool:
            return True

        def predict(self, turns: Sequence[Turn]) -> list[Prediction]:
            raise DeviceLost("gone")

        def begin(self, turns: Sequence[Turn]) -> Callable[[], list[Prediction]]:
            raise DeviceLost("gone")

        def device_memory_bytes(self) -> int:
            return 0

    bench = Bench(Gone())
    with pytest.raises(DeviceLost):
        bench.one(bench.item())


def test_only_misses_travel_to_the_store(bench: Bench) -> None:
    asked: list[int] = []
    load_many = bench.store.load_many

    def counting(keys: Sequence[StateKey]) -> list[Loaded]:
        asked.append(len(keys))
        return load_many(keys)

    bench.store.load_many = counting  # type: ignore[method-assign]
    for _ in range(3):
        bench.step(bench.item("a"), bench.item("b"))
    assert asked == [2]


def test_stored_rows_are_what_the_model_returned(bench: Bench) -> None:
    for _ in range(5):
        bench.one(bench.item())
    key = StateKey("c", "id", 0)
    stored = bench.store.load_many([key])[0].conversation
    cached = bench.cache.get(key)
    assert stored is not None and cached is not None
    assert np.array_equal(stored.window.rows, cached.window.rows)
    assert len(stored.window.rows) == 3


def test_a_state_that_expired_in_a_silence_is_a_new_session_and_not_a_loss(bench: Bench) -> None:
    """The owner's cache outlived the stored copy; its next answer was called truncated."""
    bench.lease = replace(bench.lease, proves_new=False)
    bench.one(bench.item())
    bench.now_ms += int(3 * bench.predictor.spec.recurrence.idle_s * 1000)
    step = bench.step(bench.item())
    after = event(step.results[0])
    assert step.saves == [SaveResult.SAVED]
    assert (after.context.truncated, after.context.utterances, after.shift) == (False, 0, None)


class Emptied(MemoryStore):
    """Fails once, and has lost everything when it answers again."""

    fail = False

    def save_many(self, saves: Sequence[Save]) -> list[Saved]:
        if self.fail:
            self.fail = False
            self._memory.states.clear()
            raise StoreUnavailable("restarted, empty")
        return super().save_many(saves)


@pytest.mark.parametrize("saved_first", [False, True])
def test_a_store_that_comes_back_empty_is_never_a_silently_empty_context(
    bench: Bench, saved_first: bool
) -> None:
    """The batch in hand when Redis died answered from an empty context and did not say so."""
    store = Emptied(bench.predictor.spec, memory=bench.memory, now=lambda: bench.now_ms / 1000)
    pipeline = Pipeline(
        bench.predictor,
        store,
        bench.cache,
        bench.places(store),
        WIRE,
        now_ms=lambda: bench.now_ms,
        clock_s=lambda: 0.0,
    )
    pipeline.step([bench.item()], {0: bench.lease})
    item = bench.item()
    if saved_first:  # saved, but what it sent was not acknowledged: the batch is done again
        pipeline.step([item], {0: bench.lease})
        bench.memory.states.clear()
    else:
        store.fail = True
        with pytest.raises(StoreUnavailable):
            pipeline.step([item], {0: bench.lease})
    assert doubted(pipeline.step([item], {0: bench.lease})) == {"c": "lost"}
