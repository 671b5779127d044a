"""The worker counts everything once, and no one by name."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import get_args

import pytest
from structlog.testing import capture_logs

from model.interface import Predictor
from state.memory_store import Memory, MemoryStore
from state.store import Save, Saved, StoreUnavailable
from stream.events.messages import Abstention
from stream.metrics.catalogue import Metrics
from stream.metrics.scrape import Page, parse
from stream.ports import Seen, Start
from stream.settings import Settings
from stream.worker.loop import Worker
from stream.worker.observe import Health, Observer, Servers
from stream.worker.partitions import Owned, Partitions
from stream.worker.recovery import Recovery
from tests.fakes.clock import Clock
from tests.fakes.memory_log import LocalLog, LocalReader, LocalSink, LocalSource

CONVERSATIONS = 10_000
PARTITIONS = 3
POISON_EVERY = 100
STAGES = (
    "fetch_wait", "decode", "queue_wait", "state_load", "inference", "state_save", "produce",
)  # fmt: skip


@pytest.mark.slow
def test_ten_thousand_conversations_and_speakers_add_no_series(predictor: Predictor) -> None:
    log = LocalLog(lambda: 1_700_000_000_000, PARTITIONS)
    metrics, worker = worker_on(log, predictor)
    speak(log, range(100))
    work(worker, log)
    few = parse(metrics.render().decode())
    speak(log, range(100, CONVERSATIONS))
    work(worker, log)
    many = parse(metrics.render().decode())
    assert counted(many, "utterances_consumed_total") == CONVERSATIONS
    assert set(many.samples) == set(few.samples)
    assert len(many.samples) < 500


def test_every_count_of_records_agrees_and_the_stages_saw_each_prediction(
    predictor: Predictor,
) -> None:
    log = LocalLog(lambda: 1_700_000_000_000, PARTITIONS)
    metrics, worker = worker_on(log, predictor)
    speak(log, range(500))
    work(worker, log)
    page = parse(metrics.render().decode())
    assert counted(page, "records_committed_total") == 500
    assert page.by_label("emotrack_outcomes_total", "outcome") == {
        "predicted": counted(page, "outcomes_total", outcome="predicted"),
        "abstained": counted(page, "outcomes_total", outcome="abstained"),
        "dead_lettered": 5,
        "duplicate": 0,
        "control": 0,
    }
    assert counted(page, "outcomes_total") == 500
    assert counted(page, "predictions_emitted_total") == 495
    for stage in (*STAGES, "end_to_end"):
        assert counted(page, f"{stage}_seconds_count") == 495, stage
    assert counted(page, "dead_letters_total", reason="missing_field") == 5


def test_a_field_that_was_left_out_is_flagged_and_counted_by_name(predictor: Predictor) -> None:
    """And is no disorder of `seq`, which was a count of all flags."""
    log = LocalLog(lambda: 1_700_000_000_000, PARTITIONS)
    metrics, worker = worker_on(log, predictor)
    said = {"conversation_id": "c", "speaker_id": "s", "text": "words"}
    misfits: list[dict[str, object]] = [
        {"seq": "3", "end_ms": None},
        {"event_time": 0.5, "seq": []},
        {"text": "w\ud83d"},
    ]
    for n, misfit in enumerate(misfits):
        log.append(
            "utterances", b"c", json.dumps(said | {"utterance_id": f"{n}"} | misfit).encode()
        )
    work(worker, log)
    page = parse(metrics.render().decode())
    assert {
        field: count
        for field, count in page.by_label("emotrack_ignored_fields_total", "field").items()
        if count
    } == {"seq": 2, "event_time": 1, "text": 1}
    assert counted(page, "seq_disorder_total") == 0
    flags = [json.loads(r.value or b"")["flags"] for r in log.read("predictions")]
    assert flags == [["ignored_seq"], ["ignored_seq", "ignored_event_time"], ["repaired_text"]]


def test_abstentions_are_counted_by_their_reason(predictor: Predictor) -> None:
    log = LocalLog(lambda: 1_700_000_000_000, PARTITIONS)
    metrics, worker = worker_on(log, predictor)
    page = parse(metrics.render().decode())
    reasons = page.by_label("emotrack_abstentions_total", "reason")
    assert reasons == dict.fromkeys(get_args(Abstention), 0), "each starts at 0"
    for i, language in enumerate(("zh", "en", "zh")):
        body = {"conversation_id": "c", "utterance_id": f"u{i}", "speaker_id": "a"}
        body |= {"text": "hi", "language": language}
        log.append("utterances", b"c", json.dumps(body).encode())
    work(worker, log)
    page = parse(metrics.render().decode())
    reasons = page.by_label("emotrack_abstentions_total", "reason")
    assert reasons["language"] == 2
    assert sum(reasons.values()) == counted(page, "outcomes_total", outcome="abstained")


def test_a_lost_outcome_shows_as_a_difference(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test of the alert's test: a worker that forgets what became of poison is found out."""
    honest = Observer.final

    def forgetful(self: Observer, records: int, outcomes: list[str]) -> None:
        honest(self, records, [o for o in outcomes if o != "dead_lettered"])

    monkeypatch.setattr(Observer, "final", forgetful)
    log = LocalLog(lambda: 1_700_000_000_000, PARTITIONS)
    metrics, worker = worker_on(log, predictor)
    speak(log, range(500))
    work(worker, log)
    page = parse(metrics.render().decode())
    assert counted(page, "records_committed_total") - counted(page, "outcomes_total") == 5


