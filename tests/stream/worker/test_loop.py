"""The worker's loop on a log in memory, turn by turn, on a hand clock."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from threading import Event
from typing import Any
from zlib import crc32

import pytest
from structlog.testing import capture_logs

from model.interface import Predictor
from state.codec import TOKEN
from state.memory_store import Memory, MemoryStore
from state.store import Loaded, StoreUnavailable
from state.window import StateKey
from stream.metrics.catalogue import Metrics
from stream.ports import CommitRefused, LogUnavailable, Record
from stream.settings import Settings
from stream.worker.loop import Worker
from stream.worker.observe import Health, Observer
from stream.worker.throttle import Throttle
from tests.fakes.clock import Clock
from tests.fakes.memory_log import LocalLog, LocalReader, LocalSink, LocalSource, LocalTransactions

NEWER = 9 * 10**15  # a fence token of somebody else
OUTCOMES = ("predicted", "abstained", "duplicate", "dead_lettered", "control")


class FlakyStore(MemoryStore):
    """A store that can be away."""

    away = False

    def load_many(self, keys: Sequence[StateKey]) -> list[Loaded]:
        if self.away:
            raise StoreUnavailable("nobody answers")
        return super().load_many(keys)

    def verify(self) -> None:
        if self.away:
            raise StoreUnavailable("nobody answers")
        super().verify()

    def claim(self, topic_id: str, partition: int, at_least: int = 0) -> int:
        if self.away:
            raise StoreUnavailable("nobody answers")
        return super().claim(topic_id, partition, at_least)


class Refusing(LocalSource):
    """A source whose broker may refuse or lose commits."""

    refuse: type[Exception] | None = None
    commits: int = 0

    def commit(self, offsets: Mapping[int, int], notes: Mapping[int, str]) -> None:
        if self.refuse is not None:
            raise self.refuse("no")
        self.commits += 1
        super().commit(offsets, notes)


@dataclass
class Plant:
    """A log, what is kept, and workers on them."""

    predictor: Predictor
    partitions: int = 1
    clock: Clock = field(default_factory=Clock)
    memory: Memory = field(default_factory=Memory)
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.log = LocalLog(self.clock.now_ms, self.partitions)
        self.settings = Settings(**{"commit_interval_ms": 0, "topic_prefix": "", **self.options})

    def worker(self, *, first: bool = True) -> Running:
        source = Refusing(self.log, "utterances", "g", first=first)
        store = FlakyStore(self.predictor.spec, now=self.clock.seconds, memory=self.memory)
        metrics, sink, health = Metrics(), LocalSink(self.log), Health(warmed=True)
        wanted = self.settings.delivery == "transactional"
        transactions = LocalTransactions(self.log, source) if wanted else None
        worker = Worker(
            self.settings,
            source=source,
            reader=LocalReader(self.log, "utterances"),
            sink=sink,
            transactions=transactions,
            store=store,
            predictor=self.predictor,
            observer=Observer(metrics, self.predictor.info),
            health=health,
            now_ms=self.clock.now_ms,
            clock_s=self.clock.seconds,
        )
        source.subscribe(worker)
        return Running(self, worker, source, sink, transactions, store, metrics, health)

    def say(self, conversation: str = "c", n: int = 1, **fields: Any) -> None:
        for _ in range(n):
            offset = len(self.log.read("utterances"))
            said = {
                "conversation_id": conversation,
                "utterance_id": f"u{offset}",
                "speaker_id": "ann",
                "text": f"words {offset}",
            }
            value = json.dumps(said | fields).encode()
            self.log.append("utterances", conversation.encode(), value)

    def committed(self, partition: int = 0) -> int:
        return self.log.committed.get(("g", "utterances", partition), -1)

    def predictions(self) -> list[Record]:
        return self.log.read("predictions")

    def answered(self) -> Counter[tuple[int, int]]:
        """Return how often each position was answered."""
        inputs = [json.loads(r.value or b"")["input"] for r in self.predictions()]
        return Counter((i["partition"], i["offset"]) for i in inputs)


@dataclass
class Running:
    """One worker and the handles of what it uses."""

    plant: Plant
    worker: Worker
    source: Refusing
    sink: LocalSink
    transactions: LocalTransactions | None
    store: FlakyStore
    metrics: Metrics
    health: Health

    def turns(self, n: int = 10, step_ms: int = 10) -> None:
        for _ in range(n):
            self.worker.turn()
            self.plant.clock.ms += step_ms

    def value(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(f"emotrack_{name}", labels) or 0.0

    def ready(self) -> bool:
        return self.health.ready

    def outcomes(self) -> dict[str, float]:
        found = {o: self.value("outcomes_total", outcome=o) for o in OUTCOMES}
        return {o: n for o, n in found.items() if n}


@pytest.fixture
def plant(predictor: Predictor) -> Plant:
    return Plant(predictor)


def test_every_committed_record_has_one_outcome(plant: Plant) -> None:
    running = plant.worker()
    plant.say("a", 5)
    plant.say("b", 3)
    plant.say("a", utterance_id="u0")
    plant.log.append("utterances", b"a", b"{")
    plant.log.append("utterances", b"a", None)
    running.turns(20)
    outcomes = running.outcomes()
    assert outcomes.pop("predicted", 0) + outcomes.pop("abstained", 0) == 8
    assert outcomes == {"duplicate": 1, "dead_lettered": 1, "control": 1}
    assert plant.committed() == 11
    assert running.value("records_committed_total") == 11
    assert plant.answered() == {(0, o): 1 for o in range(8)}
    assert len(plant.log.read("dead-letters")) == 1


def test_nothing_is_committed_before_it_is_acknowledged(plant: Plant) -> None:
    running = plant.worker()
    plant.say("a")
    plant.say("b")
    running.sink.fail_next = 1
    running.worker.turn()
    plant.clock.ms += 10
    running.worker.turn()
    assert plant.committed() == -1
    running.turns(5, step_ms=200)
    assert plant.committed() == 2
    assert running.value("replays_total", result="sent") == 2, "stored outputs are sent again"
    by_id: dict[bytes | None, set[bytes | None]] = {}
    for r in plant.predictions():
        by_id.setdefault(dict(r.headers)["ce_id"], set()).add(r.value)
    assert len(by_id) == 2
    assert all(len(values) == 1 for values in by_id.values())
    assert sum(running.outcomes().values()) == 2


def test_a_killed_worker_is_followed_without_loss_or_conflict(plant: Plant) -> None:
    first = plant.worker()
    plant.say("a", 6)
    first.source.refuse = LogUnavailable  # it dies before any commit
    first.turns(6)
    assert plant.committed() == -1
    second = plant.worker()
    second.turns(20)
    assert plant.committed() == 6
    by_position: dict[int, set[bytes | None]] = {}
    for r in plant.predictions():
        offset = json.loads(r.value or b"")["input"]["offset"]
        by_position.setdefault(offset, set()).add(r.value)
    assert {o: len(v) for o, v in by_position.items()} == dict.fromkeys(range(6), 1)
    assert sum(second.outcomes().values()) == 6, "a replay counts by its stored outcome"


def test_a_store_that_is_away_stops_reading_and_loses_nothing(plant: Plant) -> None:
    running = plant.worker()
    plant.say("a", 3)
    running.turns(1)
    running.store.away = True
    plant.say("b", 3)
    running.turns(100)
    assert running.source.paused == {0}
    assert not running.ready()
    assert running.value("state_operations_total", operation="any", result="unavailable") > 0
    running.store.away = False
    running.turns(100)
    assert not running.source.paused
    assert running.ready()
    assert plant.committed() == 6
    assert plant.answered() == {(0, o): 1 for o in range(6)}


def test_a_partition_is_not_read_before_it_is_claimed(plant: Plant) -> None:
    running = plant.worker()
    running.store.away = True
    plant.say("a", 2)
    running.turns(5)
    assert running.source.paused == {0}
    assert plant.predictions() == []
    running.store.away = False
    running.turns(100)
    assert plant.committed() == 2


def test_a_full_queue_pauses_reading_and_an_empty_one_resumes(predictor: Predictor) -> None:
    plant = Plant(predictor, options={"high_water": 10, "low_water": 2, "batch_max": 4})
    plant.say("hot", 60)
    running = plant.worker()
    depths: list[float] = []
    was_paused = False
    for _ in range(100):
        running.turns(1)
        was_paused |= running.source.paused == {0}
        depths.append(running.worker._batcher.depth)
    assert max(depths) <= 10 + 4 * 4
    assert was_paused
    assert plant.committed() == 60


def test_a_partition_that_is_overloaded_does_not_keep_the_others_from_being_read(
    predictor: Predictor,
) -> None:
    """A client that fetches anew serves the same partition first, as the log in memory does."""
    options = {"high_water": 16, "low_water": 4, "batch_max": 4}
    plant = Plant(predictor, partitions=4, options=options)
    by_partition = {crc32(name.encode()) % 4: name for name in (f"c{i}" for i in range(40))}
    plant.say(by_partition[0], 400)
    for p in (1, 2, 3):
        plant.say(by_partition[p], 8)
    running = plant.worker()
    paused: set[frozenset[int]] = set()
    queued_while_it_waits = set()
    for _ in range(60):
        running.turns(1)
        paused.add(running.source.paused)
        if 0 in running.source.paused:
            queued_while_it_waits.add(running.worker._batcher.depths[0])
    assert 8 <= plant.committed(0) < 200, "it is worked on too, and its end is far"
    assert [plant.committed(p) for p in (1, 2, 3)] == [8, 8, 8]
    assert frozenset({0}) in paused, "it waits alone"
    assert min(queued_while_it_waits) < 16 / 4, "until it has drained: each fetch anew has a price"
    running.turns(600)
    assert plant.committed(0) == 400
    assert running.source.paused == set()


def test_at_most_max_uncommitted_records_are_ahead_of_the_commit(predictor: Predictor) -> None:
    plant = Plant(predictor, options={"max_uncommitted": 4, "batch_max": 2})
    running = plant.worker()
    running.source.refuse = LogUnavailable
    for i in range(20):
        plant.say(f"c{i}")
    running.turns(100)
    assert len(plant.predictions()) == 4
    running.source.refuse = None
    running.turns(200)
    assert plant.committed() == 20


def test_a_revoked_partition_is_committed_and_forgotten(plant: Plant) -> None:
    running = plant.worker()
    plant.settings = plant.settings.model_copy(update={"commit_interval_ms": 10_000.0})
    running = plant.worker()
    plant.say("a", 3)
    running.turns(8)
    assert plant.committed() < 3
    running.source.take_away([0])
    assert plant.committed() == 3
    plant.say("a")
    successor = plant.worker()
    successor.turns(5)
    assert plant.answered() == {(0, o): 1 for o in range(4)}
    assert not json.loads(plant.predictions()[-1].value or b"")["context"]["truncated"]


def test_a_lost_partition_commits_nothing(plant: Plant) -> None:
    running = plant.worker()
    running.turns(1)
    running.source.refuse = LogUnavailable
    plant.say("a", 2)
    running.turns(4)
    running.source.refuse = None
    running.source.take_away([0], lost=True)
    running.turns(4)
    assert plant.committed() == -1
    assert running.source.commits == 0


def test_a_zombie_never_contradicts_its_successor(plant: Plant) -> None:
    """It was stopped past its session with records in hand; a successor worked on; it wakes up."""
    zombie = plant.worker()
    plant.say("a", 2)
    zombie.turns(4)
    plant.say("a", 3)
    with_records = zombie.source.poll(10, 0.0)
    zombie.source.poll = lambda max_records, timeout_s: with_records  # type: ignore[method-assign]
    owner = plant.worker()
    owner.turns(6)
    plant.say("a", 2)
    zombie.source.refuse = CommitRefused
    zombie.worker.turn()
    zombie.source.poll = lambda max_records, timeout_s: []  # type: ignore[method-assign]
    zombie.turns(20)
    owner.turns(10)
    assert plant.committed() == 7
    assert zombie.value("records_committed_total") == 2
    assert all(
        len({r.value for r in plant.predictions() if offset_of(r) == o}) == 1 for o in range(7)
    )


def offset_of(record: Record) -> int:
    return int(json.loads(record.value or b"")["input"]["offset"])


def test_a_fenced_worker_the_broker_still_accepts_claims_again_and_goes_on(plant: Plant) -> None:
    running = plant.worker()
    plant.say("a", 2)
    running.turns(4)
    stamp(plant, running.store.claim("local", 0, at_least=NEWER))
    plant.say("a", 2)
    running.turns(6)
    assert running.value("fencing_rejections_total") == 1
    assert plant.committed() == 4
    assert plant.answered() == {(0, o): 1 for o in range(4)}


def stamp(plant: Plant, token: int) -> None:
    """Let a newer owner's token be what is stored with every state."""
    for _, entries in plant.memory.states.values():
        entries.fields[TOKEN] = b"%d" % token


