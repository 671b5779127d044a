"""`bench state` measures the model's state, and P7's first goal holds on a real Redis."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from stream.bench.state import GOALS, run_bench_state, spec_of
from stream.local import servers
from stream.local.servers import RunningRedis


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RunningRedis]:
    """A server without other clients: its counters are the measure."""
    with servers.redis_server(tmp_path) as running:
        yield running


@pytest.mark.integration
def test_bytes_and_memory_of_a_conversation_stay_within_the_first_goal(
    own_redis: RunningRedis,
) -> None:
    """Sizes do not depend on the machine's load, so the goal is asserted and not only printed."""
    rows = run_bench_state(redis_url=own_redis.url, runs=3, conversations=32)
    for hidden, (traffic, memory) in GOALS.items():
        sent, stored = rows[f"P7_bytes_h{hidden}"], rows[f"P7_memory_h{hidden}"]
        assert (sent["first"], sent["aim"]) == traffic
        assert (stored["first"], stored["aim"]) == memory
        assert sent["value"] <= traffic[0]
        assert stored["value"] <= memory[0]
        spec = spec_of(hidden)
        update = spec.row_bytes + spec.conversation_bytes + spec.speaker_bytes
        assert sent["value"] > update / 1024, "less than the arrays cannot have been sent"
        assert stored["value"] > 10 * spec.row_bytes / 1024
        assert rows[f"P7_updates_h{hidden}"]["value"] > 0


@pytest.mark.integration
def test_a_run_meets_no_keys_of_the_run_before(own_redis: RunningRedis) -> None:
    for _ in range(2):
        rows = run_bench_state(
            redis_url=own_redis.url, hidden=(8,), conversations=4, utterances=2, runs=1
        )
    assert set(rows) == {"P7_bytes_h8", "P7_memory_h8", "P7_updates_h8"}
    assert rows["P7_bytes_h8"]["first"] is None, "no goal was set at this size"
