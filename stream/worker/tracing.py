"""Spans to an OpenTelemetry collector: one for each batch, linked to its utterances' traces.

Imported only where `trace_endpoint` is set: nothing here costs anything otherwise. A conversation
is named by a hash, unless `trace_conversation_ids`. Export happens on a thread of its own from a
bounded queue: spans are lost while the collector is away, which is logged once.
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import version
from typing import Final
from urllib.parse import urlsplit

import structlog
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import Link, SpanContext, SpanKind, TraceFlags

from stream.events.messages import Utterance
from stream.settings import Settings
from stream.worker.pipeline import Result, Step

EXPORT_S: Final = 2.0  # longest wait for a collector, also at the end
QUEUE: Final = 2_048  # spans queued while it does not answer; more are dropped
MS: Final = 1_000_000  # nanoseconds

log = structlog.get_logger()


class LoggedExporter(SpanExporter):
    """Exports through another exporter, and logs once when it begins to fail or works again."""

    def __init__(self, inner: SpanExporter, endpoint: str) -> None:
        self._inner, self._endpoint, self._away = inner, endpoint, False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._inner.export(spans)
        failed = result is not SpanExportResult.SUCCESS
        if failed and not self._away:
            log.warning(
                "traces are not delivered",
                endpoint=self._endpoint,
                cure="start the collector, correct EMOTRACK_TRACE_ENDPOINT, or leave it unset",
            )
        elif self._away and not failed:
            log.info("traces are delivered again", endpoint=self._endpoint)
        self._away = failed
        return result

    def shutdown(self) -> None:
        self._inner.shutdown()


class Tracing:
    """Writes the span of a batch when its answers are acknowledged."""

    def __init__(self, settings: Settings) -> None:
        """Connect on first export. Needs `trace_endpoint`."""
        endpoint = settings.trace_endpoint or ""
        if not urlsplit(endpoint).path.strip("/"):
            endpoint = f"{endpoint.rstrip('/')}/v1/traces"  # the standard's path
        # It would log each failure; `LoggedExporter` logs the first.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
        exporter = OTLPSpanExporter(endpoint=endpoint, timeout=EXPORT_S)
        self._processor = BatchSpanProcessor(
            LoggedExporter(exporter, endpoint),
            max_queue_size=QUEUE,
            export_timeout_millis=EXPORT_S * 1000,
        )
        self._provider = TracerProvider(
            resource=Resource.create(
                {"service.name": "emotrack", "service.version": version("emotrack")}
            ),
            span_limits=SpanLimits(max_links=settings.batch_max),
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(self._processor)
        self._tracer = self._provider.get_tracer("emotrack")
        self._topic, self._named = settings.topics.utterances, settings.trace_conversation_ids

    def batch(self, step: Step, ended_ms: int, took_s: float) -> None:
        """Write the span of a batch, from release to acknowledgement; `ended_ms` is epoch time."""
        outcomes = Counter(result.outcome for result in step.results)
        span = self._tracer.start_span(
            f"{self._topic} process",
            kind=SpanKind.CONSUMER,
            links=[link for result in step.results if (link := self._link(result)) is not None],
            start_time=ended_ms * MS - int(took_s * 1e9),
            attributes={
                "messaging.system": "kafka",
                "messaging.operation.type": "process",
                "messaging.destination.name": self._topic,
                "messaging.batch.message_count": len(step.results),
                "emotrack.state_load_s": step.load_s,
                "emotrack.inference_s": step.infer_s,
                "emotrack.state_save_s": step.save_s,
                **{f"emotrack.outcomes.{name}": count for name, count in outcomes.items()},
            },
        )
        span.end(end_time=ended_ms * MS)

    def _link(self, result: Result) -> Link | None:
        """Return a link to the trace of an utterance; None where it has none."""
        record, message, envelope = result.item.record, result.item.message, result.item.envelope
        if envelope.traceparent is None:
            return None
        _, trace, span, flags = envelope.traceparent.split("-")
        context = SpanContext(int(trace, 16), int(span, 16), True, TraceFlags(int(flags, 16)))
        attributes: dict[str, str | int] = {
            "messaging.destination.partition.id": str(record.partition),
            "messaging.kafka.offset": record.offset,
        }
        if isinstance(message, Utterance):
            id_hash = hashlib.blake2b(message.conversation_id.encode(), digest_size=8)
            attributes["emotrack.conversation.hash"] = id_hash.hexdigest()
            if self._named:
                attributes["emotrack.conversation.id"] = message.conversation_id
        return Link(context, attributes) if context.is_valid else None

    def close(self) -> None:
        """Export the queued spans, for at most a few seconds; idempotent."""
        self._processor.force_flush(int(EXPORT_S * 1000))
        self._provider.shutdown()
