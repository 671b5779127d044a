"""The servers, topics and workers of a benchmark."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from stream.brokers.topics import create, plan
from stream.events.messages import TopicNames
from stream.local.servers import kafka_and_redis
from stream.local.worker_process import RunningWorker, local_worker


@dataclass(frozen=True, slots=True)
class Servers:
    """A broker and a store; a prefix of topics separates runs."""

    bootstrap: str
    redis_url: str
    prefix: str = "emotrack."
    model: Path | None = None  # checkpoint folder or name; none: the shipped PCGNet

    @property
    def topics(self) -> TopicNames:
        return TopicNames(self.prefix)

    @property
    def group(self) -> str:
        return f"{self.prefix}workers"

    def create_topics(self, partitions: int) -> None:
        """Create the topics of this prefix."""
        create(self.bootstrap, list(plan(self.topics, partitions=partitions)))

    def worker_settings(self, **more: object) -> dict[str, object]:
        """Return the settings of a worker on these servers, and `more`."""
        model = {} if self.model is None else {"model": str(self.model)}
        return model | {
            "bootstrap": self.bootstrap,
            "redis_url": self.redis_url,
            "topic_prefix": self.prefix,
            "group": self.group,
            **more,
        }

    def worker(self, log: Path, **more: object) -> AbstractContextManager[RunningWorker]:
        """Run a worker until the block ends, with `more` settings."""
        return local_worker(self.worker_settings(**more), log)


@contextmanager
def started(
    jars: Path, say: Callable[[str], None], prefix: str = "emotrack."
) -> Iterator[tuple[Servers, Path]]:
    """Run Apache Kafka and Redis until the block ends; yield them and a scratch folder."""
    with tempfile.TemporaryDirectory(prefix="emotrack-bench-") as name:
        say("starting Apache Kafka and Redis")
        with kafka_and_redis(Path(name), jars) as stack:
            yield Servers(stack.kafka.bootstrap, stack.redis.url, prefix), Path(name)
