"""Servers for the whole suite: real Apache Kafka, redis-server and Prometheus on loopback.

A missing server skips with a reason on a laptop and fails where CI=true, so that a green run there
means that everything ran.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from functools import cache
from pathlib import Path
from typing import NoReturn, TypeVar

import pytest

from stream.local import servers
from stream.local.servers import RunningKafka, RunningRedis, ServerMissing
from tests.servers import KafkaCluster, kafka_cluster, other_redis_servers, redis_cluster

Server = TypeVar("Server")
ROOT = Path(__file__).parent.parent
SERVERS = {  # fixtures
    "kafka",
    "default_kafka",
    "kafka_brokers",
    "redis_server",
    "other_redis",
    "cluster_url",
}
NOT_QUICK = ("integration", "chaos", "slow", "gpu")  # markers


def enter(server: AbstractContextManager[Server]) -> Server:
    """Start a server, or skip with the reason (fail under CI=true)."""
    try:
        return server.__enter__()
    except ServerMissing as why:
        missing(why)


def missing(why: ServerMissing) -> NoReturn:
    """Skip with the reason, or fail under CI=true."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI must have every server: {why}")
    pytest.skip(str(why))


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningKafka]:
    """One Apache Kafka for the session; tests use topics of their own prefix."""
    server = servers.apache_kafka(tmp_path_factory.mktemp("kafka"), ROOT / ".servers/kafka/jars")
    running = enter(server)
    yield running
    server.__exit__(None, None, None)


@pytest.fixture(scope="session")
def default_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningKafka]:
    """The same with the broker's own defaults for groups, which are slower (docs/deploy.md)."""
    place, jars = tmp_path_factory.mktemp("default-kafka"), ROOT / ".servers/kafka/jars"
    server = servers.apache_kafka(place, jars, groups={})
    running = enter(server)
    yield running
    server.__exit__(None, None, None)


@pytest.fixture(scope="session")
def kafka_brokers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaCluster]:
    """Three brokers of one cluster for the session."""
    server = kafka_cluster(tmp_path_factory.mktemp("brokers"), ROOT / ".servers/kafka/jars")
    running = enter(server)
    yield running
    server.__exit__(None, None, None)


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningRedis]:
    """One redis-server for the session; tests use keys or databases of their own."""
    server = servers.redis_server(tmp_path_factory.mktemp("redis"))
    running = enter(server)
    yield running
    server.__exit__(None, None, None)


@pytest.fixture(scope="session")
def other_redis(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[[str], RunningRedis]]:
    """Start another server that answers as a Redis (`other_redis_servers`), once each, by name."""
    with ExitStack() as stack:

        @cache
        def start(name: str) -> RunningRedis:
            place, program = tmp_path_factory.mktemp(name), str(other_redis_servers()[name])
            return stack.enter_context(servers.redis_server(place, program=program))

        yield start


@pytest.fixture(scope="session")
def cluster_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One node of a Redis Cluster of three for the session."""
    server = redis_cluster(tmp_path_factory.mktemp("cluster"))
    nodes = enter(server)
    yield nodes[0].url
    server.__exit__(None, None, None)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare --quick, which `make check` gives."""
    parser.addoption("--quick", action="store_true", help="only what is fast and needs no server")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what --quick excludes; skip what needs an accelerator where there is none."""
    if config.getoption("--quick"):
        config.hook.pytest_deselected(items=[item for item in items if not quick(item)])
        items[:] = [item for item in items if quick(item)]
    on_gpu = [item for item in items if item.get_closest_marker("gpu")]
    if on_gpu and not accelerated():
        for item in on_gpu:
            item.add_marker(pytest.mark.skip(reason="torch sees no CUDA device"))


def quick(item: pytest.Item) -> bool:
    """Return whether a test takes under a second and needs neither a server nor a GPU."""
    fixtures: list[str] = getattr(item, "fixturenames", [])
    return SERVERS.isdisjoint(fixtures) and not any(map(item.get_closest_marker, NOT_QUICK))


def accelerated() -> bool:
    """Return whether torch is installed and sees a GPU."""
    try:
        from torch import cuda
    except ImportError:
        return False
    return cuda.is_available()


def real_conversations() -> Path | None:
    """The folder of real conversations, or None."""
    named = os.environ.get("EMOTRACK_DATA")
    folder = Path(named) if named else ROOT.parent / "shared" / "data"
    return folder if (folder / "meld_meta.json").exists() else None


def pytest_report_header() -> str:
    """Say which conversations the tests run on."""
    found = real_conversations()
    return f"conversations: {'40 generated ones' if found is None else found.resolve()}"


@pytest.fixture(scope="session")
def data_folder() -> Path | None:
    """The real conversations (EMOTRACK_DATA, else ../shared/data), or None where there are none.

    Tests that use it run on generated conversations instead, and print so.
    """
    found = real_conversations()
    if found is None and (named := os.environ.get("EMOTRACK_DATA")):
        pytest.fail(f"EMOTRACK_DATA={named} holds no meld_meta.json")
    return found
