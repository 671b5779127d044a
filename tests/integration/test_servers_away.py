"""Kafka or Redis goes and comes under running workers: who notices, when, and in how many lines."""

from __future__ import annotations

import json
import signal
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import pytest
import redis

from stream import serve
from stream.local import servers
from stream.local.servers import ChildServer, RunningKafka, RunningRedis, answers
from stream.metrics.scrape import parse
from stream.settings import Settings
from tests.conftest import ROOT
from tests.fakes.predictor import SmallPredictor
from tests.integration.workers import (
    PARTITIONS,
    ChildWorker,
    Site,
    ThreadWorker,
    new_site,
    wait_for,
)

pytestmark = pytest.mark.integration

NOTICED_S: Final = 20.0  # 6 s at most where the machine is free; it took 48 s without traffic
AWAY_S: Final = 10.0
BACK_S: Final = 150.0  # a request that a frozen broker has taken is given up after a minute
LINES_AT_MOST: Final = 10  # a minute, on one thing that is wrong


@pytest.fixture
def settings_file(tmp_path: Path) -> Path:
    """Lines that a test can read, and a commit that comes after the broker has gone."""
    file = tmp_path / "worker.toml"
    file.write_text('log_format = "json"\ncommit_interval_ms = 2000\n')
    return file


@pytest.fixture
def children(tmp_path: Path, settings_file: Path) -> Iterator[Callable[[Settings], ChildWorker]]:
    started: list[ChildWorker] = []

    def begin(settings: Settings) -> ChildWorker:
        started.append(ChildWorker(settings, tmp_path, "--config", str(settings_file)))
        started[-1].wait_ready()
        return started[-1]

    yield begin
    for worker in started:
        worker.end()


@pytest.fixture
def own(tmp_path: Path, redis_server: RunningRedis) -> Iterator[tuple[RunningKafka, Site]]:
    """A broker of this test's own, with topics."""
    with ExitStack() as stack:
        (tmp_path / "kafka").mkdir()
        jars = ROOT / ".servers/kafka/jars"
        kafka = stack.enter_context(servers.apache_kafka(tmp_path / "kafka", jars))
        yield kafka, new_site(kafka, redis_server)


def ask(worker: ChildWorker, path: str) -> str:
    try:
        url = f"http://127.0.0.1:{worker.port}/{path}"
        with urllib.request.urlopen(url, timeout=5) as answer:
            body: bytes = answer.read()
    except urllib.error.HTTPError as error:
        with error:
            body = error.read()
    return body.decode()


def gauge(worker: ChildWorker, name: str) -> float:
    return parse(ask(worker, "metrics")).value(f"emotrack_{name}")


def ready(worker: ChildWorker) -> bool:
    return all(json.loads(ask(worker, "readyz")).values())


def lines_of(worker: ChildWorker) -> list[dict[str, Any]]:
    """The lines of a worker's log, as far as they were written whole."""
    return [json.loads(line) for line in worker.log.read_text().splitlines() if line[-1:] == "}"]


def outage(worker: ChildWorker, server: str) -> list[dict[str, Any]]:
    """The lines from when a server went to when it was back, which must each be there once."""
    lines = lines_of(worker)
    gone, back = (
        [n for n, line in enumerate(lines) if line["event"] == f"{server} is {word}"]
        for word in ("away", "back")
    )
    assert len(gone) == len(back) == 1, lines
    return lines[gone[0] : back[0] + 1]


def kill(server: ChildServer) -> None:
    server.stop(hard=True)


def freeze(server: ChildServer) -> None:
    assert server.process is not None
    server.process.send_signal(signal.SIGSTOP)


def restore(server: ChildServer, port: int) -> None:
    if server.process is None:
        server.start(lambda: answers(port))
    else:
        server.process.send_signal(signal.SIGCONT)


@pytest.mark.parametrize("goes", [kill, freeze])
def test_every_worker_notices_that_kafka_goes_and_comes_and_says_so_once(
    own: tuple[RunningKafka, Site],
    children: Callable[[Settings], ChildWorker],
    goes: Callable[[ChildServer], None],
) -> None:
    """One has answers to commit and waits for the broker with that, the other has no traffic."""
    kafka, site = own
    workers = [children(site.settings) for _ in range(2)]
    wait_for(lambda: [gauge(w, "partitions_owned") for w in workers] == [1, 1], "a partition each")
    assert [gauge(w, "topic_partitions") for w in workers] == [PARTITIONS] * 2
    site.say("c", 0)
    site.flush()
    wait_for(lambda: site.committed() == 1, "the first answer")
    site.say("c", 1)
    site.flush()
    wait_for(lambda: site.ends(site.settings.topics.predictions) == 2, "an answer")
    goes(kafka.server)
    try:
        for worker in workers:
            wait_for(lambda w=worker: not ready(w), "a worker that notices", NOTICED_S)  # type: ignore[misc]
            parts = json.loads(ask(worker, "readyz"))
            assert not parts["broker_reachable"] and parts["store_reachable"]
            assert gauge(worker, "broker_up") == 0 and gauge(worker, "ready") == 0
            assert "emotrack_group_lag_records" not in ask(worker, "metrics"), "nobody knows it"
        threading.Event().wait(AWAY_S)
    finally:
        restore(kafka.server, int(kafka.bootstrap.rpartition(":")[2]))
    for worker in workers:
        wait_for(lambda w=worker: ready(w), "a worker that is ready again", BACK_S)  # type: ignore[misc]
        assert gauge(worker, "broker_up") == 1
    site.say("c", 2)
    site.flush()
    wait_for(lambda: site.committed() == site.sent, "all commits", BACK_S)
    for worker in workers:
        lines = outage(worker, "Kafka")
        assert len(lines) <= LINES_AT_MOST, lines
        assert "no broker answers" in lines[0]["reason"]
        assert AWAY_S < lines[-1]["away_s"] < AWAY_S + NOTICED_S + BACK_S


