"""The worker on Apache Kafka and redis-server: one outcome a record, whatever happens to it."""

from __future__ import annotations

import json
import signal
import urllib.error
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from state.memory_store import MemoryStore
from state.window import StateKey
from stream.answers.outbox import Wire
from stream.events.decode import Decoder
from stream.events.messages import Utterance
from stream.events.poison import Poison
from stream.local import servers
from stream.ports import Record
from stream.settings import Settings
from stream.worker.batcher import Item
from stream.worker.pipeline import Lease, Pipeline
from stream.worker.window_cache import Places, WindowCache
from tests.fakes.predictor import SmallPredictor
from tests.integration.workers import ChildWorker, Site, ThreadWorker, wait_for

pytestmark = pytest.mark.integration

Start = Callable[[Settings], ThreadWorker]
INPUTS = SmallPredictor().info.inputs
BINARY = (("ce_specversion", b"1.0"), ("ce_id", b"x"), ("ce_type", b"emotrack.utterance.v1"))


def utterance(**fields: object) -> bytes:
    said = {"conversation_id": "k", "utterance_id": "x", "speaker_id": "s", "text": "hm"}
    return json.dumps({k: v for k, v in (said | fields).items() if v is not None}).encode()


def packed(shape: list[int], data: str) -> dict[str, object]:
    return {"audio": {"tensor": {"dtype": "float16", "shape": shape, "data": data}}}


Poisoned = tuple[bytes, bytes | None, tuple[tuple[str, bytes], ...]]
POISONS: dict[str, Poisoned] = {
    "bad_json": (b'{"conversation_id": ', b"k", ()),
    "bad_msgpack": (b"\xc1\xc1", b"k", (*BINARY, ("content-type", b"application/msgpack"))),
    "missing_field": (utterance(speaker_id=None), b"k", ()),
    "wrong_type": (utterance(end_of_conversation="no"), b"k", ()),
    "unknown_type": (utterance(), b"k", (("ce_type", b"somebody.else.v1"),)),
    "unknown_version": (utterance(), b"k", (("ce_type", b"emotrack.utterance.v2"),)),
    "wrong_tensor_size": (utterance(features={"audio": {"tensor": [1, 2, 3]}}), b"k", ()),
    "tensor_bytes": (utterance(features=packed([2], "AAA=")), b"k", ()),
    "not_finite": (utterance(features=packed([2], "AHwAfA==")), b"k", ()),
    "too_deep": (b'{"unknown":' + b"[" * 5_000 + b"]" * 5_000 + b"}", b"k", ()),
    "bad_headers": (utterance(), b"k", (("ce_id", b"\xff\xfe"),)),
    "unsupported_content_type": (utterance(), b"k", (("content-type", b"text/csv"),)),
    "empty_id": (utterance(utterance_id=""), b"k", ()),
    "id_too_long": (utterance(utterance_id="x" * 257), b"k", ()),
    "wrong_key": (utterance(), b"somebody", ()),
    "unsupported_field": (utterance(is_partial=True), b"k", ()),
    "nothing_to_predict": (utterance(text=None), b"k", ()),
    "not_finite_result": (utterance(features={"audio": {"tensor": [9e3, 0]}}), b"k", ()),
}


def offline(log: Sequence[Record], settings: Settings) -> dict[tuple[int, int], bytes | None]:
    """Each prediction's bytes, from the log alone: one record at a time, another store."""
    predictor = SmallPredictor()
    pipeline = Pipeline(
        predictor,
        store := MemoryStore(predictor.spec),
        WindowCache(1_000),
        Places(store, capacity=1_000, again_s=900.0, clock_s=lambda: 0.0),
        Wire(settings.topics, settings.output_format, settings.source),
        now_ms=lambda: 0,
        clock_s=lambda: 0.0,
    )
    lease = Lease(1, -1, proves_new=True)
    expected: dict[tuple[int, int], bytes | None] = {}
    for r in log:
        message = Decoder(INPUTS).decode(r).message
        if isinstance(message, Utterance):
            item = Item(r, message, StateKey(message.conversation_id, "", r.partition), 0.0)
            (result,) = pipeline.step([item], {r.partition: lease}).results
            if result.event is not None:
                expected[r.partition, r.offset] = result.send[0].value
    return expected