def test_a_fenced_worker_the_broker_refuses_drops_the_partition(plant: Plant) -> None:
    running = plant.worker()
    plant.say("a", 2)
    running.turns(4)
    stamp(plant, NEWER)
    running.source.refuse = CommitRefused
    plant.say("a", 1)
    running.turns(200)
    assert plant.answered() == {(0, o): 1 for o in range(2)}
    assert running.source.paused == {0}
    running.source.refuse = None  # it was a rebalance in progress, and the partition stayed ours
    running.turns(200)
    assert plant.committed() == 3
    assert plant.answered() == {(0, o): 1 for o in range(3)}


def test_a_drain_commits_what_is_done_and_leaves(plant: Plant) -> None:
    plant.settings = plant.settings.model_copy(update={"commit_interval_ms": 10_000.0})
    running = plant.worker()
    plant.say("a", 4)
    stop = Event()
    running.turns(3)
    stop.set()
    done = len(plant.predictions())
    assert 0 < done < 4
    assert running.worker.run(stop)
    assert plant.committed() == done
    assert not running.ready()
    plant.worker().turns(10)
    assert plant.answered() == {(0, o): 1 for o in range(4)}


def test_a_drain_that_cannot_commit_ends_within_its_budget_and_returns_false(plant: Plant) -> None:
    running = plant.worker()
    running.source.refuse = LogUnavailable
    plant.say("a", 1)
    running.turns(2)
    tick = running.source.poll

    def poll(max_records: int, timeout_s: float) -> list[Record]:
        plant.clock.ms += 1_000
        return tick(max_records, timeout_s)

    running.source.poll = poll  # type: ignore[method-assign]
    before = plant.clock.ms
    assert not running.worker.drain()
    assert plant.clock.ms - before <= 21_000


