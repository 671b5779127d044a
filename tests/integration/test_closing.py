"""Every client of Kafka closes without an error, whatever happened to it before, and twice."""

from __future__ import annotations

import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator

import pytest
from confluent_kafka.admin import AdminClient

from stream.brokers.topics import create, plan
from stream.events.messages import TopicNames
from stream.local.servers import RunningKafka, answers, apache_kafka
from stream.settings import Settings
from tests.conftest import ROOT

pytestmark = pytest.mark.integration

Fault = Callable[[Settings, RunningKafka], None]


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningKafka]:
    """A broker of this module's own: tests end it."""
    folder = tmp_path_factory.mktemp("kafka")
    with apache_kafka(folder, ROOT / ".servers/kafka/jars") as running:
        yield running


@pytest.fixture
def settings(broker: RunningKafka) -> Iterator[Settings]:
    port = int(broker.bootstrap.rpartition(":")[2])
    if not answers(port):
        broker.server.start(lambda: answers(port))
    prefix = f"close{uuid.uuid4().hex[:6]}."
    create(broker.bootstrap, plan(TopicNames(prefix), partitions=1))
    yield Settings(bootstrap=broker.bootstrap, topic_prefix=prefix, group=f"{prefix}workers")


def nothing(settings: Settings, broker: RunningKafka) -> None:
    """No fault."""


def topics_deleted(settings: Settings, broker: RunningKafka) -> None:
    names = settings.topics
    wanted = [names.utterances, names.predictions, names.shift_alerts, names.dead_letters]
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    for done in admin.delete_topics(wanted).values():
        done.result(10)


def broker_killed(settings: Settings, broker: RunningKafka) -> None:
    broker.server.stop(hard=True)


def closed(kind: str, settings: Settings, broker: RunningKafka, fault: Fault) -> str:
    """Return what a process says that closes such clients after a fault."""
    argv = [sys.executable, "-m", "tests.integration.closing_clients", kind]
    argv += [settings.bootstrap, settings.topic_prefix]
    with subprocess.Popen(
        argv,
        cwd=ROOT,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        fault(settings, broker)
        out, err = child.communicate("\n", timeout=90)
    assert child.returncode == 0, err
    assert "Traceback" not in err
    return out


@pytest.mark.parametrize("fault", [nothing, topics_deleted, broker_killed])
def test_a_used_client_closes_after_any_fault_and_again(
    settings: Settings, broker: RunningKafka, fault: Fault
) -> None:
    assert closed("used", settings, broker, fault).endswith("closed 11\n")


@pytest.mark.parametrize("fault", [nothing, broker_killed])
def test_a_client_that_never_connected_closes(
    settings: Settings, broker: RunningKafka, fault: Fault
) -> None:
    assert closed("unconnected", settings, broker, fault).endswith("closed 5\n")


def test_a_publisher_that_lost_records_says_so_once(
    settings: Settings, broker: RunningKafka
) -> None:
    """A lost record is known to the publisher alone."""
    said = closed("publisher", settings, broker, broker_killed)
    assert said.count("1 of 2 utterances are acknowledged") == 1
