"""A real Prometheus scrapes a real worker: latency and outcomes can be looked at there."""

from __future__ import annotations

import json
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from stream.settings import Settings
from tests.conftest import enter
from tests.integration.workers import Site, ThreadWorker, wait_for
from tests.servers import prometheus

pytestmark = pytest.mark.integration

UTTERANCES = 40
P50 = "histogram_quantile(0.5, sum by (le) (emotrack_end_to_end_seconds_bucket))"


def ask(url: str, query: str) -> float | None:
    """The single value of an instant query; None while there is none."""
    asked = f"{url}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
    answer = json.load(urllib.request.urlopen(asked, timeout=10))
    found = answer["data"]["result"]
    return float(found[0]["value"][1]) if found else None


def test_prometheus_shows_latency_quantiles_and_outcomes_of_a_worker(
    site: Site, start: Callable[[Settings], ThreadWorker], tmp_path: Path
) -> None:
    worker = start(site.settings)
    for n in range(UTTERANCES):
        site.say(f"c{n % 4}", n)
    site.flush()
    wait_for(lambda: worker.metric("records_committed_total") == UTTERANCES, "the last commit")
    server = prometheus(tmp_path, worker.url.removeprefix("http://"))
    running = enter(server)
    try:
        wait_for(
            lambda: ask(running.url, "sum(emotrack_outcomes_total)") == UTTERANCES,
            "a scrape with every outcome",
        )
        p50 = ask(running.url, P50)
        assert p50 is not None and 0 < p50 < 10
        assert ask(running.url, "emotrack_ready") == 1
    finally:
        server.__exit__(None, None, None)
