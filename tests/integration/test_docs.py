"""The commands of the README and the pages are run, on real servers."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import kafka as kafka_python
import pytest

from stream.brokers.kafka_admin import API_VERSION
from stream.brokers.topics import create, plan
from stream.client import PredictionSubscriber, Publisher
from stream.events.messages import PredictionEvent, TopicNames, Utterance
from stream.local.servers import RunningKafka, RunningRedis
from stream.local.worker_process import local_worker
from stream.settings import Settings
from tests.conftest import ROOT
from tests.integration.workers import ThreadWorker

pytestmark = pytest.mark.integration
DEFAULT_BOOTSTRAP: Final = "127.0.0.1:9092"
LASTING: Final = ("source ", "emotrack serve", "emotrack watch")  # a worker runs already


def block(page: str, language: str) -> str:
    """The first block of code of that language on a page."""
    found = re.findall(rf"^```{language}\n(.*?)^```$", (ROOT / page).read_text(), re.M | re.S)
    return str(found[0])


@pytest.fixture(scope="module")
def bootstrap(kafka: RunningKafka) -> str:
    """A broker with topics of the default names, as the pages have them."""
    create(kafka.bootstrap, plan(TopicNames(), partitions=2))
    return kafka.bootstrap


@pytest.fixture
def worker(
    bootstrap: str, redis_server: RunningRedis, start: Callable[[Settings], ThreadWorker]
) -> ThreadWorker:
    return start(
        Settings(
            bootstrap=bootstrap, redis_url=redis_server.url, metrics_port=0, group="docs-workers"
        )
    )


@pytest.fixture
def predictions(bootstrap: str) -> Iterator[PredictionSubscriber]:
    with PredictionSubscriber(bootstrap, timeout_s=20) as subscriber:
        yield subscriber


def test_the_java_publisher_of_the_page_is_answered(
    bootstrap: str, predictions: PredictionSubscriber, worker: ThreadWorker, tmp_path: Path
) -> None:
    """It also partitions as our own clients do, else a conversation would have two states."""
    java = shutil.which("java")
    assert java is not None, "Kafka is running: Java is here"
    (tmp_path / "Publisher.java").write_text(block("docs/events.md", "java"))
    jars = ROOT / ".servers/kafka/jars"
    ran = subprocess.run(
        [java, "-cp", f"{jars}/*", "Publisher.java", bootstrap],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    answered: dict[str, PredictionEvent] = {}
    for event in predictions:
        answered[event.conversation_id] = event
        if len(answered) == 3:
            break
    sent = dict(re.findall(r"^(java-call-\d) (\d)$", ran.stdout, re.M))
    assert set(sent) == set(answered) == {"java-call-1", "java-call-2", "java-call-3"}
    ours = kafka_python.KafkaProducer(bootstrap_servers=bootstrap, api_version=API_VERSION)
    try:
        for conversation, partition in sent.items():
            sent_again = ours.send(TopicNames().predictions, key=conversation.encode(), value=None)
            assert sent_again.get(10).partition == int(partition)
            assert answered[conversation].input.partition == int(partition)
    finally:
        ours.close()


def run_block(
    page: str, bootstrap: str, redis_url: str, *, group: str = "emotrack", prefix: str = "emotrack."
) -> str:
    """Run the first commands of a page, but for those that last, and return what they say."""
    folder = Path(sys.executable).parent
    env = {k: v for k, v in os.environ.items() if not k.startswith("EMOTRACK_")}
    env |= {
        "PATH": f"{folder}:{env['PATH']}",
        "EMOTRACK_BOOTSTRAP": bootstrap,
        "EMOTRACK_REDIS_URL": redis_url,
        "EMOTRACK_METRICS_PORT": "0",
        "EMOTRACK_GROUP": group,
        "EMOTRACK_TOPIC_PREFIX": prefix,
    }
    lines = block(page, "bash").splitlines()
    commands = "\n".join(line for line in lines if not line.startswith(LASTING))
    ran = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands],
        env=env,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def test_the_commands_of_the_readme_work(
    bootstrap: str, redis_server: RunningRedis, worker: ThreadWorker
) -> None:
    said = run_block("README.md", bootstrap, redis_server.url)
    assert "emotrack.utterances: already there" in said
    assert "published 1 utterances" in said
    assert "OK     redis" in said


def test_the_commands_of_the_page_on_looking_into_it_work(
    bootstrap: str, redis_server: RunningRedis, tmp_path: Path
) -> None:
    """On topics answered by the shipped model, as the page assumes; c1 is the README's."""
    prefix = "inspected."
    create(bootstrap, plan(TopicNames(prefix), partitions=2))
    settings = {
        "bootstrap": bootstrap,
        "redis_url": redis_server.url,
        "topic_prefix": prefix,
        "group": "inspected",
    }
    with local_worker(settings, tmp_path / "worker.log"):
        with Publisher(bootstrap, topic=f"{prefix}utterances") as publisher:
            publisher.publish(Utterance("c1", "1", "ann", text="You did what?!"))
        topic = f"{prefix}predictions"
        with PredictionSubscriber(
            bootstrap, topic=topic, from_beginning=True, timeout_s=20
        ) as answers:
            next(iter(answers))
    said = run_block(
        "docs/inspect.md", bootstrap, redis_server.url, group="inspected", prefix=prefix
    )
    assert "I1  ok" in said and "I8  ok" in said and "1  states that equal" in said
    assert "0 dead letters to send" in said
    assert "1 of 10 rows" in said


def test_the_python_of_the_readme_works(bootstrap: str, worker: ThreadWorker) -> None:
    program = block("README.md", "python")
    assert DEFAULT_BOOTSTRAP in program
    before = worker.metric("utterances_consumed_total")
    here = program.replace(DEFAULT_BOOTSTRAP, bootstrap).replace("timeout_s=10", "timeout_s=3")
    exec(compile(here, "README.md", "exec"), {})
    assert worker.metric("utterances_consumed_total") == before + 2


def test_a_structured_cloudevent_is_answered_and_its_trace_passed_on(
    bootstrap: str, predictions: PredictionSubscriber, worker: ThreadWorker
) -> None:
    """As the page says: attributes and data in one JSON object."""
    trace = f"00-{'a' * 32}-{'b' * 16}-01"
    event = {
        "specversion": "1.0",
        "id": "structured/u1",
        "source": "urn:test",
        "type": "emotrack.utterance.v1",
        "traceparent": trace,
        "tracestate": "vendor=1",
        "data": {
            "conversation_id": "structured",
            "utterance_id": "u1",
            "speaker_id": "anna",
            "text": "Where is my order?",
        },
    }
    headers = [("content-type", b"application/cloudevents+json")]
    producer = kafka_python.KafkaProducer(bootstrap_servers=bootstrap, api_version=API_VERSION)
    try:
        value = json.dumps(event).encode()
        sent = producer.send(
            TopicNames().utterances, key=b"structured", value=value, headers=headers
        )
        sent.get(10)
    finally:
        producer.close()
    answered = next(r for r in predictions.records() if r.event.conversation_id == "structured")
    assert answered.event.utterance_id == "u1"
    told = dict(answered.headers)
    assert (told["traceparent"], told["tracestate"]) == (trace.encode(), b"vendor=1")