class Away(MemoryStore):
    """A store that takes no state."""

    def save_many(self, saves: Sequence[Save]) -> list[Saved]:
        raise StoreUnavailable("nobody answers")


def test_records_read_and_pending_count_as_lag(predictor: Predictor) -> None:
    """While the store was away, the few records of a quiet topic were read and held, and the lag
    said 0."""
    log = LocalLog(lambda: 1_700_000_000_000)
    metrics, worker = worker_on(log, predictor, Away(predictor.spec))
    speak(log, range(1, 4))
    worker.turn()  # claims
    worker.turn()  # reads, and cannot save
    speak(log, range(4, 6))  # not read: the partition is paused
    worker._next_housekeeping = 0.0
    worker.turn()
    page = parse(metrics.render().decode())
    assert counted(page, "consumer_lag_records", partition="0") == 5
    assert counted(page, "partitions_paused") == 1


@pytest.mark.parametrize("seen_when_committed", [False, True])
def test_an_answer_that_is_not_committed_is_lag_only_where_nobody_sees_it_before(
    seen_when_committed: bool,
) -> None:
    partitions = Partitions({0: Owned(Start(40)), 1: Owned(Start(7))})
    for offset in (40, 41, 42):
        partitions[0].watermark.admit(offset)
    partitions[0].watermark.finish(40, "predicted")  # answered; committed later
    unread = {0: 5, 1: 9, 2: 3}  # 2 has just left
    lag = partitions.unanswered(unread, seen_when_committed=seen_when_committed)
    assert lag == {0: 8 if seen_when_committed else 7, 1: 9}
    partitions[0].watermark.confirm(41)
    lag = partitions.unanswered(unread, seen_when_committed=seen_when_committed)
    assert lag[0] == 7