def test_the_stages_explain_the_end_to_end_time(plant: Plant) -> None:
    running = plant.worker()
    predict = plant.predictor.predict
    flush = running.sink.flush

    def slow_predict(turns: Any) -> Any:
        plant.clock.ms += 7
        return predict(turns)

    def slow_flush(timeout_s: float) -> bool:
        plant.clock.ms += 3
        return flush(timeout_s)

    plant.predictor.predict = slow_predict  # type: ignore[method-assign]
    running.sink.flush = slow_flush  # type: ignore[method-assign]
    plant.say("a", 5)
    plant.say("b", 5)
    running.turns(30, step_ms=1)
    stages = ("fetch_wait", "decode", "queue_wait", "state_load", "inference", "state_save")
    sums = {s: running.value(f"{s}_seconds_sum") for s in (*stages, "produce", "end_to_end")}
    whole = sums.pop("end_to_end")
    assert sums["inference"] >= 0.069
    assert sums["produce"] >= 0.029
    assert sum(sums.values()) >= 0.95 * whole
    assert sum(sums.values()) <= 1.0001 * whole
    assert running.value("end_to_end_seconds_count") == 10


def test_broker_time_ahead_of_ours_is_shown_and_never_negative(plant: Plant) -> None:
    running = plant.worker()
    record = plant.clock.ms + 3_600_000
    plant.say("a")
    plant.log.records["utterances", 0][0] = plant.log.append(
        "x", b"a", plant.log.read("utterances")[0].value, timestamp_ms=record
    )
    plant.log.records["utterances", 0][0] = Record(
        "utterances", 0, 0, record, b"a", plant.log.records["utterances", 0][0].value
    )
    running.turns(3)
    assert running.value("clock_skew_seconds") == pytest.approx(3_600, abs=1)
    assert running.value("fetch_wait_seconds_sum") == 0


