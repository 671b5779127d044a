"""The scenarios of reliability.md: each breaks something under load and says what was seen.

A scenario gets a `Stage` (servers, seed, size) and returns facts; afterwards the runner lets all
that was sent be committed and has `stream.verify` compute everything again from the log. So a
scenario only asserts what the verifier cannot see: times, metrics, exit codes.
"""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import redis

from model.fault_points import FAULT_POINTS
from stream.local_servers import answers
from stream.local_worker import RunningWorker, wait_ready
from tests.chaos.plant import CONVERSATIONS, Load, Plant, Servers, scraped
from tests.integration.test_worker_kafka import POISONS
from tests.integration.workers import wait_for

RATE: Final = 100.0  # utterances a second, unless a scenario says otherwise
OUTPUT_S: Final = 15.0  # a new output after a kill
RESUME_S: Final = 30.0

Facts = dict[str, Any]


@dataclass
class Stage:
    """What a scenario may use."""

    servers: Servers
    directory: Path
    seed: int
    full: bool  # the long set, else the short one of `make test`
    mutant: str | None = None  # run this in the worker's place
    plants: list[Plant] = field(default_factory=list)

    @contextmanager
    def plant(
        self, rate: float = RATE, conversations: int = CONVERSATIONS, **options: Any
    ) -> Iterator[tuple[Plant, Load]]:
        """Topics of their own and a load that has begun; it ends with the block."""
        made = Plant(
            self.servers.kafka,
            self.servers.redis,
            self.directory,
            self.seed,
            batch_ms=options.pop("batch_ms", 5.0),
            mutant=self.mutant,
            options=options,
        )
        self.plants.append(made)
        load = Load(made.site, rate, self.seed, conversations)
        load.start()
        try:
            yield made, load
        finally:
            load.end()

    def times(self, short: int, full: int) -> int:
        """How often, by the size of the run."""
        return full if self.full else short


def progress(plant: Plant) -> int:
    """Predictions in the log so far."""
    return plant.site.ends(plant.settings.predictions)


def wait_more(plant: Plant, count: int = 2, within_s: float = OUTPUT_S) -> float:
    """Seconds until every partition has `count` more predictions."""
    began, before = time.monotonic(), plant.site.ends_of(plant.settings.predictions)

    def more() -> bool:
        now = plant.site.ends_of(plant.settings.predictions)
        return all(n >= b + count for n, b in zip(now, before, strict=True))

    wait_for(more, "new predictions of every partition", within_s)
    return time.monotonic() - began


def killed_at_every_place(stage: Stage) -> Facts:
    """R1: SIGKILL at F1 to F10, three workers."""
    repeats, slowest = stage.times(1, 20), 0.0
    done: dict[str, int] = {}
    with stage.plant() as (plant, _):
        for _ in range(2):
            plant.start()
        wait_more(plant)
        for turn in range(repeats):
            for point in FAULT_POINTS:
                nth = 1 if point in ("F9", "F10") else plant.random.randint(2, 30)
                victim = plant.start(f"{point}:{nth}")
                _until_dead(plant, victim, point)
                slowest = max(slowest, wait_more(plant))
                done[point] = turn + 1
    return {"kills": plant.kills, "by place": done, "slowest first output s": round(slowest, 1)}


def _until_dead(plant: Plant, victim: RunningWorker, point: str) -> None:
    """Make the armed worker reach its place."""
    wait_for(lambda: owns(victim), f"{point}: a partition for the armed worker", 30)
    if point == "F9":  # somebody else comes, and it must give partitions back
        others = [plant.start(), plant.start()]
        wait_for(lambda: victim.process.poll() is not None, f"death at {point}", 30)
        for other in others:
            plant.stop(other)
    elif point == "F10":
        victim.process.send_signal(signal.SIGTERM)
    wait_for(lambda: victim.process.poll() is not None, f"death at {point}", 60)
    assert victim.process.returncode == -signal.SIGKILL, victim.log_tail()
    plant.reap()


def owns(worker: RunningWorker) -> bool:
    """Whether it has a partition, or is dead already."""
    if worker.process.poll() is not None:
        return True
    try:
        return scraped(worker, "rebalances_total", kind="assigned") > 0
    except OSError:
        return False


def killed_at_random(stage: Stage) -> Facts:
    """R2: SIGKILL every 3 s in the mean."""
    until = time.monotonic() + stage.times(20, 600)
    with stage.plant() as (plant, _):
        for _ in range(3):
            plant.start()
        wait_more(plant)
        while time.monotonic() < until:
            time.sleep(plant.random.expovariate(1 / 3))
            plant.kill(plant.random.choice(plant.workers))
            plant.start(wait=False)
        for worker in plant.workers:
            wait_ready(worker)
        last = time.monotonic()
        wait_for(lambda: plant.metric("consumer_lag_records") < 2 * RATE, "the lag of before", 60)
    return {"kills": plant.kills, "lag back after s": round(time.monotonic() - last, 1)}


