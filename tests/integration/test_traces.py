"""A real worker's spans reach a collector; without one it answers and ends all the same."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from stream.local.servers import free_ports
from stream.settings import Settings
from tests.integration.workers import Site, ThreadWorker, wait_for

pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="the extra otel is missing")
from tests.stream.worker.test_tracing import PARENT, TRACE, Collector

pytestmark = pytest.mark.integration
Start = Callable[[Settings], ThreadWorker]
VALUE = b'{"conversation_id": "c", "utterance_id": "u", "speaker_id": "s", "text": "hi"}'


@pytest.mark.parametrize("there", [True, False])
def test_a_worker_answers_with_a_collector_and_without(
    there: bool, site: Site, start: Start
) -> None:
    with Collector() as collector:
        threading.Thread(target=collector.serve_forever, daemon=True).start()
        url = collector.url if there else f"http://127.0.0.1:{free_ports(1)[0]}"
        worker = start(site.settings.model_copy(update={"trace_endpoint": url}))
        site.send(VALUE, b"c", [("traceparent", PARENT)])
        site.flush()
        wait_for(lambda: site.ends(site.settings.topics.predictions) == 1, "the prediction")
        assert worker.end() == 0
        collector.shutdown()
    linked = [link.trace_id.hex() for span in collector.spans() for link in span.links]
    assert linked == ([TRACE] if there else [])
