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

        Blocks. `Health.waiting` is the fault meanwhile, and the server that is away shows in
        `redis_up` or `broker_up`. Raises that fault at the limit, and `Stopped`.
        """
        while True:
            try:
                result = step()
            except (BrokerUnreachable, StoreUnreachable) as fault:
                now = self._now()
                if now >= self._until:
                    raise
                self._health.waiting = str(fault)
                absent = isinstance(fault, StoreUnreachable)
                up = self._metrics.redis_up if absent else self._metrics.broker_up
                up.set(0)
                left_s = round(self._until - now)
                log.warning("not started yet", per="fault", fault=str(fault), gives_up_in_s=left_s)
                if self._stop.wait(min(TRY_S, self._until - now)):
                    raise Stopped from None
            else:
                self._health.waiting = ""
                return result
