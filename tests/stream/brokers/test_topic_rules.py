"""Each line of the table of topic settings: refused or warned of, and cured by what is said."""

from __future__ import annotations

import re
import shlex
import uuid

import kafka
import pytest
import structlog
from kafka.admin import ConfigResource
from typer.testing import CliRunner

from stream import main, serve
from stream.brokers.topic_rules import (
    ROLES,
    RULES,
    Found,
    Needs,
    curing,
    faults_of,
    replicas_for,
)
from stream.brokers.topic_survey import examine, require_topics
from stream.brokers.topics import create, plan
from stream.cli.doctor import examine as doctor
from stream.errors import TopicUnfit
from stream.events.messages import TopicNames
from stream.local.servers import RunningKafka
from stream.settings import Settings

WRONG = {
    ("utterances", "cleanup.policy", "compact"): True,
    ("utterances", "cleanup.policy", "compact,delete"): True,
    ("predictions", "cleanup.policy", "compact"): False,
    ("shift_alerts", "cleanup.policy", "compact"): False,
    ("dead_letters", "cleanup.policy", "compact"): True,
    ("utterances", "message.timestamp.type", "CreateTime"): True,
    ("utterances", "retention.ms", "1000000"): True,
    ("utterances", "retention.ms", "43200000"): False,
    ("utterances", "retention.bytes", "1000000000"): False,
    ("predictions", "retention.ms", "60000"): False,
    ("utterances", "max.message.bytes", "100000"): False,
    ("predictions", "max.message.bytes", "1000"): True,
    ("shift_alerts", "max.message.bytes", "1000"): True,
    ("dead_letters", "max.message.bytes", "1048588"): True,
    ("utterances", "min.insync.replicas", "2"): True,
    ("dead_letters", "min.insync.replicas", "2"): True,
    ("predictions", "message.timestamp.before.max.ms", "1000"): False,
    ("shift_alerts", "message.timestamp.after.max.ms", "1000"): False,
}


@pytest.fixture
def settings(kafka: RunningKafka) -> Settings:
    prefix = f"r{uuid.uuid4().hex[:8]}."
    create(kafka.bootstrap, plan(TopicNames(prefix), partitions=1))
    return Settings(bootstrap=kafka.bootstrap, topic_prefix=prefix, group=f"{prefix}workers")


def alter(settings: Settings, role: str, setting: str, value: str) -> None:
    admin = kafka.KafkaAdminClient(bootstrap_servers=settings.bootstrap)
    topic = getattr(settings.topics, role)
    done = admin.alter_configs([ConfigResource("TOPIC", topic, {setting: value})])
    assert done == {"topic": {topic: "OK"}}
    admin.close()


def carry_out(says: str) -> str:
    """Run the one command that a sentence names, as it is written there."""
    (command,) = re.findall(r"`emotrack ([^`]+)`", says)
    told = CliRunner().invoke(main.app, shlex.split(command))
    assert told.exit_code == 0, told.output
    return told.output


@pytest.mark.integration
@pytest.mark.parametrize(("role", "setting", "value"), WRONG)
def test_a_wrong_setting_is_named_and_its_cure_works(
    settings: Settings, role: str, setting: str, value: str
) -> None:
    breaks = WRONG[role, setting, value]
    alter(settings, role, setting, value)
    if breaks:
        with pytest.raises(TopicUnfit) as refused:
            serve.find_topics(settings)
        says = str(refused.value)
    else:
        with structlog.testing.capture_logs() as lines:
            serve.find_topics(settings)
        (line,) = lines
        assert line["log_level"] == "warning"
        says = f"{line['says']}. {line['cure']}"
    assert getattr(settings.topics, role) in says and f"{setting}={value}" in says
    assert [
        (f.setting, f.breaks) for f in examine(settings.bootstrap, settings.topics, Needs()).faults
    ] == [(setting, breaks)]
    (topics,) = [check for check in doctor(settings) if check.name == "topics"]
    assert topics.status == ("fail" if breaks else "ok")
    assert f"{setting}={value}" in topics.says and "emotrack topics fix" in topics.says
    at = [f"--bootstrap={settings.bootstrap}", f"--topic-prefix={settings.topic_prefix}"]
    described = CliRunner().invoke(main.app, ["topics", "describe", *at]).output
    assert f"{'BREAKS' if breaks else 'weakens'}: topic" in described
    assert "emotrack topics fix" in described
    assert f"{setting}=" in carry_out(says)
    with structlog.testing.capture_logs() as lines:
        serve.find_topics(settings)
    assert lines == []
    assert "nothing to set" in CliRunner().invoke(main.app, ["topics", "fix", *at]).output


