"""Logs: one line a fact, to stderr; and no line ever holds the worker up."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Callable
from queue import Full, Queue
from threading import Thread
from typing import Final, TextIO, cast

import structlog

from stream.settings import Settings

MOST_LINES: Final = 10_000  # that wait for a reader who is away
CLOSE_S: Final = 1.0

log = structlog.get_logger()


class LogPipe:
    """Passes lines on to `out` in a thread of its own, so that `write` never waits.

    Where nobody reads (a full pipe, a slow disk) at most `most` lines are kept; further ones are
    dropped, and `tell` is given their number once somebody reads again.
    """

    def __init__(self, out: TextIO, tell: Callable[[int], None], *, most: int = MOST_LINES) -> None:
        self._out, self._tell = out, tell
        self._lines: Queue[str | None] = Queue(most)
        self._dropped = 0
        self._thread = Thread(target=self._pass_on, name="log", daemon=True)
        self._thread.start()

    def write(self, line: str) -> None:
        """Keep a line for the thread, or drop it."""
        try:
            self._lines.put_nowait(line)
        except Full:
            self._dropped += 1

    @property
    def waiting(self) -> int:
        """Lines that are not passed on yet."""
        return self._lines.unfinished_tasks

    def flush(self) -> None:
        """Lines are flushed as they are passed on."""

    def close(self, within_s: float = CLOSE_S) -> None:
        """Return when all is written; give up after `within_s` each where nobody reads."""
        with contextlib.suppress(Full):
            self._lines.put(None, timeout=within_s)
            self._thread.join(within_s)

    def _pass_on(self) -> None:
        told = 0
        while (line := self._lines.get()) is not None:
            with contextlib.suppress(OSError, ValueError):  # nobody will ever read: go on without
                self._out.write(line)
                self._out.flush()
            self._lines.task_done()
            if missed := self._dropped - told:
                told += missed
                self._tell(missed)


def configure_log(settings: Settings) -> LogPipe:
    """Log to stderr: JSON for machines, text for people. Close what is returned at the end."""
    last: structlog.types.Processor = (
        structlog.processors.JSONRenderer()
        if settings.log_format == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    pipe = LogPipe(sys.stderr, lambda lines: log.warning("nobody read the log", dropped=lines))
    structlog.configure(
        processors=[
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
