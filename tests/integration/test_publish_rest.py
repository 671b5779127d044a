"""A broker that stops under `emotrack publish`: what it did not take is named, and can be sent."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from stream.brokers.topics import create, plan
from stream.events.messages import TopicNames, Utterance, encode
from stream.local.servers import RunningKafka, answers, apache_kafka
from tests.conftest import ROOT, enter
from tests.fakes.console import emotrack
from tests.stream.cli.test_client import records_of

pytestmark = pytest.mark.integration

TOPICS = TopicNames("rest.")
COUNT = 400
RATE = 100
Ids = list[tuple[str, str]]


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[RunningKafka]:
    """A broker of this test alone, with the topics: it is stopped hard."""
    directory = tmp_path / "kafka"
    directory.mkdir()
    server = apache_kafka(directory, ROOT / ".servers/kafka/jars")
    running = enter(server)
    create(running.bootstrap, plan(TOPICS, partitions=2))
    yield running
    server.__exit__(None, None, None)


def lines(folder: Path) -> tuple[Path, Ids]:
    """Write utterances of several conversations, one with vectors that JSON must carry."""
    said = [Utterance(f"c{i % 7}", f"u{i}", "s", text=f"number {i}") for i in range(COUNT)]
    file = folder / "talk.jsonl"
    file.write_bytes(b"\n".join(encode(one) for one in said) + b"\n")
    return file, [(one.conversation_id, one.utterance_id) for one in said]


def ids_of(values: list[bytes]) -> Ids:
    events = [json.loads(value) for value in values]
    return [(event["conversation_id"], event["utterance_id"]) for event in events]


@contextmanager
def publishing(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run `emotrack publish` until the block ends."""
    command = [sys.executable, "-m", "stream.main", "publish", *arguments]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def test_what_the_broker_did_not_take_is_in_the_rest_and_can_be_published(
    broker: RunningKafka, tmp_path: Path
) -> None:
    file, ids = lines(tmp_path)
    rest = tmp_path / "rest.jsonl"
    place = ["--bootstrap", broker.bootstrap, "--topic-prefix", TOPICS.prefix]
    paced = ["--rate", str(RATE), "--timeout", "3", "--rest", str(rest)]
    with publishing(str(file), *place, *paced) as process:
        until = time.monotonic() + 60
        while len(records_of(broker.bootstrap, TOPICS.utterances, COUNT)) < 20:
            assert time.monotonic() < until, "nothing arrives"
        broker.server.stop(hard=True)
        _, said = process.communicate(timeout=60)
        assert process.returncode == 9, said
    sentence = said.decode()
    assert "Traceback" not in sentence
    port = int(broker.bootstrap.rpartition(":")[2])
    broker.server.start(lambda: answers(port))
    taken = ids_of(records_of(broker.bootstrap, TOPICS.utterances, COUNT))
    left = ids_of(rest.read_bytes().splitlines())
    assert left == [one for one in ids if one in set(left)], "in the order of the file"
    assert set(taken) | set(left) == set(ids), "nothing is lost"
    first = ids.index(left[0]) + 1
    conversation, utterance = left[0]
    assert f"is utterance {first} ('{utterance}' of '{conversation}')" in sentence
    assert f"{COUNT - len(left)} utterances are acknowledged" in sentence
    assert f"{len(left)} utterances, are in {rest}: `emotrack publish {rest}`" in sentence

    refused = emotrack("publish", str(file), *place, "--rest", str(rest))
    assert refused.returncode == 2 and b"is there already" in refused.stderr
    again = emotrack("publish", str(rest), *place)
    assert again.returncode == 0, again.stderr
    published = ids_of(records_of(broker.bootstrap, TOPICS.utterances, 2 * COUNT))
    assert set(published) == set(ids)


def test_without_a_file_the_first_is_named_and_the_way_to_go_on(
    broker: RunningKafka, tmp_path: Path
) -> None:
    file, _ = lines(tmp_path)
    place = ["--bootstrap", broker.bootstrap, "--topic-prefix", TOPICS.prefix]
    with publishing(str(file), *place, "--rate", str(RATE), "--timeout", "3") as process:
        until = time.monotonic() + 60
        while not records_of(broker.bootstrap, TOPICS.utterances, 1):
            assert time.monotonic() < until, "nothing arrives"
        broker.server.stop(hard=True)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 9, said
    assert b"The first without is utterance " in said
    assert b"a worker answers no id twice" in said and b"--rest FILE keeps" in said


def test_a_rest_that_cannot_be_written_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    file, _ = lines(tmp_path)
    refused = emotrack("publish", str(file), "--rest", str(tmp_path / "nowhere" / "rest"))
    assert refused.returncode == 2
    assert b"cannot be written" in refused.stderr
