"""A worker that starts while Redis or Kafka is away, on real servers that come back."""

from __future__ import annotations

import json
import signal
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from stream import serve
from stream.brokers.topics import create, plan
from stream.errors import BrokerUnreachable, StoreUnfit
from stream.events.messages import TopicNames
from stream.local import servers
from stream.local.servers import answers, free_ports
from stream.settings import Settings
from tests.conftest import ROOT, enter
from tests.integration.workers import ChildWorker, Site, ThreadWorker, wait_for

pytestmark = pytest.mark.integration


class Starting(ThreadWorker):
    """A worker on a thread, asked by HTTP while it is not ready."""

    def begin(self) -> Starting:
        self.url = f"http://127.0.0.1:{self.settings.metrics_port}"
        self._up = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        return self

    def ask(self, path: str) -> tuple[int, str]:
        """Status and body; 0 while nothing listens."""
        try:
            with urllib.request.urlopen(self.url + path, timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def waits_for(self) -> str:
        """The fault that /readyz shows, empty without one."""
        status, body = self.ask("/readyz")
        assert status in (0, 503) and self.error is None
        return str(json.loads(body or "{}").get("waiting", ""))


@pytest.fixture
def begun(small_model: None) -> Iterator[list[Starting]]:
    running: list[Starting] = []
    yield running
    for worker in running:
        worker.stop.set()
        worker._thread.join(30)


def settings_of(site: Site, **changes: object) -> Settings:
    (port,) = free_ports(1)
    return site.settings.model_copy(update={"metrics_port": port, "start_wait_s": 120.0, **changes})


def test_a_start_without_redis_waits_says_why_and_serves_when_it_is_back(
    site: Site, begun: list[Starting], tmp_path: Path
) -> None:
    (port,) = free_ports(1)
    worker = Starting(settings_of(site, redis_url=f"redis://127.0.0.1:{port}/0")).begin()
    begun.append(worker)
    wait_for(lambda: f"127.0.0.1:{port} cannot be reached" in worker.waits_for(), "the reason")
    parts = json.loads(worker.ask("/readyz")[1])
    assert (parts["broker_reachable"], parts["store_reachable"]) == (True, False)
    assert worker.ask("/healthz")[0] == 200
    assert "\nemotrack_redis_up 0.0\n" in worker.ask("/metrics")[1]
    with servers.redis_server(tmp_path, port=port):
        wait_for(lambda: worker.ask("/readyz")[0] == 200, "readiness")
        assert "waiting" not in worker.ask("/readyz")[1]
        assert json.loads(worker.ask("/version")[1])["name"], "the model is named by now"
        assert worker.end() == 0


def test_a_start_without_kafka_waits_and_serves_when_it_is_back(
    begun: list[Starting], tmp_path: Path
) -> None:
    broker = servers.apache_kafka(tmp_path, ROOT / ".servers/kafka/jars")
    kafka = enter(broker)
    try:
        create(kafka.bootstrap, plan(TopicNames("emotrack."), partitions=1))
        kafka.server.stop(hard=True)
        (port,) = free_ports(1)
        worker = Starting(
            Settings(
                bootstrap=kafka.bootstrap,
                redis_url="memory://",
                metrics_port=port,
                start_wait_s=120.0,
            )
        ).begin()
        begun.append(worker)
        wait_for(lambda: kafka.bootstrap in worker.waits_for(), "the reason", 60)
        assert worker.ask("/healthz")[0] == 200
        page = worker.ask("/metrics")[1]
        assert "\nemotrack_ready 0.0\n" in page and "\nemotrack_broker_up 0.0\n" in page
        # At 0 they would page for a hung loop and an absent Redis.
        assert "\nemotrack_last_turn" not in page and "\nemotrack_redis_up" not in page
        kafka.server.start(lambda: answers(int(kafka.bootstrap.rpartition(":")[2])))
        wait_for(lambda: worker.ask("/readyz")[0] == 200, "readiness", 60)
        assert worker.end() == 0
    finally:
        broker.__exit__(None, None, None)


def test_the_limit_ends_with_the_sentence_of_a_start_that_does_not_wait(
    site: Site, small_model: None
) -> None:
    (port,) = free_ports(1)
    faults = []
    for limit_s in (0.0, 0.5):
        away = settings_of(site, redis_url=f"redis://127.0.0.1:{port}/0", start_wait_s=limit_s)
        with pytest.raises(StoreUnfit, match=f"127.0.0.1:{port}") as fault:
            serve.run_worker(away, stop=threading.Event())
        faults.append((str(fault.value), fault.value.exit_code))
    assert faults[0] == faults[1] and faults[0][1] == StoreUnfit.exit_code == 5
    assert BrokerUnreachable.exit_code == 3


def test_a_worker_that_waits_obeys_sigterm_at_once(site: Site, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    config = tmp_path / "wait.toml"
    config.write_text("start_wait_s = 600\n")
    worker = ChildWorker(
        site.settings.model_copy(update={"redis_url": f"redis://127.0.0.1:{port}/0"}),
        tmp_path,
        "--config",
        str(config),
    )
    try:
        wait_for(lambda: "not started yet" in worker.log.read_text(), "the wait", 60)
        worker.process.send_signal(signal.SIGTERM)
        assert worker.process.wait(10) == 0
    finally:
        worker.end()