def test_what_a_killed_worker_leaves_is_owned_by_nobody_until_it_is_taken_over(
    site: Site, children: Callable[[Settings], ChildWorker]
) -> None:
    """The facts that EmotrackPartitionsUnowned asks for, and the lag that no owner reports."""
    first, second = (children(site.settings) for _ in range(2))
    wait_for(lambda: gauge(first, "partitions_owned") == 1, "a partition each")
    wait_for(lambda: gauge(second, "partitions_owned") == 1, "a partition each")
    first.process.send_signal(signal.SIGSTOP)  # nothing it owns is answered, and it is not told
    try:
        for n in range(20):
            site.say(f"c{n}", 0)
        site.flush()
        assert gauge(second, "partitions_owned") < gauge(second, "topic_partitions") == PARTITIONS
        wait_for(lambda: gauge(second, "partitions_owned") == PARTITIONS, "the takeover", 60)
        wait_for(lambda: site.committed() == site.sent, "all commits", BACK_S)
        wait_for(lambda: gauge(second, "group_lag_records") == 0, "no lag of the group")
    finally:
        first.process.send_signal(signal.SIGCONT)


def test_redis_goes_and_comes_in_few_lines(
    site: Site, children: Callable[[Settings], ChildWorker], tmp_path: Path
) -> None:
    """It was 170 lines a minute; with a flood of poison it was a line a record on top of them."""
    (tmp_path / "redis").mkdir()
    with servers.redis_server(tmp_path / "redis") as store:
        worker = children(site.settings.model_copy(update={"redis_url": store.url}))
        for n in range(300):
            site.say(f"c{n % 5}", n)
            site.send(b"{", b"k")
        site.flush()
        wait_for(lambda: site.committed() == site.sent, "all commits")
        assert sum(line["event"] == "record refused" for line in lines_of(worker)) == 1
        store.server.stop(hard=True)
        for n in range(10):
            site.say("c1", 1_000 + n)
        site.flush()
        wait_for(lambda: gauge(worker, "redis_up") == 0, "a store that is away", NOTICED_S)
        threading.Event().wait(AWAY_S)
        store.server.start(lambda: answers(store.port))
        wait_for(lambda: site.committed() == site.sent, "all commits", BACK_S)
        lines = outage(worker, "Redis")
        assert 2 < len(lines) <= LINES_AT_MOST, lines
        assert lines[0]["reason"] and lines[-1]["away_s"] > AWAY_S
        worker.process.send_signal(signal.SIGTERM)
        assert worker.process.wait(30) == 0
    refused = [line for line in lines_of(worker) if line["event"] == "record refused"]
    assert sum(1 + line.get("left_out", 0) for line in refused) == 300, "none is uncounted"


def test_while_states_are_checked_the_lag_is_what_is_not_committed(
    site: Site, start: Callable[[Settings], ThreadWorker], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It counted what is read again, from the assignment on: 574 where 63 waited."""
    slow = SmallPredictor(batch_s=0.2)
    monkeypatch.setattr(serve, "load_predictor", lambda *_, **__: slow)
    worker = start(site.settings)
    for n in range(20):
        for c in range(6):
            site.say(f"c{c}", n)
    site.flush()
    wait_for(lambda: site.committed() == site.sent, "all commits", 60)
    with redis.Redis.from_url(site.settings.redis_url) as client:
        client.flushall()
    for c in range(6):
        site.say(f"c{c}", 20)
    site.flush()
    wait_for(lambda: worker.metric("partitions_checking") > 0, "a check of states")
    told = {worker.metric("consumer_lag_records")}
    while worker.metric("partitions_checking") > 0:
        told.add(worker.metric("consumer_lag_records"))
        threading.Event().wait(0.2)
    assert 0 < max(told) <= 6
    wait_for(lambda: site.committed() == site.sent, "all commits", 60)
    assert worker.metric("state_rebuilds_total") > 0
    wait_for(lambda: worker.metric("consumer_lag_records") == 0, "no lag")
