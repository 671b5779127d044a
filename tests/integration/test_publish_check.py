"""`emotrack publish --check` with a worker: every utterance's end is named, and true."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, TopicPartition
from typer.testing import CliRunner, Result

from stream import main
from stream.errors import InvalidUtterance, Unanswered
from stream.settings import Settings
from tests.integration.workers import Site, ThreadWorker

pytestmark = pytest.mark.integration

Start = Callable[[Settings], ThreadWorker]


def publish(site: Site, *arguments: str, stdin: bytes = b"") -> Result:
    """Run the command; `result.exception` is what the console would report."""
    where = [
        f"--bootstrap={site.settings.bootstrap}",
        f"--topic-prefix={site.settings.topic_prefix}",
        f"--group={site.settings.group}",
    ]
    return CliRunner().invoke(main.app, ["publish", *arguments, *where], input=stdin)


def talk(path: Path, n: int = 6, conversation: str = "call", **fields: Any) -> str:
    """Write a conversation with vectors that the small model knows."""
    lines = [
        {"conversation_id": conversation, "utterance_id": f"u{i}", "speaker_id": "ann",
         "features": {"audio": {"tensor": [0.5, i / 4]}}} | fields
        for i in range(n)
    ]  # fmt: skip
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    return str(path)


def test_a_file_sent_twice_is_answered_once_and_then_named_as_duplicates(
    site: Site, start: Start, tmp_path: Path
) -> None:
    start(site.settings)
    file = talk(tmp_path / "talk.jsonl")
    first = publish(site, file, "--check")
    assert first.exception is None, first.output
    assert "answered 6 of 6" in first.stdout
    again = publish(site, file, "--check")
    assert isinstance(again.exception, Unanswered)
    assert again.exception.exit_code == 14
    assert "6 of 6 utterances have no answer: 0 dead-lettered, 6 duplicates" in str(again.exception)
    assert "duplicates 6" in again.stdout and "'u0', 'u1'" in again.stdout
    assert "of 'call'" in again.stdout
    empty = tmp_path / "empty.jsonl"
    empty.write_bytes(b"")
    assert "answered 0 of 0" in publish(site, str(empty), "--check").stdout
    other = publish(site, file, "--check", "--id-prefix", "second-")  # the cure
    assert other.exception is None
    assert "answered 6 of 6" in other.stdout


def test_dead_letters_are_told_by_reason_and_sentence_beside_answers(
    site: Site, start: Start, tmp_path: Path
) -> None:
    """Widths of vectors are known to the model alone: the publisher cannot refuse them."""
    start(site.settings)
    good = talk(tmp_path / "good.jsonl", 3)
    bad = talk(tmp_path / "bad.jsonl", 2, "bad", features={"audio": {"tensor": [1, 2, 3]}})
    odd = talk(tmp_path / "odd.jsonl", 1, "odd", seq="3")
    done = publish(site, good, bad, odd, "--check", "--json")
    assert isinstance(done.exception, Unanswered)
    facts = json.loads(done.stdout.splitlines()[-1])  # after the worker's log
    assert facts["published"] == 6
    found = facts["check"]
    assert found["predicted"] + sum(found["abstained"].values()) == 4
    assert found["flags"] == {}, "what was left out is not sent"
    assert "left out or mended" in done.stderr and "`seq` of 1 utterances" in done.stderr
    letters = found["dead_lettered"]["wrong_tensor_size"]
    assert [(one["conversation_id"], one["utterance_id"]) for one in letters] == [
        ("bad", "u0"),
        ("bad", "u1"),
    ]
    assert "has 3 numbers, the model takes 2" in letters[0]["sentence"]
    assert (found["duplicates"], found["waiting"]) == ([], [])
    for_people = publish(site, bad, "--check", "--id-prefix=x")
    assert "dead-lettered 2, wrong_tensor_size:" in for_people.stdout
    assert for_people.stdout.count("has 3 numbers, the model takes 2") == 1


def test_without_a_worker_it_says_so_in_time_and_joins_no_group(site: Site, tmp_path: Path) -> None:
    done = publish(site, talk(tmp_path / "talk.jsonl"), "--check", "--check-timeout", "1")
    assert isinstance(done.exception, Unanswered)
    assert "6 not read yet" in str(done.exception)
    assert f"group {site.settings.group} has not committed them" in done.stdout
    assert "emotrack serve" in done.stdout
    consumer = Consumer(
        {"bootstrap.servers": site.settings.bootstrap, "group.id": site.settings.group}
    )
    parts = [TopicPartition(site.settings.topics.utterances, p) for p in range(site.partitions)]
    assert all(at.offset < 0 for at in consumer.committed(parts, timeout=10))
    consumer.close()


def test_ids_that_files_repeat_with_other_words_are_refused_before_anything_is_sent(
    site: Site, tmp_path: Path
) -> None:
    first = talk(tmp_path / "first.jsonl", 3)
    other = talk(tmp_path / "other.jsonl", 2, speaker_id="bob")
    refused = publish(site, first, other)
    assert isinstance(refused.exception, InvalidUtterance)
    assert refused.exception.exit_code == 8
    sentence = str(refused.exception)
    assert "2 of 5 utterances have an id" in sentence
    assert "first: other.jsonl, line 1: 'u0' of 'call'" in sentence
    assert "--id-prefix" in sentence and "--repeats send" in sentence
    assert site.ends(site.settings.topics.utterances) == 0
    equal = publish(site, first, first)
    assert equal.exception is None
    assert "3 of 6 utterances repeat an id of their conversation (first: first.jsonl" in (
        equal.stderr
    )
    sent = publish(site, first, other, "--repeats=send")
    assert sent.exception is None and "warning: 2 of 5" in sent.stderr
    piped = publish(site, "-", stdin=(tmp_path / "first.jsonl").read_bytes() * 2)
    assert piped.exception is None
    assert "first: standard input, line 4: 'u0' of 'call'" in piped.stderr
