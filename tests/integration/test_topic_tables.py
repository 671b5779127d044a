"""Answers on a real topic become tables: `evaluate --topic` with the labels of a set, `watch`."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stream.settings import Settings
from tests.fakes import console
from tests.integration.workers import Site, ThreadWorker

pytestmark = pytest.mark.integration
LABELS = ("calm", "joy", "anger")


@pytest.fixture
def calls(tmp_path: Path) -> Path:
    """Six calls with labels, in a table and as a set."""
    rows = ["call_id,turn,speaker,transcript,emotion"]
    rows += [f"c{c},{t},s{t % 2},words {c * t},{LABELS[(c + t) % 3]}" for c in range(6)
             for t in range(5)]  # fmt: skip
    (tmp_path / "calls.csv").write_text("\n".join(rows) + "\n")
    console.run("data", "convert", str(tmp_path / "calls.csv"), "--out", str(tmp_path / "calls"))
    return tmp_path


def read(file: Path) -> list[dict[str, Any]]:
    with file.open(encoding="utf-8", newline="") as rows:
        return list(csv.DictReader(rows))


def test_answers_of_a_topic_meet_the_labels_of_the_set(
    site: Site, start: Callable[[Settings], ThreadWorker], calls: Path
) -> None:
    start(site.settings)
    at, topics = ("--bootstrap", site.settings.bootstrap), site.settings.topics
    mine = (*at, "--topic-prefix", site.settings.topic_prefix)
    site.sent = 30
    console.run("publish", str(calls / "calls.csv"), *mine, "--group", site.settings.group,
                "--check")  # fmt: skip
    labels = {(r["call_id"], r["turn"]): r["emotion"] for r in read(calls / "calls.csv")}
    topic = ("--data", str(calls / "calls"), "--topic", topics.predictions, *at)
    joined = calls / "joined.csv"
    ledger = calls / "ledger.csv"
    for split in ("train", "test"):
        how = ("--split", split, "--ledger", str(ledger), "--answers", str(joined))
        printed = console.run("evaluate", *topic, *how)
        rows = read(joined)
        assert rows and f"{len(rows)} of {len(rows)}" in printed
        right = [labels[r["conversation_id"], r["utterance_id"]] == r["emotion"] for r in rows]
        assert [row["right"] == "true" for row in rows] == right
        assert f"{100 * sum(right) / len(right):.1f}" in printed and "nan" not in printed
    (look,) = read(ledger)
    assert look["checkpoint"] == "d" * 64 and int(look["utterances"]) == len(rows)
    watched = calls / "watched.csv"
    reads = ("--from-beginning", "--timeout", "3", "--out", str(watched), *mine)
    assert "30 predictions" in console.run("watch", "predictions", *reads)
    by_id = {(r["conversation_id"], r["utterance_id"]): r for r in read(watched)}
    assert by_id.keys() == labels.keys()
    for record in site.log(topics.predictions):
        event = json.loads(record.value or b"")
        row = by_id[event["conversation_id"], event["utterance_id"]]
        assert {f"p_{n}": str(p) for n, p in event["probabilities"].items()}.items() <= row.items()
    with pytest.raises(Exception, match="is there already"):
        console.run("watch", "predictions", *reads)
