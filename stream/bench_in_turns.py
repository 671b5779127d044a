"""`emotrack serve` that observes in turns: what `bench metrics` measures.

Run as a child process. Batches with and without observations, the slices, follow each other within
one flood, so that whatever else slows the machine down meets both. At its end it prints each slice.
"""

from __future__ import annotations

import json
import time
from typing import Any, Final

from stream import main, worker
from stream.observe import Observer

ORDER: Final = (True, False, False, True)  # what drifts meets both alike
HEAD: Final = "slices: "


class InTurns:
    """Passes facts of the loop on to the real observer, or forgets them."""

    def __init__(self, real: Any) -> None:
        self._real = real
        self._began = time.thread_time()
        self.slices: list[tuple[bool, float, int]] = []

    @property
    def observes(self) -> bool:
        """Whether this slice is one with observations."""
        return ORDER[len(self.slices) % len(ORDER)]

    def __getattr__(self, fact: str) -> Any:
        return getattr(self._real, fact) if self.observes else ignore

    def answered(self, step: Any, *times: float) -> None:
        """The end of a batch."""
        if self.observes:
            self._real.answered(step, *times)
        now = time.thread_time()
        self.slices.append((self.observes, now - self._began, len(step.results)))
        self._began = now


def ignore(*_unused: object, **_also_unused: object) -> None:
    """Do nothing."""


def serve_in_turns() -> None:
    """Serve; print (observed, CPU seconds of the loop's thread, utterances) of each slice."""
    made: list[InTurns] = []

    def observer(*given: Any) -> InTurns:
        made.append(InTurns(Observer(*given)))
        return made[0]

    setattr(worker, "Observer", observer)  # noqa: B010 -- a checker would refuse it
    try:
        main.main()
    finally:
        print(f"\n{HEAD}{json.dumps(made[0].slices if made else [])}", flush=True)


if __name__ == "__main__":
    serve_in_turns()