@pytest.mark.parametrize("sent_ms", [-1, 0, 1_700_000_000, 32_503_680_000_000, 2**62])
def test_a_producers_clock_may_show_anything_and_the_record_is_answered(
    plant: Plant, sent_ms: int
) -> None:
    """`CreateTime`: none, 1970, seconds as milliseconds, the year 3000, no year at all."""
    running = plant.worker()
    said = {"conversation_id": "c", "speaker_id": "ann", "text": "hi", "event_time": sent_ms}
    for n in range(2):
        value = json.dumps(said | {"utterance_id": f"u{n}"}).encode()
        plant.log.append("utterances", b"c", value, timestamp_ms=sent_ms)
    running.turns()
    events = [json.loads(record.value or b"") for record in plant.predictions()]
    assert [event["context"]["utterances"] for event in events] == [0, 1]
    assert [event["flags"] for event in events] == [[], []]
    assert running.value("end_to_end_seconds_sum") >= 0
    assert ("ce_time" in dict(plant.predictions()[0].headers)) == (sent_ms >= 0)
    assert (running.value("clock_skew_seconds") > 0) == (sent_ms > plant.clock.ms)


def test_predictions_go_on_with_the_trace_of_their_utterance(plant: Plant) -> None:
    """In either mode of CloudEvents: the headers, or the event in the value."""
    running = plant.worker()
    traces = [f"00-{digit * 32}-{digit * 16}-01" for digit in "ab"]
    said = {"conversation_id": "c", "utterance_id": "u", "speaker_id": "ann", "text": "hi"}
    event = {"specversion": "1.0", "id": "e", "source": "s", "type": "emotrack.utterance.v1"}
    structured = event | {"traceparent": traces[1], "data": said | {"utterance_id": "v"}}
    content = ("content-type", b"application/cloudevents+json")
    plant.log.append(
        "utterances", b"c", json.dumps(said).encode(), (("traceparent", traces[0].encode()),)
    )
    plant.log.append("utterances", b"c", json.dumps(structured).encode(), (content,))
    running.turns()
    found = [dict(r.headers)["traceparent"] for r in plant.predictions()]
    assert found == [trace.encode() for trace in traces]


