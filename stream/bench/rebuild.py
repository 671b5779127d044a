"""`emotrack bench rebuild`: how long a worker needs to compute lost states anew from the log (R8).

The log holds the conversations, the group has committed all of it, and Redis is empty: a worker
that is given the partitions must rebuild every active state before it goes on.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from stream.bench.load import ScriptPlan, Sender, commit_all, script
from stream.bench.rows import Row
from stream.brokers.topics import create, plan
from stream.events.topic_names import TopicNames
from stream.local.conversations import conversations as demo_conversations
from stream.local.servers import KAFKA_JARS, Stack
from stream.local.worker_process import RunningWorker, local_worker
from stream.metrics.scrape import scrape

WIDTHS: Final = (384, 8, 17)  # inputs of the shipped model
GROUP: Final = "bench-rebuild"
WAIT_S: Final = 300.0
TEXT_SHARE: Final = 10  # raw text is rebuilt for a tenth of the conversations: it is slower


@dataclass(frozen=True, slots=True)
class Size:
    """How much lies in the log."""

    conversations: int
    utterances: int  # of each
    partitions: int = 2


def run_bench_rebuild(
    size: Size, *, say: Callable[[str], None], jars: Path = KAFKA_JARS
) -> dict[str, Row]:
    """Measure with features in, then with raw text; `say` gets a line at each step."""
    few = Size(max(1, size.conversations // TEXT_SHARE), size.utterances, size.partitions)
    sentences = [u.text for talk in demo_conversations().values() for u in talk if u.text]
    rows: dict[str, Row] = {}
    with tempfile.TemporaryDirectory(prefix="emotrack-bench-") as name:
        say("starting Apache Kafka and Redis")
        with Stack(Path(name), jars) as stack:
            for row, wanted, said in (("R8", size, ()), ("R8_text", few, sentences)):
                seconds, states = _rebuild(stack, Path(name), row, wanted, said, say)
                records = wanted.conversations * wanted.utterances
                rows[row] = Row(
                    value=round(seconds, 2),
                    unit="s",
                    first=5.0 if row == "R8" else None,
                    aim=None,
                    reference=f"{states} states of {wanted.utterances} utterances, shipped model, "
                    f"{'raw text' if said else 'features'} in: {records / seconds:,.0f} records/s",
                    runs=[round(seconds, 2)],
                )
    return rows


def _rebuild(
    stack: Stack,
    scratch: Path,
    name: str,
    size: Size,
    sentences: Sequence[str],
    say: Callable[[str], None],
) -> tuple[float, int]:
    """Seconds from the assignment to the last partition's rebuild, and states rebuilt."""
    prefix, count = f"{name.lower()}.", size.conversations * size.utterances
    create(stack.kafka.bootstrap, plan(TopicNames(prefix), partitions=size.partitions))
    topic = TopicNames(prefix).utterances
    say(f"sending {count} utterances of {size.conversations} conversations")
    widths = None if sentences else WIDTHS
    messages = script(ScriptPlan(name, size.conversations, count, widths, sentences))
    Sender(stack.kafka.bootstrap, topic).flood(messages)
    commit_all(stack.kafka.bootstrap, f"{GROUP}-{name}", topic, size.partitions)
    settings = {
        "bootstrap": stack.kafka.bootstrap,
        "redis_url": stack.redis.url,
        "topic_prefix": prefix,
        "group": f"{GROUP}-{name}",
        "log_format": "json",
    }
    say("rebuilding")
    with local_worker(settings, scratch / f"{name}.log") as worker:
        _wait(worker, size.partitions)
        states = scrape(worker.metrics).value("emotrack_state_rebuilds_total")
        told = [json.loads(line) for line in worker.log.read_text().splitlines() if line[:1] == "{"]
    began = min(_time(t) for t in told if t["event"] == "partitions assigned")
    ended = max(_time(t) for t in told if t["event"] == "states checked against the log")
    return ended - began, int(states)


def _wait(worker: RunningWorker, partitions: int) -> None:
    """Return when every partition was checked. Raises `TimeoutError`."""
    until = time.monotonic() + WAIT_S
    while worker.log.read_text().count("states checked against the log") < partitions:
        if time.monotonic() > until:
            raise TimeoutError(f"no end of the rebuild; the log says:\n{worker.log_tail()}")
        time.sleep(0.2)


def _time(told: Mapping[str, Any]) -> float:
    """Seconds since the epoch of a log line."""
    return datetime.fromisoformat(str(told["timestamp"]).replace("Z", "+00:00")).timestamp()
