"""`emotrack bench pipeline`: the whole worker on Apache Kafka and Redis (P6, P8, P10).

Broker, store, worker and load share this machine's cores. Everything is measured in one run: the
capacity with a full queue, latency in an open loop at half of it, CPU beside a bare loop of the
same bytes, memory with many conversations. Order of the phases: read `run_bench_pipeline`.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from stream.bench.load import Collector, ScriptPlan, Sender, latencies_ms, quantile, script
from stream.bench.rows import Row
from stream.brokers.topics import TopicPlan, create, plan
from stream.events.topic_names import TopicNames
from stream.local.conversations import conversations as demo_conversations
from stream.local.servers import KAFKA_JARS, Stack
from stream.local.worker_process import RunningWorker, local_worker
from stream.metrics.scrape import Page, scrape

WARM_UP: Final = 600
RUNS: Final = 5
WARM_LOOPS: Final = 3
FLOOD: Final = 8_000
OPEN_LOOP_S: Final = 6.0
CONVERSATIONS: Final = 1_000
DRAIN_S: Final = 120.0
MANY: Final = 10_000
BARE_TOPIC: Final = "bench.bare"  # what the bare loop writes
GIB: Final = 1 << 30


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is sent; the defaults take about six minutes on two cores."""

    partitions: int = 2
    flood: int = FLOOD
    runs: int = RUNS
    open_loop_s: float = OPEN_LOOP_S
    many_conversations: int = MANY
    many_utterances: int = 10


@dataclass(slots=True)
class Bench:
    """The servers and what was measured so far."""

    stack: Stack
    scratch: Path
    plan: Plan
    say: Callable[[str], None]
    rows: dict[str, Row] = field(default_factory=dict)

    @property
    def topics(self) -> TopicNames:
        return TopicNames()

    def row(
        self,
        name: str,
        runs: Sequence[float],
        unit: str,
        reference: str,
        first: float | None = None,
        aim: float | None = None,
    ) -> None:
        """Keep a row, summarised by its median, and say it."""
        value = statistics.median(runs)
        rounded = [round(r, 3) for r in runs]
        self.rows[name] = Row(
            value=round(value, 3),
            unit=unit,
            first=first,
            aim=aim,
            reference=reference,
            runs=rounded,
        )
        self.say(f"{name}: {value:.2f} {unit}")


def run_bench_pipeline(
    *,
    plan: Plan,
    say: Callable[[str], None],
    jars: Path = KAFKA_JARS,
) -> dict[str, Row]:
    """Measure P6, P8 and P10; `say` gets a line at each step."""
    with tempfile.TemporaryDirectory(prefix="emotrack-bench-") as name:
        scratch = Path(name)
        say("starting Apache Kafka and Redis")
        with Stack(scratch, jars) as stack:
            bench = Bench(stack, scratch, plan, say)
            create(stack.kafka.bootstrap, topic_plans(plan))
            checkpoint = random_checkpoint(scratch / "random-h200")
            with serving(bench, {"model": checkpoint, "redis_url": stack.redis.url}) as worker:
                features(bench, worker, checkpoint)
            with serving(bench, {"redis_url": stack.redis.url}) as worker:
                raw_text(bench)
                memory(bench, worker)
            return bench.rows


def topic_plans(wanted: Plan) -> list[TopicPlan]:
    """The four topics and the bare loop's, with the benchmark's number of partitions."""
    four = list(plan(TopicNames(), partitions=wanted.partitions))
    return [*four, replace(four[0], name=BARE_TOPIC)]


def random_checkpoint(folder: Path) -> Path:
    """A checkpoint of the paper's sizes (H=200) with random weights, made in a child process.

    Its alert threshold is the median of its own shift probabilities, so that alerts do happen.
    """
    code = (
        "import sys; from pathlib import Path; "
        "from model.pcgnet.bench import write_random_checkpoint; "
        "write_random_checkpoint(Path(sys.argv[1]))"
    )
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, str(folder)], check=True, timeout=120
    )
    return folder


@contextmanager
def serving(bench: Bench, settings: Mapping[str, object]) -> Iterator[RunningWorker]:
    """A worker on the bench's servers."""
    given = {"bootstrap": bench.stack.kafka.bootstrap, "log_level": "warning", **settings}
    with local_worker(given, bench.scratch / "worker.log") as worker:
        yield worker


