"""`emotrack bench change`: the silence of each partition while workers are replaced.

Two workers on Apache Kafka and Redis answer conversations that go on at a steady rate. Then both
are replaced one after the other, as a rolling update does (start one, wait until it is ready,
SIGTERM to an old one): by the same, by workers with another window, and by the first ones again.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

import msgspec
from confluent_kafka import Consumer

from stream.bench.load import (
    SHIPPED_WIDTHS,
    Name,
    Sender,
    UtteranceMessage,
    arriving,
    collecting_into,
    script,
)
from stream.bench.rows import Row, figure
from stream.bench.servers import Servers, started
from stream.bench.sizing import Input
from stream.local.demo import demo_sentences
from stream.local.servers import KAFKA_JARS
from stream.local.worker_process import RunningWorker, local_worker
from stream.metrics.scrape import scrape

WORKERS: Final = 2
READY_S: Final = 180.0
WAIT_S: Final = 600.0
CAUGHT_UP_S: Final = 1.0  # nothing has waited for longer
MOST_S: Final = 1_800.0  # of load, in all
AIM_S: Final = 5.0  # no partition is silent for longer while equal workers are replaced


@dataclass(frozen=True, slots=True)
class Amounts:
    """The load that goes on, and the other window."""

    conversations: int = 40
    utterances: int = 40  # of each before the first change
    per_s: float = 6.0  # of all conversations together
    partitions: int = 4
    window: int = 8  # the other one
    input: Input = "text"
    settle_s: float = 15.0  # watched after the last worker has left; and before the first change


class _Input(msgspec.Struct):
    partition: int


class _Answer(msgspec.Struct):
    utterance_id: str
    input: _Input


@dataclass(slots=True)
class Answers:
    """Times of each utterance's first answer, by the partition that it is on."""

    times: dict[int, list[float]] = field(default_factory=dict)  # monotonic
    arrived: dict[Name, float] = field(default_factory=dict)

    def collect(self, consumer: Consumer, stop: threading.Event) -> None:
        """Note answers until `stop` is set; a repeat is none."""
        decoder = msgspec.json.Decoder(_Answer)
        for key, value in arriving(consumer, stop):
            answer, now = decoder.decode(value), time.monotonic()
            name = key, answer.utterance_id
            if name not in self.arrived:
                self.arrived[name] = now
                self.times.setdefault(answer.input.partition, []).append(now)

    def silences(self, began: float, ended: float) -> dict[int, float]:
        """Return the longest time without an answer of each partition."""
        longest: dict[int, float] = {}
        for partition, times in sorted(self.times.items()):
            seen = [began, *(t for t in list(times) if began <= t <= ended), ended]
            longest[partition] = max(b - a for a, b in itertools.pairwise(seen))
        return longest


class Talk(threading.Thread):
    """Conversations that go on at a steady rate until `end`."""

    def __init__(self, sender: Sender, messages: Sequence[UtteranceMessage], per_s: float) -> None:
        super().__init__(name="talk", daemon=True)
        self.due: dict[Name, float] = {}  # monotonic
        self._sender, self._messages, self._per_s = sender, messages, per_s
        self._end = threading.Event()

    def run(self) -> None:
        began = time.monotonic()
        for number, message in enumerate(self._messages):
            at = began + number / self._per_s
            if self._end.wait(max(0.0, at - time.monotonic())):
                return
            self.due[message.name] = at
            self._sender.say(message)

    def end(self) -> None:
        """Stop, with all that was said in the log."""
        self._end.set()
        self.join(WAIT_S)


@dataclass(slots=True)
class Fleet:
    """The workers that run now."""

    servers: Servers
    scratch: Path
    module: str
    stack: ExitStack
    workers: list[RunningWorker] = field(default_factory=list)
    started: int = 0
    rebuilt: float = 0.0  # by those that have left

    def start(self, **settings: object) -> None:
        """Start one more, and wait until it is ready."""
        told = self.servers.worker_settings(log_level="info", log_format="json", **settings)
        log = self.scratch / f"worker-{self.started}.log"
        self.started += 1
        worker = local_worker(told, log, ready_s=READY_S, module=self.module)
        self.workers.append(self.stack.enter_context(worker))

    def replace(self, **settings: object) -> None:
        """Replace all workers, one after the other, by as many with these settings."""
        for old in list(self.workers):
            self.start(**settings)
            self.rebuilt += states_of(old)
            self.workers.remove(old)
            old.stop()

    @property
    def states(self) -> float:
        """The states computed again so far, by all workers."""
        return self.rebuilt + sum(states_of(worker) for worker in self.workers)


