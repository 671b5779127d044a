"""Whatever a person gives a command: one sentence, an exit code, no traceback."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kafka as kafka_python
import pytest

from stream import main
from stream.brokers.topics import create, plan
from stream.events.cloudevents import PREDICTION_TYPE, event_headers
from stream.events.messages import TopicNames, encode
from stream.local.servers import RunningKafka
from tests.fakes.console import emotrack
from tests.stream.client.test_publisher import PREDICTION

PREFIXES = itertools.count()
ROOT = Path(__file__).parents[3]
LINE = b'{"conversation_id": "c", "utterance_id": "%d", "speaker_id": "s", "text": "hi"}\n'


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["publish", "/none.jsonl"], 7, "cannot read /none.jsonl: No such file"),
        (["publish", "EMPTY"], 7, "folder without a data set"),
        (["publish", "EMPTY/x.csv"], 7, "x.csv"),
        (["publish", "LINES", "--features", "/none.npz"], 7, "/none.npz"),
        (["publish", "LINES", "--bootstrap", "nowhere.invalid:9092"], 3, "nowhere.invalid"),
        (["publish", "LINES", "--bootstrap", "127.0.0.1:1"], 3, "127.0.0.1:1"),
        (["publish", "LINES", "--check", "--bootstrap", "127.0.0.1:1"], 3, "127.0.0.1:1"),
        (["publish", "LINES", "LINES", "--features", "/none.npz"], 7, "/none.npz"),
        (["publish"], 2, "Missing argument"),
        (["watch", "--timeout", "0"], 2, "--timeout"),
        (["watch", "nothing"], 2, "predictions"),
        (["watch", "--out", "/none/x.csv"], 2, "there is no folder /none"),
        (["watch", "--out", "-"], 2, "give a name that ends in .csv, .jsonl, .parquet"),
        (["predict", "/none.jsonl"], 7, "cannot read /none.jsonl: No such file"),
        (["predict", "EMPTY"], 7, "folder without a data set"),
        (["predict", "LINES", "--out", "x.xlsx"], 2, "or - for JSON lines"),
        (["predict", "LINES", "--features", "/none.npz"], 7, "/none.npz"),
        (["predict", "LINES", "--model", "/none"], 6, "/none"),
        (["evaluate", "--data", "EMPTY", "--answers", "-"], 2, "give a name that ends in"),
        (["evaluate", "--data", "EMPTY", "--topic", "t"], 7, "no data set in"),
        (["config", "show", "--config", "EMPTY"], 2, "Is a directory"),
        (["config", "show", "--config", "/none.toml"], 2, "No such file"),
        (["schema", "export", "/proc/none"], 1, "name another file or folder"),
        (["data", "check", "EMPTY"], 7, "no data set in"),
        (["extract", "audio", "/none.wav"], 7, "/none.wav"),
        (["dlq", "list", "--since", "yesterday"], 2, "is no time"),
        (["dlq", "requeue"], 2, "which dead letters"),
        (["serve", "--config", "EMPTY"], 2, "Is a directory"),
        (["serve", "--bootstrap", "127.0.0.1:1"], 3, "127.0.0.1:1"),
        (["verify", "--bootstrap", "127.0.0.1:1"], 2, "127.0.0.1:1"),
        (["conversations", "show", "c", "--bootstrap", "127.0.0.1:1"], 3, "127.0.0.1:1"),
        (["topics", "create", "--bootstrap", "127.0.0.1:1"], 3, "127.0.0.1:1"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "_",
)
def test_broken_input_is_one_sentence_and_an_exit_code(
    arguments: list[str], code: int, words: str, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "talk.jsonl").write_bytes(LINE % 0)
    places = {"EMPTY": tmp_path / "empty", "LINES": tmp_path / "talk.jsonl"}
    for name, place in places.items():
        arguments = [argument.replace(name, str(place)) for argument in arguments]
    done = emotrack(*arguments)
    said = " ".join(done.stderr.decode().replace("│", " ").split())
    assert done.returncode == code, said
    assert words in said
    assert "Traceback" not in said


def test_a_file_without_the_right_to_read_it_is_named(tmp_path: Path) -> None:
    path = tmp_path / "talk.jsonl"
    path.write_bytes(LINE % 0)
    path.chmod(0)
    with contextlib.suppress(PermissionError), path.open("rb"):
        pytest.skip("this user may read everything")
    done = emotrack("publish", str(path))
    assert done.returncode == 7
    assert b"Permission denied" in done.stderr


def test_a_fault_that_no_one_has_foreseen_is_one_line_that_says_where(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for fault in (RuntimeError("first\nsecond"), OSError(5, "input/output"), KeyError("topic")):

        def broken(fault: BaseException = fault) -> None:
            main.unknown(ValueError("so that a frame of ours is on the way"))
            raise fault

        monkeypatch.setattr(main, "app", broken)
        with pytest.raises(SystemExit) as ended:
            main.main()
        assert ended.value.code == 1
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert type(fault).__name__ in said and "please report this line" in said
        assert "stream/main.py:" in said and " main" in said


@pytest.fixture
def place(kafka: RunningKafka) -> tuple[TopicNames, list[str]]:
    names = TopicNames(f"quiet{next(PREFIXES)}.")
    create(kafka.bootstrap, plan(names, partitions=1))
    return names, ["--bootstrap", kafka.bootstrap, "--topic-prefix", names.prefix]


@contextlib.contextmanager
def running(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """The console in a process of its own, with pipes; ended when the test is."""
    process = subprocess.Popen(
        [sys.executable, "-m", "stream.main", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=30)


def predictions(kafka: RunningKafka, topic: str, count: int) -> None:
    headers = event_headers(id="1", type=PREDICTION_TYPE, source="urn:t", encoding="json")
    producer: Any = kafka_python.KafkaProducer(
        bootstrap_servers=kafka.bootstrap, api_version=(2, 3)
    )
    for _ in range(count):
        producer.send(topic, encode(PREDICTION), headers=headers)
    producer.close(timeout=30)


@pytest.mark.integration
@pytest.mark.parametrize("form", [["--jsonl"], []], ids=["jsonl", "table"])
def test_a_reader_that_ends_first_ends_watch_without_a_word(
    kafka: RunningKafka, place: tuple[TopicNames, list[str]], form: list[str]
) -> None:
    """`emotrack watch | head -1`."""
    names, where = place
    predictions(kafka, names.predictions, 2_000)
    with running("watch", *where, "--from-beginning", *form) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline()
        process.stdout.close()
        code = process.wait(30)
        said = process.stderr.read()
    assert code == 1
    assert b"Traceback" not in said and b"Exception" not in said


@pytest.mark.integration
@pytest.mark.parametrize(
    ("arguments", "code"),
    [(["watch", "--jsonl"], 0), (["publish", "-"], 130), (["publish", "-", "--check"], 130)],
    ids=["watch", "publish", "publish --check"],
)
def test_ctrl_c_ends_a_command_without_a_traceback(
    kafka: RunningKafka,
    place: tuple[TopicNames, list[str]],
    arguments: list[str],
    code: int,
) -> None:
    names, where = place
    more = ["--from-beginning"] if arguments[0] == "watch" else []
    predictions(kafka, names.predictions, 1)
    with running(*arguments, *where, *more) as process:
        assert process.stdout is not None and process.stderr is not None and process.stdin
        if more:
            assert json.loads(process.stdout.readline())
        else:  # it has read this line when it is in the topic, and waits for the next
            process.stdin.write(LINE % 0)
            process.stdin.flush()
            wait_for_record(kafka, names.utterances)
        process.send_signal(signal.SIGINT)
        assert process.wait(90) == code
        said = process.stderr.read()
    assert b"Traceback" not in said


def wait_for_record(kafka: RunningKafka, topic: str) -> None:
    consumer: Any = kafka_python.KafkaConsumer(
        topic,
        bootstrap_servers=kafka.bootstrap,
        api_version=(2, 3),
        auto_offset_reset="earliest",
        consumer_timeout_ms=30_000,
    )
    try:
        assert next(iter(consumer), None) is not None
    finally:
        consumer.close()


@pytest.mark.integration
def test_an_unknown_topic_is_named_with_the_command_that_makes_it(
    kafka: RunningKafka, tmp_path: Path
) -> None:
    where = ["--bootstrap", kafka.bootstrap, "--topic-prefix", f"quiet{next(PREFIXES)}."]
    path = tmp_path / "talk.jsonl"
    path.write_bytes(LINE % 0)
    refused = emotrack("publish", str(path), *where)
    assert refused.returncode == 4
    assert b"does not exist" in refused.stderr
    assert f"emotrack topics create --bootstrap {kafka.bootstrap}".encode() in refused.stderr
    assert emotrack("topics", "create", *where).returncode == 0  # the cure
    assert emotrack("publish", str(path), *where).returncode == 0
