"""`emotrack bench metrics`: what observing costs a worker, on Apache Kafka and Redis.

One worker is flooded; its loop observes in slices, see `bench_in_turns`. The loop is one thread and
bounds the throughput, so the cost is its CPU time an utterance, of slices with observations against
their neighbours without. What a scrape costs is measured beside it.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from stream.bench.load import Collector, ScriptPlan, Sender, script
from stream.bench.pipeline import DRAIN_S, random_checkpoint, unique
from stream.bench.rows import Row
from stream.bench.worker_in_turns import HEAD
from stream.brokers.topics import create, plan
from stream.events.topic_names import TopicNames
from stream.local.servers import KAFKA_JARS, Stack
from stream.local.worker_process import RunningWorker, local_worker
from stream.metrics.scrape import scrape

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
    """Answer so many utterances; `say` gets a line at each flood."""
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="emotrack-bench-")))
        say("starting Apache Kafka, Redis and a worker")
        servers = stack.enter_context(Stack(scratch, jars))
        topics, bootstrap = TopicNames("metrics."), servers.kafka.bootstrap
        create(bootstrap, plan(topics, partitions=PARTITIONS))
        settings = {
            "bootstrap": bootstrap,
            "redis_url": servers.redis.url,
            "topic_prefix": topics.prefix,
            "group": f"{topics.prefix}workers",
            "model": random_checkpoint(scratch / "random-h200"),
            "log_level": "warning",
        }
        log = scratch / "worker.log"
        with local_worker(settings, log, module="stream.bench.worker_in_turns") as worker:
            sender = Sender(bootstrap, topics.utterances)
            floods = math.ceil(utterances / FLOOD)
            for number in range(floods):
                flood(sender, bootstrap, topics.predictions, number)
                say(f"flood {number + 1} of {floods}, {FLOOD} utterances each")
            scrape_ms = cost_of_a_scrape(worker) * 1000
        return rows(costs(slices_in(log)), scrape_ms)


def flood(sender: Sender, bootstrap: str, predictions: str, seed: int) -> None:
    """Send as fast as it goes and wait for every answer."""
    messages = script(ScriptPlan(unique("metrics"), CONVERSATIONS, FLOOD), seed=seed)
    with Collector(bootstrap, predictions) as collector:
        sender.flood(messages)
        if not collector.wait_for(FLOOD, DRAIN_S):
            raise TimeoutError(f"{FLOOD - len(collector.arrived)} answers are missing")


def cost_of_a_scrape(worker: RunningWorker) -> float:
    """CPU seconds of the whole worker, which does nothing else."""
    began = process_cpu_s(worker.process.pid)
    for _ in range(SCRAPES):
        scrape(worker.metrics)
    return (process_cpu_s(worker.process.pid) - began) / SCRAPES


def process_cpu_s(pid: int) -> float:
    """CPU seconds of another process, to the nanosecond (Linux)."""
    return time.clock_gettime((~pid << 3) | CPU_OF_A_PROCESS)


def slices_in(log: Path) -> list[Slice]:
    """What the worker printed at its end."""
    line = next(line for line in log.read_text().splitlines() if line.startswith(HEAD))
    return [(bool(on), float(cpu_s), int(n)) for on, cpu_s, n in json.loads(line[len(HEAD) :])]


def costs(slices: Sequence[Slice]) -> list[tuple[float, float]]:
    """CPU microseconds an utterance with and without, of neighbours in the midst of a flood."""
    return list(_pairs(slices[LEFT_OUT:]))


def _pairs(slices: Sequence[Slice]) -> Iterator[tuple[float, float]]:
    for first, second in zip(slices[::2], slices[1::2], strict=False):
        if min(first[2], second[2]) < FULL:
            continue
        with_, without = (first, second) if first[0] else (second, first)
        yield with_[1] / with_[2] * 1e6, without[1] / without[2] * 1e6


def rows(found: Sequence[tuple[float, float]], scrape_ms: float) -> dict[str, Row]:
    """The cost in percent, and the upper 95 % bound of its mean."""
    differences = [with_ - without for with_, without in found]
    base = statistics.mean(without for _, without in found)
    mean = statistics.mean(differences) / base * 100
    spread = statistics.stdev(differences) / math.sqrt(len(differences)) / base * 100
    note = (
        f"mean of {len(found)} pairs of neighbouring slices, features in, H=200: "
        f"{mean * base / 100:.0f} us of CPU of the loop an utterance, {base:.0f} without; load of "
        f"the machine {os.getloadavg()[0]:.1f}"
    )
    scraped = f"CPU of one scrape: {scrape_ms / SCRAPE_EVERY_S / 10:.2f} % of a core every 15 s"
    return {
        "metrics_cost": row(mean, note),
        "metrics_cost_upper_95": row(mean + T_95 * spread, "upper bound, one-sided", first=3),
        "metrics_scrape": Row(
            value=round(scrape_ms, 2), unit="ms", first=None, aim=None, reference=scraped, runs=[]
        ),
    }


def row(value: float, reference: str, first: float | None = None) -> Row:
    """One figure in percent."""
    return Row(value=round(value, 2), unit="%", first=first, aim=None, reference=reference, runs=[])
