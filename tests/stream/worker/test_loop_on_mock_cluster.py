"""The worker on librdkafka's own mock cluster, as the demo runs it. No claim about delivery."""

from __future__ import annotations

import json
import threading

import pytest
from confluent_kafka import Producer

from stream import serve
from stream.settings import Settings
from tests.fakes.predictor import SmallPredictor
from tests.integration.workers import ThreadWorker, wait_for


@pytest.mark.slow
def test_utterances_are_answered_on_the_mock_cluster_with_state_in_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(serve, "load_predictor", lambda *args, **kwargs: SmallPredictor())
    broker = Producer({"test.mock.num.brokers": 1, "bootstrap.servers": "", "log_level": 0})
    addresses = broker.list_topics(timeout=10).brokers.values()
    settings = Settings(
        bootstrap=",".join(f"{b.host}:{b.port}" for b in addresses),
        redis_url="memory://",
        mock_broker=True,
        allow_create_time=True,
        metrics_port=0,
    )
    for topic in ("utterances", "predictions", "shift-alerts", "dead-letters"):
        broker.list_topics(f"emotrack.{topic}", timeout=10)
    worker = ThreadWorker(settings, threading.Event()).start()
    for n in range(30):
        name = f"c{n % 3}"
        said = {"conversation_id": name, "utterance_id": f"u{n}", "speaker_id": "s", "text": "x"}
        broker.produce(settings.topics.utterances, json.dumps(said).encode(), name.encode())
    assert broker.flush(10) == 0
    wait_for(lambda: worker.metric("records_committed_total") == 30, "every commit")
    assert worker.metric("predictions_emitted_total") == 30
    assert worker.metric("context_truncated_total") == 0
    assert worker.end() == 0