def features(bench: Bench, worker: RunningWorker, checkpoint: Path) -> None:
    """Features in, H=200: capacity, CPU beside a bare loop, latency at half capacity."""
    sender = Sender(bench.stack.kafka.bootstrap, bench.topics.utterances)
    flood(bench, sender, WARM_UP)
    before = scrape(worker.metrics)
    rate, sizes = flood(bench, sender, bench.plan.flood)
    after = scrape(worker.metrics)
    bench.row("P6_utterances_per_s", [rate], "1/s", "features in, H=200, full queue")
    cpu(bench, before, after, checkpoint, sizes)
    note = f"features in, H=200, open loop at {rate / 2:.0f}/s, half of the measured capacity"
    keep_latency(bench, open_loops(bench, sender, rate / 2), "P8", note, (15, 8), (50, 20))


def flood(
    bench: Bench, sender: Sender, count: int, sentences: Sequence[str] = ()
) -> tuple[float, list[int]]:
    """Send `count` at once; return answers a second, and the answers' sizes."""
    messages = script(script_plan("flood", count, sentences), seed=1)
    bootstrap = bench.stack.kafka.bootstrap
    with Collector(bootstrap, bench.topics.predictions) as collector:
        sender.flood(messages)
        if not collector.wait_for(count, DRAIN_S):
            raise TimeoutError(f"{count - len(collector.arrived)} of {count} answers are missing")
        times = sorted(collector.arrived.values())
        rate = (count - 1) / max(times[-1] - times[0], 1e-9)
        return rate, list(collector.sizes)


def cpu(bench: Bench, before: Page, after: Page, checkpoint: Path, sizes: Sequence[int]) -> None:
    """P6: CPU an utterance beyond the model, against a bare loop of the same bytes."""
    utterances = after.histogram("emotrack_inference_seconds").minus(
        before.histogram("emotrack_inference_seconds")
    )
    spent = after.value("process_cpu_seconds_total") - before.value("process_cpu_seconds_total")
    batches = after.histogram("emotrack_batch_utterances").minus(
        before.histogram("emotrack_batch_utterances")
    )
    mean_batch = max(1, round(batches.total / max(batches.count, 1)))
    whole_us = spent / utterances.count * 1e6
    model_us = model_cost_us(checkpoint, mean_batch)
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
    bench.row("P6", [ratio], "x", note, first=3, aim=1.5)


def model_cost_us(checkpoint: Path, batch: int) -> float:
    """CPU of the model alone for an utterance in batches of this size, in a child process."""
    code = (
        "import sys, time; from pathlib import Path; from model.pcgnet.bench import batch_cost_us; "
        "print(batch_cost_us(Path(sys.argv[1]), int(sys.argv[2]), time.process_time))"
    )
    asked = [sys.executable, "-W", "ignore", "-c", code, str(checkpoint), str(batch)]
    said = subprocess.run(asked, check=True, timeout=300, capture_output=True, text=True)
    return float(said.stdout)


def bare_loop_us(bench: Bench, batch: int, answer_bytes: int) -> float:
    """CPU of the bare loop for an utterance, in a child process (its threads counted too)."""
    arguments = {
        "bootstrap": bench.stack.kafka.bootstrap,
        "redis_url": bench.stack.redis.url,
        "source": bench.topics.utterances,
        "sink": BARE_TOPIC,
        "count": bench.plan.flood,
        "batch": batch,
        "answer_bytes": answer_bytes,
    }
    asked = [sys.executable, "-m", "stream.bench.bare_loop", json.dumps(arguments)]
    said = subprocess.run(asked, check=True, timeout=300, capture_output=True, text=True)
    return float(json.loads(said.stdout)["cpu_us"])


@dataclass(frozen=True, slots=True)
class LatencyRun:
    """One open loop: milliseconds from due to received, ascending."""

    predictions: list[float]
    alerts: list[float]
    achieved: float  # answers a second


def open_loops(
    bench: Bench, sender: Sender, rate: float, sentences: Sequence[str] = ()
) -> list[LatencyRun]:
    """Open loops at `rate`; the first ones warm up (the broker's JVM compiles) and do not count."""
    count = max(50, round(rate * bench.plan.open_loop_s))
    wanted = WARM_LOOPS + bench.plan.runs
    return [open_loop(bench, sender, rate, count, sentences) for _ in range(wanted)][WARM_LOOPS:]


