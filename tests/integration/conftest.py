"""Fresh topics on real Kafka, a real Redis, and workers that end with the test."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from stream import serve
from stream.local.servers import RunningKafka, RunningRedis
from stream.settings import Settings
from tests.fakes.predictor import SmallPredictor
from tests.integration.workers import Site, ThreadWorker, new_site


@pytest.fixture
def site(kafka: RunningKafka, redis_server: RunningRedis) -> Site:
    """Fresh topics with broker time, and the session's Redis."""
    return new_site(kafka, redis_server)


@pytest.fixture
def small_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers started in this process load the small model."""
    monkeypatch.setattr(serve, "load_predictor", lambda *args, **kwargs: SmallPredictor())


@pytest.fixture
def start(small_model: None) -> Iterator[Callable[[Settings], ThreadWorker]]:
    """Start workers as threads; what is still running at the end is drained."""
    running: list[ThreadWorker] = []

    def begin(settings: Settings) -> ThreadWorker:
        running.append(ThreadWorker(settings).start())
        return running[-1]

    yield begin
    for worker in running:
        worker.end()
