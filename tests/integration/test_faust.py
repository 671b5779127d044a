"""The worker behind a Faust app, on Apache Kafka and redis-server."""

from __future__ import annotations

import contextlib
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer

from model.errors import DeviceLost
from model.interface import Prediction, Turn
from stream import serve
from stream.brokers.topics import create, plan
from stream.errors import ConfigError, ModelUnfit
from stream.events.messages import TopicNames
from stream.local.servers import RunningKafka, RunningRedis, apache_kafka
from stream.local.worker_process import RunningWorker, local_worker
from stream.security import host_and_port
from stream.settings import Settings
from stream.verify.run import verify_topics
from tests.conftest import ROOT
from tests.fakes.predictor import SmallPredictor
from tests.integration.test_worker_kafka import POISONS, talk
from tests.integration.workers import PARTITIONS, Site, ThreadWorker, wait_for

pytestmark = pytest.mark.integration

Start = Callable[[Settings], ThreadWorker]
MAX_UNCOMMITTED = 40


def faust_worker(site: Site, folder: Path, **more: Any) -> AbstractContextManager[RunningWorker]:
    """`emotrack serve --runtime faust` with the small model, as a process; ready."""
    settings = {
        "runtime": "faust",
        "bootstrap": site.settings.bootstrap,
        "redis_url": site.settings.redis_url,
        "topic_prefix": site.settings.topic_prefix,
        "group": site.settings.group,
        "batch_max": 4,
        "max_uncommitted": MAX_UNCOMMITTED,
        **more,
    }
    log = folder / "faust.log"
    return local_worker(settings, log, module="tests.integration.serve_small")


@pytest.mark.slow
def test_a_killed_faust_worker_loses_nothing_and_its_successor_goes_on(
    site: Site, tmp_path: Path
) -> None:
    """SIGKILL in mid-stream, a successor, SIGTERM in mid-stream, another; nothing is violated."""
    with faust_worker(site, tmp_path) as first:
        talk(site, range(30))
        for value, key, headers in POISONS.values():
            site.send(value, key, headers)
        site.send(None, b"c1")
        site.flush()
        wait_for(lambda: site.ends(site.settings.topics.predictions) >= 60, "the first predictions")
        first.kill()
    killed_at = site.ends(site.settings.topics.predictions)
    assert killed_at < site.sent and site.committed() < site.sent, "it was killed in mid-stream"
    with faust_worker(site, tmp_path) as second:
        wait_for(
            lambda: site.ends(site.settings.topics.predictions) > killed_at + 60,
            "the successor",
            60,
        )
        assert second.stop() == 0
    drained_at = site.committed()
    assert 0 < drained_at < site.sent, "it was drained in mid-stream"
    with faust_worker(site, tmp_path) as third:
        wait_for(lambda: site.committed() == site.sent, "the commit of every record", 60)
        assert third.stop() == 0
    report = verify_topics(site.settings, SmallPredictor(), allow_truncation=False)
    assert report.violations == []
    assert report.counts["committed"] == site.sent
    assert report.counts["compared"] == 12 * 30
    assert report.counts["prediction_repeats"] <= 2 * MAX_UNCOMMITTED
    assert report.counts["dead_letters"] - report.counts["dead_letter_repeats"] == len(POISONS)


@pytest.mark.slow
def test_faust_workers_share_a_group_and_one_takes_over(site: Site, tmp_path: Path) -> None:
    with faust_worker(site, tmp_path) as first:
        talk(site, range(10))
        with faust_worker(site, tmp_path):
            talk(site, range(10, 20))
            first.kill()
            talk(site, range(20, 25))
            wait_for(lambda: site.committed() == site.sent, "the commit of every record", 90)
    report = verify_topics(site.settings, SmallPredictor(), allow_truncation=False)
    assert report.violations == []
    assert report.counts["compared"] == site.sent


@pytest.mark.slow
def test_a_broker_that_is_killed_and_comes_back_costs_no_restart(
    kafka: RunningKafka, redis_server: RunningRedis, tmp_path: Path
) -> None:
    """On a broker of its own; the session's only says whether there are any."""
    folder = tmp_path / "kafka"
    folder.mkdir()
    with apache_kafka(folder, ROOT / ".servers/kafka/jars") as broker:
        create(broker.bootstrap, plan(TopicNames("away."), partitions=PARTITIONS))
        settings = Settings(
            bootstrap=broker.bootstrap,
            redis_url=redis_server.url,
            topic_prefix="away.",
            group="away",
        )
        site = Site(settings, Producer({"bootstrap.servers": broker.bootstrap, "log_level": 0}))
        with faust_worker(site, tmp_path) as worker:
            talk(site, range(30))
            wait_for(lambda: site.committed() > 0, "the first commit", 60)
            broker.server.stop(hard=True)
            wait_for(lambda: not worker.is_ready(), "a worker that says so", 60)
            broker.server.start(lambda: answers(broker.bootstrap))
            wait_for(lambda: site.committed() == site.sent, "the commit of every record", 90)
            assert worker.process.poll() is None
        report = verify_topics(settings, SmallPredictor(), allow_truncation=False)
    assert report.violations == []
    assert report.counts["compared"] == site.sent


def answers(address: str) -> bool:
    """Return whether something listens there again."""
    with contextlib.suppress(OSError), socket.create_connection(host_and_port(address), 1):
        return True
    return False


@pytest.mark.slow
def test_a_worker_that_fails_acknowledges_nothing(
    site: Site, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Faust acknowledges an event whose agent raised: its record would never be answered."""

    class Failing(SmallPredictor):
        def predict(self, turns: Sequence[Turn]) -> list[Prediction]:
            if sum(self.batches) > 60:
                raise DeviceLost("it fell off the bus")
            return super().predict(turns)

    settings = site.settings.model_copy(update={"runtime": "faust", "batch_max": 4})
    talk(site, range(20))
    monkeypatch.setattr(serve, "load_predictor", lambda *args, **kwargs: Failing())
    failing = start(settings)
    wait_for(lambda: failing.error is not None, "the end of the worker", 60)
    with pytest.raises(ModelUnfit, match="fell off the bus"):
        failing.end()
    failing.error = None
    assert site.committed() < site.sent
    report = verify_topics(settings, SmallPredictor())
    assert report.violations == [] and report.counts["compared"] >= 60

    monkeypatch.setattr(serve, "load_predictor", lambda *args, **kwargs: SmallPredictor())
    successor = start(settings)
    wait_for(lambda: site.committed() == site.sent, "the commit of every record", 60)
    assert successor.end() == 0
    report = verify_topics(settings, SmallPredictor(), allow_truncation=False)
    assert report.violations == [] and report.counts["compared"] == site.sent


def test_without_the_extra_it_says_how_to_get_it(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "faust", None)
    monkeypatch.delitem(sys.modules, "stream.brokers.faust_source", raising=False)
    settings = site.settings.model_copy(update={"runtime": "faust"})
    with pytest.raises(ConfigError, match="needs faust: see docs/operations"):
        serve.open_source(settings, "topic")
