"""Each fault of an installation is found, alone or with others, and its cure is reported."""

from __future__ import annotations

import itertools
import re
import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from stream import serve
from stream.brokers.topics import create, plan
from stream.cli import doctor
from stream.cli.doctor import Check, examine
from stream.events.messages import TopicNames
from stream.local.servers import RunningKafka, RunningRedis, free_ports
from stream.settings import Settings
from stream.worker.observe import Health
from stream.worker.status_server import StatusServer
from tests.fakes.predictor import SmallPredictor

PREFIXES = itertools.count()


def report(bootstrap: str, names: TopicNames, redis_url: str, **more: Any) -> dict[str, Check]:
    given: dict[str, Any] = {
        "bootstrap": bootstrap,
        "topic_prefix": names.prefix,
        "redis_url": redis_url,
    }
    settings = Settings(**{"metrics_port": 0, **given, **more})
    return {check.name: check for check in examine(settings)}


def nowhere() -> str:
    return f"127.0.0.1:{free_ports(1)[0]}"


@pytest.fixture
def names() -> TopicNames:
    """Names of this test alone."""
    return TopicNames(f"doctor{next(PREFIXES)}.")


@pytest.fixture
def small_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that is loaded at once, for what is not about the model."""
    monkeypatch.setattr(serve, "load_predictor", lambda *args, **kwargs: SmallPredictor())


@pytest.mark.integration
def test_a_machine_that_can_serve_is_healthy(
    kafka: RunningKafka, redis_server: RunningRedis, names: TopicNames
) -> None:
    create(kafka.bootstrap, plan(names))
    found = report(kafka.bootstrap, names, redis_server.url)
    assert {name for name in found if found[name].status == "ok"} >= {
        "broker",
        "topics",
        "rights",
        "takeover",
        "redis",
        "model",
        "device",
        "port",
    }
    assert "murmur2" in found["topics"].says
    assert re.match(r"Redis \d+\.\d+\.\d+, maxmemory-policy noeviction, ", found["redis"].says)
    assert "function emotrack_v4 answers" in found["redis"].says
    assert found["model"].status == "ok", found["model"].says
    assert "fail" not in {check.status for check in found.values()}


@pytest.mark.integration
def test_the_seconds_of_a_takeover_are_told_with_a_cure_where_they_are_long(
    kafka: RunningKafka, default_kafka: RunningKafka, names: TopicNames, small_model: None
) -> None:
    def takeover(broker: RunningKafka, **more: Any) -> str:
        check = report(broker.bootstrap, names, "memory://", **more)["takeover"]
        assert check.status == "ok"
        return check.says

    assert "silent for up to 8 s, a stopped one's for up to 2 s" in takeover(kafka)
    assert "silent for up to 12 s, a stopped one's for up to 2 s" in takeover(default_kafka)
    long = takeover(default_kafka, group_protocol="consumer")
    assert "silent for up to 51 s, a stopped one's for up to 6 s" in long
    assert "but that is long" in long and "EMOTRACK_GROUP_PROTOCOL" in long
    assert report(nowhere(), names, "memory://")["takeover"].status == "fail"


@pytest.mark.integration
def test_copies_outage_and_a_single_partition_are_told(
    kafka: RunningKafka, names: TopicNames, small_model: None
) -> None:
    create(kafka.bootstrap, plan(names, partitions=1))
    says = report(kafka.bootstrap, names, "memory://")["topics"].says
    assert "each partition on 1 of 1 broker, and an outage of up to 154 h loses nothing" in says
    assert f"topic {names.utterances} has one partition, so at most one worker answers" in says
    more = TopicNames(f"{names.prefix}more.")
    create(kafka.bootstrap, plan(more, partitions=2))
    assert "one partition" not in report(kafka.bootstrap, more, "memory://")["topics"].says


@pytest.mark.integration
def test_missing_topics_are_found_though_the_broker_answers(
    kafka: RunningKafka, names: TopicNames, small_model: None
) -> None:
    found = report(kafka.bootstrap, names, "memory://")
    assert found["broker"].status == "ok"
    assert found["topics"].status == "fail"
    assert "emotrack topics create" in found["topics"].says
    assert found["redis"].status == "absent"


def test_everything_wrong_is_reported_at_once(names: TopicNames, tmp_path: Path) -> None:
    away = nowhere()
    found = report(away, names, f"redis://{nowhere()}/0", model=tmp_path)
    assert {found[name].status for name in ("broker", "topics", "redis", "model")} == {"fail"}
    assert away in found["broker"].says
    assert found["rights"].status == "fail"
    assert str(tmp_path) in found["model"].says
    assert all("\n" not in check.says for check in found.values())


@pytest.mark.integration
def test_a_redis_that_may_evict_is_refused_with_the_cure(
    redis_server: RunningRedis, names: TopicNames, small_model: None
) -> None:
    import redis

    address = urlsplit(redis_server.url)
    client = redis.Redis(address.hostname or "", address.port or 0)
    client.config_set("maxmemory-policy", "allkeys-lru")
    try:
        found = report(nowhere(), names, redis_server.url)
    finally:
        client.config_set("maxmemory-policy", "noeviction")
        client.close()
    assert found["redis"].status == "fail"
    assert "noeviction" in found["redis"].says


def test_a_client_machine_needs_no_worker_parts(
    names: TopicNames, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "find_spec", lambda _name: None)
    found = report(nowhere(), names, "redis://127.0.0.1:1/0")
    for part in ("redis", "model", "device", "encoder"):
        assert found[part].status == "absent"
        assert doctor.WORKER_INSTALL in found[part].says


def test_a_port_that_is_taken_is_found_unless_a_worker_of_ours_has_it(
    names: TopicNames, small_model: None
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        port = stranger.getsockname()[1]
        taken = report(nowhere(), names, "memory://", metrics_port=port)["port"]
    assert taken.status == "fail"
    assert "EMOTRACK_METRICS_PORT" in taken.says
    worker = StatusServer("127.0.0.1", 0, health=Health(), render=bytes, version={"emotrack": "1"})
    try:
        port = int(worker.url.rpartition(":")[2])
        ours = report(nowhere(), names, "memory://", metrics_port=port)["port"]
    finally:
        worker.close()
    assert ours.status == "ok"
    assert "second one" in ours.says


def test_a_checkpoint_that_may_not_be_served_is_a_fault(
    names: TopicNames, small_model: None
) -> None:
    found = report(nowhere(), names, "memory://", model_digest="0" * 64)
    assert found["model"].status == "fail"
    assert "EMOTRACK_MODEL_DIGEST" in found["model"].says