def test_predictions_carry_their_timing_in_headers_only(plant: Plant) -> None:
    running = plant.worker()
    plant.say("a")
    running.turns(3)
    (prediction,) = plant.predictions()
    headers = dict(prediction.headers)
    assert float(headers["emotrack_end_to_end_ms"] or b"") >= 0
    assert headers["emotrack_produced_at"]
    assert b"_ms" not in (prediction.value or b"")


def test_partitions_do_not_share_conversations(
    make_predictor: Callable[..., Predictor],
) -> None:
    plant = Plant(make_predictor(), partitions=2)
    running = plant.worker()
    plant.say("a")
    value = plant.log.read("utterances")[0].value
    taken = plant.log.read("utterances")[0].partition
    plant.log.append("utterances", b"a", value, partition=1 - taken)
    running.turns(5)
    contexts = [json.loads(r.value or b"")["context"]["utterances"] for r in plant.predictions()]
    assert contexts == [0, 0]


def test_a_partition_that_comes_back_is_read_from_the_store_not_from_memory(plant: Plant) -> None:
    """A window cached before the partition left is older than what its owner has written since."""
    here, there = plant.worker(), plant.worker(first=False)
    plant.say("a", 2)
    here.turns(5)
    here.source.take_away([0])
    there.source.assign([0])
    plant.say("a", 2)
    there.turns(5)
    there.source.take_away([0])
    here.source.assign([0])
    plant.say("a", 1)
    here.turns(5)
    contexts = [json.loads(r.value or b"")["context"] for r in plant.predictions()]
    assert [c["utterances"] for c in contexts] == [0, 1, 2, 3, 3]
    assert not any(c["truncated"] for c in contexts)
    assert here.value("state_operations_total", operation="save", result="lost") == 0


