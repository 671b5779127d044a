"""`emotrack local`, for people without Docker: both servers answer, and end with it."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import redis

from stream.brokers.kafka_admin import require_broker
from stream.local.servers import RunningRedis, answers, free_ports
from tests.conftest import ROOT

pytestmark = pytest.mark.integration
EMOTRACK = str(Path(sys.executable).parent / "emotrack")


def command(kafka_port: int, redis_port: int) -> list[str]:
    return [EMOTRACK, "local", f"--kafka-port={kafka_port}", f"--redis-port={redis_port}"]


@pytest.mark.usefixtures("kafka", "redis_server")  # skipped where one of them is missing
def test_both_servers_answer_until_ctrl_c_and_leave_nothing() -> None:
    kafka_port, redis_port = free_ports(2)
    with subprocess.Popen(
        command(kafka_port, redis_port), stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as local:
        assert local.stdout is not None
        said = [local.stdout.readline(), local.stdout.readline()]
        assert f"127.0.0.1:{kafka_port}" in said[1], said
        require_broker(f"127.0.0.1:{kafka_port}")
        with redis.Redis(port=redis_port) as client:
            policy = client.config_get("maxmemory-policy")
        assert policy == {"maxmemory-policy": "noeviction"}, "what `serve` asks for"
        local.send_signal(signal.SIGINT)
        assert local.wait(30) == 0
    assert not answers(kafka_port)
    assert not answers(redis_port)


def test_a_port_in_use_is_one_sentence(redis_server: RunningRedis) -> None:
    port = redis_server.port
    ran = subprocess.run(
        command(free_ports(1)[0], port), capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert ran.returncode == 1
    assert f"127.0.0.1:{port} already" in ran.stderr
    assert "--redis-port" in ran.stderr
