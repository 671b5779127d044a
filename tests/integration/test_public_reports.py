"""Faults that people reported of other products, tried on this one.

docs/reliability.md lists the reports. Those of servers that fail over, of clocks and of languages
have tests beside the code they concern.
"""

from __future__ import annotations

import json
import os
import signal
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import redis
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from state.redis_store import noted_key, state_keys
from state.window import StateKey
from stream.brokers.kafka_config import find_topic_id
from stream.brokers.topics import create, plan
from stream.errors import EmotrackError
from stream.settings import Settings
from stream.verify.run import verify_topics
from tests.fakes.predictor import SmallPredictor
from tests.integration.workers import Site, ThreadWorker, wait_for

pytestmark = pytest.mark.integration
Start = Callable[[Settings], ThreadWorker]


def answers(site: Site) -> list[dict[str, Any]]:
    """Return the predictions in the topic, in log order per partition."""
    return [
        json.loads(record.value or b"") for record in site.log(site.settings.topics.predictions)
    ]


def answered(site: Site) -> int:
    return site.ends(site.settings.topics.predictions)


def reached(site: Site, count: int) -> bool:
    return answered(site) >= count


def admin_of(site: Site) -> AdminClient:
    return AdminClient({"bootstrap.servers": site.settings.bootstrap, "log_level": 0})


@contextmanager
def group_member(site: Site) -> Iterator[Consumer]:
    """Open a client that may read and commit the workers' offsets."""
    options = {"bootstrap.servers": site.settings.bootstrap, "group.id": site.settings.group}
    consumer = Consumer({**options, "log_level": 0})
    yield consumer
    consumer.close()


def committed(site: Site) -> list[TopicPartition]:
    """Return the group's offsets, with their notes."""
    topic = site.settings.topics.utterances
    parts = [TopicPartition(topic, partition) for partition in range(site.partitions)]
    with group_member(site) as consumer:
        return [at for at in consumer.committed(parts, timeout=10) if at.offset >= 0]


def make_again(site: Site) -> None:
    """Delete the utterances topic and make another one of its name."""
    admin, topic = admin_of(site), site.settings.topics.utterances
    admin.delete_topics([topic])[topic].result(10)
    wait_for(lambda: topic not in admin.list_topics(timeout=5).topics, "the deletion")
    create(site.settings.bootstrap, plan(site.settings.topics, partitions=site.partitions))


def say_all(site: Site, numbers: range, conversation: str = "a") -> None:
    for n in numbers:
        site.say(conversation, n)
    site.flush()


def serve_until_committed(site: Site, start: Start) -> None:
    worker = start(site.settings)
    wait_for(lambda: site.committed() == site.sent, "the commits")
    assert worker.end() == 0


def test_an_offset_of_a_deleted_topic_hides_no_record_of_its_successor(
    site: Site, start: Start
) -> None:
    """twmb/franz-go#1426: a late commit for the old topic is stored for the new one."""
    say_all(site, range(20), "before")
    serve_until_committed(site, start)
    late = committed(site)
    make_again(site)
    with group_member(site) as consumer:
        consumer.commit(offsets=late, asynchronous=False)
    say_all(site, range(30), "before")  # more than were committed: those would be skipped
    start(site.settings)
    wait_for(lambda: answered(site) == 50, "an answer to each of the new topic's records")
    assert answers(site)[20]["context"]["utterances"] == 0  # another topic is another log


def test_an_offset_set_by_hand_is_where_reading_begins(site: Site, start: Start) -> None:
    """kafka-consumer-groups.sh --reset-offsets writes no note: an operator's word counts."""
    say_all(site, range(20))
    (end,) = (p for p, count in enumerate(site.ends_of(site.settings.topics.utterances)) if count)
    with group_member(site) as consumer:
        skipped = [TopicPartition(site.settings.topics.utterances, end, 15)]
        consumer.commit(offsets=skipped, asynchronous=False)
    start(site.settings)
    wait_for(lambda: site.committed() == 20, "the commits")
    said = answers(site)
    assert [answer["utterance_id"] for answer in said] == [f"a-{n}" for n in range(15, 20)]
    assert said[0]["context"]["utterances"] == 3, "of the small model's window, from the log"


