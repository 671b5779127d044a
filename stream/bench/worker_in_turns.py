"""`emotrack serve` that observes in turns: what `bench metrics` measures.

Run as a child process. Batches with and without observations, the slices, follow each other within
one flood, so that whatever else slows the machine down meets both. At its end it prints each slice.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any, Final, cast

from model.interface import ModelInfo
from stream.metrics.catalogue import Metrics
from stream.serve import run_worker
from stream.settings import load_settings
from stream.worker.logs import configure_log
from stream.worker.observe import Observer
from stream.worker.signals import stop_on_signals

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


def serve_in_turns() -> int:
    """Serve; print (observed, CPU seconds of the loop's thread, utterances) of each slice."""
    made: list[InTurns] = []

    def observer(metrics: Metrics, info: ModelInfo) -> Observer:
        made.append(InTurns(Observer(metrics, info)))
        return cast(Observer, made[0])

    settings = load_settings({})
    lines = configure_log(settings)
    try:
        return run_worker(settings, stop=stop_on_signals(), observer=observer)
    finally:
        lines.close()
        print(f"\n{HEAD}{json.dumps(made[0].slices if made else [])}", flush=True)


if __name__ == "__main__":
    sys.exit(serve_in_turns())
