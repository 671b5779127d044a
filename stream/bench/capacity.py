"""`emotrack bench capacity`: the formula of `stream.bench.sizing` against what is measured.

One worker with the shipped PCGNet on Apache Kafka and Redis. Calls of a few seconds follow each
other under a short IDLE_S until as many expire in Redis as end; then Redis is emptied. Deviations
do not depend on how fast the machine is; the two rates do.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from stream.bench.load import SHIPPED_WIDTHS, Sender, collecting, script
from stream.bench.rows import Row, figure
from stream.bench.servers import Servers, started
from stream.bench.sizing import (
    CHECKING,
    PREDICTION_BYTES,
    SENT_FIXED,
    UTTERANCE_BYTES,
    Input,
    Traffic,
    default_plan,
    pcgnet_sizes,
    rebuild_records,
    redis_bytes,
    worker_bytes,
)
from stream.bench.state import open_store, spec_of
from stream.local.demo import demo_sentences
from stream.local.servers import KAFKA_JARS
from stream.local.worker_process import RunningWorker
from stream.metrics.scrape import scrape

MOST: Final = 20.0  # per cent that the formula may be off
PARTITIONS: Final = 2
HIDDEN: Final = 128  # of the shipped PCGNet
IDLE_S: Final = 6.0
CALL_S: Final = 6.0
PER_S: Final = 2.0  # utterances of one call
MANY_UTTERANCES: Final = 10  # of each conversation for the memory
TEXT_PER_S: Final = 15.0
WAIT_S: Final = 120.0
CHECKED: Final = "states checked against the log"


@dataclass(frozen=True, slots=True)
class Amounts:
    """Amounts to send."""

    calls: int = 150  # live at the same time
    cached: int = 2_000  # conversations, for the memory of a worker
    texts: int = 240  # utterances, for the rate
    threads: int = 1  # of the worker


@dataclass(slots=True)
class Bench:
    """The servers, and the rows measured so far."""

    servers: Servers
    scratch: Path
    say: Callable[[str], None]
    rows: dict[str, Row] = field(default_factory=dict)

    def rate(self, name: str, per_s: float, note: str) -> None:
        """Add a rate of this machine."""
        self.rows[name] = figure([per_s], "1/s", note, digits=1)
        self.say(f"{name}: {per_s:.1f}/s")

    def compare(self, name: str, formula: float, measured: float, unit: str) -> None:
        """Add how far the formula is from what was measured."""
        off = (formula / measured - 1) * 100
        note = f"formula {formula:,.4g} {unit}, measured {measured:,.4g}"
        self.rows[f"{name}_off"] = figure([off], "%", note, MOST, digits=1)
        self.say(f"{name}: {note}, {off:+.1f} %")


def run_bench_capacity(
    amounts: Amounts, *, say: Callable[[str], None], jars: Path = KAFKA_JARS
) -> dict[str, Row]:
    """Measure rates, memory, Redis, log and rebuild; `say` gets a line at each step."""
    rows: dict[str, Row] = {}
    with started(jars, say) as (servers, scratch):
        # Calls first: Redis looks for expired keys less among many that live long.
        for prefix, phase in (("calls.", calls), ("queue.", full_queue)):
            own = replace(servers, prefix=prefix)
            own.create_topics(PARTITIONS)
            phase(Bench(own, scratch, say, rows), amounts)
    return rows


def full_queue(bench: Bench, amounts: Amounts) -> None:
    """Measure the rate with raw text and with features, and a worker that caches many windows."""
    own, sentences = bench.servers, demo_sentences()
    sender = Sender(own.bootstrap, own.topics)
    log, threads = bench.scratch / "queue.log", amounts.threads
    with own.worker(log, log_level="warning", threads=threads) as worker:
        sender.answered(script("warm", 20, 60, sentences=sentences))
        per_s = sender.answered(script("text", 40, amounts.texts, sentences=sentences)).per_s()
        queue = f"shipped PCGNet, THREADS={threads}, full queue"
        bench.rate("capacity_text", per_s, f"raw text in, {queue}")
        log_of(bench, "text", lambda: paced_text(sender))
        count = amounts.cached * MANY_UTTERANCES
        many = script("many", amounts.cached, count, widths=SHIPPED_WIDTHS)
        per_s = sender.answered(many, WAIT_S).per_s()
        bench.rate(
            "capacity_features", per_s, "features in, shipped PCGNet, one thread, full queue"
        )
        memory(bench, worker)


def paced_text(sender: Sender) -> int:
    """Send raw text as it comes in service, one record at a time; return their number."""
    messages = script("paced", 30, 120, sentences=demo_sentences())
    with collecting(sender.bootstrap, sender.topics.predictions) as answers:
        sender.open_loop(messages, TEXT_PER_S)
        answers.wait_for(len(messages), WAIT_S)
    return len(messages)


def memory(bench: Bench, worker: RunningWorker) -> None:
    """Compare a worker's resident memory with the formula's, without a rebuild's cache."""
    page = scrape(worker.metrics)
    cached = round(page.value("emotrack_conversations_active"))
    traffic = Traffic(cached, 1.0, MANY_UTTERANCES)
    plan = replace(default_plan("features"), idle_s=0.0)
    formula = worker_bytes(traffic, pcgnet_sizes(HIDDEN), plan, 1) - CHECKING
    measured = page.value("process_resident_memory_bytes")
    bench.compare("worker_memory", formula / 2**30, measured / 2**30, "GiB resident")


