"""Topics are created once, described correctly, and refused where their settings are unfit."""

from __future__ import annotations

import itertools

import pytest

from stream.brokers.topic_rules import Needs
from stream.brokers.topic_survey import require_topics
from stream.brokers.topics import TopicPlan, create, describe, plan
from stream.errors import ConfigError, TopicMissing, TopicUnfit
from stream.events.messages import TopicNames
from stream.local.servers import RunningKafka

PREFIXES = itertools.count()


@pytest.fixture
def names() -> TopicNames:
    """Names of this test alone."""
    return TopicNames(f"topics{next(PREFIXES)}.")


@pytest.mark.integration
def test_topics_are_created_as_planned(kafka: RunningKafka, names: TopicNames) -> None:
    plans = plan(names, partitions=2, retention_days=1, dead_letter_days=14)
    assert not any(report.exists for report in describe(kafka.bootstrap, plans))
    reports = create(kafka.bootstrap, plans)
    assert all(report.created and not report.differs for report in reports)
    utterances, *_, dead_letters = describe(kafka.bootstrap, plans)
    assert utterances.partitions == 2
    assert utterances.config["message.timestamp.type"] == "LogAppendTime"
    assert utterances.config["max.message.bytes"] == "1048576"
    assert utterances.replicas == 1 and utterances.config["min.insync.replicas"] == "1"
    assert dead_letters.config["max.message.bytes"] == "2097152"
    assert dead_letters.config["retention.ms"] == str(14 * 86_400_000)


@pytest.mark.integration
def test_creating_again_changes_nothing_and_reports_differences(
    kafka: RunningKafka, names: TopicNames
) -> None:
    create(kafka.bootstrap, plan(names, partitions=2))
    again = create(kafka.bootstrap, plan(names, partitions=3, retention_days=2))
    assert not any(report.created for report in again)
    assert {report.partitions for report in again} == {2}
    assert "partitions is 2, planned 3" in again[0].differs
    (more, *_) = describe(kafka.bootstrap, plan(names, partitions=2, replication=3))
    assert "replicas is 1, planned 3" in more.differs
    assert any(
        difference.startswith("retention.ms is 604800000") for difference in again[0].differs
    )


@pytest.mark.integration
def test_a_worker_may_run_on_created_topics(kafka: RunningKafka, names: TopicNames) -> None:
    create(kafka.bootstrap, plan(names))
    require_topics(kafka.bootstrap, names)


@pytest.mark.integration
def test_a_missing_topic_stops_the_worker_and_is_named(
    kafka: RunningKafka, names: TopicNames
) -> None:
    create(kafka.bootstrap, plan(names)[:3])
    with pytest.raises(TopicMissing) as refused:
        require_topics(kafka.bootstrap, names)
    assert names.dead_letters in str(refused.value)
    assert names.utterances not in str(refused.value)
    assert f"emotrack topics create --bootstrap {kafka.bootstrap}" in str(refused.value)


@pytest.mark.integration
def test_producer_time_is_refused_unless_allowed(kafka: RunningKafka, names: TopicNames) -> None:
    stamp = {"message.timestamp.type": "CreateTime"}
    plans = [TopicPlan(p.name, 1, 1, {**p.config, **stamp}) for p in plan(names)]
    create(kafka.bootstrap, plans)
    with pytest.raises(TopicUnfit, match=r"CreateTime.*EMOTRACK_ALLOW_CREATE_TIME"):
        require_topics(kafka.bootstrap, names)
    require_topics(kafka.bootstrap, names, needs=Needs(allow_create_time=True))


@pytest.mark.integration
def test_more_replicas_than_brokers_is_one_sentence(kafka: RunningKafka, names: TopicNames) -> None:
    with pytest.raises(TopicUnfit, match="fewer than 3 brokers"):
        create(kafka.bootstrap, plan(names, replication=3))


def test_numbers_out_of_range_are_refused(names: TopicNames) -> None:
    with pytest.raises(ConfigError):
        plan(names, partitions=0)
    with pytest.raises(ConfigError):
        plan(names, retention_days=0)
