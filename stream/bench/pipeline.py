"""`emotrack bench pipeline`: the whole worker on Apache Kafka and Redis (P6, P8, P10).

Broker, store, worker and load share this machine's cores. One run measures everything: capacity
with a full queue, latency in an open loop at half of it, CPU against a bare loop of the same bytes,
memory with many conversations. `run_bench_pipeline` has the order of the phases.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from stream.bench.bare_loop import Arguments
from stream.bench.load import (
    DRAIN_S,
    SHIPPED_WIDTHS,
    Collector,
    Sender,
    collecting,
    latencies_ms,
    script,
)
from stream.bench.rows import Row, figure
from stream.bench.servers import Servers, started
from stream.brokers.topics import create
from stream.brokers.topics import plan as topic_plans
from stream.local.demo import demo_sentences
from stream.local.servers import KAFKA_JARS
from stream.local.worker_process import RunningWorker
from stream.metrics.scrape import Page, scrape

WARM_UP: Final = 600
WARM_LOOPS: Final = 3
OPEN_LOOP_S: Final = 6.0
CONVERSATIONS: Final = 1_000
ALERTS_S: Final = 0.5  # for the alerts of the last batch
UTTERANCES_OF_MANY: Final = 10  # of each of many conversations
BARE_TOPIC: Final = "bench.bare"  # the bare loop's output
GIB: Final = 1 << 30
LatencyRun = tuple[list[float], list[float], float]
"""One open loop: ms from due to received of predictions and of alerts; answers a second."""


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """Amounts to send."""

    partitions: int
    flood: int  # utterances, for the capacity
    runs: int
    many_conversations: int


@dataclass(slots=True)
class Bench:
    """The servers and the figures measured so far."""

    servers: Servers
    scratch: Path
    plan: LoadPlan
    say: Callable[[str], None]
    rows: dict[str, Row] = field(default_factory=dict)

    def row(
        self, name: str, runs: Sequence[float], unit: str, note: str, *goals: float | None
    ) -> None:
        """Add a row, summarised by its median, and print it; `goals` are first and aim."""
        self.rows[name] = figure(runs, unit, note, *goals, digits=3)
        self.say(f"{name}: {self.rows[name]['value']:.2f} {unit}")

    def worker(self, **settings: object) -> AbstractContextManager[RunningWorker]:
        """Run a worker on the servers."""
        return self.servers.worker(self.scratch / "worker.log", log_level="warning", **settings)

    def sender(self) -> Sender:
        return Sender(self.servers.bootstrap, self.servers.topics)


def run_bench_pipeline(
    *, plan: LoadPlan, say: Callable[[str], None], jars: Path = KAFKA_JARS
) -> dict[str, Row]:
    """Measure P6, P8 and P10; `say` gets a line at each step."""
    with started(jars, say) as (servers, scratch):
        bench = Bench(servers, scratch, plan, say)
        topics = topic_plans(servers.topics, partitions=plan.partitions)
        create(servers.bootstrap, [*topics, replace(topics[0], name=BARE_TOPIC)])
        checkpoint = random_checkpoint(scratch / "random-h200")
        with bench.worker(model=checkpoint) as worker:
            features(bench, worker, checkpoint)
        with bench.worker() as worker:
            raw_text(bench)
            memory(bench, worker)
        return bench.rows


def random_checkpoint(folder: Path) -> Path:
    """Write a checkpoint of the paper's sizes (H=200) with random weights, in a child process.

    Its alert threshold is the median of its own shift probabilities, so that it raises alerts.
    """
    code = (
        "import sys; from pathlib import Path; "
        "from model.pcgnet.bench import write_random_checkpoint; "
        "write_random_checkpoint(Path(sys.argv[1]))"
    )
    in_child("-c", code, str(folder))
    return folder


def features(bench: Bench, worker: RunningWorker, checkpoint: Path) -> None:
    """Measure features in, H=200: capacity, CPU against a bare loop, latency at half capacity."""
    sender = bench.sender()
    flood(sender, WARM_UP)
    before = scrape(worker.metrics)
    answers = flood(sender, bench.plan.flood)
    after, rate = scrape(worker.metrics), answers.per_s()
    bench.row("P6_utterances_per_s", [rate], "1/s", "features in, H=200, full queue")
    cpu(bench, before, after, checkpoint, answers.sizes)
    note = f"features in, H=200, open loop at {rate / 2:.0f}/s, half of the measured capacity"
    add_latency(bench, open_loops(bench, sender, rate / 2), "P8", note, (15, 8), (50, 20))


def flood(sender: Sender, count: int, sentences: Sequence[str] = ()) -> Collector:
    """Send `count` at once; return their answers."""
    messages = script(unique("flood"), CONVERSATIONS, count, sentences=sentences, seed=1)
    return sender.answered(messages)


def cpu(bench: Bench, before: Page, after: Page, checkpoint: Path, sizes: Sequence[int]) -> None:
    """Measure P6: CPU an utterance beyond the model, against a bare loop of the same bytes."""
    utterances, batches = (
        after.histogram(name).minus(before.histogram(name))
        for name in ("emotrack_inference_seconds", "emotrack_batch_utterances")
    )
    spent = after.value("process_cpu_seconds_total") - before.value("process_cpu_seconds_total")
    mean_batch = max(1, round(batches.total / max(batches.count, 1)))
    whole_us = spent / utterances.count * 1e6
    alone = (
        "import sys, time; from pathlib import Path; from model.pcgnet.bench import batch_cost_us; "
        "print(batch_cost_us(Path(sys.argv[1]), int(sys.argv[2]), time.process_time))"
    )
    model_us = float(in_child("-c", alone, str(checkpoint), str(mean_batch)))
    bare_us = bare_loop_us(bench, mean_batch, int(statistics.mean(sizes)))
    bench.say(
        f"worker {whole_us:.0f} us CPU an utterance, of it the model {model_us:.0f} us "
        f"(batches of {mean_batch}); bare loop {bare_us:.0f} us"
    )
    ratio = (whole_us - model_us) / bare_us
    note = (
        f"(worker {whole_us:.0f} - model {model_us:.0f}) / bare loop {bare_us:.0f} us; "
        "consume, FCALL, produce of the same bytes"
    )
    bench.row("P6", [ratio], "x", note, 3, 1.5)


def bare_loop_us(bench: Bench, batch: int, answer_bytes: int) -> float:
    """Return the CPU of the bare loop for an utterance, its threads included."""
    arguments = Arguments(
        bootstrap=bench.servers.bootstrap,
        redis_url=bench.servers.redis_url,
        source=bench.servers.topics.utterances,
        sink=BARE_TOPIC,
        count=bench.plan.flood,
        batch=batch,
        answer_bytes=answer_bytes,
    )
    return float(in_child("-m", "stream.bench.bare_loop", msgspec.json.encode(arguments).decode()))


def in_child(*arguments: str) -> str:
    """Run Python in a process of its own, so that its CPU counts apart; return its output."""
    command = [sys.executable, "-W", "ignore", *arguments]
    return subprocess.run(
        command, check=True, timeout=300, stdout=subprocess.PIPE, text=True
    ).stdout


def open_loops(
    bench: Bench, sender: Sender, rate: float, sentences: Sequence[str] = ()
) -> list[LatencyRun]:
    """Run open loops at `rate`; the first ones warm up (the broker's JVM compiles) and are dropped.

    Raises `TimeoutError` where answers are missing.
    """
    count = max(50, round(rate * OPEN_LOOP_S))
    bootstrap, topics = bench.servers.bootstrap, bench.servers.topics
    runs = []
    for _ in range(WARM_LOOPS + bench.plan.runs):
        messages = script(unique("open"), CONVERSATIONS, count, sentences=sentences, seed=2)
        with (
            collecting(bootstrap, topics.predictions) as predictions,
            collecting(bootstrap, topics.shift_alerts) as alerts,
        ):
            due = sender.open_loop(messages, rate)
            predictions.wait_for(count, DRAIN_S)
            time.sleep(ALERTS_S)
        runs.append(
            (
                latencies_ms(due, predictions.arrived),
                latencies_ms(due, alerts.arrived),
                predictions.per_s(),
            )
        )
    return runs[WARM_LOOPS:]


def add_latency(
    bench: Bench,
    runs: Sequence[LatencyRun],
    name: str,
    note: str,
    p50: tuple[float | None, float | None],
    p99: tuple[float | None, float | None],
) -> None:
    """Add publish -> alert (the goal) and publish -> prediction, p50 and p99 of each run."""
    predictions, alerts, rates = zip(*runs, strict=True)
    achieved = statistics.median(rates)
    note = f"{note}; {achieved:.0f}/s achieved; {len(runs)} runs"
    for kind, samples in (
        ("", list(filter(None, alerts))),
        ("_prediction", predictions),
    ):
        if not samples:
            bench.say(f"{name}{kind}: no alert in these runs, nothing to measure")
            continue
        counted = f"{note}, {min(len(s) for s in samples)} or more in each"
        for share, goal, label in ((0.5, p50, "p50"), (0.99, p99, "p99")):
            values = [float(np.quantile(s, share, method="inverted_cdf")) for s in samples]
            bench.row(f"{name}{kind}_{label}_ms", values, "ms", counted, *goal)


def raw_text(bench: Bench) -> None:
    """Measure raw text in, the shipped model: the worker's encoder is in the path."""
    sender, sentences = bench.sender(), demo_sentences()
    flood(sender, WARM_UP // 4, sentences)
    rate = flood(sender, bench.plan.flood // 8, sentences).per_s()
    bench.row("P8_text_utterances_per_s", [rate], "1/s", "raw text in, shipped model, full queue")
    note = f"raw text in, shipped model, open loop at {rate / 2:.0f}/s, half of the capacity"
    runs = open_loops(bench, sender, rate / 2, sentences)
    add_latency(bench, runs, "P8_text", note, (None, None), (None, 40))


def memory(bench: Bench, worker: RunningWorker) -> None:
    """Measure P10: resident memory with many active conversations, model and encoder loaded."""
    conversations = bench.plan.many_conversations
    count = conversations * UTTERANCES_OF_MANY
    bench.say(f"sending {count} utterances of {conversations} conversations")
    messages = script(unique("many"), conversations, count, widths=SHIPPED_WIDTHS, seed=3)
    bench.sender().answered(messages, 5 * DRAIN_S)
    page = scrape(worker.metrics)
    active = page.value("emotrack_conversations_active")
    resident = page.value("process_resident_memory_bytes") / GIB
    note = f"{active:.0f} conversations in the owner's cache, text encoder loaded"
    bench.row("P10", [resident], "GiB", note, 1.5, 1.0)


def unique(name: str) -> str:
    """Return a conversation prefix that no earlier run of this machine used."""
    return f"{name}-{time.time_ns():x}"
