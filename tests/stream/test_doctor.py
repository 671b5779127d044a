"""Each thing that stands in the way is found, alone or together, and its cure is said."""

from __future__ import annotations

import itertools
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from stream import doctor
from stream.doctor import Check, Patient, examine, healthy
from stream.local_servers import RunningKafka, RunningRedis, free_ports
from stream.topics import TopicNames, create, plan

PREFIXES = itertools.count()


def report(patient: Patient) -> dict[str, Check]:
    return {check.name: check for check in examine(patient)}


def nowhere() -> str:
    return f"127.0.0.1:{free_ports(1)[0]}"


@pytest.fixture
def names() -> TopicNames:
    """Names of this test alone."""
    return TopicNames(f"doctor{next(PREFIXES)}.")


@pytest.mark.integration
def test_a_machine_that_can_serve_is_healthy(
    kafka: RunningKafka, redis_server: RunningRedis, names: TopicNames
) -> None:
    create(kafka.bootstrap, plan(names))
    found = report(Patient(kafka.bootstrap, names, redis_server.url))
    assert {name for name in found if found[name].status == "ok"} >= {"broker", "topics", "redis"}
    assert "murmur2" in found["topics"].says
    assert found["model"].status == "ok", found["model"].says
    assert healthy(list(found.values()))


@pytest.mark.integration
def test_missing_topics_are_found_though_the_broker_answers(
    kafka: RunningKafka, names: TopicNames
) -> None:
    found = report(Patient(kafka.bootstrap, names, "memory://"))
    assert found["broker"].status == "ok"
    assert found["topics"].status == "fail"
    assert "emotrack topics create" in found["topics"].says
    assert found["redis"].status == "absent"
    assert not healthy(list(found.values()))


def test_everything_wrong_is_reported_at_once(names: TopicNames, tmp_path: Path) -> None:
    away = nowhere()
    found = report(Patient(away, names, f"redis://{nowhere()}/0", model=tmp_path))
    assert {found[name].status for name in ("broker", "topics", "redis", "model")} == {"fail"}
    assert away in found["broker"].says
    assert str(tmp_path) in found["model"].says
    assert all("\n" not in check.says for check in found.values())


@pytest.mark.integration
def test_a_redis_that_may_evict_is_refused_with_the_cure(
    redis_server: RunningRedis, names: TopicNames
) -> None:
    import redis

    address = urlsplit(redis_server.url)
    client = redis.Redis(address.hostname or "", address.port or 0)
    client.config_set("maxmemory-policy", "allkeys-lru")
    try:
        found = report(Patient(nowhere(), names, redis_server.url))
    finally:
        client.config_set("maxmemory-policy", "noeviction")
        client.close()
    assert found["redis"].status == "fail"
    assert "noeviction" in found["redis"].says


def test_a_client_machine_needs_no_worker_parts(
    names: TopicNames, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "find_spec", lambda _name: None)
    found = report(Patient(nowhere(), names, "redis://127.0.0.1:1/0"))
    for part in ("redis", "model"):
        assert found[part].status == "absent"
        assert doctor.WORKER_INSTALL in found[part].says
