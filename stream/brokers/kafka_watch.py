"""Looks at the cluster and the group's offsets from a thread of its own.

A consumer without traffic is not told that its brokers went or hang, and the worker's loop may
wait for them itself (for a commit, an acknowledgement). So neither can say in time that Kafka is
away. A look is a metadata request with a short limit, on a client that fetches nothing and joins
no group; whichever broker answers will do.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from threading import Event, Thread
from typing import Final

from confluent_kafka import OFFSET_BEGINNING, KafkaError, KafkaException, TopicPartition

from stream.brokers.broker_faults import kind_of
from stream.brokers.kafka_config import Lookup, code_of, text_of
from stream.ports import Seen
from stream.settings import Settings

LOOK_S: Final = 2.0  # between two looks
ANSWER_S: Final = 4.0  # brokers that take longer to answer are away
SOONEST_S: Final = 0.5  # between two looks, whatever happens
OFFSETS_S: Final = 10.0  # between two looks at the group's offsets, which are three requests
CLOSE_S: Final = 1.0
GONE: Final = frozenset(kind_of(KafkaError.UNKNOWN_TOPIC_OR_PART).codes)
Tell = Callable[[Seen], None]


class KafkaWatch(Lookup):
    """The looks of one worker. `start` begins them; the attributes may be read by any thread."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, group=settings.group)  # named to read its offsets, never joined
        self.up = True  # as of the last look
        # Monotonic seconds when the last look that was answered began; infinite before the first.
        self.answered_at = float("inf")
        self.known_ends: Mapping[int, int] = {}  # by partition, of the last look at offsets
        self._missing_since: float | None = None
        self._next_offsets = 0.0
        self._waiting: int | None = None
        self._stop, self._wake = Event(), Event()
        self._thread: Thread | None = None

    def start(self, tell: Tell) -> None:
        """Look every `LOOK_S`, and `tell` what was seen, on a thread of its own, until `close`."""
        self._thread = Thread(target=self._run, args=[tell], name="kafka-watch", daemon=True)
        self._thread.start()

    def soon(self) -> None:
        """Look again at once: something suggests that the cluster is away."""
        self._wake.set()

    @property
    def missing_s(self) -> float:
        """Seconds for which the brokers have said that the topic does not exist."""
        since = self._missing_since
        return 0.0 if since is None else time.monotonic() - since

    def close(self) -> None:
        """Stop looking and release the connection; idempotent."""
        self._stop.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(CLOSE_S)
            if self._thread.is_alive():
                return  # it waits for a broker that is away, and ends with the process
        super().close()

    def _run(self, tell: Tell) -> None:
        while not self._stop.is_set():
            tell(self._look())
            self._stop.wait(SOONEST_S)
            self._wake.wait(LOOK_S - SOONEST_S)
            self._wake.clear()

    def _look(self) -> Seen:
        began = time.monotonic()
        try:
            found = self._client.list_topics(self._topic, timeout=ANSWER_S).topics[self._topic]
        except KafkaException as error:
            self.up = False
            says = kind_of(code_of(error)).says
            return Seen(f"{text_of(error)}{': ' if says else ''}{says}")
        if found.error is not None and found.error.code() in GONE:
            self._missing_since = self._missing_since or began
        else:
            self._missing_since = None
        self.answered_at, self.up = began, True
        if found.error is not None:
            return Seen()
        return Seen(partitions=len(found.partitions), waiting=self._behind(len(found.partitions)))

    def _behind(self, partitions: int) -> int | None:
        """Return the records beyond the group's commits, as of the last time they were asked for.

        None where that failed.
        """
        if (now := time.monotonic()) < self._next_offsets:
            return self._waiting
        self._next_offsets, self._waiting = now + OFFSETS_S, None
        every = range(partitions)
        with suppress(KafkaException):
            at = [TopicPartition(self._topic, p) for p in every]
            committed = self._client.committed(at, timeout=ANSWER_S)
            starts = self.offsets(OFFSET_BEGINNING, every, ANSWER_S)
            self.known_ends = ends = self.ends(every, ANSWER_S)
            if not any(c.error for c in committed):
                begins = {c.partition: max(c.offset, starts[c.partition]) for c in committed}
                self._waiting = sum(max(0, ends[p] - begins[p]) for p in every)
        return self._waiting
