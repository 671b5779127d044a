"""Signals of a worker's process: drain on SIGTERM and Ctrl-C, and SIGKILL at a fault point.

The fault is for tests and undocumented: `EMOTRACK_FAULT=F6:3` is the third time at F6. The program
that ships reads it, because that is what the tests must kill; it gives no right to anyone, since a
user who may set a worker's environment may also kill the worker.
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from threading import Event
from types import FrameType
from typing import Final

import structlog

from model.fault_points import FAULT_POINTS, FaultPoint, arm
from stream.errors import ConfigError

VARIABLE: Final = "EMOTRACK_FAULT"

log = structlog.get_logger()


def stop_on_signals() -> Event:
    """Return an event that SIGTERM and Ctrl-C set; a second signal kills the process."""
    stop = Event()

    def on_signal(number: int, _frame: FrameType | None) -> None:
        if stop.is_set():
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        stop.set()

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    return stop


def arm_from_environment() -> None:
    """Arm the fault that the environment names. Raises `ConfigError` for an unknown one."""
    fault = os.environ.get(VARIABLE)
    if fault is None:
        return
    name, _, times = fault.partition(":")
    if name not in FAULT_POINTS or not times.isdigit():
        raise ConfigError(f"{VARIABLE}={fault}: give one of {', '.join(FAULT_POINTS)} and a count")
    log.warning("will be killed", at=name, time=int(times))
    reached: Counter[FaultPoint] = Counter()

    def kill(point: FaultPoint) -> None:
        reached[point] += 1
        if point == name and reached[point] == int(times):
            os.kill(os.getpid(), signal.SIGKILL)

    arm(kill)