@pytest.mark.integration
def test_producer_time_may_be_accepted_and_nothing_else_with_it(settings: Settings) -> None:
    needs = Needs(allow_create_time=True)
    alter(settings, "utterances", "message.timestamp.type", "CreateTime")
    with pytest.raises(TopicUnfit, match="EMOTRACK_ALLOW_CREATE_TIME=true"):
        require_topics(settings.bootstrap, settings.topics)
    assert require_topics(settings.bootstrap, settings.topics, needs=needs).faults == ()
    alter(settings, "utterances", "cleanup.policy", "compact")
    with pytest.raises(TopicUnfit, match="compaction"):
        require_topics(settings.bootstrap, settings.topics, needs=needs)


def test_every_rule_is_tried() -> None:
    """Those that one broker cannot show are tried below, on a description."""
    tried = {(setting, breaks) for (_, setting, _), breaks in WRONG.items()}
    wanted = {(rule.setting, rule.breaks) for rule in RULES}
    cluster = {
        ("min.insync.replicas", False),
        ("unclean.leader.election.enable", False),
        ("replicas", False),
    }
    assert tried == wanted - cluster


@pytest.mark.parametrize(
    ("replicas", "brokers", "config", "setting", "cure"),
    [
        (1, 3, {}, "replicas", "3"),
        (1, 2, {}, "replicas", "2"),
        (2, 5, {}, "replicas", "3"),
        (3, 3, {"min.insync.replicas": "1"}, "min.insync.replicas", "2"),
        (2, 2, {"min.insync.replicas": "3"}, "min.insync.replicas", "1"),
        (
            2,
            2,
            {"unclean.leader.election.enable": "true"},
            "unclean.leader.election.enable",
            "false",
        ),
    ],
)
def test_replicas_on_a_cluster(
    replicas: int, brokers: int, config: dict[str, str], setting: str, cure: str
) -> None:
    told = {"cleanup.policy": "delete"} | config
    found = Found("predictions", told, replicas, brokers, in_sync=replicas)
    (fault,) = faults_of("p", found, Needs())
    assert (fault.setting, fault.cure) == (setting, cure)
    flag = f"--replication {cure} " if setting == "replicas" else ""
    assert f"`emotrack topics fix {flag}--bootstrap b:1 --topic-prefix p.`" in curing(
        [fault], "b:1", "p."
    )


def test_two_copies_are_not_asked_for_while_only_one_is_in_sync() -> None:
    """It would stop every answer."""
    config = {"cleanup.policy": "delete", "min.insync.replicas": "1"}
    (fault,) = faults_of("p", Found("predictions", config, 3, 3, in_sync=1), Needs())
    assert fault.cure is None
    assert "bring back the brokers that hold p" in curing([fault], "b:1", "p.")


def test_of_a_topic_whose_settings_may_not_be_seen_only_the_copies_are_judged() -> None:
    (fault,) = faults_of("u", Found("utterances", {}, replicas=1, brokers=3), Needs())
    assert fault.setting == "replicas" and not fault.breaks


@pytest.mark.parametrize("brokers", [1, 2, 3, 9])
def test_topics_as_planned_have_no_fault(brokers: int) -> None:
    replicas = replicas_for(brokers)
    assert replicas == min(brokers, 3)
    for topic, role in zip(plan(TopicNames("p."), replication=replicas), ROLES, strict=True):
        found = Found(role, topic.config, replicas, brokers, in_sync=replicas)
        assert faults_of(topic.name, found, Needs()) == []
        assert topic.config["min.insync.replicas"] == ("2" if brokers >= 3 else "1")
        assert topic.config["unclean.leader.election.enable"] == "false"


def test_the_plan_keeps_utterances_for_a_session_and_an_outage() -> None:
    week = 7 * 86_400_000
    assert plan(TopicNames("p."))[0].config["retention.ms"] == str(week)
    longer = Needs(max_session_s=8 * 86_400)
    planned = plan(TopicNames("p."), needs=longer)[0].config
    assert int(planned["retention.ms"]) == longer.kept_ms > week + 86_400_000
    assert faults_of("u", Found("utterances", planned), longer) == []
    short = plan(TopicNames("p."), retention_days=0.6)[0].config  # a session, and no outage
    (fault,) = faults_of("u", Found("utterances", short), Needs())
    assert fault.setting == "retention.ms" and not fault.breaks and fault.cure == str(week)


def test_a_longer_session_needs_a_longer_log() -> None:
    config = {"message.timestamp.type": "LogAppendTime", "retention.ms": "86400000"}
    found = Found("utterances", config)
    assert faults_of("u", found, Needs()) == []
    (fault,) = faults_of("u", found, Needs(max_session_s=86_400))
    assert not fault.breaks and "EMOTRACK_MAX_SESSION_S" in fault.says
    (fault,) = faults_of("u", found, Needs(idle_s=86_400, max_session_s=86_400))
    assert fault.breaks and int(fault.cure or 0) >= 2 * 86_400_000


def test_a_prefix_of_nothing_can_be_given_to_a_shell() -> None:
    (fault,) = faults_of(
        "utterances",
        Found("utterances", {"cleanup.policy": "compact"}),
        Needs(allow_create_time=True),
    )
    assert "--topic-prefix ''" in curing([fault], "b:1", "")
