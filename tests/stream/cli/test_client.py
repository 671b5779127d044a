"""The commands of the base install, as a user runs them."""

from __future__ import annotations

import base64
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from kafka import KafkaConsumer, TopicPartition

from model.data.writer import write_data_set
from stream import main
from stream.events.messages import Utterance, encode
from stream.events.schemas import EVENT_TYPES
from stream.local.servers import RunningKafka, free_ports
from tests.fakes.console import emotrack
from tests.fakes.conversations import generated_conversations

PREFIXES = itertools.count()


@pytest.mark.integration
def test_lines_published_from_standard_input_are_counted(kafka: RunningKafka) -> None:
    place = ["--bootstrap", kafka.bootstrap, "--topic-prefix", f"cli{next(PREFIXES)}."]
    created = emotrack("topics", "create", *place, "--partitions", "2")
    assert created.stdout.count(b": created\n") == 4, created.stderr
    lines = [encode(Utterance("c", f"u{i}", "s", text="hi")) for i in range(3)]
    published = emotrack("publish", "-", *place, stdin=b"\n".join(lines))
    assert b"published 3 utterances of 1 conversations" in published.stdout, published.stderr
    assert published.returncode == 0
    bad = emotrack("publish", "-", *place, stdin=lines[0] + b"\n{")
    assert bad.returncode != 0
    assert b"line 2" in bad.stderr
    assert b"Traceback" not in bad.stderr
    described = emotrack("topics", "describe", *place, "--partitions", "2")
    assert b"2 partitions, replicas=1, message.timestamp.type=LogAppendTime" in described.stdout
    assert described.returncode == 0
    watched = emotrack("watch", "alerts", *place, "--timeout", "0.5", "--jsonl")
    assert (watched.returncode, watched.stdout) == (0, b"")
    assert b"0 alerts" in watched.stderr


@pytest.mark.integration
def test_a_data_set_folder_is_published_whole(kafka: RunningKafka, tmp_path: Path) -> None:
    data = generated_conversations(12, seed=5)
    write_data_set(tmp_path, data)
    place = ["--bootstrap", kafka.bootstrap, "--topic-prefix", f"cli{next(PREFIXES)}."]
    emotrack("topics", "create", *place)
    published = emotrack("publish", str(tmp_path), *place, "--split", "train")
    talks = data.split("train")
    total = sum(len(talk) for talk in talks)
    expected = f"published {total} utterances of {len(talks)} conversations"
    assert expected.encode() in published.stdout, published.stderr


@pytest.mark.integration
def test_vectors_of_a_file_arrive_with_the_rows_of_a_table(
    kafka: RunningKafka, tmp_path: Path
) -> None:
    prefix = f"cli{next(PREFIXES)}."
    place = ["--bootstrap", kafka.bootstrap, "--topic-prefix", prefix]
    emotrack("topics", "create", *place)
    talk, vectors = tmp_path / "talk.csv", tmp_path / "audio.npz"
    talk.write_text("conversation_id,speaker_id,text\nc,ann,hi\nc,bob,no\n", "utf-8")
    np.savez(vectors, audio=np.array([[0.5] * 8, [np.nan] * 8]))
    published = emotrack("publish", str(talk), *place, "--features", str(vectors))
    assert b"published 2 utterances of 1 conversations" in published.stdout, published.stderr
    values = records_of(kafka.bootstrap, f"{prefix}utterances", 2)
    first, second = (json.loads(value) for value in values)
    assert base64.b64decode(first["features"]["audio"]["tensor"]["data"]) == b"\x00\x38" * 8
    assert (second["text"], "features" in second) == ("no", False)
    np.savez(vectors, audio=np.ones((3, 8)))
    refused = emotrack("publish", str(talk), *place, "--features", str(vectors))
    assert refused.returncode == 7
    assert b"has 3 rows, talk.csv has 2 utterances" in refused.stderr
    assert b"Traceback" not in refused.stderr
    assert len(records_of(kafka.bootstrap, f"{prefix}utterances", 3)) == 2  # nothing was sent


def records_of(bootstrap: str, topic: str, count: int) -> list[bytes]:
    """Return up to `count` values that a topic has now, in order."""
    consumer = KafkaConsumer(
        bootstrap_servers=bootstrap, api_version=(2, 3), consumer_timeout_ms=120_000
    )
    try:
        parts = [TopicPartition(topic, p) for p in sorted(consumer.partitions_for_topic(topic))]
        consumer.assign(parts)
        consumer.seek_to_beginning()
        available = min(count, sum(consumer.end_offsets(parts).values()))
        return [record.value for _, record in zip(range(available), consumer, strict=False)]
    finally:
        consumer.close()


@pytest.mark.parametrize(
    "arguments",
    [["publish", "-"], ["watch"], ["topics", "create"], ["topics", "describe"]],
    ids=" ".join,
)
def test_an_unreachable_broker_is_one_sentence(arguments: list[str]) -> None:
    away = f"127.0.0.1:{free_ports(1)[0]}"
    done = emotrack(*arguments, "--bootstrap", away)
    assert done.returncode == 3
    assert away.encode() in done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.slow
def test_schemas_come_out_as_one_document_or_as_files(tmp_path: Path) -> None:
    done = emotrack("schema", "export", "-")
    assert set(json.loads(done.stdout)) == {*EVENT_TYPES, "asyncapi"}
    emotrack("schema", "export", str(tmp_path))
    assert {path.stem for path in tmp_path.iterdir()} == {*EVENT_TYPES, "asyncapi"}


def test_help_teaches_what_a_line_looks_like() -> None:
    done = emotrack("publish", "--help")
    assert b"conversation_id" in done.stdout


def test_an_error_is_shown_letter_by_letter(capsys: pytest.CaptureFixture[str]) -> None:
    r"""A backslash before a bracket was taken for markup: `\[c]` was not shown."""
    sentence = r"[a] \[c] :smile: pip install 'emotrack[worker]'"
    with pytest.raises(SystemExit) as ended:
        main.end(4, sentence)
    assert ended.value.code == 4
    assert capsys.readouterr().err == f"error: {sentence}\n"
