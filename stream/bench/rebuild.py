"""`emotrack bench rebuild`: the time a worker takes to rebuild lost states from the log (goal R8).

The log has the conversations, the group has committed all of it, and Redis is empty: a worker that
is assigned the partitions must rebuild every active state before it continues.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Final

from stream.bench.load import SHIPPED_WIDTHS, Sender, commit_all, script
from stream.bench.rows import Row, figure
from stream.bench.servers import Servers, started
from stream.local.demo import demo_sentences
from stream.local.servers import KAFKA_JARS
from stream.metrics.scrape import scrape

WAIT_S: Final = 300.0
TEXT_SHARE: Final = 10  # raw text is rebuilt for a tenth of the conversations: it is slower
PARTITIONS: Final = 2
CHECKED: Final = "states checked against the log"


def run_bench_rebuild(
    conversations: int, utterances: int, *, say: Callable[[str], None], jars: Path = KAFKA_JARS
) -> dict[str, Row]:
    """Measure with features in, then with raw text; `utterances` is of each conversation."""
    few = max(1, conversations // TEXT_SHARE)
    rows: dict[str, Row] = {}
    with started(jars, say) as (servers, scratch):
        for row, n, sentences in (("R8", conversations, []), ("R8_text", few, demo_sentences())):
            own = replace(servers, prefix=f"{row.lower()}.")
            say(f"sending {n * utterances} utterances of {n} conversations")
            own.create_topics(PARTITIONS)
            messages = script(
                own.prefix, n, n * utterances, widths=SHIPPED_WIDTHS, sentences=sentences
            )
            Sender(own.bootstrap, own.topics).flood(messages)
            commit_all(own.bootstrap, own.group, own.topics.utterances)
            say("rebuilding")
            seconds, states = _rebuild(own, scratch / f"{row}.log")
            per_s = n * utterances / seconds
            reference = (
                f"{states} states of {utterances} utterances, shipped model, "
                f"{'raw text' if sentences else 'features'} in: {per_s:,.0f} records/s"
            )
            first = 5.0 if row == "R8" else None
            rows[row] = figure([seconds], "s", reference, first, digits=2)
    return rows


def _rebuild(servers: Servers, log: Path) -> tuple[float, int]:
    """Return seconds from assignment to the last partition's rebuild, and states rebuilt.

    Raises `TimeoutError`.
    """
    with servers.worker(log, log_format="json") as worker:
        until = time.monotonic() + WAIT_S
        while worker.log.read_text().count(CHECKED) < PARTITIONS:
            if time.monotonic() > until:
                raise TimeoutError(f"no end of the rebuild; the log says:\n{worker.log_tail()}")
            time.sleep(0.2)
        states = scrape(worker.metrics).value("emotrack_state_rebuilds_total")
        events = [json.loads(line) for line in log.read_text().splitlines() if line[:1] == "{"]
    began, ended = (
        [datetime.fromisoformat(e["timestamp"]) for e in events if e["event"] == event]
        for event in ("partitions assigned", CHECKED)
    )
    return (max(ended) - min(began)).total_seconds(), int(states)
