"""Spans reach a collector over OTLP; one that is away costs spans only; off costs nothing."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from structlog.testing import capture_logs

from stream.errors import ConfigError
from stream.events.cloudevents import read_envelope
from stream.events.messages import Utterance
from stream.local.servers import free_ports
from stream.ports import Record
from stream.settings import Settings, load_settings
from stream.worker.batcher import Item
from stream.worker.pipeline import Result, Step

pytest.importorskip("opentelemetry.sdk", reason="the extra otel is not installed")
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
)

from stream.worker.tracing import EXPORT_S, Tracing

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{SPAN}-01".encode()


class Collector(ThreadingHTTPServer):
    """Takes OTLP over HTTP and keeps what it is sent."""

    def __init__(self) -> None:
        self.requests: list[ExportTraceServiceRequest] = []
        self.paths: list[str] = []
        super().__init__(("127.0.0.1", 0), _Handler)

    def spans(self) -> list[Any]:
        return [
            s
            for r in self.requests
            for rs in r.resource_spans
            for ss in rs.scope_spans
            for s in ss.spans
        ]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert isinstance(self.server, Collector)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.paths.append(self.path)
        self.server.requests.append(ExportTraceServiceRequest.FromString(body))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing to say."""


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def result(conversation: str, offset: int, *headers: tuple[str, bytes]) -> Result:
    record = Record("t", 3, offset, 1_000, conversation.encode(), b"{}", headers)
    utterance = Utterance(conversation, f"u{offset}", "s", text="hi")
    item = Item(record, utterance, None, 0.0, envelope=read_envelope(headers))
    return Result(item, "predicted")


def step() -> Step:
    traced = result("call-7", 11, ("traceparent", PARENT), ("tracestate", b"vendor=1"))
    return Step(results=[traced, result("call-8", 12)], load_s=0.1, infer_s=0.2, save_s=0.3)


def attributes(of: Any) -> dict[str, Any]:
    return {a.key: getattr(a.value, a.value.WhichOneof("value")) for a in of.attributes}


def exported(collector: Collector, **more: Any) -> Any:
    tracing = Tracing(Settings(trace_endpoint=collector.url, **more))
    tracing.batch(step(), 1_700_000_000_000, 0.5)
    tracing.close()
    (span,) = collector.spans()
    return span


def test_a_batch_is_one_span_linked_to_its_utterances_traces(collector: Collector) -> None:
    span = exported(collector)
    assert collector.paths == ["/v1/traces"]
    assert span.name == "emotrack.utterances process"
    assert span.end_time_unix_nano - span.start_time_unix_nano == 500_000_000
    assert span.end_time_unix_nano == 1_700_000_000_000_000_000
    said = attributes(span)
    assert said["messaging.batch.message_count"] == 2
    assert said["emotrack.outcomes.predicted"] == 2
    assert said["emotrack.inference_s"] == 0.2
    (link,) = span.links
    assert (link.trace_id.hex(), link.span_id.hex()) == (TRACE, SPAN)
    assert attributes(link)["messaging.kafka.offset"] == 11


def test_a_conversation_is_a_hash_unless_it_may_be_named(collector: Collector) -> None:
    span = exported(collector)
    hash_of_call_7 = hashlib.blake2b(b"call-7", digest_size=8).hexdigest()
    assert attributes(span.links[0])["emotrack.conversation.hash"] == hash_of_call_7
    assert b"call-7" not in collector.requests[0].SerializeToString()
    collector.requests.clear()
    span = exported(collector, trace_conversation_ids=True)
    assert attributes(span.links[0])["emotrack.conversation.id"] == "call-7"


@pytest.mark.slow
def test_a_collector_that_is_away_is_logged_once_and_blocks_nothing() -> None:
    address = f"http://127.0.0.1:{free_ports(1)[0]}"
    with capture_logs() as logs:
        tracing = Tracing(Settings(trace_endpoint=address))
        began = time.monotonic()
        for _ in range(2_500):  # more than the queue holds
            tracing.batch(step(), 1, 0.0)
        in_batches = time.monotonic() - began
        tracing.close()
        in_all = time.monotonic() - began
    warnings = [entry for entry in logs if entry["log_level"] == "warning"]
    assert [entry["event"] for entry in warnings] == ["traces are not delivered"]
    assert address in warnings[0]["endpoint"]
    assert in_all - in_batches < 4 * EXPORT_S + 5


def test_a_collector_that_comes_back_is_logged_too(collector: Collector) -> None:
    from stream.worker.tracing import LoggedExporter

    answers = iter([1, 1, 0, 0])

    class Flaky:
        def export(self, _spans: Any) -> Any:
            from opentelemetry.sdk.trace.export import SpanExportResult

            return SpanExportResult(next(answers))

    with capture_logs() as logs:
        exporter = LoggedExporter(Flaky(), "e")  # type: ignore[arg-type]  # all that is used of one
        for _ in range(4):
            exporter.export([])
    assert [e["event"] for e in logs] == ["traces are not delivered", "traces are delivered again"]


def test_without_an_endpoint_nothing_of_it_is_imported() -> None:
    ours = (
        "{'stream.worker.tracing', 'opentelemetry.exporter'}"  # redis-py takes the rest where it is
    )
    program = f"import sys, stream.serve; sys.exit(bool({ours} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_without_the_extra_the_cure_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from contextlib import ExitStack

    from stream import serve

    monkeypatch.delitem(sys.modules, "stream.worker.tracing")
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with (
        pytest.raises(ConfigError, match=r"pip install 'emotrack\[worker,otel\]'"),
        ExitStack() as e,
    ):
        serve.tracing(Settings(trace_endpoint="http://h"), e)
    assert serve.tracing(Settings(), ExitStack()) is None


@pytest.mark.parametrize("url", ["collector:4318", "ftp://h", "http://user:hunter2@h"])
def test_an_endpoint_that_is_none_is_one_sentence(url: str) -> None:
    says = "EMOTRACK_TRACE_ENDPOINT: must read http://HOST:4318"
    with pytest.raises(ConfigError, match=says) as met:
        load_settings({"trace_endpoint": url})
    assert "hunter2" not in str(met.value)