def killed_before_commit(stage: Stage, point: str = "F8") -> Facts:
    """One kill at one place and a successor: what the mutants are tried with."""
    with stage.plant() as (plant, load):
        victim = plant.start(f"{point}:4")
        wait_for(lambda: victim.process.poll() is not None, f"death at {point}", 30)
        plant.reap()
        plant.start()
        wait_for(lambda: load.said >= 600, "the load", 60)
    return {"kills": plant.kills}


def drained(stage: Stage) -> Facts:
    """R3: SIGTERM under load: nothing repeated, exit 0."""
    with stage.plant() as (plant, _):
        slowest = 0.0
        for _ in range(stage.times(2, 10)):
            worker = plant.start()
            wait_more(plant)
            began = time.monotonic()
            code = plant.stop(worker)
            slowest = max(slowest, time.monotonic() - began)
            assert code == 0, worker.log_tail()
            answered, committed = progress(plant), plant.site.committed()
            assert answered == committed, f"{answered} predictions, {committed} committed"
        plant.start()
    return {"drains": stage.times(2, 10), "slowest s": round(slowest, 1)}


def zombie(stage: Stage) -> Facts:
    """R4: SIGSTOP past the session, partitions move, SIGCONT, once into a silence."""
    rejections, rejoined, sleeps = 0.0, 0.0, 0
    # Batches so slow that a worker is stopped in the midst of one.
    with stage.plant(rate=40.0, conversations=40, batch_ms=200.0) as (plant, load):
        plant.start()
        while sleeps < stage.times(1, 10) or (not rejections and sleeps < 5 and not stage.mutant):
            sleeper = plant.start()
            wait_for(partial(owns, sleeper), "a partition for the sleeper", 30)
            wait_more(plant)
            sleeper.process.send_signal(signal.SIGSTOP)
            time.sleep(5.0)  # the session ends after 3 s; the other one owns all by now
            wait_more(plant)
            rejoined = max(rejoined, _awake(sleeper))
            rejections += scraped(sleeper, "fencing_rejections_total")
            sleeps += 1
            plant.stop(sleeper)
        sleeper = plant.start()
        wait_for(partial(owns, sleeper), "a partition for the sleeper", 30)
        wait_more(plant)
        sleeper.process.send_signal(signal.SIGSTOP)
        load.end()
        plant.settled()  # nobody writes after the sleeper
        _awake(sleeper)
        plant.stop(sleeper)
    assert rejections or stage.mutant, "no write of a sleeper was refused: the metric must move"
    return {
        "sleeps": sleeps + 1,
        "fencing rejections": int(rejections),
        "rejoins after s": round(rejoined, 1),
    }


def _awake(sleeper: RunningWorker) -> float:
    """Seconds until a worker that goes on knows what it has lost; it has written what it held."""
    began = time.monotonic()
    sleeper.process.send_signal(signal.SIGCONT)
    wait_for(partial(knows, sleeper), "the sleeper's return or end", 10)
    known = time.monotonic() - began
    time.sleep(1.0)
    return known


def knows(worker: RunningWorker) -> bool:
    """Whether a sleeper has learnt that it lost its partitions (or has ended)."""
    if worker.process.poll() is not None:
        return True
    try:
        return scraped(worker, "rebalances_total", kind="lost") > 0
    except OSError:
        return False


def rebalances(stage: Stage) -> Facts:
    """R5: workers come and go; once with the classic cooperative protocol."""
    for protocol in ("consumer", "classic"):
        with stage.plant(group_protocol=protocol) as (plant, _):
            for wanted in (1, 4, 2, 3) * stage.times(1, 3):
                while len(plant.workers) < wanted:
                    plant.start(wait=False)
                while len(plant.workers) > wanted:
                    code = plant.stop(plant.random.choice(plant.workers))
                    assert code == 0
                time.sleep(stage.times(4, 10))
            recovered = wait_more(plant)
    return {"protocols": ["consumer", "classic"], "output after s": round(recovered, 1)}


