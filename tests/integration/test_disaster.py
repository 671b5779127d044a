"""A second cluster, a Redis backup and a flood of dead letters, as docs/operations.md says.

Tried on Apache Kafka and redis-server, with a plain consumer and producer as the mirror.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import kafka as kafka_python
import pytest
import redis
from confluent_kafka import Consumer, Producer, TopicPartition
from kafka.admin import ConfigResource

from stream.brokers.topics import create, plan
from stream.local.servers import Listeners, RunningKafka, answers, apache_kafka, redis_server
from stream.ports import Record
from stream.settings import Settings
from stream.verify.run import verify_topics
from stream.verify.selection import Selection
from tests.conftest import ROOT, enter
from tests.fakes.predictor import SmallPredictor
from tests.integration.test_verify_part import answered, now_ms
from tests.integration.test_worker_kafka import talk
from tests.integration.workers import Site, ThreadWorker, wait_for

pytestmark = pytest.mark.integration

Start = Callable[[Settings], ThreadWorker]
MIB = 1 << 20


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningKafka]:
    """A second broker, which looks at its retention twice a second."""
    often = Listeners({}, {"log.retention.check.interval.ms": "500"})
    directory = tmp_path_factory.mktemp("second")
    server = apache_kafka(directory, ROOT / ".servers/kafka/jars", often)
    yield enter(server)
    server.__exit__(None, None, None)


def other_site(site: Site, bootstrap: str, **settings: object) -> Site:
    """The same topics, made on another broker."""
    own = site.settings.model_copy(update={"bootstrap": bootstrap, **settings})
    create(bootstrap, plan(own.topics, partitions=site.partitions))
    producer = Producer(
        {"bootstrap.servers": bootstrap, "partitioner": "murmur2_random", "log_level": 0}
    )
    return Site(own, producer)


def mirror(source: Site, target: Site, *topics: str, first: int = 0) -> None:
    """Copy the topics from offset `first` on: keys, values, headers and partitions."""
    for topic in topics:
        for record in source.log(topic):
            if record.offset >= first:
                headers: list[tuple[str, str | bytes | None]] = [*record.headers]
                target.producer.produce(
                    topic, record.value, record.key, record.partition, headers=headers
                )
                target.sent += topic == source.settings.topics.utterances
    target.flush()


def commits(site: Site) -> list[TopicPartition]:
    """Return the group's committed offsets, with their notes."""
    consumer = client(site)
    parts = [TopicPartition(site.settings.topics.utterances, p) for p in range(site.partitions)]
    found = consumer.committed(parts, timeout=10)
    consumer.close()
    return [TopicPartition(at.topic, at.partition, at.offset, at.metadata) for at in found]


def commit(site: Site, offsets: list[TopicPartition]) -> None:
    consumer = client(site)
    consumer.commit(offsets=offsets, asynchronous=False)
    consumer.close()


def client(site: Site) -> Consumer:
    own = {"bootstrap.servers": site.settings.bootstrap, "group.id": site.settings.group}
    return Consumer(own | {"log_level": 0})


def values(records: list[Record]) -> list[bytes]:
    return sorted(record.value or b"" for record in records)


@pytest.fixture
def moved(site: Site, second: RunningKafka, start: Start) -> Site:
    """The topics on another broker, after a worker answered 10 rounds on the first one."""
    worker = start(site.settings)
    talk(site, range(10))
    answered(site)
    assert worker.end() == 0
    return other_site(site, second.bootstrap)


@pytest.mark.parametrize("notes", [False, True], ids=["no offsets", "translated offsets"])
def test_a_mirror_from_the_first_record_is_answered_again_with_equal_bytes(
    site: Site, moved: Site, start: Start, notes: bool
) -> None:
    """The states of the old cluster have its topic's id: they are not met, in the same Redis."""
    predictions = site.settings.topics.predictions
    mirror(site, moved, site.settings.topics.utterances)
    if notes:  # as MirrorMaker copies them: with the note, which names the old topic's id
        commit(moved, commits(site))
    worker = start(moved.settings)
    wait_for(lambda: moved.ends(predictions) == site.ends(predictions), "all answers again")
    answered(moved)
    assert values(moved.log(predictions)) == values(site.log(predictions))
    talk(moved, range(10, 12))
    answered(moved)
    assert worker.end() == 0
    report = verify_topics(moved.settings, SmallPredictor(), allow_truncation=False)
    assert report.violations == [] and report.counts["states"] == 12


