"""Set-up of a worker's process: logs that never block it, signals to drain by, faults for tests."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable
from queue import Empty, Full, Queue
from threading import Event, Thread
from types import FrameType
from typing import Final, TextIO, cast

import structlog

from model.fault_points import FAULT_POINTS, FaultPoint, arm
from stream.errors import ConfigError
from stream.settings import Settings
from stream.worker.throttle import Throttle

MOST_LINES: Final = 10_000  # that wait while stderr is not read
CLOSE_S: Final = 1.0
TICK_S: Final = 1.0  # between two looks for lines that were left out and are due
log = structlog.get_logger()


class LogPipe:
    """Writes lines to `out` in a thread of its own, so that `write` never waits.

    While `out` blocks (a full pipe, a slow disk) at most `most` lines are queued; further ones are
    dropped, and `report` is called with their number once `out` takes lines again. That thread
    also has the `throttle` log what it left out.
    """

    def __init__(
        self,
        out: TextIO,
        report: Callable[[int], None],
        *,
        most: int = MOST_LINES,
        throttle: Throttle | None = None,
    ) -> None:
        self._out, self._report, self._throttle = out, report, throttle
        self._lines: Queue[str | None] = Queue(most)
        self._dropped = 0
        self._thread = Thread(target=self._pass_on, name="log", daemon=True)
        self._thread.start()

    def write(self, line: str) -> None:
        """Queue a line for the thread, or drop it."""
        try:
            self._lines.put_nowait(line)
        except Full:
            self._dropped += 1

    def flush(self) -> None:
        """Do nothing: the thread flushes each line."""

    def close(self, within_s: float = CLOSE_S) -> None:
        """Return when all is written; give up after `within_s` where `out` blocks."""
        if self._throttle is not None:
            self._throttle.due(at_end=True)
        with contextlib.suppress(Full):
            self._lines.put(None, timeout=within_s)
            self._thread.join(within_s)

    def _pass_on(self) -> None:
        reported = 0
        while (line := self._next()) is not None:
            with contextlib.suppress(OSError, ValueError):  # closed: discard the line
                self._out.write(line)
                self._out.flush()
            self._lines.task_done()
            if missed := self._dropped - reported:
                reported += missed
                self._report(missed)

    def _next(self) -> str | None:
        """Return the next line, None at the end; see to what is due before it and while waiting."""
        while True:
            if self._throttle is not None:
                self._throttle.due()
            with contextlib.suppress(Empty):
                return self._lines.get(timeout=TICK_S)


def configure_log(settings: Settings) -> LogPipe:
    """Log to stderr, as JSON or text. The caller closes the returned pipe at the end."""
    last: structlog.types.Processor = (
        structlog.processors.JSONRenderer()
        if settings.log_format == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    throttle = Throttle()
    pipe = LogPipe(
        sys.stderr,
        lambda lines: log.warning("nobody read the log", dropped=lines),
        throttle=throttle,
    )
    structlog.configure(
        processors=[
            throttle,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            last,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.getLevelNamesMapping()[settings.log_level.upper()]
        ),
        logger_factory=structlog.WriteLoggerFactory(cast(TextIO, pipe)),
        cache_logger_on_first_use=False,
    )
    return pipe


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
    """Arm the fault that the environment names. Raises `ConfigError` for an unknown one.

    For tests: `EMOTRACK_FAULT=F6:3` is SIGKILL the third time at F6. The program that ships reads
    it, because that is what tests must kill; who sets its environment can kill it anyway.
    """
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
