"""The servers our tests rely on are real, loopback only, and say what is missing."""

from __future__ import annotations

from pathlib import Path

import pytest
from kafka import KafkaAdminClient

from stream.local.servers import RunningKafka, RunningRedis, ServerMissing, answers, apache_kafka


@pytest.mark.integration
def test_kafka_fixture_is_a_broker_that_answers(kafka: RunningKafka) -> None:
    admin = KafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    try:
        assert admin.list_topics() is not None
    finally:
        admin.close()


@pytest.mark.integration
def test_redis_fixture_answers_on_its_port(redis_server: RunningRedis) -> None:
    assert answers(redis_server.port)


def test_missing_jars_name_the_command_that_gets_them(tmp_path: Path) -> None:
    with pytest.raises(ServerMissing, match="make kafka"), apache_kafka(tmp_path, tmp_path):
        raise AssertionError("must not start")