def broker_restarts(stage: Stage) -> Facts:
    """R6: the broker goes and comes, cleanly and hard; the workers stay."""
    broker, slowest = stage.servers.kafka, 0.0
    (port,) = {int(broker.bootstrap.rpartition(":")[2])}
    with stage.plant() as (plant, _):
        worker = plant.start()
        wait_more(plant)
        for hard in (False, True) * stage.times(1, 3) if stage.full else (False,):
            broker.server.stop(hard=hard)
            time.sleep(stage.times(2, 10))
            assert alive(worker), "liveness must not depend on the broker"
            broker.server.start(lambda: answers(port))
            began = time.monotonic()
            wait_more(plant, within_s=60.0)
            slowest = max(slowest, time.monotonic() - began)
        assert worker.process.poll() is None, worker.log_tail()
    return {"slowest resume s": round(slowest, 1)}


def alive(worker: RunningWorker) -> bool:
    """What /healthz says."""
    from stream.local_servers import says_ok

    return says_ok(f"{worker.url}/healthz")


def emptied(stage: Stage) -> Facts:
    """R8: FLUSHALL and a restart without data, in mid-stream."""
    client = redis.Redis(port=stage.servers.redis.port)
    with stage.plant() as (plant, _):
        for _ in range(2):
            plant.start()
        wait_more(plant, 60, 60.0)
        slowest = 0.0
        for turn in range(stage.times(2, 6)):
            began = time.monotonic()
            if turn % 2 == 0:
                client.flushall()
            else:
                stage.servers.redis.server.stop(hard=True)
                stage.servers.redis.server.start(lambda: answers(stage.servers.redis.port))
            wait_more(plant)
            slowest = max(slowest, time.monotonic() - began)
        rebuilt = plant.metric("state_rebuilds_total", cause="missing_state")
        truncated = plant.metric("context_truncated_total")
    assert rebuilt > 0, "the metric must have moved"
    assert truncated == 0, f"{truncated} predictions without their context"
    return {"states rebuilt": int(rebuilt), "slowest output s": round(slowest, 1)}


def poisoned(stage: Stage) -> Facts:
    """R12: a twentieth of the traffic cannot be read, in many ways."""
    poisons = list(POISONS.values())
    with stage.plant() as (plant, load):

        def poison(n: int) -> None:
            if n % 20 == 0:
                value, key, headers = poisons[n // 20 % len(poisons)]
                plant.site.send(value, key, headers)

        load.extra = poison
        plant.start()
        wait_for(lambda: load.said >= stage.times(600, 6_000), "the load", 120)
        load.end()
        plant.settled()
        letters = plant.metric("dead_letters_total")
    assert letters > 0
    return {"kinds": len(poisons), "dead letters": int(letters)}


def not_finite(stage: Stage) -> Facts:
    """R13: one conversation's numbers overflow in the batch of others."""
    wild = {"features": {"audio": {"tensor": [9e3, 0]}}}
    with stage.plant() as (plant, load):
        load.extra = lambda n: plant.site.say("wild", n, **wild) if n % 10 == 0 else None
        plant.start()
        wait_for(lambda: load.said >= stage.times(400, 4_000), "the load", 120)
        load.end()
        plant.settled()
        letters = plant.metric("dead_letters_total", reason="not_finite_result")
    assert letters > 0
    return {"dead letters": int(letters)}


def repeated(stage: Stage) -> Facts:
    """R16: every record three times, at random distances, also across a takeover."""
    with stage.plant() as (plant, load):
        waiting: list[tuple[int, str, int]] = []

        def again(n: int) -> None:
            lane, lap = n % load.conversations, n // load.conversations
            for _ in range(2):
                at = n + plant.random.randint(1, 3 * load.conversations)
                waiting.append((at, f"c{lane}-{lap // 30}", lap % 30))
            for due in [w for w in waiting if w[0] <= n]:
                waiting.remove(due)
                plant.site.say(due[1], due[2], text="said again")

        load.extra = again
        first = plant.start()
        wait_for(lambda: load.said >= stage.times(300, 3_000), "the load", 120)
        plant.kill(first)
        plant.start()
        wait_for(lambda: load.said >= stage.times(600, 6_000), "the load", 240)
        load.end()
        plant.settled()
        duplicates = plant.metric("duplicates_total", kind="utterance_id")
    assert duplicates > 0
    return {"duplicates": int(duplicates)}


SHORT: Final[dict[str, Callable[[Stage], Facts]]] = {
    "R1": killed_at_every_place,
    "R4": zombie,
    "R6": broker_restarts,
    "R8": emptied,
    "R12": poisoned,
    "R13": not_finite,
    "R16": repeated,
}
LONG: Final[dict[str, Callable[[Stage], Facts]]] = {
    **SHORT,
    "R2": killed_at_random,
    "R3": drained,
    "R5": rebalances,
}


def as_json(facts: Facts) -> str:
    """One line."""
    return json.dumps(facts, sort_keys=True)