def test_offsets_set_by_hand_go_on_where_the_group_was(
    site: Site, moved: Site, start: Start
) -> None:
    """Nothing is answered again; the states are computed from the mirror, nothing is truncated."""
    topics = site.settings.topics
    mirror(site, moved, topics.utterances)
    commit(moved, [TopicPartition(at.topic, at.partition, at.offset) for at in commits(site)])
    began = now_ms()
    time.sleep(0.01)
    worker = start(moved.settings)
    talk(moved, range(10, 12))
    answered(moved)
    assert worker.metric("state_rebuilds_total") == 12
    assert worker.end() == 0
    assert moved.ends(topics.predictions) == 24
    since = Selection(since_ms=began)
    report = verify_topics(
        moved.settings, SmallPredictor(), selection=since, allow_truncation=False
    )
    assert report.violations == []
    assert (report.counts["compared"], report.counts["context"]) == (24, 120)
    whole = verify_topics(moved.settings, SmallPredictor())
    assert {v.invariant.name for v in whole.violations} == {"I1"}, "their answers are elsewhere"
    mirror(site, moved, topics.predictions, topics.shift_alerts)
    whole = verify_topics(moved.settings, SmallPredictor())
    assert {v.invariant.name for v in whole.violations} == {"I3"}, "they come after later ones"


def test_a_mirror_that_began_late_cuts_open_conversations_and_cannot_say_so(
    site: Site, moved: Site, start: Start
) -> None:
    """It begins at offset 0, as a whole log does: no answer says `truncated`."""
    mirror(site, moved, site.settings.topics.utterances, first=20)
    worker = start(moved.settings)
    answered(moved)
    assert worker.end() == 0
    events = [json.loads(r.value or b"") for r in moved.log(site.settings.topics.predictions)]
    contexts = {event["context"]["truncated"] for event in events}
    assert contexts == {False}
    before = {r.key: r.value for r in site.log(site.settings.topics.predictions)}
    after = {r.key: r.value for r in moved.log(site.settings.topics.predictions)}
    assert before != after, "ids name positions, which are others"


def test_an_old_dump_that_is_restored_is_found_and_computed_again(
    site: Site, start: Start, tmp_path: Path
) -> None:
    """Under a running worker and under a new one."""
    with redis_server(tmp_path) as store:
        settings = site.settings.model_copy(update={"redis_url": store.url})
        worker = start(settings)
        talk(site, range(5))
        answered(site)
        with redis.Redis(port=store.port) as client:
            client.save()
        old = tmp_path / "old.rdb"
        shutil.copy(tmp_path / "dump.rdb", old)

        def restore() -> None:
            store.server.stop(hard=True)
            shutil.copy(old, tmp_path / "dump.rdb")
            store.server.start(lambda: answers(store.port))

        talk(site, range(5, 8))
        answered(site)
        restore()
        talk(site, range(8, 10))
        answered(site)
        assert worker.metric('state_rebuilds_total{cause="stale_state"}') == 12
        assert worker.end() == 0
        restore()
        worker = start(settings)
        talk(site, range(10, 12))
        answered(site)
        assert worker.metric('state_rebuilds_total{cause="stale_state"}') == 12
        assert worker.end() == 0
        report = verify_topics(settings, SmallPredictor(), allow_truncation=False)
        assert report.violations == []
        assert report.counts["compared"] == site.sent and report.counts["states"] == 12


def test_retention_bytes_bound_a_flood_of_dead_letters(
    site: Site, second: RunningKafka, start: Start
) -> None:
    """A letter is its record and less than 700 bytes more; what is deleted is no violation."""
    poisoned = other_site(site, second.bootstrap)
    topics = poisoned.settings.topics
    body = b'{"conversation_id": "c", "text": "' + b"x" * 3_000 + b'"}'

    def flood(count: int) -> None:
        for i in range(count):
            poisoned.send(body, b"c%d" % i)
        poisoned.flush()
        answered(poisoned)

    worker = start(poisoned.settings)
    flood(20)
    letters = poisoned.log(topics.dead_letters)
    more = [len(r.value or b"") + headers(r) - len(body) for r in letters]
    assert len(more) == 20 and 300 < max(more) < 700
    set_config(
        second.bootstrap,
        topics.dead_letters,
        {"retention.bytes": str(MIB), "segment.bytes": str(MIB), "max.message.bytes": str(2 * MIB)},
    )
    flood(2_000)
    wait_for(lambda: held(second, topics.dead_letters) <= 2 * 2 * MIB, "deletion")
    assert worker.end() == 0
    report = verify_topics(poisoned.settings, SmallPredictor())
    assert report.violations == []
    assert 0 < report.counts["dead_letters"] < 2_020
    assert report.counts["dead_letters"] + report.counts["undecided"] >= 2_020


def headers(record: Record) -> int:
    return sum(len(name) + len(value or b"") for name, value in record.headers)


def held(kafka: RunningKafka, topic: str) -> int:
    """Return the bytes of the topic's segments on the broker's disk."""
    folders = kafka.server.directory.glob(f"data/{topic}-*")
    return sum(f.stat().st_size for folder in folders for f in folder.glob("*.log"))


def set_config(bootstrap: str, topic: str, values: dict[str, str]) -> None:
    """Set these settings of a topic, as kafka-configs.sh does."""
    admin = kafka_python.KafkaAdminClient(bootstrap_servers=bootstrap)
    admin.alter_configs([ConfigResource("TOPIC", topic, dict(values))])
    admin.close()
