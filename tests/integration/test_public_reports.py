"""What others reported of other products, tried on this one (docs/reliability.md names the reports)."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import replace

import kafka
import pytest
from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from stream.brokers.topics import create, plan
from stream.errors import EmotrackError
from stream.settings import Settings
from stream.verify.run import verify_topics
from tests.fakes.predictor import SmallPredictor
from tests.integration.workers import Site, ThreadWorker, wait_for

pytestmark = pytest.mark.integration
Start = Callable[[Settings], ThreadWorker]


def recreate(site: Site) -> None:
    admin = AdminClient({"bootstrap.servers": site.settings.bootstrap})
    topic = site.settings.topics.utterances
    for future in admin.delete_topics([topic]).values():
        future.result(10)
    wait_for(lambda: topic not in admin.list_topics(timeout=5).topics, "the deletion")
    create(site.settings.bootstrap, plan(site.settings.topics, partitions=site.partitions))


def committed_of(site: Site) -> list[TopicPartition]:
    """Return the group's offsets with their notes."""
    group = {"bootstrap.servers": site.settings.bootstrap, "group.id": site.settings.group}
    consumer = Consumer(group)
    parts = [TopicPartition(site.settings.topics.utterances, p) for p in range(site.partitions)]
    found = [at for at in consumer.committed(parts, timeout=10) if at.offset >= 0]
    consumer.close()
    return found


def answered(site: Site) -> int:
    return site.ends(site.settings.topics.predictions)


def test_offsets_of_a_deleted_topic_do_not_hide_records_of_its_successor(
    site: Site, start: Start
) -> None:
    """twmb/franz-go#1426: committed offsets outlive the topic."""
    for n in range(20):
        site.say("a", n)
    site.flush()
    worker = start(site.settings)
    wait_for(lambda: answered(site) == 20, "answers")
    wait_for(lambda: site.committed() == 20, "commits")
    assert worker.end() == 0
    before = committed_of(site)
    recreate(site)
    late = Consumer({"bootstrap.servers": site.settings.bootstrap, "group.id": site.settings.group})
    late.commit(offsets=before, asynchronous=False)
    late.close()
    for n in range(30):
        site.say("b", n)
    site.flush()
    worker = start(site.settings)
    wait_for(lambda: answered(site) >= 50, "answers of all thirty", 20)


def test_a_group_that_was_deleted_reads_again_under_the_same_ids(site: Site, start: Start) -> None:
    """zendesk/racecar#419, xtdb/xtdb#5904: the group's offsets are gone."""
    for n in range(20):
        site.say("a", n)
    site.flush()
    worker = start(site.settings)
    wait_for(lambda: site.committed() == 20, "commits")
    assert worker.end() == 0
    before = site.log(site.settings.topics.predictions)
    admin = AdminClient({"bootstrap.servers": site.settings.bootstrap})
    def gone() -> bool:
        try:
            for f in admin.delete_consumer_groups([site.settings.group]).values():
                f.result(10)
            return True
        except Exception as e:
            print(e)
            return "NOT_FOUND" in str(e).upper() or "does not exist" in str(e)
    wait_for(gone, "the group's end", 60)
    for n in range(20, 25):
        site.say("a", n)
    site.flush()
    start(site.settings)
    wait_for(lambda: site.committed() == 25, "commits")
    after = site.log(site.settings.topics.predictions)
    ids = lambda rs: [__import__("json").loads(r.value)["prediction_id"] for r in rs]
    assert len(set(ids(after))) == 25
    report = verify_topics(site.settings, SmallPredictor(), allow_truncation=False)
    assert report.violations == [], report.violations
    print(len(before), len(after))


def test_markers_at_the_end_of_the_log_do_not_stop_a_rebuild(site: Site, start: Start) -> None:
    """quixio/quix-streams#1017: nothing but control records before the end."""
    producer = Producer({"bootstrap.servers": site.settings.bootstrap, "transactional.id": uuid.uuid4().hex, "partitioner": "murmur2_random"})
    producer.init_transactions()
    for n in range(6):
        producer.begin_transaction()
        site2 = replace(site, producer=producer)
        site2.say("a", n)
        producer.commit_transaction()
    producer.begin_transaction()
    site2.say("a", 99)
    producer.flush()
    producer.abort_transaction()
    worker = start(site.settings)
    wait_for(lambda: answered(site) >= 6, "answers")
    assert worker.end() == 0
    print(answered(site), site.committed(), site.ends(site.settings.topics.utterances))
    import redis
    redis.Redis.from_url(site.settings.redis_url).flushall()
    worker = start(site.settings)
    producer.begin_transaction()
    site2.say("a", 7)
    producer.commit_transaction()
    wait_for(lambda: answered(site) >= 7, "the next answer")
    worker.end()
    last = [__import__("json").loads(r.value) for r in site.log(site.settings.topics.predictions)]
    print([(p["utterance_id"], p["context"], p["input"]) for p in last])
    report = verify_topics(site.settings, SmallPredictor(), allow_truncation=False)
    assert report.violations == [], report.violations


def test_retention_that_overtakes_a_worker_is_counted_and_said(site: Site, start: Start) -> None:
    """PostHog/posthog#20283: the reader is behind what is deleted."""
    for n in range(10):
        site.say("a", n)
    site.flush()
    worker = start(site.settings)
    wait_for(lambda: site.committed() == 10, "commits")
    assert worker.end() == 0
    for n in range(10, 20):
        site.say("a", n)
    site.flush()
    admin = AdminClient({"bootstrap.servers": site.settings.bootstrap})
    t = site.settings.topics.utterances
    ends = site.ends_of(t)
    cut = [TopicPartition(t, p, max(0, e - 5)) for p, e in enumerate(ends) if e]
    for f in admin.delete_records(cut).values():
        f.result(10)
    worker = start(site.settings)
    wait_for(lambda: answered(site) >= 15, "answers")
    last = [__import__("json").loads(r.value) for r in site.log(site.settings.topics.predictions)]
    print([(p["utterance_id"], p["context"]["truncated"]) for p in last], worker.metric("offset_gaps_total"))
    assert [p["context"]["truncated"] for p in last[10:]] == [True] * 5