def test_a_group_that_was_deleted_answers_again_under_the_same_ids(
    site: Site, start: Start
) -> None:
    """zendesk/racecar#419, xtdb/xtdb#5904: an idle group loses its offsets."""
    say_all(site, range(20))
    serve_until_committed(site, start)
    wait_for(lambda: deleted(site), "the group's end")
    say_all(site, range(20, 25))
    serve_until_committed(site, start)
    seen = answers(site)
    assert len({answer["prediction_id"] for answer in seen}) == 25 < len(seen)
    assert not verify_topics(site.settings, SmallPredictor(), allow_truncation=False).violations


def deleted(site: Site) -> bool:
    """Delete the workers' group; false while it still has a member."""
    admin, group = admin_of(site), site.settings.group
    try:
        admin.delete_consumer_groups([group])[group].result(10)
    except KafkaException as error:
        return bool(error.args[0].code() == KafkaError.GROUP_ID_NOT_FOUND)
    return True


def test_a_log_that_ends_in_markers_does_not_stop_a_rebuild(site: Site, start: Start) -> None:
    """quixio/quix-streams#1017: recovery waits for an offset that holds no record."""
    options = {"bootstrap.servers": site.settings.bootstrap, "partitioner": "murmur2_random"}
    producer = Producer({**options, "transactional.id": uuid.uuid4().hex, "log_level": 0})
    producer.init_transactions()
    sending = replace(site, producer=producer)

    def say(n: int, *, abort: bool = False) -> None:
        producer.begin_transaction()
        sending.say("a", n)
        producer.flush()
        (producer.abort_transaction if abort else producer.commit_transaction)()

    for n in range(6):
        say(n)
    say(6, abort=True)
    worker = start(site.settings)
    wait_for(lambda: answered(site) == 6, "the answers")
    assert worker.end() == 0
    redis.Redis.from_url(site.settings.redis_url).flushall()
    start(site.settings)
    say(7)
    wait_for(lambda: answered(site) == 7, "the next answer")
    last = answers(site)[-1]["context"]
    assert (last["utterances"], last["truncated"]) == (3, False)  # the small model's window
    assert not verify_topics(site.settings, SmallPredictor(), allow_truncation=False).violations


def test_records_deleted_before_they_were_read_are_counted_and_said(
    site: Site, start: Start
) -> None:
    """PostHog/posthog#20283: retention overtakes a reader, who is set to the next record."""
    say_all(site, range(10))
    serve_until_committed(site, start)
    say_all(site, range(10, 20))
    topic = site.settings.topics.utterances
    ends = enumerate(site.ends_of(topic))
    cut = [TopicPartition(topic, partition, end - 5) for partition, end in ends if end]
    admin = admin_of(site)
    for future in admin.delete_records(cut).values():
        future.result(10)
    worker = start(site.settings)
    wait_for(lambda: answered(site) == 15, "the answers")
    assert worker.metric("offset_gaps_total") == 1
    assert [answer["context"]["truncated"] for answer in answers(site)[10:]] == [True] * 5


def test_a_log_that_lost_answered_records_stops_the_worker_with_a_cure_that_works(
    site: Site, start: Start
) -> None:
    """PostHog/posthog#20283, the other way round: the log ends before the committed offset."""
    say_all(site, range(10))
    serve_until_committed(site, start)
    (known,) = committed(site)
    with group_member(site) as consumer:  # as though five more had been there
        known.offset += 5
        consumer.commit(offsets=[known], asynchronous=False)
    worker = start(site.settings)
    wait_for(lambda: worker.error is not None, "the stop")
    with pytest.raises(EmotrackError, match="begins anew at 0, below the offset that group"):
        worker.end()
    worker.error = None
    remove_states(site)
    wait_for(lambda: deleted(site), "the group's end")
    site.say("a", 10)
    site.flush()
    start(site.settings)
    wait_for(lambda: answered(site) == 21, "all answers again")
    assert len({answer["prediction_id"] for answer in answers(site)}) == 11
    assert not verify_topics(site.settings, SmallPredictor(), allow_truncation=False).violations


def remove_states(site: Site) -> None:
    store = redis.Redis.from_url(site.settings.redis_url)
    if keys := list(store.scan_iter("et:*")):
        store.delete(*keys)