def test_a_member_without_a_partition_stands_by_and_is_ready(plant: Plant) -> None:
    """More workers than partitions: the spare one was never ready, and so would never roll out."""
    spare = plant.worker(first=False)
    spare.health.store = True
    spare.turns(1)
    assert not spare.ready(), "it may still be about to get one"
    plant.clock.ms += 6_000
    spare.turns(1)
    assert spare.ready()


def say_on(plant: Plant, partition: int, n: int, conversation: str = "c", **fields: Any) -> None:
    """Utterances on a partition that a producer chose in its own way."""
    for i in range(n):
        offset = len(plant.log.records["utterances", partition])
        ids = {"conversation_id": conversation, "utterance_id": f"p{partition}-{offset}"}
        said = ids | {"speaker_id": "ann", "text": f"words {i}"}
        value = json.dumps(said | fields).encode()
        plant.log.append("utterances", conversation.encode(), value, partition=partition)


def flags_on(plant: Plant, partition: int) -> list[list[str]]:
    answers = [json.loads(record.value or b"") for record in plant.predictions()]
    return [a["flags"] for a in answers if a["input"]["partition"] == partition]


def test_all_answers_of_a_conversation_on_two_partitions_say_moved_within_a_second(
    plant: Plant,
) -> None:
    plant.partitions = plant.log.partitions = 2
    running = plant.worker()
    say_on(plant, 0, 2)
    say_on(plant, 1, 1, "another")
    running.turns(4)
    say_on(plant, 1, 2)
    with capture_logs() as logs:
        running.turns(4)
        running.turns(1, step_ms=1_000)
        running.turns(1)
        say_on(plant, 0, 2)
        say_on(plant, 1, 2)
        running.turns(6)
    assert flags_on(plant, 0) == [[], [], ["moved"], ["moved"]]
    assert flags_on(plant, 1) == [[], *[["moved"]] * 4]
    assert running.value("partition_moves_total") == 1
    assert running.value("split_answers_total") == 6
    assert running.value("seq_disorder_total") == 0, "another flag"
    (line,) = [entry for entry in logs if "several partitions" in entry["event"]]
    assert (line["conversation_id"], line["partitions"]) == ("c", [0, 1])


def test_owners_of_two_partitions_learn_of_a_split_from_each_other(plant: Plant) -> None:
    plant.partitions = plant.log.partitions = 2
    first, second = plant.worker(first=False), plant.worker(first=False)
    first.source.assign([0])
    second.source.assign([1])
    say_on(plant, 0, 1)
    first.turns(4)
    say_on(plant, 1, 1)
    second.turns(4)
    first.turns(1, step_ms=1_000)
    first.turns(1)
    say_on(plant, 0, 1)
    first.turns(4)
    assert flags_on(plant, 1) == [["moved"]]
    assert flags_on(plant, 0) == [[], ["moved"]]
    assert second.value("partition_moves_total") == 1
    assert first.value("partition_moves_total") == 0, "counted where it was found"


