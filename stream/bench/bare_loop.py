"""The bare loop that P6 is measured against: consume, FCALL, produce the same bytes, commit.

Run as a child process (`python -m stream.bench.bare_loop JSON`), so that the CPU of the clients'
own threads is counted on both sides. Saves are encoded before the clock starts; there is no model,
no decoding, no metric. Prints CPU microseconds a record.
"""

from __future__ import annotations

import sys
import time
from typing import Any, Final

import msgspec
from confluent_kafka import Consumer, Message, Producer

from state.redis_store import RedisStore
from stream.bench.state import SaveScript, open_store, spec_of

CONVERSATIONS: Final = 1_000
HIDDEN: Final = 200
WAIT_S: Final = 20.0


class Arguments(msgspec.Struct, frozen=True):
    """The parent's request."""

    bootstrap: str
    redis_url: str
    source: str  # topic that already has at least `count` records
    sink: str
    count: int
    batch: int
    answer_bytes: int


def bare_loop(arguments: Arguments) -> float:
    """Run the loop; return CPU microseconds a record."""
    store = open_store(spec_of(HIDDEN), arguments.redis_url)
    store.check()
    calls = encoded_saves(store, arguments.count)
    producer = Producer(
        {"bootstrap.servers": arguments.bootstrap, "enable.idempotence": True, "linger.ms": 0}
    )
    consumer = joined_consumer(arguments)
    answer = bytes(arguments.answer_bytes)
    done = 0
    deadline = time.monotonic() + WAIT_S
    pending: list[Message] = []  # joining the group is not part of the loop
    while not pending and time.monotonic() < deadline:
        pending = list(consumer.consume(1, 0.1))
    cpu = time.process_time()
    while done < arguments.count and time.monotonic() < deadline:
        messages = [m for m in pending or consumer.consume(arguments.batch, 0.1) if not m.error()]
        pending = []
        if not messages:
            continue
        store.send(calls[done : done + len(messages)])
        for message in messages:
            producer.produce(arguments.sink, answer, message.key())
        producer.flush()
        consumer.commit(asynchronous=True)
        done += len(messages)
    cpu = time.process_time() - cpu
    consumer.close()
    if done < arguments.count:
        raise TimeoutError(f"only {done} of {arguments.count} records within {WAIT_S:.0f} s")
    return cpu / done * 1e6


def encoded_saves(store: RedisStore, count: int) -> list[tuple[Any, ...]]:
    """Return encoded FCALLs of `count` utterances of many conversations."""
    token = store.claim("bench-bare", 0)
    saves = SaveScript(spec_of(HIDDEN), CONVERSATIONS, 0, f"bench-bare-{token:x}")
    calls: list[tuple[Any, ...]] = []
    while len(calls) <= count:
        calls += [store.encoded(save) for save in saves.next_batch(token)]
    return calls


def joined_consumer(arguments: Arguments) -> Consumer:
    """Return a group member that reads from the start, with the worker's settings."""
    consumer = Consumer(
        {
            "bootstrap.servers": arguments.bootstrap,
            "group.id": f"bench-bare-{time.time_ns():x}",
            "group.protocol": "consumer",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "fetch.wait.max.ms": 10,
        }
    )
    consumer.subscribe([arguments.source])
    return consumer


if __name__ == "__main__":
    print(bare_loop(msgspec.json.decode(sys.argv[1], type=Arguments)))