def test_an_open_transaction_of_a_producer_holds_records_back_and_shows_in_the_lag(
    site: Site, start: Start
) -> None:
    """softwaremill/klag-exporter#104, spring-projects/spring-kafka#1587: the two wrong lags."""
    worker = start(site.settings)
    options = {"bootstrap.servers": site.settings.bootstrap, "partitioner": "murmur2_random"}
    producer = Producer({**options, "transactional.id": uuid.uuid4().hex, "log_level": 0})
    producer.init_transactions()
    sending = replace(site, producer=producer)
    producer.begin_transaction()
    sending.say("a", 0)
    producer.commit_transaction()
    wait_for(lambda: answered(site) == 1, "the answer")
    wait_for(lambda: worker.metric("consumer_lag_records") == 0, "a lag without the marker")
    producer.begin_transaction()
    sending.say("a", 1)
    assert producer.flush(10) == 0
    say_all(site, range(2, 12))  # behind what is neither committed nor aborted
    wait_for(lambda: worker.metric("consumer_lag_records") == 11, "a lag that counts what waits")
    assert answered(site) == 1
    producer.abort_transaction()
    wait_for(lambda: answered(site) == 11, "the other answers")
    wait_for(lambda: worker.metric("consumer_lag_records") == 0, "the end of the lag")
    assert "a-1" not in {answer["utterance_id"] for answer in answers(site)}
    assert not verify_topics(site.settings, SmallPredictor(), allow_truncation=False).violations


def test_a_reply_that_comes_after_its_time_is_no_answer_to_the_next_question(
    site: Site, start: Start
) -> None:
    """redis-rs/redis-rs#1252, redis/redis-py#722: always one reply late, or waiting for ever."""
    worker = start(site.settings)
    say_all(site, range(5))
    wait_for(lambda: answered(site) == 5, "the answers")
    server = redis.Redis.from_url(site.settings.redis_url).info()["process_id"]
    os.kill(server, signal.SIGSTOP)  # it takes commands and answers none
    try:
        for n in range(5, 20):
            site.say("a", n)
            site.say("b", n)
        site.flush()
        wait_for(lambda: worker.metric("ready") == 0, "the word that the store is away")
    finally:
        os.kill(server, signal.SIGCONT)  # now it answers what was given up
    wait_for(lambda: answered(site) >= 35, "the other answers")
    found = verify_topics(site.settings, SmallPredictor(), allow_truncation=False)
    assert not found.violations


def test_a_key_that_vanishes_alone_costs_no_context(site: Site, start: Start) -> None:
    """redis/redis#9044, redis/redis#8123: it is gone, and the server counts no eviction."""
    for name in ("b", "a"):
        for n in range(5):
            site.say(name, n)
    site.flush()
    serve_until_committed(site, start)
    server, topic = redis.Redis.from_url(site.settings.redis_url), find_topic_id(site.settings)
    for partition in range(site.partitions):
        key = StateKey("a", topic, partition)
        server.delete(*state_keys(key))
        if (left := server.pttl(noted_key(key))) > 0:  # a minute passes
            server.pexpire(noted_key(key), left - 61_000)
    start(site.settings)
    for name in ("a", "b"):
        site.say(name, 5)
    site.flush()
    wait_for(lambda: answered(site) >= 12, "the next answers")
    said = {answer["utterance_id"]: answer["context"] for answer in answers(site)}
    assert said["a-5"]["utterances"] == said["b-5"]["utterances"] == 3
    assert not verify_topics(site.settings, SmallPredictor(), allow_truncation=False).violations


def test_a_database_that_is_swapped_for_another_one_loses_no_context(
    site: Site, start: Start
) -> None:
    """redis/redis#8236: SWAPDB changes all keys at once and tells no client."""
    start(site.settings)
    say_all(site, range(5))
    wait_for(lambda: site.committed() == 5, "the commits")
    server = redis.Redis.from_url(site.settings.redis_url)
    for said in (8, 11):  # to an empty one, and back to states that are older by then
        server.swapdb(0, 7)
        for n in range(said - 3, said):
            site.say("a", n)
        site.flush()
        wait_for(partial(reached, site, said), "the next answers")
    assert {a["context"]["first_position"] for a in answers(site)} == {0}
    assert not verify_topics(site.settings, SmallPredictor(), allow_truncation=False).violations
