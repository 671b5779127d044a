"""The formula of `emotrack capacity` on a worker, a Redis and a log: within 20 %."""

from __future__ import annotations

import pytest

from stream.bench.capacity import Amounts, run_bench_capacity
from stream.local.servers import ServerMissing
from tests.conftest import ROOT, missing

pytestmark = [pytest.mark.integration, pytest.mark.slow]
FEW = Amounts(calls=40, cached=300, texts=40)


def test_the_formula_is_within_a_fifth_of_what_is_measured() -> None:
    """Memory, Redis with what has ended in it, bytes to Redis, bytes of the log, a rebuild.

    Rates are this machine's and not compared.
    """
    try:
        rows = run_bench_capacity(FEW, say=print, jars=ROOT / ".servers/kafka/jars")
    except ServerMissing as why:
        missing(why)
    off = {name: row["value"] for name, row in rows.items() if name.endswith("_off")}
    assert set(off) == {
        "redis_off",
        "to_redis_off",
        "rebuild_records_off",
        "worker_memory_off",
        "utterance_text_off",
        "prediction_text_off",
        "utterance_features_off",
        "prediction_features_off",
    }
    assert not {name: percent for name, percent in off.items() if abs(percent) > 20}, off
