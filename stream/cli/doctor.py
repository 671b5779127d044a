"""`emotrack doctor`: check everything that a worker needs, each part with its cure.

Checks are independent: one that fails does not hide the next. Parts that a client machine does not
need are `absent`, which is no failure.
"""

from __future__ import annotations

import socket
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from http.client import HTTPException
from importlib.util import find_spec
from typing import Final, Literal

import typer

from stream.cli.options import Bootstrap, Model, Prefix, RedisUrl, settings_of
from stream.errors import EmotrackError
from stream.settings import Settings

Status = Literal["ok", "fail", "absent"]
WORKER_INSTALL: Final = "pip install 'emotrack[worker]'"
NOT_A_WORKER: Final = f"a client needs none; for a worker: {WORKER_INSTALL}"


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the report; `says` has the finding or, after a failure, its cure."""

    name: str
    status: Status
    says: str


def doctor(
    context: typer.Context,
    bootstrap: Bootstrap = None,
    topic_prefix: Prefix = None,
    redis_url: RedisUrl = None,
    model: Model = None,
) -> None:
    """Check broker, topics, rights, takeover, Redis, model, device, port; say how to cure them."""
    failed = False
    for check in examine(settings_of(context)):
        typer.echo(f"{check.status.upper():6} {check.name}: {check.says}")
        failed |= check.status == "fail"
    if failed:
        raise typer.Exit(1)


def examine(settings: Settings) -> Iterator[Check]:
    """Run the checks one after the other and yield each result at once."""
    broker = _result("broker", _broker, settings)
    yield broker
    for name, check in (("topics", _topics), ("rights", _rights), ("takeover", _takeover)):
        if broker.status == "ok":
            yield _result(name, check, settings)
        else:
            yield Check(name, "fail", "not looked at: no broker answers us")
    yield _result("redis", _redis, settings)
    yield from _model(settings)
    yield _port(settings)


class _Absent(Exception):
    """A part that this machine does not need; the message says what would need it."""


def _result(name: str, check: Callable[[Settings], str], settings: Settings) -> Check:
    try:
        return Check(name, "ok", check(settings))
    except EmotrackError as error:
        return Check(name, "fail", str(error))
    except _Absent as part:
        return Check(name, "absent", str(part))


def _broker(settings: Settings) -> str:
    from stream.brokers.kafka_admin import connected_admin, misled, unreachable

    with connected_admin(settings.bootstrap, 5.0, settings.security) as admin:
        who = f" as {settings.kafka_username}" if settings.kafka_username else ""
        says = f"{settings.bootstrap} answers over {settings.kafka_security}{who}"
        faults = unreachable(admin)
    return f"{says}; but {misled(settings.bootstrap, faults)}" if faults else says


def _topics(settings: Settings) -> str:
    from stream.brokers.topic_rules import Needs, curing
    from stream.brokers.topic_survey import durability, remarks, require_topics

    names, needs, security = settings.topics, Needs.of(settings), settings.security
    found = require_topics(settings.bootstrap, names, needs=needs, security=security)
    says = (
        f"the four topics {names.prefix}* exist{durability(found, names, needs)}; producers must "
        "use murmur2 (librdkafka: partitioner=murmur2_random)"
    )
    says += "".join(f"; but {remark}" for remark in remarks(found, names, security))
    if found.faults:
        faults = "; ".join(fault.says for fault in found.faults)
        cure = curing(found.faults, settings.bootstrap, names.prefix)
        says += f"; but {faults}. To cure it, {cure}"
    return says


def _rights(settings: Settings) -> str:
    if find_spec("confluent_kafka") is None:
        raise _Absent(NOT_A_WORKER)
    if settings.mock_broker:
        raise _Absent("a mock cluster allows everything")
    from stream.brokers.kafka_config import find_topic_id

    find_topic_id(settings)
    return f"a worker of group {settings.group} may read utterances and write its answers"


def _takeover(settings: Settings) -> str:
    from stream.brokers.takeover import ask

    takeover = ask(settings)
    says = takeover.says
    return says if takeover.cure is None else f"{says}; but that is long: {takeover.cure}"


def _redis(settings: Settings) -> str:
    if settings.in_memory:
        raise _Absent("state is kept in memory: a restart forgets it")
    if find_spec("redis") is None:
        raise _Absent(NOT_A_WORKER)
    from state.redis_store import LIBRARY
    from stream.serve import NO_STATE, open_redis

    with closing(open_redis(settings, NO_STATE)) as store:
        servers = store.servers()
    met = ", ".join(sorted({str(server) for server in servers}))
    count = f" on {len(servers)} primaries" if settings.redis_cluster else ""
    return f"{met}{count}, maxmemory-policy noeviction, function {LIBRARY} answers"


def _model(settings: Settings) -> Iterator[Check]:
    if find_spec("torch") is None:
        for name in ("model", "languages", "device", "encoder"):
            yield Check(name, "absent", NOT_A_WORKER)
        return
    from stream.serve import load_model

    try:
        predictor = load_model(settings)
    except EmotrackError as error:
        yield Check("model", "fail", str(error))
        return
    info = predictor.info
    yield Check("model", "ok", f"{info.name} {info.version}, digest {info.digest}")
    spoken = ", ".join(info.languages)
    yield Check("languages", "ok" if spoken else "absent", spoken or "none stated, none is judged")
    yield Check("device", "ok", f"{predictor.device} (EMOTRACK_DEVICE={settings.device})")
    if predictor.can_encode_text():
        yield Check("encoder", "ok", "raw text can be answered")
        return
    from model.text.sentence_encoder import INSTALL

    says = f"raw text cannot be answered, text vectors can. To install it: {INSTALL}"
    yield Check("encoder", "fail" if settings.encoder else "absent", says)


def _port(settings: Settings) -> Check:
    """Check that a worker could serve its metrics; another worker on the port is no failure."""
    host, port = settings.metrics_host, settings.metrics_port
    try:
        with socket.create_server((host, port)):
            return Check("port", "ok", f"{host}:{port} is free for /metrics")
    except OSError as error:
        try:
            with urllib.request.urlopen(f"http://{host}:{port}/version", timeout=1) as answer:
                worker = b'"emotrack"' in answer.read(4096)
        except (OSError, ValueError, HTTPException):
            worker = False
        if worker:
            says = f"a worker shows its metrics on {host}:{port}; give a second one another port"
            return Check("port", "ok", f"{says} (EMOTRACK_METRICS_PORT)")
        says = f"cannot listen on {host}:{port} for /metrics ({error.strerror}): choose another "
        return Check("port", "fail", says + "EMOTRACK_METRICS_HOST or EMOTRACK_METRICS_PORT")
