"""`emotrack serve` that observes in turns, for `bench metrics`.

Run as a child process. Batches with and without observations, the slices, alternate within one
flood, so that other load of the machine affects both alike. At its end it prints each slice.
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

ORDER: Final = (True, False, False, True)  # a drift affects both alike
HEAD: Final = "slices: "


class InTurns:
    """An observer that passes facts of the loop to the real one in every other slice."""

    def __init__(self, real: Any) -> None:
        self._real = real
        self._began = time.thread_time()
        self.slices: list[tuple[bool, float, int]] = []

    @property
    def observes(self) -> bool:
        """True while this slice is one with observations."""
        return ORDER[len(self.slices) % len(ORDER)]

    def __getattr__(self, fact: str) -> Any:
        return getattr(self._real, fact) if self.observes else lambda *_, **__: None

    def answered(self, step: Any, *times: float) -> None:
        """End a slice: a batch has been answered."""
        if self.observes:
            self._real.answered(step, *times)
        now = time.thread_time()
        self.slices.append((self.observes, now - self._began, len(step.results)))
        self._began = now


def serve_in_turns() -> int:
    """Serve; print (observed, CPU seconds of the loop's thread, utterances) of each slice."""
    observers: list[InTurns] = []

    def observer(metrics: Metrics, info: ModelInfo) -> Observer:
        observers.append(InTurns(Observer(metrics, info)))
        return cast(Observer, observers[0])

    settings = load_settings({})
    lines = configure_log(settings)
    try:
        return run_worker(settings, stop=stop_on_signals(), observer=observer)
    finally:
        lines.close()
        print(f"\n{HEAD}{json.dumps(observers[0].slices if observers else [])}", flush=True)


if __name__ == "__main__":
    sys.exit(serve_in_turns())
