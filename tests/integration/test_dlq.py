"""`emotrack dlq` on Apache Kafka: counted, shown, and sent back after a fix."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka import Producer
from typer.testing import CliRunner, Result

from stream import main, serve
from stream.errors import ConfigError, LetterUnfit
from stream.events.dead_letter import REQUEUED
from stream.settings import Settings
from stream.verify.run import verify_topics
from tests.fakes.predictor import SmallPredictor
from tests.integration.test_worker_kafka import POISONS
from tests.integration.workers import Site, ThreadWorker, wait_for

pytestmark = pytest.mark.integration

Start = Callable[[Settings], ThreadWorker]


def dlq(site: Site, *arguments: str, answer: str | None = None) -> Result:
    """Run a command; raise what the console would report."""
    where = [
        f"--bootstrap={site.settings.bootstrap}",
        f"--topic-prefix={site.settings.topic_prefix}",
    ]
    ran = CliRunner().invoke(main.app, ["dlq", *arguments, *where], input=answer)
    if ran.exception is not None and not isinstance(ran.exception, SystemExit):
        raise ran.exception
    return ran


def send_packed(site: Site, value: bytes) -> None:
    """A record that the broker takes because it is small on the wire."""
    settings = {"bootstrap.servers": site.settings.bootstrap, "compression.type": "gzip"}
    producer = Producer({**settings, "message.max.bytes": 3 << 20})
    producer.produce(site.settings.topics.utterances, value, b"k")
    assert producer.flush(30) == 0


def committed(site: Site) -> None:
    site.flush()
    wait_for(lambda: site.committed() == site.ends(site.settings.topics.utterances), "all commits")


def test_letters_of_every_kind_are_counted_and_shown_without_a_word(
    site: Site, start: Start
) -> None:
    start(site.settings)
    for value, key, headers in POISONS.values():
        site.send(value, key, headers)
    send_packed(site, b" " * 1_048_577)
    committed(site)
    listed = json.loads(dlq(site, "list", "--each", "--json").stdout)
    assert {name: pile["letters"] for name, pile in listed["piles"].items()} == dict.fromkeys(
        (*POISONS, "too_large"), 1
    )
    assert dlq(site, "list", "--reason=bad_json").stdout.count("bad_json") == 1
    by_reason = {one["reason"]: one["id"] for one in listed["letters"]}
    shown: dict[str, Any] = json.loads(dlq(site, "show", by_reason["wrong_key"], "--json").stdout)
    assert shown["key"] == "somebody" and shown["can_be_requeued"]
    assert "text: str(2)" in shown["body"] and "hm" not in shown["body"]
    assert "refuses them again" in shown["note"]
    assert '"text": "hm"' in dlq(site, "show", by_reason["wrong_key"], "--body").stdout
    for_people = dlq(site, "show", by_reason["bad_json"]).stdout
    assert "can be requeued  yes" in for_people and "omitted" not in for_people
    large = json.loads(dlq(site, "show", by_reason["too_large"], "--json").stdout)
    assert not large["can_be_requeued"] and "by reference only" in large["why_not"]
    with pytest.raises(LetterUnfit, match="by reference only"):
        dlq(site, "requeue", by_reason["too_large"], "--yes")
    with pytest.raises(LetterUnfit, match="no dead letter nobody-0-1"):
        dlq(site, "requeue", "nobody-0-1", "--yes")
    with pytest.raises(ConfigError, match="which dead letters"):
        dlq(site, "requeue")
    assert dlq(site, "list", "--until=1h").stdout == "0 dead letters\n"


def test_what_is_requeued_after_a_fix_is_answered_as_the_oracle_says(
    site: Site, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker without a sentence encoder dead-letters raw text; the next one has it."""
    bare = start_with(start, site, monkeypatch, SmallPredictor(encodes_text=False))
    for n in range(6):
        for c in range(8):
            if n % 2:
                site.say(f"c{c}", n, text=f"sentence {n}")
            else:
                site.say(f"c{c}", n)
    site.send(b"{", b"c1")
    committed(site)
    assert bare.end() == 0
    buried = json.loads(dlq(site, "list", "--json").stdout)["piles"]
    assert buried["no_text_encoder"]["letters"] == 8 * 3

    before = site.ends(site.settings.topics.utterances)
    dry = dlq(site, "requeue", "--reason=no_text_encoder", "--dry-run")
    assert dry.stdout.startswith("24 dead letters to send")
    assert dlq(site, "requeue", "--reason=no_text_encoder", answer="n\n").exit_code == 1
    assert site.ends(site.settings.topics.utterances) == before, "nothing was sent"

    fixed = start_with(start, site, monkeypatch, SmallPredictor())
    dlq(site, "requeue", "--reason=no_text_encoder", "--yes")
    committed(site)
    again = dlq(site, "requeue", "--reason=no_text_encoder", "--yes")
    assert "requeued 0" in again.stdout, "an interrupted requeue may be run again"
    assert fixed.end() == 0

    log = site.log(site.settings.topics.utterances)
    sent = [r for r in log if REQUEUED in dict(r.headers)]
    assert len(sent) == 24
    originals = {f"{r.topic}-{r.partition}-{r.offset}": r for r in log}
    sources = [originals[(dict(r.headers)[REQUEUED] or b"").decode()] for r in sent]
    for record, source in zip(sent, sources, strict=True):
        assert (record.key, record.value, record.partition) == (
            source.key,
            source.value,
            source.partition,
        )
    for partition in (0, 1):
        offsets = [s.offset for s in sources if s.partition == partition]
        assert offsets == sorted(offsets), "in the order of their log"
    report = verify_topics(site.settings, SmallPredictor(), allow_truncation=False)
    assert report.violations == []
    assert report.counts["compared"] == 8 * 3 + 24
    assert report.counts["dead_letters"] == 25


def test_a_letter_that_fails_again_shows_as_a_loop(site: Site, start: Start) -> None:
    start(site.settings)
    site.send(b"{", b"c")
    committed(site)
    dlq(site, "requeue", "--all", "--yes")
    committed(site)
    listed = json.loads(dlq(site, "list", "--each", "--json").stdout)
    assert listed["piles"]["bad_json"]["letters"] == 2
    assert listed["piles"]["bad_json"]["requeued_before"] == 1
    assert [one["requeued"] for one in listed["letters"]] == [0, 1]


def start_with(
    start: Start, site: Site, monkeypatch: pytest.MonkeyPatch, predictor: SmallPredictor
) -> ThreadWorker:
    monkeypatch.setattr(serve, "load_predictor", lambda *args, **kwargs: predictor)
    return start(site.settings)
