"""`emotrack bench metrics`: a worker's cost of observing, on Apache Kafka and Redis.

One worker is flooded; its loop observes in slices, see `InTurns`. The loop is one thread
and bounds the throughput, so the cost is its CPU time an utterance, of slices with observations
against their neighbours without. The cost of a scrape is measured too.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, cast

from model.interface import ModelInfo
from stream.bench.load import Sender, script
from stream.bench.pipeline import random_checkpoint, unique
from stream.bench.rows import Row, figure
from stream.bench.servers import started
from stream.local.servers import KAFKA_JARS
from stream.local.worker_process import RunningWorker, local_worker
from stream.metrics.catalogue import Metrics
from stream.metrics.scrape import scrape
from stream.serve import run_worker
from stream.settings import load_settings
from stream.worker.observe import Observer
from stream.worker.process import configure_log, stop_on_signals

PARTITIONS: Final = 2
CONVERSATIONS: Final = 500
FLOOD: Final = 4_000
FULL: Final = 32  # utterances: slices with fewer are the ends of a flood
LEFT_OUT: Final = 4  # slices at the start: caches are cold
SCRAPES: Final = 20
SCRAPE_EVERY_S: Final = 15.0
T_95: Final = 1.70  # one-sided, 30 degrees of freedom, and on the safe side for more
CPU_OF_A_PROCESS: Final = 2  # Linux: the clock of a process is (~pid << 3) | 2, dead threads too
Slice = tuple[bool, float, int]  # observed, CPU seconds of the loop, utterances


def run_bench_metrics(
    *, utterances: int, say: Callable[[str], None], jars: Path = KAFKA_JARS
) -> dict[str, Row]:
    """Answer `utterances`; `say` gets a line at each flood."""
    with started(jars, say, "metrics.") as (servers, scratch):
        servers.create_topics(PARTITIONS)
        checkpoint, log = random_checkpoint(scratch / "random-h200"), scratch / "worker.log"
        settings = servers.worker_settings(model=checkpoint, log_level="warning")
        with local_worker(settings, log, module="stream.bench.metrics") as worker:
            sender = Sender(servers.bootstrap, servers.topics)
            floods = math.ceil(utterances / FLOOD)
            for seed in range(floods):
                sender.answered(script(unique("metrics"), CONVERSATIONS, FLOOD, seed=seed))
                say(f"flood {seed + 1} of {floods}, {FLOOD} utterances each")
            scrape_ms = cost_of_a_scrape(worker) * 1000
        return rows(costs(slices_in(log)), scrape_ms)


def cost_of_a_scrape(worker: RunningWorker) -> float:
    """Return CPU seconds of the whole worker, which is idle otherwise."""
    began = process_cpu_s(worker.process.pid)
    for _ in range(SCRAPES):
        scrape(worker.metrics)
    return (process_cpu_s(worker.process.pid) - began) / SCRAPES


def process_cpu_s(pid: int) -> float:
    """Return CPU seconds of another process, to the nanosecond (Linux)."""
    return time.clock_gettime((~pid << 3) | CPU_OF_A_PROCESS)


def slices_in(log: Path) -> list[Slice]:
    """Read the slices that the worker printed at its end."""
    line = next(line for line in log.read_text().splitlines() if line.startswith(HEAD))
    return [(bool(on), float(cpu_s), int(n)) for on, cpu_s, n in json.loads(line[len(HEAD) :])]


def costs(slices: Sequence[Slice]) -> list[tuple[float, float]]:
    """Return CPU microseconds an utterance with and without, of neighbours within a flood."""
    pairs = []
    for pair in zip(slices[LEFT_OUT::2], slices[LEFT_OUT + 1 :: 2], strict=False):
        without, with_ = sorted(pair)  # by the flag
        if min(without[2], with_[2]) >= FULL:
            pairs.append((with_[1] / with_[2] * 1e6, without[1] / without[2] * 1e6))
    return pairs


def rows(pairs: Sequence[tuple[float, float]], scrape_ms: float) -> dict[str, Row]:
    """Return the cost in percent, and the upper 95 % bound of its mean."""
    differences = [with_ - without for with_, without in pairs]
    base = statistics.mean(without for _, without in pairs)
    mean = statistics.mean(differences) / base * 100
    spread = statistics.stdev(differences) / math.sqrt(len(differences)) / base * 100
    note = (
        f"mean of {len(pairs)} pairs of neighbouring slices, features in, H=200: "
        f"{mean * base / 100:.0f} us of CPU of the loop an utterance, {base:.0f} without; load of "
        f"the machine {os.getloadavg()[0]:.1f}"
    )
    scraped = f"CPU of one scrape: {scrape_ms / SCRAPE_EVERY_S / 10:.2f} % of a core every 15 s"
    return {
        "metrics_cost": figure([mean], "%", note, digits=2),
        "metrics_cost_upper_95": figure(
            [mean + T_95 * spread], "%", "upper bound, one-sided", 3, digits=2
        ),
        "metrics_scrape": figure([scrape_ms], "ms", scraped, digits=2),
    }


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
