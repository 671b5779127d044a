"""The plant of a scenario: a real broker, a real Redis, real worker processes, a steady load.

The worker is the real one with a small model (`tests.integration.serve_small`), so that it starts
in a second and its answers can be computed again in a minute. Everything is on loopback and bounded
in count and time.
"""

from __future__ import annotations

import contextlib
import json
import random
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from confluent_kafka import Producer

from stream.brokers.topics import create, plan
from stream.events.messages import TopicNames
from stream.local.servers import (
    QUICK_GROUPS,
    Listeners,
    RunningKafka,
    RunningRedis,
    apache_kafka,
    redis_server,
)
from stream.local.worker_process import RunningWorker, local_worker
from stream.metrics.scrape import scrape
from stream.settings import Settings
from tests.chaos.proxy import Proxy
from tests.conftest import ROOT
from tests.fakes.predictor import SmallPredictor
from tests.integration.serve_small import small_model
from tests.integration.workers import Site, wait_for

PARTITIONS: Final = 6
TURNS: Final = 30  # utterances a conversation
CONVERSATIONS: Final = 200  # talking at the same time
SESSION_MS: Final = "3000"  # of a group member, so that a takeover does not take the tests' time
SETTLE_S: Final = 300.0
MODULE: Final = "tests.integration.serve_small"


class Load(threading.Thread):
    """Conversations of `TURNS` utterances each, `CONVERSATIONS` at a time, at a steady rate."""

    def __init__(
        self, site: Site, rate: float, seed: int, conversations: int = CONVERSATIONS
    ) -> None:
        super().__init__(daemon=True)
        self.site, self.rate, self.conversations = site, rate, conversations
        self.said = 0
        self.extra: Callable[[int], None] = lambda n: None  # called after the n-th utterance
        self._random = random.Random(seed)
        self._end = threading.Event()

    def run(self) -> None:
        began = time.monotonic()
        while not self._end.is_set():
            if not self.rate:  # nobody speaks
                self._end.wait()
                return
            ahead_s = self.said / self.rate - (time.monotonic() - began)
            if ahead_s > 0:
                self._end.wait(min(ahead_s, 0.05))
                continue
            self.say()

    def say(self) -> None:
        """The next utterance of the next conversation."""
        lane, lap = self.said % self.conversations, self.said // self.conversations
        conversation, turn = f"c{lane}-{lap // TURNS}", lap % TURNS
        audio = [round(self._random.uniform(0, 3), 2), round(self._random.uniform(0, 2), 2)]
        fields: dict[str, Any] = {"features": {"audio": {"tensor": audio}}}
        if turn == TURNS - 1:
            fields["end_of_conversation"] = True
        self.site.say(conversation, turn, **fields)
        self.extra(self.said)
        self.said += 1

    def number(self, prediction: bytes) -> int:
        """Return the utterance of the load that a prediction answers."""
        told = json.loads(prediction)
        lane, lives = told["conversation_id"].removeprefix("c").split("-")
        turn = int(told["utterance_id"].rpartition("-")[2])
        return int(lane) + self.conversations * (TURNS * int(lives) + turn)

    def end(self) -> None:
        """Stop and have all of it in the log."""
        self._end.set()
        self.join(30)
        self.site.flush()


