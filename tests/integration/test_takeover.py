"""The silence of a killed worker's partitions, as a reader of the predictions sees it.

On a broker on its own defaults, on one that allows a group less, and on one that is quick.
"""

from __future__ import annotations

import re
import signal
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer
from typer.testing import CliRunner

from stream import main
from stream.brokers.takeover import ask
from stream.brokers.topics import create, partition_of, plan
from stream.events.messages import TopicNames
from stream.local.servers import RunningKafka, RunningRedis, apache_kafka
from stream.settings import Settings
from stream.verify.run import verify_topics
from tests.conftest import ROOT, enter
from tests.integration.serve_small import small_model
from tests.integration.workers import PARTITIONS, ChildWorker, Site, wait_for

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(900)]
BUSY_S = 5.0  # what a busy machine may add to a promise
ALLOWED = {  # the cure that `topics create` names on a broker on its defaults
    "group.consumer.min.session.timeout.ms": "10000",
    "group.consumer.min.heartbeat.interval.ms": "1000",
}


@pytest.fixture(scope="module")
def allowing_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningKafka]:
    """A broker on its defaults that allows a group shorter sessions."""
    place, jars = tmp_path_factory.mktemp("allowing"), ROOT / ".servers/kafka/jars"
    server = apache_kafka(place, jars, groups=ALLOWED)
    running = enter(server)
    yield running
    server.__exit__(None, None, None)


def site_on(kafka: RunningKafka, redis: RunningRedis) -> Site:
    """Fresh topics; a producer that Java's agrees with."""
    prefix = f"take{uuid.uuid4().hex[:8]}."
    create(kafka.bootstrap, plan(TopicNames(prefix), partitions=PARTITIONS))
    settings = Settings(
        bootstrap=kafka.bootstrap,
        redis_url=redis.url,
        topic_prefix=prefix,
        group=f"{prefix}workers",
    )
    told = {"bootstrap.servers": kafka.bootstrap, "partitioner": "murmur2_random", "log_level": 0}
    return Site(settings, Producer(told))


class Talk:
    """Somebody speaks on every partition all the time, and somebody else reads the answers."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.seen: dict[int, list[float]] = defaultdict(list)  # partition -> when answers came
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._speak), threading.Thread(target=self._read)]

    def __enter__(self) -> Talk:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join(30)

    def _speak(self) -> None:
        lanes: dict[int, str] = {}
        for n in range(1_000):
            name = f"c{n}"
            lanes.setdefault(partition_of(name.encode(), PARTITIONS), name)
        turn = 0
        while not self._end.wait(0.1):
            for name in lanes.values():
                self.site.say(name, turn)
            turn += 1
        self.site.flush()

    def _read(self) -> None:
        settings = self.site.settings
        consumer = Consumer(
            {
                "bootstrap.servers": settings.bootstrap,
                "group.id": f"{settings.group}.reader",
                "group.protocol": "classic",
                "auto.offset.reset": "earliest",
                "log_level": 0,
            }
        )
        consumer.subscribe([settings.topics.predictions])
        while not self._end.is_set():
            message = consumer.poll(0.1)
            if message is not None and message.error() is None:
                partition = message.partition()
                assert partition is not None
                self.seen[partition].append(time.monotonic())
        consumer.close()

    def answered(self, count: int = 10) -> None:
        """Wait for that many more answers on every partition."""
        before = {p: len(self.seen[p]) for p in range(PARTITIONS)}

        def more() -> bool:
            return all(len(self.seen[p]) >= n + count for p, n in before.items())

        wait_for(more, "answers of every partition", 120)

    def silence(self, since: float) -> float:
        """Return the longest time between two answers of a partition since then."""
        gaps = [0.0]
        for times in self.seen.values():
            late = [max(since, at) for at in times if at >= since - 1.0]
            gaps += [b - a for a, b in pairwise(late)]
        return max(gaps)


class Crew:
    """Workers that come and go; none is left behind."""

    def __init__(self, settings: Settings, place: Path) -> None:
        self._settings, self._place = settings, place
        self._hired: list[ChildWorker] = []

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._hired:
            worker.end()

    def hire(self, protocol: str = "auto") -> ChildWorker:
        """Start one more, and wait until it has partitions."""
        settings = self._settings.model_copy(update={"group_protocol": protocol})
        self._hired.append(worker := ChildWorker(settings, self._place))
        worker.wait_ready()
        wait_for(lambda: "partitions assigned" in plain(worker), "partitions", 60)
        return worker


def plain(worker: ChildWorker) -> str:
    """Return its log without colours."""
    return re.sub(r"\x1b\[[0-9;]*m", "", worker.log.read_text())


@pytest.mark.parametrize(
    ("broker", "asked", "protocol", "killed_s", "stopped_s"),
    [
        ("default_kafka", "auto", "classic", 12, 2),
        ("default_kafka", "consumer", "consumer", 51, 6),
        ("allowing_kafka", "auto", "consumer", 12, 2),
        ("kafka", "auto", "consumer", 8, 2),
    ],
)
def test_partitions_are_silent_no_longer_than_is_promised(
    broker: str,
    asked: str,
    protocol: str,
    killed_s: int,
    stopped_s: int,
    request: pytest.FixtureRequest,
    redis_server: RunningRedis,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("EMOTRACK_GROUP_PROTOCOL", asked)
    site = site_on(request.getfixturevalue(broker), redis_server)
    settings = site.settings
    told = ["--bootstrap", settings.bootstrap, "--topic-prefix", settings.topic_prefix]
    said = CliRunner().invoke(main.app, ["topics", "create", *told, "--group", settings.group])
    assert said.exit_code == 0, said.output
    promise = ask(settings)
    assert (promise.protocol, promise.killed_s, promise.stopped_s) == (
        protocol,
        killed_s,
        stopped_s,
    )
    assert promise.says in said.output
    with Crew(settings, tmp_path) as crew, Talk(site) as talk:
        stays, stopped = crew.hire(asked), crew.hire(asked)
        talk.answered()
        for told_s in (f"killed_s={killed_s}", f"stopped_s={stopped_s}"):
            assert re.search(rf"takeover .*{told_s}\b", plain(stays))
        at = time.monotonic()
        stopped.process.send_signal(signal.SIGTERM)
        talk.answered()
        after_stop = talk.silence(at)
        killed = crew.hire(asked)
        talk.answered()
        at = time.monotonic()
        killed.process.send_signal(signal.SIGKILL)
        talk.answered()
        after_kill = talk.silence(at)
    silent = f"{after_stop:.1f} s after SIGTERM, {after_kill:.1f} s after SIGKILL"
    print(f"\n{broker}, {protocol}: silent {silent}")
    assert stopped.process.returncode == 0, stopped.log.read_text()[-2000:]
    assert after_stop <= stopped_s + BUSY_S
    assert after_kill <= killed_s + BUSY_S


def test_a_group_changes_its_protocol_under_way_and_loses_nothing(
    default_kafka: RunningKafka, redis_server: RunningRedis, tmp_path: Path
) -> None:
    """A worker that joined by Kafka 4's protocol is replaced by one that takes what fits."""
    site = site_on(default_kafka, redis_server)
    with Crew(site.settings, tmp_path) as crew:
        with Talk(site) as talk:
            old = crew.hire("consumer")
            talk.answered()
            crew.hire("auto")
            talk.answered()
            old.process.send_signal(signal.SIGTERM)
            assert old.process.wait(60) == 0, old.log.read_text()[-2000:]
            talk.answered()
            # Not the other way round: the broker refuses it, so one that asks for it is told.
            refused = ChildWorker(
                site.settings.model_copy(update={"group_protocol": "consumer"}), tmp_path
            )
            assert refused.process.wait(60) == 3
            assert "EMOTRACK_GROUP_PROTOCOL at auto" in plain(refused).splitlines()[-1]
            talk.answered()
        wait_for(lambda: site.committed() == site.sent, "the commits", 60)
    report = verify_topics(site.settings, small_model(), allow_truncation=False, tolerance=None)
    assert report.violations == []
    assert report.counts["prediction_repeats"] == 0


