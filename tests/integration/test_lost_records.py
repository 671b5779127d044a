"""Records that left a real log: compaction, DeleteRecords, and what is none (transactions)."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Sequence
from itertools import pairwise

import kafka
import pytest
import redis
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from kafka.admin import ConfigResource

from stream.brokers.batch_log import BatchLog
from stream.brokers.partition_reader import KafkaReader
from stream.local.servers import RunningRedis
from stream.settings import Settings
from stream.verify.run import verify_topics
from tests.fakes.predictor import SmallPredictor
from tests.integration.workers import Site, ThreadWorker, wait_for

pytestmark = pytest.mark.integration

Start = Callable[[Settings], ThreadWorker]
QUICKLY = {
    "cleanup.policy": "compact",
    "segment.ms": "100",
    "min.cleanable.dirty.ratio": "0.01",
    "min.compaction.lag.ms": "0",
}


def alter(site: Site, **settings: str) -> None:
    """Set the settings of the utterances topic; `_` stands for a point."""
    named = {name.replace("_", "."): value for name, value in settings.items()}
    admin = kafka.KafkaAdminClient(bootstrap_servers=site.settings.bootstrap)
    admin.alter_configs([ConfigResource("TOPIC", site.settings.topics.utterances, named)])
    admin.close()


def compact(site: Site, partition: int) -> list[int]:
    """Have a partition compacted; return the offsets that are left."""
    alter(site, **{name.replace(".", "_"): value for name, value in QUICKLY.items()})
    before = offsets(site, partition)
    topic = site.settings.topics.utterances

    def compacted() -> bool:
        # The last segment is never compacted: new records let it roll.
        site.producer.produce(topic, None, b"roll", partition=partition)
        site.flush()
        return len(set(before) & set(offsets(site, partition))) < len(before)

    wait_for(compacted, "the compaction", 90)
    alter(site, cleanup_policy="delete")
    return offsets(site, partition)


def offsets(site: Site, partition: int) -> list[int]:
    reader = KafkaReader(site.settings)
    end = reader.ends([partition], 10)[partition]
    found = [r.offset for portion in reader.read(partition, 0, end) for r in portion]
    reader.close()
    return found


def holes(there: Sequence[int], end: int) -> list[tuple[int, int]]:
    edges = [-1, *there, end]
    return [(a + 1, b) for a, b in pairwise(edges) if b > a + 1]


def contexts(site: Site, conversation: str) -> list[dict[str, object]]:
    said = [json.loads(r.value or b"") for r in site.log(site.settings.topics.predictions)]
    return [event["context"] for event in said if event["conversation_id"] == conversation]


def partition_of(site: Site, conversation: str) -> int:
    (found,) = {
        r.partition
        for r in site.log(site.settings.topics.utterances)
        if r.key == conversation.encode()
    }
    return found


def test_a_turn_after_compaction_and_a_lost_store_says_that_it_is_truncated(
    site: Site, start: Start, redis_server: RunningRedis
) -> None:
    worker = start(site.settings)
    for turn in range(8):
        site.say("long", turn)
    site.flush()
    wait_for(lambda: len(contexts(site, "long")) == 8, "eight answers")
    partition = partition_of(site, "long")
    left = compact(site, partition)
    assert not set(range(7)) <= set(left), "the first turns are gone"
    redis.Redis(port=redis_server.port).flushall()
    site.say("long", 8)
    site.flush()
    wait_for(lambda: len(contexts(site, "long")) == 9, "the ninth answer")
    last = contexts(site, "long")[-1]
    assert last["truncated"] is True
    report = verify_topics(site.settings, SmallPredictor())
    assert report.violations == []
    assert report.counts["lost"] >= 7
    assert report.counts["holed"] >= 1
    assert worker.end() == 0


def test_markers_and_aborted_records_of_a_producer_are_no_loss(
    site: Site, start: Start, redis_server: RunningRedis
) -> None:
    worker = start(site.settings)
    straight = site.producer
    site.producer = Producer(
        {
            "bootstrap.servers": site.settings.bootstrap,
            "partitioner": "murmur2_random",
            "transactional.id": uuid.uuid4().hex,
            "log_level": 0,
        }
    )
    site.producer.init_transactions(30)

    def turns(first: int, last: int) -> None:
        for turn in range(first, last):
            site.producer.begin_transaction()
            site.say("long", turn)
            if turn % 3 == 1:
                site.producer.flush(10)
                site.producer.abort_transaction(10)
                site.producer.begin_transaction()
                site.say("long", turn)
            site.producer.commit_transaction(10)

    turns(0, 6)
    wait_for(lambda: len(contexts(site, "long")) == 6, "six answers")
    redis.Redis(port=redis_server.port).flushall()
    turns(6, 9)
    wait_for(lambda: len(contexts(site, "long")) == 9, "nine answers")
    assert [c["utterances"] for c in contexts(site, "long")] == [0, 1, 2, 3, 3, 3, 3, 3, 3]
    assert not any(c["truncated"] for c in contexts(site, "long"))
    assert worker.metric("offsets_lost_total") == 0
    assert worker.metric("state_rebuilds_total") > 0
    report = verify_topics(site.settings, SmallPredictor(), allow_truncation=False)
    assert report.violations == []
    assert report.counts["lost"] == 0
    site.producer = straight


def test_records_deleted_before_they_were_read_are_said_to_be_missing(
    site: Site, start: Start
) -> None:
    worker = start(site.settings)
    site.say("long", 0)
    site.flush()
    wait_for(lambda: len(contexts(site, "long")) == 1, "an answer")
    assert worker.end() == 0
    for turn in range(1, 6):
        site.say("long", turn)
    site.flush()
    topic, partition = site.settings.topics.utterances, partition_of(site, "long")
    admin = AdminClient({"bootstrap.servers": site.settings.bootstrap})
    at = TopicPartition(topic, partition, 4)
    (done,) = admin.delete_records([at]).values()
    assert done.result(10).low_watermark == 4
    start(site.settings)
    wait_for(lambda: len(contexts(site, "long")) == 3, "the answers to what is left")
    assert [c["truncated"] for c in contexts(site, "long")] == [False, True, True]
    assert verify_topics(site.settings, SmallPredictor()).violations == []


def test_batches_tell_what_was_removed_from_what_is_a_marker(site: Site) -> None:
    topic = site.settings.topics.utterances
    producer = Producer(
        {
            "bootstrap.servers": site.settings.bootstrap,
            "transactional.id": uuid.uuid4().hex,
            "log_level": 0,
        }
    )
    producer.init_transactions(30)
    for end in (producer.commit_transaction, producer.abort_transaction) * 2:
        producer.begin_transaction()
        for n in range(3):
            producer.produce(topic, b"v", b"k%d" % n, partition=0)
        producer.flush(10)
        end(10)
    for _ in range(4):
        site.producer.produce(topic, b"v", b"k", partition=0)
        site.flush()
    there = offsets(site, 0)
    batches = BatchLog(site.settings.bootstrap, topic, site.settings.security)
    assert holes(there, 20) == [(3, 8), (11, 16)]
    assert batches.lost(0, holes(there, 20)) == []
    left = compact(site, 0)
    gone = set(there) - set(left)
    lost = batches.lost(0, holes(left, 20))
    assert gone and gone <= {o for first, end in lost for o in range(first, end)}
    batches.close()
    batches.close()