def predicted(site: Site) -> dict[tuple[int, int], list[bytes | None]]:
    """The bytes of every prediction by the position it answers."""
    found: dict[tuple[int, int], list[bytes | None]] = defaultdict(list)
    for r in site.log(site.settings.topics.predictions):
        at = json.loads(r.value or b"")["input"]
        found[at["partition"], at["offset"]].append(r.value)
    return found


def test_poison_goes_to_the_dead_letters_once_and_harms_no_neighbour(
    site: Site, start: Start
) -> None:
    """Eighteen kinds of poison, a tombstone and an endless header between 400 utterances."""
    worker = start(site.settings)
    poisons = list(POISONS.items())
    for n in range(20):
        for c in range(20):
            site.say(f"c{c}", n)
        if n < len(poisons):
            value, key, headers = poisons[n][1]
            site.send(value, key, headers)
    site.send(None, b"c1")
    # Copied into its prediction, this header would be more than a broker takes.
    site.send(utterance(conversation_id="long"), b"long", (("traceparent", b"0" * 1_000_000),))
    site.say("c1", 3)  # a producer's duplicate
    site.flush()
    wait_for(lambda: site.committed() == site.sent, "the commit of every record")
    log = site.log(site.settings.topics.utterances)
    by_position = {(r.partition, r.offset): r for r in log}

    letters = site.log(site.settings.topics.dead_letters)
    reasons = {n: v for n, v in letter_reasons(letters)}
    assert Counter(n for n, _ in letter_reasons(letters)) == dict.fromkeys(POISONS, 1)
    for reason, letter in reasons.items():
        said = dict(letter.headers)
        partition, offset = said["emotrack_dlq_partition"], said["emotrack_dlq_offset"]
        original = by_position[int(partition or b""), int(offset or b"")]
        assert (letter.value, letter.key) == (original.value, original.key)
        assert (letter.value, letter.key) == POISONS[reason][:2]
        assert set(original.headers) <= set(letter.headers)
        assert said["emotrack_dlq_message"]

    got, expected = predicted(site), offline(log, site.settings)
    assert len(expected) == 401
    assert {at: set(values) for at, values in got.items()} == {
        at: {value} for at, value in expected.items()
    }
    assert all(len(values) == 1 for values in got.values())
    assert worker.metric("outcomes_total") == site.sent
    assert worker.metric("records_committed_total") == site.sent
    assert worker.metric('outcomes_total{outcome="dead_lettered"}') == len(POISONS)
    assert worker.metric('outcomes_total{outcome="control"}') == 1
    assert worker.metric('outcomes_total{outcome="duplicate"}') == 1
    stages = ("fetch_wait", "decode", "queue_wait", "state_load", "inference", "state_save")
    explained = sum(worker.metric(f"{s}_seconds_sum") for s in (*stages, "produce"))
    assert 0.95 <= explained / worker.metric("end_to_end_seconds_sum") <= 1.0 + 1e-6


def letter_reasons(letters: Sequence[Record]) -> Iterator[tuple[str, Record]]:
    for letter in letters:
        yield (dict(letter.headers)["emotrack_dlq_reason"] or b"").decode(), letter


def test_workers_share_a_group_and_hand_conversations_over(site: Site, start: Start) -> None:
    """One, then two, then the other one alone: every utterance once, no context lost."""
    first = start(site.settings)
    talk(site, range(0, 10))
    wait_for(lambda: site.committed() == site.sent, "the first worker's commits")
    second = start(site.settings)
    wait_for(lambda: second.metric("consumer_lag_records") >= 0, "metrics of the second")
    wait_for(lambda: second.metric('rebalances_total{kind="assigned"}') == 1, "a shared group")
    talk(site, range(10, 20))
    wait_for(lambda: site.committed() == site.sent, "both workers' commits")
    assert second.metric("records_committed_total") > 0
    assert first.end() == 0
    talk(site, range(20, 30))
    wait_for(lambda: site.committed() == site.sent, "the second worker's commits")
    assert second.metric("predictions_emitted_total") > 0

    got, expected = (
        predicted(site),
        offline(site.log(site.settings.topics.utterances), site.settings),
    )
    assert len(expected) == site.sent
    assert got == {at: [value] for at, value in expected.items()}


