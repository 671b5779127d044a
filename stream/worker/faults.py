"""The tests' way to kill a worker at a named place: `EMOTRACK_FAULT=F6:3` is the third time at F6.

Nothing here is a setting: the variable is read once, by `serve`, and is in no documentation for
users.
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
    found = [point for point in FAULT_POINTS if point == name]
    if not found or not times.isdigit():
        raise ConfigError(f"{VARIABLE}={asked}: give one of {', '.join(FAULT_POINTS)} and a count")
    log.warning("will be killed", at=name, time=int(times))
    _kill_at(found[0], int(times))


def _kill_at(wanted: FaultPoint, time: int) -> None:
    reached: Counter[FaultPoint] = Counter()

    def kill(point: FaultPoint) -> None:
        reached[point] += 1
        if point == wanted and reached[point] == time:
            os.kill(os.getpid(), signal.SIGKILL)

    arm(kill)
