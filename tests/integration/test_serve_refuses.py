"""A user's mistake is one line that tells the cure; the exit code is not 0."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from threading import Event

import pytest
import structlog

from stream import main
from stream.brokers.topics import create, plan
from stream.cli import serve as cli_worker
from stream.events.messages import TopicNames
from stream.local import servers
from stream.local.servers import RunningKafka, RunningRedis, free_ports
from tests.integration.workers import Site

pytestmark = pytest.mark.integration


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Serve]:
    """Run `emotrack serve` with flags; gives the one line it says."""
    monkeypatch.setattr(cli_worker, "stop_on_signals", Event)
    yield Serve(monkeypatch, capsys)
    structlog.reset_defaults()  # it was told to write to this test's stderr


class Serve:
    """The console entry, in this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capsys = monkeypatch, capsys

    def __call__(self, **flags: object) -> str:
        argv = ["emotrack", "serve"]
        for name, value in flags.items():
            argv += [f"--{name.replace('_', '-')}", str(value)]
        self._monkeypatch.setattr(sys, "argv", argv)
        with pytest.raises(SystemExit) as end:
            main.main()
        said = self._capsys.readouterr().err
        assert end.value.code not in (0, None)
        assert "Traceback" not in said
        errors = [line for line in said.splitlines() if line.startswith("error:")]
        assert len(errors) == 1, said
        return errors[0]


def flags(site: Site, **changes: object) -> dict[str, object]:
    s = site.settings
    known = {"bootstrap": s.bootstrap, "redis_url": s.redis_url, "topic_prefix": s.topic_prefix}
    return {**known, "metrics_port": 0, **changes}


def test_an_unreachable_broker(serve: Serve) -> None:
    (port,) = free_ports(1)
    said = serve(bootstrap=f"127.0.0.1:{port}", redis_url="memory://")
    assert f"127.0.0.1:{port}" in said


def test_a_missing_topic(serve: Serve, site: Site) -> None:
    said = serve(**flags(site, topic_prefix="nowhere."))
    assert "nowhere.utterances" in said
    assert "emotrack topics create" in said


def test_a_topic_without_broker_time(
    serve: Serve, kafka: RunningKafka, redis_server: RunningRedis
) -> None:
    prefix = f"t{uuid.uuid4().hex[:8]}."
    plans = plan(TopicNames(prefix), partitions=1)
    plans = [
        type(p)(p.name, p.partitions, p.replication, {"message.timestamp.type": "CreateTime"})
        for p in plans
    ]
    create(kafka.bootstrap, plans)
    said = serve(
        bootstrap=kafka.bootstrap, redis_url=redis_server.url, topic_prefix=prefix, metrics_port=0
    )
    assert "LogAppendTime" in said
    assert "EMOTRACK_ALLOW_CREATE_TIME" in said


def test_an_unreachable_redis(serve: Serve, site: Site, small_model: None) -> None:
    (port,) = free_ports(1)
    said = serve(**flags(site, redis_url=f"redis://:hunter2@127.0.0.1:{port}/0"))
    assert f"127.0.0.1:{port}" in said
    assert "hunter2" not in said


def test_an_evicting_redis(serve: Serve, site: Site, small_model: None, tmp_path: Path) -> None:
    with servers.redis_server(tmp_path, "--maxmemory-policy", "allkeys-lru") as redis:
        said = serve(**flags(site, redis_url=redis.url))
    assert "allkeys-lru" in said
    assert "CONFIG SET maxmemory-policy noeviction" in said


def test_an_address_that_is_no_redis(serve: Serve, site: Site, small_model: None) -> None:
    assert "redis://" in serve(**flags(site, redis_url="http://127.0.0.1"))


def test_a_missing_checkpoint(serve: Serve, site: Site, tmp_path: Path) -> None:
    assert "missing-model" in serve(**flags(site, model=tmp_path / "missing-model"))


def test_a_corrupt_checkpoint(serve: Serve, site: Site, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    (tmp_path / "model.safetensors").write_bytes(b"\0" * 64)
    (tmp_path / "digest").write_text("0" * 64)
    assert str(tmp_path) in serve(**flags(site, model=tmp_path))


def test_a_checkpoint_that_may_not_be_served(
    serve: Serve, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is a whole and sound one, but not the one that was allowed."""
    monkeypatch.setenv("EMOTRACK_MODEL_DIGEST", "0" * 64)
    said = serve(**flags(site))
    assert "EMOTRACK_MODEL_DIGEST allows only 0000" in said


def test_a_port_in_use(
    serve: Serve, site: Site, small_model: None, redis_server: RunningRedis
) -> None:
    said = serve(**flags(site, metrics_port=redis_server.port))
    assert "EMOTRACK_METRICS_PORT" in said


def test_a_setting_that_does_not_exist(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMOTRACK_BACH_MAX", "1")
    assert "EMOTRACK_BATCH_MAX" in serve()


def test_a_kafka_option_that_does_not_exist(
    serve: Serve, site: Site, small_model: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMOTRACK_KAFKA_OPTIONS", '{"no.such.option": "1"}')
    assert "no.such.option" in serve(**flags(site))


def test_a_device_that_is_not_there(serve: Serve, site: Site) -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("this machine has the device")
    assert "use auto or cpu" in serve(**flags(site, device="cuda"))


def test_a_folder_that_is_no_encoder(
    serve: Serve, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was served without an encoder, with the cure for a missing package."""
    monkeypatch.setenv("EMOTRACK_ENCODER", str(tmp_path))
    assert f"{tmp_path} is no sentence encoder" in serve(**flags(site))
