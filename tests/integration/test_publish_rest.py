"""A broker that stops under `emotrack publish`: what it did not take is named, and can be sent."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from confluent_kafka import KafkaException, Producer

from stream.brokers.topics import create, plan
from stream.errors import ConfigError
from stream.events.messages import TopicNames, Utterance, encode
from stream.local.servers import RunningKafka, answers, apache_kafka
from stream.settings import Settings
from tests.conftest import ROOT, enter
from tests.fakes.console import emotrack, run
from tests.integration.workers import Site, wait_for

pytestmark = pytest.mark.integration

PREFIXES = itertools.count()
COUNT = 4_000
Ids = list[tuple[str, str]]


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningKafka]:
    """A broker of these tests alone: they stop it hard."""
    server = apache_kafka(tmp_path_factory.mktemp("kafka"), ROOT / ".servers/kafka/jars")
    yield enter(server)
    server.__exit__(None, None, None)


@pytest.fixture
def site(broker: RunningKafka) -> Site:
    """Topics on the broker, which is started again where a test before has stopped it."""
    start_again(broker)
    names = TopicNames(f"rest{next(PREFIXES)}.")
    create(broker.bootstrap, plan(names, partitions=2))
    settings = Settings(bootstrap=broker.bootstrap, topic_prefix=names.prefix)
    return Site(settings, Producer({"bootstrap.servers": broker.bootstrap, "log_level": 0}))


def start_again(broker: RunningKafka) -> None:
    if broker.server.process is None:
        port = int(broker.bootstrap.rpartition(":")[2])
        broker.server.start(lambda: answers(port))


def place(site: Site) -> list[str]:
    own = site.settings
    return ["--bootstrap", own.bootstrap, "--topic-prefix", own.topic_prefix, "--timeout-s", "10"]


def lines(folder: Path) -> tuple[Path, Ids]:
    """Write utterances of several conversations."""
    said = [Utterance(f"c{i % 7}", f"u{i}", "s", text=f"number {i}") for i in range(COUNT)]
    file = folder / "talk.jsonl"
    file.write_bytes(b"\n".join(encode(one) for one in said) + b"\n")
    return file, [(one.conversation_id, one.utterance_id) for one in said]


def ids_of(values: list[bytes]) -> Ids:
    events = [json.loads(value) for value in values]
    return [(event["conversation_id"], event["utterance_id"]) for event in events]


def sent(site: Site) -> Ids:
    return ids_of([record.value or b"" for record in site.log(site.settings.topics.utterances)])


@contextmanager
def publishing(site: Site, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run `emotrack publish` until the block ends, from when the first records are in the log."""
    utterances = site.settings.topics.utterances
    command = [sys.executable, "-m", "stream.main", "publish", *arguments, *place(site)]
    command += ["--rate", "50"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:

            def begun() -> bool:
                with suppress(KafkaException):  # no leader for a moment after a topic was made
                    return site.ends(utterances) >= 20
                return process.poll() is not None

            wait_for(begun, "the first records", within_s=60.0)
            yield process
        finally:
            process.kill()


def test_what_the_broker_did_not_take_is_in_the_rest_and_can_be_published(
    broker: RunningKafka, site: Site, tmp_path: Path
) -> None:
    file, ids = lines(tmp_path)
    rest = tmp_path / "rest.jsonl"
    with publishing(site, str(file), "--rest", str(rest)) as process:
        broker.server.stop(hard=True)
        _, said = process.communicate(timeout=60)
    sentence = said.decode()
    assert process.returncode == 9, sentence
    assert "Traceback" not in sentence
    start_again(broker)
    taken, left = sent(site), ids_of(rest.read_bytes().splitlines())
    assert 0 < len(taken) < COUNT and 0 < len(left) < COUNT
    assert left == [one for one in ids if one in set(left)], "in the order of the file"
    assert set(taken) | set(left) == set(ids), "nothing is lost"
    conversation, utterance = left[0]
    first = ids.index(left[0]) + 1
    assert f"is utterance {first} ('{utterance}' of '{conversation}')" in sentence
    assert f"{COUNT - len(left)} utterances are acknowledged" in sentence
    assert f"{len(left)} utterances, are in {rest}: `emotrack publish {rest}`" in sentence
    again = emotrack("publish", str(rest), *place(site))
    assert again.returncode == 0, again.stderr
    assert set(sent(site)) == set(ids)


def test_without_a_file_the_first_is_named_and_the_way_to_go_on(
    broker: RunningKafka, site: Site, tmp_path: Path
) -> None:
    file, _ = lines(tmp_path)
    with publishing(site, str(file)) as process:
        broker.server.stop(hard=True)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 9, said
    assert b"The first without is utterance " in said
    assert b"a worker answers no id twice" in said and b"--rest FILE keeps" in said


def test_a_rest_that_cannot_be_written_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    """And before anything is read: no broker is asked for, and the source is not there either."""
    with pytest.raises(ConfigError, match="cannot be written"):
        run("publish", "nowhere.jsonl", "--rest", str(tmp_path / "nowhere" / "rest"))
    (tmp_path / "rest").write_text("an earlier one")
    with pytest.raises(ConfigError, match="is there already: publish it"):
        run("publish", "nowhere.jsonl", "--rest", str(tmp_path / "rest"))