@dataclass
class Plant:
    """Servers, topics of their own, and workers that come and go."""

    kafka: RunningKafka
    redis: RunningRedis
    directory: Path
    seed: int
    options: Mapping[str, Any] = field(default_factory=dict)
    batch_ms: float = 5.0  # how long the small model takes for a batch
    mutant: str | None = None  # a worker that breaks a promise (`tests.chaos.mutants`)
    workers: list[RunningWorker] = field(default_factory=list)
    kills: int = 0
    truncates: bool = False  # the log itself loses context: answers may say so

    def __post_init__(self) -> None:
        prefix = f"chaos{uuid.uuid4().hex[:8]}."
        create(self.kafka.bootstrap, plan(TopicNames(prefix), partitions=PARTITIONS))
        given = {
            "bootstrap": self.kafka.bootstrap,
            "redis_url": self.redis.url,
            "topic_prefix": prefix,
            "group": f"{prefix}workers",
            "batch_max": 16,
            "max_uncommitted": 100,
            "log_format": "json",
        }
        self.settings = Settings(**{**given, **self.options})  # the workers'
        producer = Producer(
            {
                "bootstrap.servers": self.kafka.bootstrap,
                "log_level": 0,
                "partitioner": "murmur2_random",
                "linger.ms": 5,
            }
        )
        straight = self.settings.model_copy(update={"bootstrap": self.kafka.bootstrap})
        self.site = Site(straight, producer, partitions=PARTITIONS)
        self.random = random.Random(self.seed)
        self._exits: dict[int, ExitStack] = {}

    @property
    def next_log(self) -> Path:
        """Return the file that the next worker logs to."""
        return self.directory / f"worker-{len(self._exits)}.log"

    def predictor(self) -> SmallPredictor:
        """The model that its workers serve."""
        return small_model(self.settings.idle_s)

    def start(
        self,
        fault: str | None = None,
        *,
        wait: bool = True,
        checkout: Path | None = None,
        **changed: Any,
    ) -> RunningWorker:
        """One more worker, armed with a fault or not; `changed` settings, and `small_…` ones.

        It runs the code of another `checkout`, where one is named.
        """
        told = self.settings.model_copy(update=changed).model_dump(exclude_unset=True)
        given = {k: v for k, v in (told | changed).items() if v is not None}
        environment: dict[str, object] = {k: as_text(v) for k, v in given.items()}
        if fault is not None:
            environment["fault"] = fault
        if self.mutant is not None:
            environment["mutant"] = self.mutant
        stack, log = ExitStack(), self.next_log
        worker = stack.enter_context(
            local_worker(
                environment | {"small_batch_ms": self.batch_ms},
                log,
                ready_s=60.0 if wait else 0.0,
                module="tests.chaos.mutants" if self.mutant else MODULE,
                directory=checkout,
            )
        )
        self._exits[id(worker)] = stack
        self.workers.append(worker)
        return worker

    def stop(self, worker: RunningWorker) -> int:
        """SIGTERM; returns its exit code."""
        self.workers.remove(worker)
        return worker.stop()

    def kill(self, worker: RunningWorker) -> None:
        """SIGKILL."""
        self.workers.remove(worker)
        worker.kill()
        self.kills += 1

    def reap(self) -> list[RunningWorker]:
        """Workers that have ended by themselves (or by their fault) since the last look."""
        gone = [w for w in self.workers if w.process.poll() is not None]
        for worker in gone:
            self.workers.remove(worker)
            self.kills += worker.process.returncode == -signal.SIGKILL
        return gone

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric over the workers that answer."""
        total = 0.0
        for worker in self.workers:
            with contextlib.suppress(OSError):
                total += scraped(worker, name, **labels)
        return total

    def settled(self, within_s: float = SETTLE_S) -> float:
        """Wait until all that was sent is committed; seconds it took."""
        began = time.monotonic()
        wait_for(lambda: self.site.committed() >= self.site.sent, "the last commit", within_s)
        return time.monotonic() - began

    def close(self) -> None:
        """End every worker."""
        for stack in self._exits.values():
            stack.close()


def scraped(worker: RunningWorker, name: str, **labels: str) -> float:
    """The sum of one worker's samples of a metric."""
    return scrape(worker.metrics).value(f"emotrack_{name}", **labels)


def as_text(value: Any) -> str:
    """A setting as the environment holds it."""
    return json.dumps(value) if isinstance(value, dict) else str(value)


@dataclass
class Servers:
    """One broker and one Redis for many scenarios; the broker is reached through a proxy, too."""

    kafka: RunningKafka
    redis: RunningRedis
    kafka_proxy: Proxy
    redis_proxy: Proxy

    @property
    def proxied_kafka(self) -> str:
        return f"127.0.0.1:{self.kafka_proxy.port}"

    @property
    def proxied_redis(self) -> str:
        return f"redis://127.0.0.1:{self.redis_proxy.port}/0"


@contextlib.contextmanager
def servers(directory: Path, *, defaults: bool = False) -> Iterator[Servers]:
    """Start them; end them. With `defaults` groups are as Kafka has them where nothing is set."""
    session = {} if defaults else {"group.consumer.session.timeout.ms": SESSION_MS}
    with ExitStack() as stack:
        for name in ("kafka", "redis"):
            (directory / name).mkdir(parents=True)
        kafka_proxy, redis_proxy = Proxy(), Proxy()
        stack.callback(kafka_proxy.close)
        stack.callback(redis_proxy.close)
        told = Listeners(
            {"PROXIED": "PLAINTEXT"},
            {"transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000", **session},
            advertised={"PROXIED": kafka_proxy.port},
        )
        kafka = stack.enter_context(
            apache_kafka(
                directory / "kafka",
                ROOT / ".servers/kafka/jars",
                told,
                groups={} if defaults else QUICK_GROUPS,
            )
        )
        kafka_proxy.target = int(kafka.listeners["PROXIED"].rpartition(":")[2])
        redis = stack.enter_context(redis_server(directory / "redis"))
        redis_proxy.target = redis.port
        yield Servers(kafka, redis, kafka_proxy, redis_proxy)