def calls(bench: Bench, amounts: Amounts) -> None:
    """Let calls begin and end until Redis forgets as many as begin; then empty it."""
    own, sizes = bench.servers, pcgnet_sizes(HIDDEN)
    traffic = Traffic(amounts.calls, 60 * PER_S, CALL_S / 60, "features")
    settings = {"idle_s": IDLE_S, "log_format": "json"}
    with (
        own.worker(bench.scratch / "calls.log", **settings) as worker,
        closing(open_store(spec_of(HIDDEN), own.redis_url)) as store,
    ):
        received, before = store.usage()
        sent = log_of(bench, "features", lambda: follow_each_other(bench, traffic))
        received_after, after = store.usage()
        bench.compare(
            "redis", redis_bytes(traffic, sizes, IDLE_S) / 1e6, (after - before) / 1e6, "MB"
        )
        per_utterance = (received_after - received) / sent
        bench.compare("to_redis", sizes.written + SENT_FIXED, per_utterance, "bytes an utterance")
        rebuilt = lose_redis(own, worker)
        bench.compare(
            "rebuild_records", rebuild_records(traffic, IDLE_S), rebuilt["records"], "records"
        )
        per_s = rebuilt["records"] / max(rebuilt["seconds"], 1e-3)
        bench.rate("capacity_rebuild_features", per_s, "records a second, short sessions")


def follow_each_other(bench: Bench, traffic: Traffic) -> int:
    """Send calls, each slot's after the other, for longer than Redis keeps one; return how many."""
    seconds = CALL_S + 2 * IDLE_S + CALL_S
    count = round(traffic.per_s * seconds)
    messages = script(
        "call",
        traffic.conversations,
        count,
        widths=SHIPPED_WIDTHS,
        turns=round(traffic.utterances),
    )
    bench.say(f"{traffic.conversations} calls at a time, {traffic.per_s:.0f}/s for {seconds:.0f} s")
    sender = Sender(bench.servers.bootstrap, bench.servers.topics)
    with collecting(sender.bootstrap, sender.topics.predictions) as answers:
        sender.open_loop(messages, traffic.per_s)
        answers.wait_for(count, WAIT_S)
    return count


def log_of(bench: Bench, input: Input, send: Callable[[], int]) -> int:
    """Compare the bytes of the log that `send` adds with the formula's; return what it returns."""
    before = sizes_of(bench)
    sent = send()
    after = sizes_of(bench)
    added = {topic: (after[topic] - before[topic]) / sent for topic in after}
    topics = bench.servers.topics
    for name, formula, topic in (
        (f"utterance_{input}", UTTERANCE_BYTES[input], topics.utterances),
        (f"prediction_{input}", PREDICTION_BYTES, topics.predictions),
    ):
        bench.compare(name, formula, added[topic], "bytes of the log")
    return sent


def sizes_of(bench: Bench) -> Mapping[str, int]:
    """Return the bytes of the segments of utterances and predictions, indices left out."""
    topics = bench.servers.topics
    return {
        topic: sum(f.stat().st_size for f in bench.scratch.glob(f"kafka/**/{topic}-*/*.log"))
        for topic in (topics.utterances, topics.predictions)
    }


def lose_redis(servers: Servers, worker: RunningWorker) -> dict[str, float]:
    """Empty Redis; return records and seconds of the check of all partitions.

    Raises `TimeoutError`.
    """
    began = worker.log.read_text().count(CHECKED)
    at = urlsplit(servers.redis_url)
    with socket.create_connection((at.hostname, at.port or 6379), timeout=10) as link:
        link.sendall(b"FLUSHALL\r\n")
        link.recv(16)
    until = time.monotonic() + WAIT_S
    while worker.log.read_text().count(CHECKED) < began + PARTITIONS:
        if time.monotonic() > until:
            raise TimeoutError(f"no end of the rebuild; the log says:\n{worker.log_tail()}")
        time.sleep(0.2)
    lines = [
        line for line in worker.log.read_text().splitlines() if CHECKED in line and line[0] == "{"
    ]
    events = [json.loads(line) for line in lines[began:]]
    # Both partitions are suspect at once: the last one's time is that of both.
    return {
        "records": sum(event["records"] for event in events),
        "seconds": max(event["seconds"] for event in events),
    }