def open_loop(
    bench: Bench, sender: Sender, rate: float, count: int, sentences: Sequence[str]
) -> LatencyRun:
    """Send `count` at `rate` a second and collect what comes back."""
    messages = script(script_plan("open", count, sentences), seed=2)
    bootstrap = bench.stack.kafka.bootstrap
    with (
        Collector(bootstrap, bench.topics.predictions) as predictions,
        Collector(bootstrap, bench.topics.shift_alerts) as alerts,
    ):
        due = sender.open_loop(messages, rate)
        if not predictions.wait_for(count, DRAIN_S):
            raise TimeoutError(f"{count - len(predictions.arrived)} of {count} answers missing")
        alerts.wait_for(sys.maxsize, 0.5)  # the alerts of the last batch
    times = sorted(predictions.arrived.values())
    return LatencyRun(
        latencies_ms(due, predictions.arrived),
        latencies_ms(due, alerts.arrived),
        (count - 1) / (times[-1] - times[0]),
    )


def keep_latency(
    bench: Bench,
    runs: Sequence[LatencyRun],
    name: str,
    note: str,
    p50: tuple[float | None, float | None],
    p99: tuple[float | None, float | None],
) -> None:
    """Keep publish -> alert (the goal) and publish -> prediction, p50 and p99 of each run."""
    achieved = statistics.median(r.achieved for r in runs)
    counted = f"{note}; {achieved:.0f}/s achieved; {len(runs)} runs"
    for what, of in (
        ("", [r.alerts for r in runs]),
        ("_prediction", [r.predictions for r in runs]),
    ):
        enough = [sample for sample in of if sample]
        if not enough:
            bench.say(f"{name}{what}: no alert in these runs, nothing to measure")
            continue
        seen = f"{counted}, {min(len(s) for s in enough)} or more in each"
        for share, goal, label in ((0.5, p50, "p50"), (0.99, p99, "p99")):
            values = [quantile(sample, share) for sample in enough]
            bench.row(f"{name}{what}_{label}_ms", values, "ms", seen, *goal)


def raw_text(bench: Bench) -> None:
    """Raw text in, the shipped model: the worker's encoder is in the path."""
    sender = Sender(bench.stack.kafka.bootstrap, bench.topics.utterances)
    sentences = [u.text for c in demo_conversations().values() for u in c if u.text]
    flood(bench, sender, WARM_UP // 4, sentences)
    rate, _ = flood(bench, sender, bench.plan.flood // 8, sentences)
    bench.row("P8_text_utterances_per_s", [rate], "1/s", "raw text in, shipped model, full queue")
    note = f"raw text in, shipped model, open loop at {rate / 2:.0f}/s, half of the capacity"
    runs = open_loops(bench, sender, rate / 2, sentences)
    keep_latency(bench, runs, "P8_text", note, (None, None), (None, 40))


def memory(bench: Bench, worker: RunningWorker) -> None:
    """P10: resident memory with many active conversations, model and encoder loaded."""
    count = bench.plan.many_conversations * bench.plan.many_utterances
    bench.say(f"sending {count} utterances of {bench.plan.many_conversations} conversations")
    widths = (384, 8, 17)  # of the shipped model
    wanted = ScriptPlan(unique("many"), bench.plan.many_conversations, count, widths)
    sender = Sender(bench.stack.kafka.bootstrap, bench.topics.utterances)
    with Collector(bench.stack.kafka.bootstrap, bench.topics.predictions) as collector:
        sender.flood(script(wanted, seed=3))
        if not collector.wait_for(count, 5 * DRAIN_S):
            raise TimeoutError(f"{count - len(collector.arrived)} of {count} answers missing")
    page = scrape(worker.metrics)
    held = page.value("emotrack_conversations_active")
    resident = page.value("process_resident_memory_bytes") / GIB
    note = f"{held:.0f} conversations in the owner's cache, text encoder loaded"
    bench.row("P10", [resident], "GiB", note, first=1.5, aim=1.0)


def script_plan(name: str, count: int, sentences: Sequence[str]) -> ScriptPlan:
    """Vectors of the paper's sizes, or raw text where there are sentences."""
    prefix = unique(name)
    if sentences:
        return ScriptPlan(prefix, CONVERSATIONS, count, None, sentences)
    return ScriptPlan(prefix, CONVERSATIONS, count)


def unique(name: str) -> str:
    """A conversation prefix that no earlier run of this machine used."""
    return f"{name}-{time.time_ns():x}"