def test_a_group_stays_classic_while_it_has_such_workers(
    kafka: RunningKafka, redis_server: RunningRedis, tmp_path: Path
) -> None:
    """On a broker that came to offer short sessions; the broker would refuse the other kind."""
    site = site_on(kafka, redis_server)
    assert ask(site.settings).protocol == "consumer"
    with Crew(site.settings, tmp_path) as crew, Talk(site) as talk:
        first = crew.hire("classic")
        assert ask(site.settings).protocol == "classic"
        second = crew.hire()
        assert "joined by it" in plain(second)
        talk.answered()
        for worker in (first, second):
            worker.process.send_signal(signal.SIGTERM)
            assert worker.process.wait(60) == 0, worker.log.read_text()[-2000:]
        assert ask(site.settings).protocol == "consumer"
        crew.hire()
        talk.answered()


def test_what_a_broker_does_not_allow_is_named_and_can_be_allowed(
    default_kafka: RunningKafka, allowing_kafka: RunningKafka
) -> None:
    group = f"g{uuid.uuid4().hex[:8]}"
    at = ["--group", group, "--topic-prefix", f"{group}.", "--bootstrap"]
    said = CliRunner().invoke(main.app, ["topics", "create", *at, default_kafka.bootstrap])
    assert said.exit_code == 0, said.output
    for setting, value in ALLOWED.items():
        assert f"{setting}={value} on every broker" in said.output
    allowed = CliRunner().invoke(main.app, ["topics", "create", *at, allowing_kafka.bootstrap])
    assert f"group {group}: consumer.session.timeout.ms=10000 is set" in allowed.output
    assert f"group {group}: consumer.heartbeat.interval.ms=1000 is set" in allowed.output
    again = CliRunner().invoke(main.app, ["topics", "fix", *at, allowing_kafka.bootstrap])
    assert "is set" not in again.output
    settings = Settings(bootstrap=allowing_kafka.bootstrap, group=group)
    assert (ask(settings).session_ms, ask(settings).heartbeat_ms) == (10_000, 1_000)


def test_a_long_session_that_was_asked_for_is_told_with_its_cure(
    default_kafka: RunningKafka,
) -> None:
    settings = Settings(bootstrap=default_kafka.bootstrap, group_protocol="consumer")
    found = ask(settings)
    assert (found.killed_s, found.stopped_s) == (51, 6)
    assert found.cure is not None and "EMOTRACK_GROUP_PROTOCOL" in found.cure
    cured = ask(settings.model_copy(update={"group_protocol": "auto"}))
    assert cured.cure is None and cured.killed_s == 12