def test_partitions_are_counted_as_owned_and_as_checked_while_their_states_are(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what waits then is what is not committed, however far was read before."""
    log = LocalLog(lambda: 1_700_000_000_000, PARTITIONS)
    memory = Memory()
    metrics, worker = worker_on(log, predictor, MemoryStore(predictor.spec, memory=memory))
    speak(log, range(1, 41))
    work(worker, log)
    assert shown(metrics, worker) == {"owned": 3, "checking": 0, "lag": 0}
    monkeypatch.setattr(Recovery, "advance", lambda *_: None)  # a log that takes long
    memory.identity = Memory().identity
    speak(log, range(41, 48))
    worker._next_housekeeping = 0.0
    worker.turn()  # the store is another one
    worker.turn()  # claims
    assert shown(metrics, worker) == {"owned": 3, "checking": 3, "lag": 7}
    monkeypatch.undo()
    work(worker, log)
    assert shown(metrics, worker) == {"owned": 3, "checking": 0, "lag": 0}


def test_a_partition_that_waits_for_its_claim_is_not_being_checked() -> None:
    partitions = Partitions({0: Owned(Start(-1)), 1: Owned(Start(-1), token=1)})
    assert partitions.checking() == {1}
    partitions[1].trust("a store", 0.0)
    assert partitions.checking() == set()


def shown(metrics: Metrics, worker: Worker) -> dict[str, float]:
    """The gauges of partitions, written now."""
    worker._next_housekeeping = 0.0
    worker.turn()
    page = parse(metrics.render().decode())
    return {
        "owned": counted(page, "partitions_owned"),
        "checking": counted(page, "partitions_checking"),
        "lag": counted(page, "consumer_lag_records"),
    }


def test_a_look_at_kafka_is_told_to_readyz_the_gauges_and_once_to_the_log(
    predictor: Predictor,
) -> None:
    """Whatever the worker's own thread does meanwhile: it may be waiting for Kafka itself."""
    metrics, clock = Metrics(), Clock()
    health = Health(warmed=True, joined=True, broker=True, store=True)
    servers = Servers(health, Observer(metrics, predictor.info), clock.seconds)
    with capture_logs() as lines:
        for seen in (Seen("", 4, 7), Seen("nobody"), Seen("no one"), Seen("", 6), Seen("", 6, 0)):
            servers.saw(seen)
            page = parse(metrics.render().decode())
            up = not seen.fault
            assert (health.ready, counted(page, "broker_up")) == (up, up)
            assert counted(page, "ready") == up
            assert counted(page, "topic_partitions") == (seen.partitions or 4)
            known = "emotrack_group_lag_records" in metrics.render().decode()
            assert known == (seen.waiting is not None), "what is not known is not shown"
            clock.ms += 10_500
    assert [(line["event"], line.get("reason"), line.get("away_s")) for line in lines] == [
        ("Kafka is away", "nobody", None),
        ("Kafka is back", None, 21.0),
    ]


def test_what_blocks_the_loop_shows_as_a_wait_for_the_fetch_as_well(predictor: Predictor) -> None:
    """The runbook looks at the waits last: here Redis is slow, and it is the fetch that waits."""
    clock = Clock()
    log = LocalLog(clock.now_ms)

    class Slow(MemoryStore):
        def save_many(self, saves: Sequence[Save]) -> list[Saved]:
            clock.ms += 800
            speak(log, range(201, 202))  # it comes while the loop waits ...
            clock.ms += 100
            return super().save_many(saves)

    metrics, worker = worker_on(log, predictor, Slow(predictor.spec), clock)
    speak(log, range(1, 2))
    for _ in range(6):
        worker.turn()
    page = parse(metrics.render().decode())
    assert counted(page, "state_save_seconds_sum") == pytest.approx(1.8)
    assert counted(page, "fetch_wait_seconds_sum") == pytest.approx(0.1)


def counted(page: Page, name: str, **labels: str) -> float:
    return page.value(f"emotrack_{name}", **labels)


def worker_on(
    log: LocalLog,
    predictor: Predictor,
    store: MemoryStore | None = None,
    clock: Clock | None = None,
) -> tuple[Metrics, Worker]:
    metrics = Metrics()
    source = LocalSource(log, "utterances", "g")
    worker = Worker(
        Settings(commit_interval_ms=0, topic_prefix="", cache_conversations=1_000),
        source=source,
        reader=LocalReader(log, "utterances"),
        sink=LocalSink(log),
        store=store or MemoryStore(predictor.spec),
        predictor=predictor,
        observer=Observer(metrics, predictor.info),
        health=Health(warmed=True),
        now_ms=clock.now_ms if clock else lambda: time.time_ns() // 1_000_000,
        clock_s=clock.seconds if clock else time.monotonic,
    )
    source.subscribe(worker)
    return metrics, worker


def speak(log: LocalLog, conversations: range) -> None:
    """One utterance of each, by a speaker of its own; every hundredth has no speaker."""
    for n in conversations:
        said = {"conversation_id": f"c{n}", "utterance_id": f"u{n}", "text": f"words {n}"}
        if n % POISON_EVERY:
            said["speaker_id"] = f"s{n}"
        log.append("utterances", f"c{n}".encode(), json.dumps(said).encode())


def work(worker: Worker, log: LocalLog) -> None:
    """Turn until all is committed."""
    ends = {p: len(log.records["utterances", p]) for p in range(PARTITIONS)}
    for _ in range(2_000):
        if all(log.committed.get(("g", "utterances", p), 0) == end for p, end in ends.items()):
            break
        worker.turn()
    else:
        pytest.fail("not all records were committed")
    worker._next_housekeeping = 0.0  # the gauges, too, must be written now
    worker.turn()
