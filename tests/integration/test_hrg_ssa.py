"""The other model behind the same worker: real conversations, and the demo."""

from __future__ import annotations

import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from model.data.dataset import DataSet, Split
from model.data.reader import read_data_set
from stream.bench.conversations import through_kafka
from stream.bench.servers import Servers
from stream.client.data_source import DataChoice
from stream.local.demo import conversations
from stream.local.servers import RunningKafka, RunningRedis
from tests.fakes.conversations import generated_conversations

CONVERSATIONS = 12


@pytest.mark.integration
@pytest.mark.slow
def test_what_it_says_through_kafka_and_redis_is_the_offline_recompute(
    kafka: RunningKafka, redis_server: RunningRedis, data_folder: Path | None, tmp_path: Path
) -> None:
    """Words in, two workers; to the byte the oracle's, and by the model law one whole pass."""
    generated = generated_conversations(40)
    data: DataSet = generated if data_folder is None else read_data_set(data_folder, "meld")
    split: Split = "dev" if data_folder is not None else "train"
    choice = DataChoice(split, None, CONVERSATIONS)
    prefix = f"hrg{uuid.uuid4().hex[:8]}."
    servers = Servers(kafka.bootstrap, redis_server.url, prefix, Path("hrg-ssa"))
    outcome = through_kafka(data, choice, servers, tmp_path)
    total = sum(len(d) for d in data.split(split)[:CONVERSATIONS])
    assert outcome.utterances == outcome.byte_equal == total
    assert len(outcome.by_worker) == 2, "both workers took part"
    assert outcome.ties == 0, "told the same, both forms say the same"


@pytest.mark.slow
def test_the_demo_shows_it() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "stream.main", "demo", "--model", "hrg-ssa", "--speed", "20"],
        capture_output=True,
        text=True,
        timeout=180,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    total = sum(len(c) for c in conversations().values())
    assert f"{total} utterances sent, {total} predictions" in ran.stdout
    assert "kitchen: text+audio+video" in ran.stdout