def states_of(worker: RunningWorker) -> float:
    """Return the states that a worker has computed again."""
    return scrape(worker.metrics).value("emotrack_state_rebuilds_total")


def run_bench_change(
    amounts: Amounts,
    *,
    say: Callable[[str], None],
    jars: Path = KAFKA_JARS,
    module: str = "stream.main",
    settings: Mapping[str, object] | None = None,
) -> dict[str, Row]:
    """Measure each change in turn. `module` is run as the worker, `settings` are for all."""
    with started(jars, say, "change.") as (servers, scratch):
        return measure(servers, scratch, amounts, say=say, module=module, settings=settings or {})


def measure(
    servers: Servers,
    scratch: Path,
    amounts: Amounts,
    *,
    say: Callable[[str], None],
    module: str,
    settings: Mapping[str, object],
) -> dict[str, Row]:
    """Measure on servers that run, in new topics. Raises `TimeoutError`."""
    servers.create_topics(amounts.partitions)
    sender = Sender(servers.bootstrap, servers.topics)
    before = amounts.conversations * amounts.utterances
    count = before + round(amounts.per_s * MOST_S)
    messages = script(
        "talk",
        amounts.conversations,
        count,
        widths=SHIPPED_WIDTHS,
        sentences=demo_sentences() if amounts.input == "text" else (),
    )
    changes: dict[str, dict[str, object]] = {
        "upgrade": {},
        "window": {"window": amounts.window},
        "roll_back": {},
    }
    with ExitStack() as stack:
        reading = collecting_into(Answers(), servers.bootstrap, servers.topics.predictions)
        answers = stack.enter_context(reading)
        fleet = Fleet(servers, scratch, module, stack)
        for _ in range(WORKERS):
            fleet.start(**settings)
        say(f"{before} utterances of {amounts.conversations} conversations")
        sender.flood(messages[:before])
        wait_for(lambda: len(answers.arrived) >= before)
        talk = Talk(sender, messages[before:], amounts.per_s)
        talk.start()
        stack.callback(talk.end)
        watch = Watch(answers, talk, fleet, say, amounts.settle_s)
        wait_for(lambda: len(answers.arrived) > before + amounts.conversations)
        watch.during("steady", lambda: None)
        for name, changed in changes.items():
            say(f"{name}: replacing {WORKERS} workers")
            watch.during(name, partial(fleet.replace, **{**settings, **changed}))
    return watch.rows


@dataclass(slots=True)
class Watch:
    """A reader of the answers during each change."""

    answers: Answers
    talk: Talk
    fleet: Fleet
    say: Callable[[str], None]
    settle_s: float
    rows: dict[str, Row] = field(default_factory=dict)

    def during(self, name: str, change: Callable[[], None]) -> None:
        """Add the longest silence from the beginning of a change until nothing waits any more."""
        began, states = time.monotonic(), self.fleet.states
        change()
        changed = time.monotonic()
        time.sleep(self.settle_s)  # until partitions that moved last are at work, too
        wait_for(lambda: self.waiting_s() < CAUGHT_UP_S)
        ended = time.monotonic()
        silences = self.answers.silences(began, ended)
        each = ", ".join(f"{p}: {s:.1f}" for p, s in silences.items())
        due = {n: at for n, at in list(self.talk.due.items()) if at >= began}
        slowest = max(self.answers.arrived.get(n, ended) - at for n, at in due.items())
        note = (
            f"longest silence of a partition ({each}); slowest answer {slowest:.1f} s; "
            f"workers replaced in {changed - began:.0f} s, watched for {ended - began:.0f} s"
        )
        first = AIM_S if name == "upgrade" else None
        self.rows[f"{name}_silence"] = figure([max(silences.values())], "s", note, first, digits=1)
        computed = self.fleet.states - states
        self.rows[f"{name}_states"] = figure([computed], "", "states computed again", digits=0)
        self.say(f"{name}: {note}")

    def waiting_s(self) -> float:
        """Return how long the oldest utterance without an answer has waited."""
        waiting = (at for n, at in list(self.talk.due.items()) if n not in self.answers.arrived)
        return time.monotonic() - min(waiting, default=time.monotonic())


def wait_for(true: Callable[[], bool]) -> None:
    """Wait until `true`. Raises `TimeoutError`."""
    until = time.monotonic() + WAIT_S
    while not true():
        if time.monotonic() > until:
            raise TimeoutError("answers are missing")
        time.sleep(0.1)
