"""What stands between this machine and a running tracker, and how to cure it.

Each check is on its own: one that fails does not hide the next. Parts that a client machine does
not need are `absent`, which is no failure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final, Literal

from stream.client import require_broker
from stream.errors import EmotrackError
from stream.topics import TopicNames, describe, plan, require_topics

Status = Literal["ok", "fail", "absent"]
WORKER_INSTALL: Final = "pip install 'emotrack[worker]'"


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the report: what was looked at, and what to do where it failed."""

    name: str
    status: Status
    says: str


@dataclass(frozen=True, slots=True)
class Patient:
    """What is examined."""

    bootstrap: str
    names: TopicNames
    redis_url: str
    model: Path | None = None
    encoder: Path | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
    allow_create_time: bool = False


def examine(patient: Patient) -> Iterator[Check]:
    """Run the checks one after the other, each as it is done."""
    broker = _checked("broker", lambda: _broker(patient))
    yield broker
    if broker.status == "ok":
        yield _checked("topics", lambda: _topics(patient))
    else:
        yield Check("topics", "fail", "not looked at: no broker answers")
    yield _redis(patient)
    yield from _model(patient)


def healthy(checks: list[Check]) -> bool:
    """Whether nothing failed."""
    return all(check.status != "fail" for check in checks)


def _checked(name: str, look: Callable[[], str]) -> Check:
    try:
        return Check(name, "ok", look())
    except EmotrackError as error:
        return Check(name, "fail", str(error))


def _broker(patient: Patient) -> str:
    require_broker(patient.bootstrap, timeout_s=5.0)
    return f"{patient.bootstrap} accepts connections"


def _topics(patient: Patient) -> str:
    require_topics(patient.bootstrap, patient.names, allow_create_time=patient.allow_create_time)
    if patient.allow_create_time:  # a mock cluster describes nothing
        return f"the four topics {patient.names.prefix}* exist"
    found = describe(patient.bootstrap, plan(patient.names))
    partitions = {report.partitions for report in found}
    small = [
        difference
        for report in found
        for difference in report.differs
        if difference.startswith("max.message.bytes")
    ]
    said = f"the four topics {patient.names.prefix}* exist, {sorted(partitions)} partitions"
    said += "; producers must use murmur2 (librdkafka: partitioner=murmur2_random)"
    return said + (f"; but {'; '.join(small)}" if small else "")


def _redis(patient: Patient) -> Check:
    if patient.redis_url.startswith("memory:"):
        return Check("redis", "absent", "state is kept in memory: a restart forgets it")
    if find_spec("redis") is None:
        return Check("redis", "absent", f"a client needs none; for a worker: {WORKER_INSTALL}")
    from state.redis_store import RedisStore
    from state.store import StoreError
    from state.window import Recurrence, StateSpec

    try:
        store = RedisStore(StateSpec((), (), (), Recurrence(), "doctor"), patient.redis_url)
        try:
            store.check()
        finally:
            store.close()
    except StoreError as error:
        return Check("redis", "fail", str(error))
    return Check("redis", "ok", "version, eviction policy and our function are as they must be")


def _model(patient: Patient) -> Iterator[Check]:
    if find_spec("torch") is None:
        yield Check("model", "absent", f"a client needs none; for a worker: {WORKER_INSTALL}")
        return
    from model.predictor import ModelError, load_predictor

    try:
        predictor = load_predictor(patient.model, device=patient.device, encoder=patient.encoder)
    except ModelError as error:
        yield Check("model", "fail", str(error))
        return
    info = predictor.info
    said = f"{info.name} {info.version} ({info.digest[:12]}) on {predictor.device}"
    yield Check("model", "ok", said)
    yield _encoder(patient, predictor.can_encode_text())


def _encoder(patient: Patient, can_encode: bool) -> Check:
    if can_encode:
        return Check("encoder", "ok", "raw text can be answered")
    from model.encoder import INSTALL

    says = f"raw text cannot be answered, text vectors can. To install it: {INSTALL}"
    return Check("encoder", "fail" if patient.encoder else "absent", says)
