"""The log's copies on three real brokers: planned, compared, added by the printed command."""

from __future__ import annotations

import re
import shlex
import uuid
from collections.abc import Iterator
from typing import Any

import kafka
import pytest
import structlog
from confluent_kafka import Producer
from kafka import TopicPartition
from kafka.admin import ConfigResource
from typer.testing import CliRunner

from stream import main, serve
from stream.brokers.replicas import spread
from stream.brokers.topic_rules import Needs
from stream.brokers.topics import create, fix, plan
from stream.cli.doctor import examine as doctor
from stream.errors import ConfigError
from stream.local.servers import answers
from stream.settings import Settings
from tests.integration.workers import Site
from tests.servers import KafkaCluster


@pytest.fixture
def settings(kafka_brokers: KafkaCluster) -> Settings:
    prefix = f"copies{uuid.uuid4().hex[:8]}."
    return Settings(bootstrap=kafka_brokers.bootstrap, topic_prefix=prefix, group=f"{prefix}g")


@pytest.fixture
def admin(kafka_brokers: KafkaCluster) -> Iterator[Any]:
    made = kafka.KafkaAdminClient(bootstrap_servers=kafka_brokers.bootstrap)
    yield made
    made.close()


def run(command: str, settings: Settings, *more: str) -> str:
    at = ["--bootstrap", settings.bootstrap, "--topic-prefix", settings.topic_prefix, *more]
    told = CliRunner().invoke(main.app, ["topics", command, *at])
    assert told.exit_code == 0, told.output
    return told.output


def says_of_topics(settings: Settings) -> str:
    check = next(check for check in doctor(settings) if check.name == "topics")
    assert check.status == "ok"
    return check.says


@pytest.mark.integration
def test_three_copies_are_planned_where_there_are_three_brokers(
    settings: Settings, admin: Any
) -> None:
    run("create", settings)
    described = run("describe", settings)
    assert described.count("replicas=3") == 4
    assert described.count("min.insync.replicas=2") == 4
    assert described.count("unclean.leader.election.enable=false") == 4
    assert "planned" not in described and "weakens" not in described
    assert "each partition on 3 of 3 brokers" in says_of_topics(settings)
    for topic in admin.describe_topics([settings.topics.utterances]):
        assert {len(p["replica_nodes"]) for p in topic["partitions"]} == {3}


@pytest.mark.integration
def test_copies_that_lack_are_told_and_added_by_the_command_that_is_printed(
    settings: Settings, admin: Any, kafka_brokers: KafkaCluster
) -> None:
    create(settings.bootstrap, plan(settings.topics, partitions=2))
    producer = Producer({"bootstrap.servers": settings.bootstrap, "log_level": 0})
    site = Site(settings, producer)
    for n in range(200):
        site.say(f"c{n % 20}", n)
    site.flush()
    described = run("describe", settings, "--replication", "3")
    assert described.count("replicas is 1, planned 3") == 4
    assert "weakens: topic" in described and "replicas=1" in described
    told = says_of_topics(settings)
    assert "each partition on 1 of 3 brokers" in told and "replicas=1" in told
    assert "emotrack topics fix --replication 3" in run("fix", settings)  # alone it copies nothing
    assert "replicas=1" in says_of_topics(settings)
    (command,) = re.findall(r"`emotrack (topics fix [^`]+)`", told)
    done = CliRunner().invoke(main.app, shlex.split(command))
    assert done.exit_code == 0, done.output
    assert f"{settings.topics.utterances}: replicas=3 is set" in done.output
    assert f"{settings.topics.utterances}: min.insync.replicas=2 is set" in done.output
    assert "weakens" not in run("describe", settings)
    assert "each partition on 3 of 3 brokers" in says_of_topics(settings)
    assert "nothing to set" in run("fix", settings, "--replication", "3")
    for topic in admin.describe_topics([settings.topics.utterances]):
        for partition in topic["partitions"]:
            assert len(partition["isr_nodes"]) == 3
    kafka_brokers.brokers[3].stop(hard=True)  # any one may be lost
    try:
        site.say("c0", 200)
        site.flush()
        assert len(site.log(settings.topics.utterances)) == 201
    finally:
        port = int(settings.bootstrap.rpartition(":")[2])
        kafka_brokers.brokers[3].start(lambda: answers(port))


@pytest.mark.integration
def test_a_topic_with_its_copies_needs_no_new_ones_to_be_mended(
    settings: Settings, admin: Any
) -> None:
    create(settings.bootstrap, plan(settings.topics, partitions=1, replication=3))
    topic = settings.topics.utterances
    resource = ConfigResource("TOPIC", topic, {"min.insync.replicas": "1"})
    assert admin.alter_configs([resource]) == {"topic": {topic: "OK"}}
    with structlog.testing.capture_logs() as lines:
        serve.find_topics(settings)
    (line,) = lines
    assert "min.insync.replicas=1" in line["says"] and "topics fix --bootstrap" in line["cure"]
    assert f"{topic}: min.insync.replicas=2 is set" in run("fix", settings)
    with structlog.testing.capture_logs() as lines:
        serve.find_topics(settings)
    assert lines == []
    with pytest.raises(ConfigError, match="the cluster has 3 brokers: --replication 4 needs"):
        fix(settings.bootstrap, settings.topics, Needs(), replication=4)


def test_brokers_are_added_where_there_is_the_least_and_in_other_racks() -> None:
    at = [TopicPartition("t", p) for p in range(3)]
    held = {at[0]: [1], at[1]: [1], at[2]: [2, 3]}
    alike = dict.fromkeys((1, 2, 3, 4))
    wanted = spread(held, alike, 2)
    assert wanted == {at[0]: [1, 4], at[1]: [1, 2]}  # the third has enough, and leaders stay
    racks = {1: "a", 2: "a", 3: "b", 4: "b"}
    assert spread(held, racks, 2)[at[0]][1] in (3, 4)
    three = spread(held, racks, 3)
    assert all(len({racks[b] for b in brokers}) == 2 for brokers in three.values())
    assert [brokers[0] for brokers in three.values()] == [1, 1, 2]