def test_a_store_that_does_not_answer_costs_time_and_nothing_else(
    site: Site, start: Start, tmp_path: Path
) -> None:
    """Redis is stopped in mid-stream, longer than its clients wait, and goes on."""
    with servers.redis_server(tmp_path) as redis:
        worker = start(site.settings.model_copy(update={"redis_url": redis.url}))
        talk(site, range(0, 10))
        wait_for(lambda: site.committed() == site.sent, "commits before")
        assert redis.server.process is not None
        redis.server.process.send_signal(signal.SIGSTOP)
        try:
            talk(site, range(10, 20))
            wait_for(lambda: worker.metric("redis_up") == 0, "a store that is away")
            with pytest.raises(urllib.error.HTTPError, match="503"):
                urllib.request.urlopen(f"{worker.url}/readyz", timeout=10)
            urllib.request.urlopen(f"{worker.url}/healthz", timeout=10).close()
        finally:
            redis.server.process.send_signal(signal.SIGCONT)
        wait_for(lambda: site.committed() == site.sent, "commits after")
        assert worker.end() == 0
    got, expected = (
        predicted(site),
        offline(site.log(site.settings.topics.utterances), site.settings),
    )
    assert {at: set(v) for at, v in got.items()} == {at: {v} for at, v in expected.items()}
    assert len(expected) == site.sent


def talk(site: Site, turns: range, conversations: int = 12) -> None:
    for n in turns:
        for c in range(conversations):
            site.say(f"c{c}", n)
    site.flush()


@pytest.fixture
def child(site: Site, tmp_path: Path) -> Iterator[tuple[Settings, Callable[[], ChildWorker]]]:
    """Start `emotrack serve` processes; killed at the end."""
    settings = site.settings.model_copy(update={"batch_max": 4, "max_uncommitted": 40})
    children: list[ChildWorker] = []

    def begin() -> ChildWorker:
        children.append(ChildWorker(settings, tmp_path))
        return children[-1]

    yield settings, begin
    for one in children:
        one.end()


def test_a_killed_worker_loses_nothing_and_a_drained_one_repeats_nothing(
    site: Site, child: tuple[Settings, Callable[[], ChildWorker]]
) -> None:
    """SIGKILL in mid-stream, a successor, SIGTERM in mid-stream, another successor."""
    settings, begin = child
    first = begin()
    first.wait_ready()
    talk(site, range(40))
    wait_for(lambda: site.ends(settings.topics.predictions) >= 60, "the first predictions")
    first.process.send_signal(signal.SIGKILL)
    first.process.wait(10)
    killed_at = site.ends(settings.topics.predictions)
    assert killed_at < site.sent, "it was killed in mid-stream"

    second = begin()
    wait_for(lambda: site.ends(settings.topics.predictions) > killed_at + 60, "the successor")
    second.process.send_signal(signal.SIGTERM)
    assert second.process.wait(20) == 0
    drained_at, committed = site.ends(settings.topics.predictions), site.committed()
    assert committed < site.sent, "it was drained in mid-stream"

    third = begin()
    wait_for(lambda: site.committed() == site.sent, "the last successor's commits")
    got, expected = predicted(site), offline(site.log(settings.topics.utterances), settings)
    assert {at: set(v) for at, v in got.items()} == {at: {v} for at, v in expected.items()}
    assert len(expected) == site.sent, "one prediction for every utterance"
    answers = sum(len(values) for values in got.values())
    assert answers - drained_at == site.sent - committed, "after a drain nothing is repeated"
    assert answers - site.sent <= 2 * settings.max_uncommitted, "bounded by what was in flight"
    third.process.send_signal(signal.SIGTERM)
    assert third.process.wait(20) == 0


def test_every_poison_kind_is_what_the_decoder_says() -> None:
    """The reason a record is sent with above is the decoder's, but for the late one."""
    for reason, (value, key, headers) in POISONS.items():
        met = Decoder(INPUTS).decode(Record("t", 0, 0, 0, key, value, headers)).message
        if reason != "not_finite_result":
            assert isinstance(met, Poison), reason
            assert met.reason == reason