def test_a_partition_that_comes_back_is_asked_again_who_else_has_its_conversations(
    plant: Plant,
) -> None:
    """A note from before it left is older than those of others since."""
    plant.partitions = plant.log.partitions = 2
    here, there = plant.worker(first=False), plant.worker(first=False)
    here.source.assign([0])
    say_on(plant, 0, 1)
    here.turns(4)
    here.source.take_away([0])
    there.source.assign([1])
    say_on(plant, 1, 1)
    there.turns(4)
    here.source.assign([0])
    say_on(plant, 0, 1)
    here.turns(5, step_ms=0)
    assert flags_on(plant, 0) == [[], ["moved"]], "at its first answer, before any look"


def test_an_id_used_again_is_counted_by_kind_and_logged_once_a_minute(plant: Plant) -> None:
    running = plant.worker()
    plant.say("a", utterance_id="u0", text="the words")
    plant.say("a", utterance_id="u0", text="the words")
    plant.say("a", utterance_id="u0", text="the words", language="en")
    throttle = Throttle(plant.clock.seconds)
    with capture_logs(processors=[throttle]) as logs:
        for n in range(5):
            plant.say("a", utterance_id="u0", text=f"secret {n}")
            running.turns(4)
        running.turns(70, step_ms=1_000)
        throttle.due()
        plant.say("a", 1)
        running.turns(4)
    kinds = {"utterance_id": 1, "late_fields": 1, "other_utterance": 5, "position": 0}
    for kind, count in kinds.items():
        assert running.value("duplicates_total", kind=kind) == count, kind
    lines = [entry for entry in logs if "utterance dropped" in entry["event"]]
    assert [(line.get("left_out"), line["partition"]) for line in lines] == [(None, 0), (3, 0)]
    assert [line["conversation_id"] for line in lines] == ["a", "a"]
    assert lines[-1]["utterance_id"] == "u0" and lines[-1]["offset"] == 7, "the last of them"
    assert "secret" not in str(lines)
    assert flags_on(plant, 0) == [[], ["id_reused"]]
    assert running.outcomes()["duplicate"] == 7


def test_with_transactions_an_answer_is_seen_once_whatever_fails(predictor: Predictor) -> None:
    plant = Plant(predictor, options={"delivery": "transactional"})
    first = plant.worker()
    plant.say("a", 3)
    first.source.refuse = LogUnavailable
    first.turns(5)
    assert plant.predictions() == [], "nothing is sent before its offset is committed with it"
    first.source.refuse = None
    assert first.transactions is not None
    first.transactions.fail_next = True
    first.turns(10, step_ms=500)
    assert plant.committed() == 3
    first.source.refuse = LogUnavailable  # it dies with answers saved and not sent
    plant.say("a", 2)
    first.turns(5)
    second = plant.worker()
    second.turns(30)
    assert plant.committed() == 5
    assert plant.answered() == {(0, o): 1 for o in range(5)}
    assert second.value("replays_total", result="sent") == 2


def test_with_transactions_an_answer_above_the_watermark_waits_for_it(predictor: Predictor) -> None:
    plant = Plant(predictor, options={"delivery": "transactional"})
    first = plant.worker()
    plant.say("a", 2)
    plant.say("b", 1)  # answered in one batch with the first of a, and before the second
    first.turns(2)
    assert plant.committed() == 1
    assert plant.answered() == {(0, 0): 1}
    second = plant.worker()  # the first one dies here
    second.turns(10)
    assert plant.answered() == {(0, o): 1 for o in range(3)}


def test_a_conversation_that_fell_silent_leaves_the_cache(predictor: Predictor) -> None:
    plant = Plant(predictor)
    plant.say("silent")
    running = plant.worker()
    running.turns(3)
    idle_ms = int(predictor.spec.recurrence.idle_s * 1000)
    plant.clock.ms += idle_ms // 2
    plant.say("talking")
    running.turns(3)
    assert running.value("conversations_active") == 2
    plant.clock.ms += idle_ms // 2
    running.turns(3, step_ms=1_000)
    assert running.value("conversations_active") == 1
    plant.say("silent")
    running.turns(3)
    assert len(plant.predictions()) == 3
