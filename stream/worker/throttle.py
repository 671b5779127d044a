"""A fact that goes on is logged once a minute, with the number of lines that were left out.

A structlog processor for all log lines of a process. Lines are left out only where the caller says
what makes two of them one fact: `per` names the fields which are, with the event, the fact.

    log.warning("batch held", per="reason", reason="nobody answers", records=3)

is logged at once for each new reason, and again each minute while that reason comes; the other
fields (where, how much) may differ. A line without `per` is never touched.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from threading import Lock
from typing import Any, Final

import structlog
from structlog.types import EventDict

EVERY_S: Final = 60.0
LOOK_S: Final = 1.0  # between two looks for lines that are due
FACTS_AT_MOST: Final = 1_000  # beyond them lines pass: a new fact is never hidden
log = structlog.get_logger()
Key = tuple[str, ...]


@dataclass(slots=True)
class Fact:
    """A line that was logged at `logged_at`; those left out since then, and the newest of them."""

    logged_at: float
    left_out: int = 0
    level: str = ""
    newest: EventDict | None = None


class Throttle:
    """The facts of the last minute. Used by every thread that logs; `clock_s` is monotonic."""

    def __init__(self, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._clock_s = clock_s
        self._facts: dict[Key, Fact] = {}
        self._lock = Lock()
        self._next_look = 0.0

    def __call__(self, _logger: Any, level: str, line: EventDict) -> EventDict:
        """Return a line that is to be logged. Raises `DropEvent` for one that is left out."""
        per = line.pop("per", None)
        if per is None:
            return line
        names: Iterable[str] = (per,) if isinstance(per, str) else per
        key = (line["event"], *(str(line.get(name)) for name in names))
        now = self._clock_s()
        with self._lock:
            fact = self._facts.get(key)
            if fact is not None and now - fact.logged_at < EVERY_S:
                fact.left_out, fact.level, fact.newest = fact.left_out + 1, level, dict(line)
                raise structlog.DropEvent
            if fact is not None or len(self._facts) < FACTS_AT_MOST:
                self._facts[key] = Fact(now)
        return _with(line, 0 if fact is None else fact.left_out)

    def due(self, *, at_end: bool = False) -> None:
        """Log the newest line that was left out of each fact whose minute is over.

        So that a fact which has ended is counted to its end, too. `at_end`: do not wait for it.
        """
        now = self._clock_s()
        if now < self._next_look and not at_end:
            return
        self._next_look = now + LOOK_S
        with self._lock:
            over = [k for k, f in self._facts.items() if at_end or now - f.logged_at >= EVERY_S]
            facts = [self._facts.pop(key) for key in over]
            for key, fact in zip(over, facts, strict=True):
                if fact.newest is not None:
                    self._facts[key] = Fact(now)
        for fact in facts:
            if fact.newest is not None:
                getattr(log, fact.level)(**_with(fact.newest, fact.left_out - 1))


def _with(line: EventDict, left_out: int) -> EventDict:
    if left_out:
        line["left_out"] = left_out
    return line
