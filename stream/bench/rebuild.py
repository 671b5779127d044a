"""`emotrack bench rebuild`: how long a worker needs to compute lost states again from the log (R8).

The log holds the conversations, the group has committed all of it, and Redis is empty: a worker
that is given the partitions must rebuild every active state before it goes on.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from stream.bench.load import SHIPPED_WIDTHS, ScriptPlan, Sender, commit_all, script
from stream.bench.rows import Row, figure
from stream.bench.servers import Servers, started
from stream.local.conversations import demo_sentences
from stream.local.servers import KAFKA_JARS
from stream.local.worker_process import RunningWorker
from stream.metrics.scrape import scrape

WAIT_S: Final = 300.0
TEXT_SHARE: Final = 10  # raw text is rebuilt for a tenth of the conversations: it is slower
CHECKED: Final = "states checked against the log"


@dataclass(frozen=True, slots=True)
class Size:
    """Size of the log."""

    conversations: int
    utterances: int  # of each
    partitions: int = 2


def run_bench_rebuild(
    size: Size, *, say: Callable[[str], None], jars: Path = KAFKA_JARS
) -> dict[str, Row]:
    """Measure with features in, then with raw text; `say` gets a line at each step."""
    few = Size(max(1, size.conversations // TEXT_SHARE), size.utterances, size.partitions)
    rows: dict[str, Row] = {}
    with started(jars, say) as (servers, scratch):
        for row, wanted, sentences in (("R8", size, []), ("R8_text", few, demo_sentences())):
            own = replace(servers, prefix=f"{row.lower()}.")
            seconds, states = _rebuild(own, scratch / f"{row}.log", wanted, sentences, say)
            per_s = wanted.conversations * wanted.utterances / seconds
            reference = (
                f"{states} states of {wanted.utterances} utterances, shipped model, "
                f"{'raw text' if sentences else 'features'} in: {per_s:,.0f} records/s"
            )
            first = 5.0 if row == "R8" else None
            rows[row] = figure([seconds], "s", reference, first, digits=2)
    return rows


def _rebuild(
    servers: Servers, log: Path, size: Size, sentences: Sequence[str], say: Callable[[str], None]
) -> tuple[float, int]:
    """Seconds from the assignment to the last partition's rebuild, and states rebuilt."""
    count, topics = size.conversations * size.utterances, servers.topics
    servers.create_topics(size.partitions)
    say(f"sending {count} utterances of {size.conversations} conversations")
    widths = None if sentences else SHIPPED_WIDTHS
    messages = script(ScriptPlan(topics.prefix, size.conversations, count, widths, sentences))
    Sender(servers.bootstrap, topics).flood(messages)
    commit_all(servers.bootstrap, servers.group, topics.utterances)
    say("rebuilding")
    with servers.worker(log, log_format="json") as worker:
        _wait(worker, size.partitions)
        states = scrape(worker.metrics).value("emotrack_state_rebuilds_total")
        events = [json.loads(line) for line in log.read_text().splitlines() if line[:1] == "{"]
    began = min(_time(e) for e in events if e["event"] == "partitions assigned")
    ended = max(_time(e) for e in events if e["event"] == CHECKED)
    return ended - began, int(states)


def _wait(worker: RunningWorker, partitions: int) -> None:
    """Return when every partition was checked. Raises `TimeoutError`."""
    until = time.monotonic() + WAIT_S
    while worker.log.read_text().count(CHECKED) < partitions:
        if time.monotonic() > until:
            raise TimeoutError(f"no end of the rebuild; the log says:\n{worker.log_tail()}")
        time.sleep(0.2)


def _time(event: Mapping[str, Any]) -> float:
    """Seconds since the epoch of a log line."""
    return datetime.fromisoformat(str(event["timestamp"]).replace("Z", "+00:00")).timestamp()
