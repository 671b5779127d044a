"""Workers on real Kafka and Redis: as threads with a small model, and as real processes."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, Producer, TopicPartition

from stream import serve
from stream.brokers.kafka_config import retry
from stream.brokers.kafka_source import record_of
from stream.brokers.topics import create, plan
from stream.events.messages import TopicNames
from stream.local.servers import RunningKafka, RunningRedis, free_ports
from stream.ports import Record
from stream.settings import Settings

READY_S = 60.0
ROOT = Path(__file__).parents[2]
PARTITIONS = 2


@dataclass
class Site:
    """One set of topics on a real broker, with a Redis; what was sent and what came out."""

    settings: Settings
    producer: Producer
    sent: int = 0
    partitions: int = PARTITIONS

    def send(
        self, value: bytes | None, key: bytes | None, headers: Sequence[tuple[str, bytes]] = ()
    ) -> None:
        self.producer.produce(self.settings.topics.utterances, value, key, headers=list(headers))
        self.producer.poll(0)
        self.sent += 1

    def say(self, conversation: str, n: int, **fields: Any) -> None:
        said = {"conversation_id": conversation, "utterance_id": f"{conversation}-{n}"}
        said |= {"speaker_id": f"s{n % 2}"}
        features = {"audio": {"tensor": [n % 7 / 3.0, n % 3 / 2.0]}}
        body = said | (fields or {"features": features})
        self.send(json.dumps(body).encode(), conversation.encode())

    def flush(self) -> None:
        assert self.producer.flush(30) == 0

    def log(self, topic: str) -> list[Record]:
        """All that is in a topic now, in log order per partition."""
        consumer = Consumer(
            {"bootstrap.servers": self.settings.bootstrap, "group.id": "reader", "log_level": 0}
        )
        records: list[Record] = []
        for p in range(self.partitions):
            at = TopicPartition(topic, p, 0)
            _, high = consumer.get_watermark_offsets(at, timeout=10)
            consumer.assign([at])
            until = time.monotonic() + 20
            while high and time.monotonic() < until:
                got = [record_of(m, topic) for m in consumer.consume(1_000, 0.2) if not m.error()]
                records += got
                if got and got[-1].offset >= high - 1:
                    break
            consumer.unassign()
        consumer.close()
        return records

    def ends(self, *topics: str) -> int:
        """Return the number of records of all topics together, by their watermarks."""
        return sum(self.ends_of(*topics))

    def ends_of(self, *topics: str) -> list[int]:
        """Return the number of records of each partition, topic by topic."""
        consumer = Consumer(
            {"bootstrap.servers": self.settings.bootstrap, "group.id": "reader", "log_level": 0}
        )
        parts = [TopicPartition(t, p) for t in topics for p in range(self.partitions)]
        ends = [end_of(consumer, at) for at in parts]
        consumer.close()
        return ends

    def committed(self) -> int:
        """Return the number of records that the workers' group has committed."""
        consumer = Consumer(
            {
                "bootstrap.servers": self.settings.bootstrap,
                "group.id": self.settings.group,
                "log_level": 0,
            }
        )
        parts = [TopicPartition(self.settings.topics.utterances, p) for p in range(self.partitions)]
        found = retry(lambda: consumer.committed(parts, timeout=10), "commits are unknown")
        count = sum(max(0, at.offset) for at in found)
        consumer.close()
        return count


def new_site(kafka: RunningKafka, redis_server: RunningRedis) -> Site:
    """Return a site with fresh topics of broker time on these servers."""
    prefix = f"t{uuid.uuid4().hex[:8]}."
    create(kafka.bootstrap, plan(TopicNames(prefix), partitions=PARTITIONS))
    settings = Settings(
        bootstrap=kafka.bootstrap,
        redis_url=redis_server.url,
        topic_prefix=prefix,
        group=f"{prefix}workers",
        metrics_port=0,
    )
    producer = Producer(
        {
            "bootstrap.servers": kafka.bootstrap,
            "partitioner": "murmur2_random",
            "linger.ms": 2,
            "message.max.bytes": 3 << 20,
            "log_level": 0,
        }
    )
    return Site(settings, producer)


def end_of(consumer: Consumer, at: TopicPartition) -> int:
    """Return the number of records of a partition; ask again while the broker is away."""
    ends = retry(lambda: consumer.get_watermark_offsets(at, timeout=10), "ends are unknown")
    return int(ends[1])


def wait_for(true: Callable[[], bool], what: str, within_s: float = 30.0) -> None:
    """Poll until `true`; fail with `what` after a while."""
    until = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < until, f"{what} did not happen within {within_s:.0f} s"
        threading.Event().wait(0.05)


@dataclass
class ThreadWorker:
    """`run_worker` on a thread of its own."""

    settings: Settings
    stop: threading.Event = field(default_factory=threading.Event)
    code: int | None = None
    url: str = ""
    error: BaseException | None = None

    def start(self) -> ThreadWorker:
        self._up = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        assert self._up.wait(READY_S), "the worker did not start"
        if self.error is not None:
            raise self.error
        return self

    def _run(self) -> None:
        try:
            self.code = serve.run_worker(self.settings, stop=self.stop, ready=self._ready)
        except BaseException as error:  # shown by `start` and `end`
            self.error = error
        finally:
            self._up.set()

    def _ready(self, url: str) -> None:
        self.url = url
        self._up.set()

    def end(self) -> int | None:
        self.stop.set()
        self._thread.join(30)
        assert not self._thread.is_alive()
        if self.error is not None:
            raise self.error
        return self.code

    def metric(self, start: str) -> float:
        """The sum of all samples whose line starts so."""
        text = urllib.request.urlopen(f"{self.url}/metrics", timeout=10).read().decode()
        lines = [line for line in text.splitlines() if line.startswith(f"emotrack_{start}")]
        return sum(float(line.rpartition(" ")[2]) for line in lines)


class ChildWorker:
    """`emotrack serve` with the small model, as a process."""

    def __init__(self, settings: Settings, directory: Path, *flags: str) -> None:
        (self.port,) = free_ports(1)
        kept = {k: v for k, v in os.environ.items() if not k.startswith("EMOTRACK_")}
        mine = {
            "EMOTRACK_BOOTSTRAP": settings.bootstrap,
            "EMOTRACK_REDIS_URL": settings.redis_url,
            "EMOTRACK_TOPIC_PREFIX": settings.topic_prefix,
            "EMOTRACK_BATCH_MAX": str(settings.batch_max),
            "EMOTRACK_GROUP": settings.group,
            "EMOTRACK_GROUP_PROTOCOL": settings.group_protocol,
            "EMOTRACK_MAX_UNCOMMITTED": str(settings.max_uncommitted),
            "EMOTRACK_METRICS_PORT": str(self.port),
        }
        self.log = directory / f"worker-{self.port}.log"
        with self.log.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.integration.serve_small", "serve", *flags],
                cwd=ROOT,
                env=kept | mine,
                stdout=out,
                stderr=subprocess.STDOUT,
            )

    def wait_ready(self) -> None:
        def ready() -> bool:
            assert self.process.poll() is None, self.log.read_text()[-2000:]
            with contextlib.suppress(OSError, urllib.error.HTTPError):
                url = f"http://127.0.0.1:{self.port}/readyz"
                return bool(urllib.request.urlopen(url, timeout=1).status == 200)
            return False

        wait_for(ready, "readiness of the worker", READY_S)

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(10)
