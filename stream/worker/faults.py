"""Kills a worker at a named place, for tests: `EMOTRACK_FAULT=F6:3` is the third time at F6.

No setting, and in no page for users: `serve` reads it once. It is read by the program that ships,
because that is what the tests must kill; it gives no right to anyone, since a person who may set a
worker's environment may also kill the worker.
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from typing import Final

import structlog

from model.fault_points import FAULT_POINTS, FaultPoint, arm
from stream.errors import ConfigError

VARIABLE: Final = "EMOTRACK_FAULT"

log = structlog.get_logger()


def arm_from_environment() -> None:
    """Arm the fault that the environment names. Raises `ConfigError` for one that is none."""
    asked = os.environ.get(VARIABLE)
    if asked is None:
        return
    name, _, times = asked.partition(":")
    if name not in FAULT_POINTS or not times.isdigit():
        raise ConfigError(f"{VARIABLE}={asked}: give one of {', '.join(FAULT_POINTS)} and a count")
    log.warning("will be killed", at=name, time=int(times))
    reached: Counter[FaultPoint] = Counter()

    def kill(point: FaultPoint) -> None:
        reached[point] += 1
        if point == name and reached[point] == int(times):
            os.kill(os.getpid(), signal.SIGKILL)

    arm(kill)
