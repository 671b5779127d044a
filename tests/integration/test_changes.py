"""Two workers are replaced on real servers: by equal ones, by another window, and back."""

from __future__ import annotations

import contextlib
import json
import uuid
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer

from stream.bench.change import Amounts, measure
from stream.bench.load import ends_of
from stream.bench.rebuild import CHECKED
from stream.bench.servers import Servers
from stream.local.servers import RunningKafka, RunningRedis

pytestmark = [pytest.mark.integration, pytest.mark.slow]

AMOUNTS = Amounts(conversations=12, utterances=60, per_s=4.0, partitions=2, window=5, settle_s=4.0)
SMALL = {"small_batch_ms": 15, "window": 3}  # as long as raw text takes


def checks(directory: Path, *workers: int) -> list[dict[str, Any]]:
    """The checks that these workers logged, numbered as they were started."""
    logs = ((directory / f"worker-{n}.log").read_text().splitlines() for n in workers)
    return [json.loads(line) for lines in logs for line in lines if CHECKED in line]


def test_readers_of_two_workers_that_are_replaced(
    kafka: RunningKafka, redis_server: RunningRedis, tmp_path: Path
) -> None:
    """Equal ones compute nothing again; a roll-back continues what the first ones had."""
    servers = Servers(kafka.bootstrap, redis_server.url, f"t{uuid.uuid4().hex[:8]}.")
    rows = measure(
        servers,
        tmp_path,
        AMOUNTS,
        say=print,  # the figures of docs/upgrades.md
        module="tests.integration.serve_small",
        settings=SMALL,
    )
    assert rows["upgrade_states"]["value"] == 0
    assert rows["window_states"]["value"] >= AMOUNTS.conversations
    assert rows["roll_back_states"]["value"] >= AMOUNTS.conversations
    assert not any(check["records"] for check in checks(tmp_path, 0, 1, 2, 3))
    forwards, back = (
        sum(check["records"] for check in checks(tmp_path, *workers))
        for workers in ((4, 5), (6, 7))
    )
    assert forwards >= AMOUNTS.conversations * AMOUNTS.utterances, "from the beginnings"
    with contextlib.closing(Consumer({"bootstrap.servers": kafka.bootstrap, "group.id": "r"})) as c:
        said = sum(at.offset for at in ends_of(c, servers.topics.utterances))
    assert back <= said - forwards, "only what was said since"
