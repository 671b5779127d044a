"""The shipped model on Kafka and Redis: what is not English abstains, also after a rebuild."""

from __future__ import annotations

import json
from typing import Any

import pytest
import redis

from model.errors import EncoderMissing
from model.registry import load_predictor
from model.text.sentence_encoder import find_encoder
from stream.verify.run import verify_topics
from tests.integration.workers import Site, ThreadWorker, wait_for

pytestmark = [pytest.mark.integration, pytest.mark.slow]

SPOKEN: list[tuple[dict[str, Any], str | None]] = [
    ({"text": "You are so kind, thank you!"}, None),
    ({"text": "I am very angry, never call again!", "language": "zh"}, "language"),
    ({"text": "我很生气，别再给我打电话了。"}, "language"),  # noqa: RUF001
    ({"text": "I am very angry, never call again!"}, None),
    ({"text": "Estoy muy enojado, no me vuelvas a llamar.", "language": "en"}, "language"),
    ({"text": "\u200b"}, "unknown_words"),
    ({"text": "😡😡😡"}, "unknown_words"),
    ({"features": {"audio": {"tensor": [0.0] * 8}}, "language": "ar"}, "language"),
    ({"text": "How lovely to see you!", "language": "en-US"}, None),
    ({"text": "I hate you, leave me alone!"}, None),
]


def test_what_is_outside_of_english_abstains_and_verifies(site: Site) -> None:
    try:
        find_encoder()
    except EncoderMissing as why:
        pytest.skip(str(why))
    half = len(SPOKEN) // 2
    first = ThreadWorker(site.settings).start()
    speak(site, range(half))
    first.end()
    redis.Redis.from_url(site.settings.redis_url).flushdb()  # the rest needs a rebuild
    second = ThreadWorker(site.settings).start()
    try:
        speak(site, range(half, len(SPOKEN)))
        reasons = {"language": 1, "unknown_words": 2}
        for reason, count in reasons.items():
            assert second.metric(f'abstentions_total{{reason="{reason}"}}') == count
        assert second.metric("state_rebuilds_total") > 0
    finally:
        second.end()
    events = [json.loads(r.value or b"") for r in site.log(site.settings.topics.predictions)]
    doubts = [e["reason"] if e["reason"] != "low_confidence" else None for e in events]
    assert doubts == [reason for _, reason in SPOKEN]
    doubted = {e["utterance_id"] for e in events if e["reason"] in ("language", "unknown_words")}
    for record in site.log(site.settings.topics.shift_alerts):
        alert = json.loads(record.value or b"")
        assert {alert["utterance_id"], alert["previous_utterance_id"]}.isdisjoint(doubted)
    report = verify_topics(site.settings, load_predictor())
    assert report.violations == []
    assert report.counts["compared"] == len(SPOKEN)


def speak(site: Site, numbers: range) -> None:
    """Say these in one conversation, by one speaker; return when all are committed."""
    for n in numbers:
        body = {"conversation_id": "c", "utterance_id": f"u{n}", "speaker_id": "ann"}
        site.send(json.dumps(body | SPOKEN[n][0]).encode(), b"c")
    site.flush()
    wait_for(lambda: site.committed() == site.sent, "the commit of every record")
