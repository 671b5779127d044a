"""`emotrack verify` on what real workers left in Apache Kafka and redis-server."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec import structs
from typer.testing import CliRunner

from state import redis_reader, redis_store
from state.window import StateKey
from stream import main
from stream.settings import Settings
from stream.verify.run import verify_topics
from tests.fakes.predictor import SmallPredictor
from tests.integration.test_worker_kafka import POISONS, talk
from tests.integration.workers import ChildWorker, Site, ThreadWorker, wait_for

pytestmark = pytest.mark.integration

Start = Callable[[Settings], ThreadWorker]


def flags(settings: Settings) -> list[str]:
    """Return the command's arguments for a site."""
    return [
        f"--bootstrap={settings.bootstrap}",
        f"--redis-url={settings.redis_url}",
        f"--topic-prefix={settings.topic_prefix}",
        f"--group={settings.group}",
    ]


def test_an_honest_worker_has_no_violation_and_a_forged_answer_is_named(
    site: Site, start: Start, tmp_path: Path
) -> None:
    """Poison of every kind, a tombstone and duplicates are in the log; the command says so, too."""
    worker = start(site.settings)
    talk(site, range(20))
    for value, key, headers in POISONS.values():
        site.send(value, key, headers)
    site.send(None, b"c1")
    talk(site, range(18, 22))
    wait_for(lambda: site.committed() == site.sent, "the commit of every record")
    seen: list[tuple[int, int]] = []
    report = verify_topics(
        site.settings, SmallPredictor(), progress=lambda done, total: seen.append((done, total))
    )
    assert report.violations == []
    counts = report.counts
    assert counts["records"] == counts["committed"] == site.sent
    assert counts["predictions"] == counts["compared"] == 12 * 22
    assert counts["dead_letters"] == len(POISONS)
    assert (counts["duplicates"], counts["controls"]) == (12 * 2, 1)
    assert counts["alerts"] > 0
    assert counts["states"] + counts["states_missing"] == 12 + 1, "one was only ever dead-lettered"
    assert seen == sorted(seen) and seen[-1][0] == seen[-1][1] > site.sent

    forged = site.log(site.settings.topics.predictions)[7]
    body = json.loads(forged.value or b"") | {"sentiment": "mixed"}
    site.producer.produce(
        forged.topic, json.dumps(body).encode(), forged.key, headers=list(forged.headers)
    )
    site.flush()
    file = tmp_path / "reports" / "verify.json"
    told = CliRunner().invoke(main.app, ["verify", *flags(site.settings), f"--json={file}"])
    assert told.exit_code == 1, told.output
    assert "I2  1 violations" in told.output and "I5  ok" in told.output
    stranger = CliRunner().invoke(main.app, ["verify", *flags(site.settings), "--group=other"])
    assert "is --group that of the workers?" in stranger.output
    written = json.loads(file.read_text())
    (violation,) = written["violations"]
    assert violation["invariant"] == "I2" and violation["conversation"] == body["conversation_id"]
    assert violation["topic"] == site.settings.topics.predictions
    assert worker.end() == 0


def test_after_a_kill_the_verifier_has_nothing_to_say(site: Site, tmp_path: Path) -> None:
    """It also runs while workers do: what is not committed yet may be unanswered."""
    settings = site.settings.model_copy(update={"batch_max": 4, "max_uncommitted": 40})
    first = ChildWorker(settings, tmp_path)
    try:
        first.wait_ready()
        talk(site, range(30))
        wait_for(lambda: site.ends(settings.topics.predictions) >= 60, "the first predictions")
        meanwhile = verify_topics(settings, SmallPredictor())
        assert meanwhile.violations == []
        assert 0 < meanwhile.counts["compared"] < site.sent
        first.process.send_signal(signal.SIGKILL)
        first.process.wait(10)
        assert site.committed() < site.sent, "it was killed in mid-stream"
        second = ChildWorker(settings, tmp_path)
        try:
            wait_for(lambda: site.committed() == site.sent, "the successor's commits")
        finally:
            second.end()
    finally:
        first.end()
    report = verify_topics(settings, SmallPredictor(), allow_truncation=False)
    assert report.violations == []
    assert report.counts["compared"] == site.sent
    assert report.counts["states"] == 12


def test_what_cannot_be_verified_ends_with_2(
    site: Site, small_model: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def exit_code(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["emotrack", "verify", *arguments])
        with pytest.raises(SystemExit) as ended:
            main.main()
        assert isinstance(ended.value.code, int)
        return ended.value.code

    assert exit_code(*flags(site.settings)) == 0, "nothing was said: nothing is wrong"
    assert exit_code("--bootstrap=127.0.0.1:1") == 2
    assert exit_code(*flags(site.settings), "--topic-prefix=nowhere.") == 2
    site.say("c", 0)
    site.flush()
    assert exit_code(*flags(site.settings), "--redis-url=redis://127.0.0.1:1/0") == 2
    (tmp_path / "file").touch()
    assert exit_code(*flags(site.settings), f"--json={tmp_path}/file/report.json") == 2


def test_the_readers_key_schema_is_the_workers() -> None:
    """It is written down twice on purpose: the verifier shares no code with the store."""
    key = StateKey("call {7}", "topic", 3)
    for one in (key, structs.replace(key, partition=4), structs.replace(key, conversation_id="")):
        assert redis_reader.state_keys(one) == redis_store.state_keys(one)
        assert redis_reader.noted_key(one) == redis_store.noted_key(one)
