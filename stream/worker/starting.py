"""Wait for a Kafka or a Redis that is away while a worker starts, with a limit."""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Event
from typing import Final, TypeVar

import structlog

from stream.errors import BrokerUnreachable, StoreUnreachable
from stream.metrics.catalogue import Metrics
from stream.worker.observe import Health

TRY_S: Final = 2.0  # between tries; Kafka takes some seconds itself to find that it is away
SAY_S: Final = 60.0  # the same fault is logged this often
log = structlog.get_logger()
Result = TypeVar("Result")


class Stopped(Exception):
    """The worker was told to stop while it waited."""


class Patience:
    """Repeats the steps of a start whose server is away, for `limit_s` in all.

    Only an absent server is waited for: what a person must cure (a wrong password, a missing
    topic, an evicting Redis) is raised at once.
    """

    def __init__(
        self,
        limit_s: float,
        *,
        health: Health,
        metrics: Metrics,
        stop: Event,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._until, self._now = now() + limit_s, now
        self._health, self._metrics, self._stop = health, metrics, stop

    def until_reached(self, step: Callable[[], Result]) -> Result:
        """Return what `step` returns, once its server answers.

        Blocks. `Health.waiting` is the fault meanwhile, and a Redis that is away shows in
        `redis_up`. Raises that fault at the limit, and
        `Stopped`.
        """
        said_at, said = 0.0, ""
        while True:
            try:
                result = step()
            except (BrokerUnreachable, StoreUnreachable) as fault:
                now = self._now()
                if now >= self._until:
                    raise
                self._health.waiting = str(fault)
                if isinstance(fault, StoreUnreachable):
                    self._metrics.redis_up.set(0)
                if str(fault) != said or now >= said_at + SAY_S:
                    log.warning(
                        "not started yet", fault=str(fault), gives_up_in_s=round(self._until - now)
                    )
                    said_at, said = now, str(fault)
                if self._stop.wait(min(TRY_S, self._until - now)):
                    raise Stopped from None
            else:
                self._health.waiting = ""
                return result
