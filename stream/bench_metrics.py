"""`emotrack bench metrics`: what observing costs a worker, on Apache Kafka and Redis.

Two workers run side by side, one as it ships and one that observes nothing (`bench_silent`); floods
go to one and the other in turns, and the CPU of each is read around its own. CPU and not time,
because a full worker is bound by it and other programs do not change it much.
"""

from __future__ import annotations

import math
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from stream.bench_kafka import Collector, ScriptPlan, Sender, script
from stream.bench_pipeline import DRAIN_S, random_checkpoint, unique
from stream.bench_state import Row
from stream.local_servers import KAFKA_JARS, Stack
from stream.local_worker import RunningWorker, local_worker
from stream.scrape import scrape
from stream.topics import TopicNames, create, plan

PARTITIONS: Final = 2
CONVERSATIONS: Final = 500
WARM_UP: Final = 1_000
T_95: Final = 1.833  # one-sided, 9 degrees of freedom: 10 pairs, and on the safe side for more
CPU_OF_A_PROCESS: Final = 2  # Linux: the clock of a process is (~pid << 3) | 2, dead threads too


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two workers and its topics."""

    topics: TopicNames
    worker: RunningWorker
    sender: Sender
    bootstrap: str

    def cpu_us(self, utterances: int) -> float:
        """Flood it, scrape it once, and return its CPU microseconds an utterance."""
        wanted = ScriptPlan(unique("metrics"), CONVERSATIONS, utterances)
        messages = script(wanted, seed=1)
        began = process_cpu_s(self.worker.process.pid)
        with Collector(self.bootstrap, self.topics.predictions) as collector:
            self.sender.flood(messages)
            if not collector.wait_for(utterances, DRAIN_S):
                raise TimeoutError(f"{utterances - len(collector.arrived)} answers are missing")
        scrape(self.worker.metrics)
        return (process_cpu_s(self.worker.process.pid) - began) / utterances * 1e6


def process_cpu_s(pid: int) -> float:
    """CPU seconds of another process, to the nanosecond (Linux)."""
    return time.clock_gettime((~pid << 3) | CPU_OF_A_PROCESS)


def run_bench_metrics(
    *, pairs: int, utterances: int, say: Callable[[str], None], jars: Path = KAFKA_JARS
) -> dict[str, Row]:
    """Measure `pairs` of floods; `say` gets a line at each."""
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="emotrack-bench-")))
        say("starting Apache Kafka, Redis and two workers")
        servers = stack.enter_context(Stack(scratch, jars))
        model = random_checkpoint(scratch / "random-h200")
        on = side(stack, servers, scratch, model, "on.", "stream.main")
        off = side(stack, servers, scratch, model, "off.", "stream.bench_silent")
        if scrape(off.worker.metrics).value("emotrack_ready"):
            raise AssertionError("the silent worker is not silent")
        on.cpu_us(WARM_UP), off.cpu_us(WARM_UP)
        return rows(measured(on, off, pairs, utterances, say))


def side(
    stack: ExitStack, servers: Stack, scratch: Path, model: Path, prefix: str, module: str
) -> Side:
    """Start one worker with topics of its own."""
    topics, bootstrap = TopicNames(prefix), servers.kafka.bootstrap
    create(bootstrap, plan(topics, partitions=PARTITIONS))
    settings = {
        "bootstrap": bootstrap,
        "redis_url": servers.redis.url,
        "topic_prefix": prefix,
        "group": f"{prefix}workers",
        "model": model,
        "log_level": "warning",
    }
    log = scratch / f"worker-{prefix}log"
    worker = stack.enter_context(local_worker(settings, log, module=module))
    return Side(topics, worker, Sender(bootstrap, topics.utterances), bootstrap)


def measured(
    on: Side, off: Side, pairs: int, utterances: int, say: Callable[[str], None]
) -> list[tuple[float, float]]:
    """CPU an utterance with and without, pair by pair; who goes first takes turns."""
    found: list[tuple[float, float]] = []
    for number in range(pairs):
        first, second = (on, off) if number % 2 else (off, on)
        a, b = first.cpu_us(utterances), second.cpu_us(utterances)
        found.append((a, b) if first is on else (b, a))
        say(f"pair {number + 1} of {pairs}: {found[-1][0]:.0f} us with, {found[-1][1]:.0f} without")
    return found


def rows(found: Sequence[tuple[float, float]]) -> dict[str, Row]:
    """The cost in percent, and the upper 95 % bound of its mean."""
    costs = [(with_ / without - 1) * 100 for with_, without in found]
    mean = statistics.mean(costs)
    bound = mean + T_95 * statistics.stdev(costs) / math.sqrt(len(costs))
    with_us, without_us = (statistics.median(side) for side in zip(*found, strict=True))
    note = (
        f"mean of {len(costs)} interleaved pairs, features in, H=200: {with_us:.0f} us of CPU an "
        f"utterance with metrics and a scrape, {without_us:.0f} without; load of the machine "
        f"{os.getloadavg()[0]:.1f}"
    )
    return {
        "metrics_cost": row(mean, note, [round(c, 2) for c in costs]),
        "metrics_cost_upper_95": row(bound, "upper bound of the mean, one-sided", [], first=3),
    }


def row(value: float, reference: str, runs: list[float], first: float | None = None) -> Row:
    """One figure in percent."""
    return Row(
        value=round(value, 2), unit="%", first=first, aim=None, reference=reference, runs=runs
    )
