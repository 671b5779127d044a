"""`emotrack verify` of a part, and of topics that change under it, on real servers.

What is left out is never a violation, and a true one is found in what is looked at.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import kafka as kafka_python
import pytest
from confluent_kafka import TopicPartition
from typer.testing import CliRunner

from state.window import Recurrence
from stream import main
from stream.cli import verify as verify_command
from stream.settings import Settings
from stream.verify.run import verify_topics
from stream.verify.selection import Selection
from tests.fakes.predictor import SmallPredictor
from tests.integration.test_verify_kafka import flags
from tests.integration.test_worker_kafka import talk
from tests.integration.workers import Site, ThreadWorker, wait_for

pytestmark = pytest.mark.integration

Start = Callable[[Settings], ThreadWorker]


def answered(site: Site) -> None:
    """Wait until all that was sent is committed."""
    wait_for(lambda: site.committed() == site.sent, "the commit of every record")


def forge(site: Site, index: int, **fields: Any) -> None:
    """Append an answer that differs from the one at `index` of the predictions."""
    record = site.log(site.settings.topics.predictions)[index]
    body = json.dumps(json.loads(record.value or b"") | fields).encode()
    site.producer.produce(record.topic, body, record.key, headers=list(record.headers))
    site.flush()


def now_ms() -> int:
    return int(time.time() * 1000)


def test_since_looks_at_what_came_later_with_its_context(site: Site, start: Start) -> None:
    """Conversations that were open then are recomputed from their beginning, and so equal."""
    worker = start(site.settings)
    talk(site, range(10))
    answered(site)
    before, at = site.sent, now_ms()
    time.sleep(0.01)  # the broker's time of what follows is later
    talk(site, range(10, 16))
    site.say("new", 0)
    site.flush()
    answered(site)
    assert worker.end() == 0
    report = verify_topics(site.settings, SmallPredictor(), selection=Selection(since_ms=at))
    assert report.violations == []
    counts = report.counts
    assert counts["records"] == counts["committed"] == counts["compared"] == site.sent - before
    assert counts["context"] == before, "all of it belongs to open sessions"
    assert counts["states"] == 13 and counts["undecided"] == counts["before_log"] == 0
    assert f"{before:,} records before " in report.left_out[0]
    assert report.as_json()["selection"]["since_ms"] == at

    # A window that cannot be read back: sessions are at most as long as a hundredth of a second.
    none = SmallPredictor(recurrence=Recurrence(window=3, max_session_s=0.005, idle_s=0.005))
    short = verify_topics(site.settings, none, selection=Selection(since_ms=at))
    assert short.counts["context"] == 0, "nothing earlier can be context of a session so short"


def test_an_answer_that_is_missing_or_wrong_since_then_is_found(site: Site, start: Start) -> None:
    worker = start(site.settings)
    talk(site, range(4))
    answered(site)
    forge(site, 0, sentiment="mixed")
    time.sleep(0.01)
    at = now_ms()
    talk(site, range(4, 6))
    answered(site)
    assert worker.end() == 0
    later = Selection(since_ms=at)
    assert verify_topics(site.settings, SmallPredictor(), selection=later).violations == []
    assert len(verify_topics(site.settings, SmallPredictor()).violations) == 1
    forge(site, -1, sentiment="mixed")
    found = verify_topics(site.settings, SmallPredictor(), selection=later).violations
    assert [v.invariant.name for v in found] == ["I2"]


def test_partitions_and_samples_together_are_the_whole(site: Site, start: Start) -> None:
    worker = start(site.settings)
    talk(site, range(12))
    answered(site)
    assert worker.end() == 0
    whole = verify_topics(site.settings, SmallPredictor())

    def counts(**chosen: Any) -> Mapping[str, int]:
        report = verify_topics(site.settings, SmallPredictor(), selection=Selection(**chosen))
        assert report.violations == [] and report.left_out
        return report.counts

    by_partition = [counts(partitions=frozenset({p})) for p in range(site.partitions)]
    sample = counts(share=0.4)
    both = counts(share=0.4, partitions=frozenset({0}))
    for name in ("records", "committed", "compared", "alerts", "states"):
        assert sum(one[name] for one in by_partition) == whole.counts[name] > 0
        assert 0 < sample[name] < whole.counts[name]
        assert both[name] <= min(sample[name], by_partition[0][name])
    assert sample["unsampled"] == whole.counts["records"] - sample["records"]


def test_a_log_larger_than_memory_is_checked_in_passes(site: Site, start: Start) -> None:
    """The counts are those of one pass, and no pass holds all answers."""
    worker = start(site.settings)
    talk(site, range(10))
    site.send(b"{", b"poison")
    site.flush()
    answered(site)
    assert worker.end() == 0
    forge(site, 5, sentiment="mixed")
    whole = verify_topics(site.settings, SmallPredictor())
    seen: list[tuple[int, int]] = []
    parts = verify_topics(
        site.settings,
        SmallPredictor(),
        most_answers=60,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert parts.counts == whole.counts and parts.totals == whole.totals
    assert whole.totals.total() == 1
    assert seen == sorted(seen) and seen[-1][0] == seen[-1][1]
    assert seen[-1][1] > 2 * (site.sent + site.ends(site.settings.topics.predictions))


def test_records_that_retention_deletes_under_it_are_no_violation(site: Site, start: Start) -> None:
    """A long verify of a running system: the first records are gone before they are read."""
    worker = start(site.settings)
    talk(site, range(12))
    answered(site)
    assert worker.end() == 0
    topics, deleted = site.settings.topics, list[int]()

    def delete(_done: int, _total: int) -> None:
        if not deleted:  # the outputs of the first partition are read, no input is
            deleted.append(1)
            parts = [TopicPartition(topics.utterances, p, 30) for p in range(site.partitions)]
            delete_records(site.settings.bootstrap, parts)

    report = verify_topics(site.settings, SmallPredictor(), progress=delete)
    assert report.violations == []
    assert report.counts["lost"] == 30 * site.partitions
    assert report.counts["records"] == site.sent - 30 * site.partitions


def delete_records(bootstrap: str, before: list[TopicPartition]) -> None:
    """Delete all records before these offsets."""
    admin = kafka_python.KafkaAdminClient(bootstrap_servers=bootstrap)
    admin.delete_records(
        {kafka_python.TopicPartition(at.topic, at.partition): at.offset for at in before}
    )
    admin.close()


def test_workers_that_go_on_meanwhile_cause_no_violation(site: Site, start: Start) -> None:
    """Nothing after the ends that were read at the start is looked at."""
    worker = start(site.settings)
    talk(site, range(6))
    answered(site)
    at, sent = now_ms() - 60_000, site.sent

    def more(_done: int, _total: int) -> None:
        talk(site, range(site.sent, site.sent + 1))

    for chosen in (Selection(), Selection(since_ms=at), Selection(share=0.5)):
        report = verify_topics(site.settings, SmallPredictor(), selection=chosen, progress=more)
        assert report.violations == []
        assert report.counts["compared"] > 0
        assert report.counts["open"] == report.counts["records"] - report.counts["compared"]
    assert site.sent > sent
    assert worker.end() == 0


def test_the_command_says_what_it_left_out_and_how_far_it_is(
    site: Site, start: Start, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    worker = start(site.settings)
    talk(site, range(6))
    answered(site)
    assert worker.end() == 0
    monkeypatch.setattr(verify_command, "LINE_EVERY_S", 0.0)
    file = tmp_path / "report.json"
    arguments = ["--since", "1h", "--partition", "0", "--sample", "50%", f"--json={file}"]
    told = CliRunner().invoke(main.app, ["verify", *flags(site.settings), *arguments])
    assert told.exit_code == 0, told.output
    for sentence in (
        "not looked at: partitions 1; so not if `moved` is right",
        "not looked at: 50 % of the conversations",
        "not looked at: 0 records before ",
        "verifying: ",
        " s left",
    ):
        assert sentence in told.output
    written = json.loads(file.read_text())
    assert written["selection"]["share"] == 0.5 and written["selection"]["partitions"] == [0]
    assert len(written["left_out"]) == 3

    def refused(*flags_: str) -> str:
        said = CliRunner().invoke(main.app, ["verify", *flags(site.settings), *flags_])
        assert isinstance(said.exception, verify_command.CannotVerify)
        assert said.exception.exit_code == 2
        return str(said.exception)

    assert "has the partitions 0 to 1: --partition 7 is none" in refused("--partition", "7")
    assert "is no share: write 0.1 or 10%" in refused("--sample", "0")
    assert "is no share: write 0.1 or 10%" in refused("--sample", "110%")
    assert "is no time: write" in refused("--since", "yesterday")
    later = datetime.fromtimestamp(time.time() + 7200, UTC).strftime("%Y-%m-%dT%H:%M")
    assert "is in the future: times are UTC" in refused("--since", later)
