"""The scenarios of reliability.md: each breaks something under load and says what was seen.

A scenario gets a `Stage` (servers, seed, size) and returns facts; afterwards the runner lets all
that was sent be committed and has `stream.verify.check` compute everything again from the log. So a
scenario only asserts what the verifier cannot see: times, metrics, exit codes.
"""

from __future__ import annotations

import itertools
import json
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import redis

from model.fault_points import FAULT_POINTS, FaultPoint
from stream.events.cloudevents import END_TO_END_MS
from stream.local.servers import RunningRedis, answers, redis_server, says_ok
from stream.local.worker_process import RunningWorker, wait_ready
from stream.metrics.scrape import scrape
from tests.chaos.plant import CONVERSATIONS, PARTITIONS, Load, Plant, Servers, scraped
from tests.chaos.proxy import Proxy
from tests.integration.test_worker_kafka import POISONS
from tests.integration.workers import wait_for

RATE: Final = 100.0  # utterances a second, unless a scenario says otherwise
PATIENCE_S: Final = 240.0  # then something will not happen any more
OUTPUT_S: Final = 15.0  # criterion: a new output of every partition after a kill
REJOIN_S: Final = 10.0  # ... a sleeper knows what it has lost
RESUME_S: Final = 30.0  # ... a new output after an outage
LAG_S: Final = 60.0  # ... the lag of before after the last kill
STRETCH: Final = 200  # utterances with poison among them, or without
SLOWER: Final = 1.2  # criterion: p99 beside poison

Facts = dict[str, Any]


@dataclass
class Stage:
    """The things a scenario may use."""

    servers: Servers
    directory: Path
    seed: int
    full: bool  # the long set, else the short one of `make test`
    mutant: str | None = None  # run this in the worker's place
    plants: list[Plant] = field(default_factory=list)
    closing: ExitStack = field(default_factory=ExitStack)  # after all is verified

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

    def own_redis(self) -> tuple[RunningRedis, RunningRedis]:
        """Two servers that a scenario may end; they are there until all is verified."""
        made = []
        for name in ("first", "second"):
            (self.directory / name).mkdir()
            made.append(self.closing.enter_context(redis_server(self.directory / name)))
        return made[0], made[1]

    def proxy(self, target: int) -> Proxy:
        """A proxy of its own."""
        made = Proxy(target)
        self.closing.callback(made.close)
        return made

    def within(self, seconds: float, most: float) -> float:
        """A time that the long set holds to its criterion; a busy machine's short set tells it."""
        assert not self.full or seconds <= most, f"it took {seconds:.1f} s, at most {most:.0f}"
        return round(seconds, 1)

    def times(self, short: int, full: int) -> int:
        """Return how often, by the size of the run."""
        return full if self.full else short


def progress(plant: Plant) -> int:
    """Predictions in the log so far."""
    return plant.site.ends(plant.settings.topics.predictions)


def wait_more(plant: Plant, count: int = 2) -> float:
    """Seconds until every partition has `count` more predictions."""
    began, before = time.monotonic(), plant.site.ends_of(plant.settings.topics.predictions)

    def more() -> bool:
        now = plant.site.ends_of(plant.settings.topics.predictions)
        return all(n >= b + count for n, b in zip(now, before, strict=True))

    wait_for(more, "new predictions of every partition", PATIENCE_S)
    return time.monotonic() - began


def killed_at_every_place(stage: Stage) -> Facts:
    """R1: SIGKILL at F1 to F10, three workers."""
    with stage.plant() as (plant, _):
        return _kill_at(stage, plant, FAULT_POINTS, stage.times(1, 20))


def killed_in_transactions(stage: Stage) -> Facts:
    """R1t: the same with `delivery: transactional`, seen by a read_committed reader."""
    places = FAULT_POINTS if stage.full else ("F6", "F7", "F8")
    with stage.plant(delivery="transactional", rate=40.0) as (plant, _):
        return _kill_at(stage, plant, places, stage.times(1, 3))


def _kill_at(stage: Stage, plant: Plant, places: Sequence[FaultPoint], repeats: int) -> Facts:
    """Kill an armed worker at each place in turn; two others go on."""
    slowest = 0.0
    done: dict[str, int] = {}
    for _ in range(2):
        plant.start()
    wait_more(plant)
    for turn in range(repeats):
        for point in places:
            nth = 1 if point in ("F9", "F10") else plant.random.randint(2, 30)
            victim = plant.start(f"{point}:{nth}")
            _until_dead(plant, victim, point)
            slowest = max(slowest, wait_more(plant))
            done[point] = turn + 1
    return {
        "kills": plant.kills,
        "by place": done,
        "slowest first output s": stage.within(slowest, OUTPUT_S),
    }


def _until_dead(plant: Plant, victim: RunningWorker, point: str) -> None:
    """Make the armed worker reach its place."""
    wait_for(lambda: owns(victim), f"{point}: a partition for the armed worker", PATIENCE_S)
    if point == "F9":  # others come until each has one: it must give partitions back
        others = [plant.start(wait=False) for _ in range(PARTITIONS - len(plant.workers))]
        wait_for(lambda: victim.process.poll() is not None, f"death at {point}", PATIENCE_S)
        for other in others:
            wait_ready(other)
            plant.stop(other)
    elif point == "F10":
        victim.process.send_signal(signal.SIGTERM)
    wait_for(lambda: victim.process.poll() is not None, f"death at {point}", PATIENCE_S)
    assert victim.process.returncode == -signal.SIGKILL, victim.log_tail()
    plant.reap()


def owns(worker: RunningWorker) -> bool:
    """Return whether it has a partition, or is dead already."""
    return _was_told(worker, "assigned")


def _was_told(worker: RunningWorker, kind: str) -> bool:
    """Return whether partitions came or went so, or the worker has ended."""
    if worker.process.poll() is not None:
        return True
    try:
        return scraped(worker, "rebalances_total", kind=kind) > 0
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
        wait_for(
            lambda: plant.metric("consumer_lag_records") < 2 * RATE, "the lag of before", PATIENCE_S
        )
    return {"kills": plant.kills, "lag back after s": stage.within(time.monotonic() - last, LAG_S)}


def killed_before_commit(stage: Stage, point: str = "F8") -> Facts:
    """One kill at one place and a successor: what the mutants are tried with."""
    with stage.plant() as (plant, load):
        victim = plant.start(f"{point}:4")
        wait_for(lambda: victim.process.poll() is not None, f"death at {point}", PATIENCE_S)
        plant.reap()
        plant.start()
        wait_for(lambda: load.said >= 600, "the load", PATIENCE_S)
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
    # Batches so slow, and so many, that a worker is stopped in the midst of one.
    with stage.plant(rate=70.0, conversations=40, batch_ms=200.0) as (plant, load):
        plant.start()
        while sleeps < stage.times(1, 10) or (not rejections and sleeps < 5 and not stage.mutant):
            sleeper = plant.start()
            wait_for(partial(owns, sleeper), "a partition for the sleeper", PATIENCE_S)
            wait_more(plant)
            sleeper.process.send_signal(signal.SIGSTOP)
            time.sleep(5.0)  # the session ends after 3 s; the other one owns all by now
            wait_more(plant)
            rejoined = max(rejoined, _awake(sleeper))
            rejections += scraped(sleeper, "fencing_rejections_total")
            sleeps += 1
            plant.stop(sleeper)
        sleeper = plant.start()
        wait_for(partial(owns, sleeper), "a partition for the sleeper", PATIENCE_S)
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
        "rejoins after s": stage.within(rejoined, REJOIN_S),
    }


def _awake(sleeper: RunningWorker) -> float:
    """Seconds until a worker that goes on knows what it has lost; it has written what it held."""
    began = time.monotonic()
    sleeper.process.send_signal(signal.SIGCONT)
    wait_for(partial(knows, sleeper), "the sleeper's return or end", PATIENCE_S)
    known = time.monotonic() - began
    time.sleep(1.0)
    return known


def knows(worker: RunningWorker) -> bool:
    """Return whether a sleeper has learnt that it lost its partitions (or has ended)."""
    return _was_told(worker, "lost")


def rebalances(stage: Stage) -> Facts:
    """R5: workers come and go; once with the classic cooperative protocol."""
    for protocol in ("consumer", "classic"):
        with stage.plant(group_protocol=protocol) as (plant, _):
            for wanted in (1, 4, 2, 3) * stage.times(1, 3):
                while len(plant.workers) < wanted:
                    plant.start(wait=False)
                while len(plant.workers) > wanted:
                    leaving = plant.random.choice(plant.workers)
                    # Before it serves, SIGTERM ends the process as it ends any other.
                    wait_for(partial(alive, leaving), "the start of a worker", PATIENCE_S)
                    code = plant.stop(leaving)
                    assert code == 0, f"a worker that was told to stop ended with {code}"
                time.sleep(stage.times(4, 10))
            recovered = wait_more(plant)
    return {
        "protocols": ["consumer", "classic"],
        "output after s": stage.within(recovered, RESUME_S),
    }


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
            lives = any(alive(worker) for _ in range(3))  # a kubelet gives up after three probes
            broker.server.start(lambda: answers(port))  # also for the verifier, where one fails
            assert lives, "liveness must not depend on the broker"
            began = time.monotonic()
            wait_more(plant)
            slowest = max(slowest, time.monotonic() - began)
        assert worker.process.poll() is None, worker.log_tail()
    return {"slowest resume s": stage.within(slowest, OUTPUT_S)}


def alive(worker: RunningWorker) -> bool:
    """Return the answer of /healthz."""
    return says_ok(f"{worker.url}/healthz")


def emptied(stage: Stage) -> Facts:
    """R8: FLUSHALL and a restart without data, in mid-stream."""
    client = redis.Redis(port=stage.servers.redis.port)
    with stage.plant() as (plant, _):
        for _ in range(2):
            plant.start()
        wait_more(plant, 60)
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
    return {"states rebuilt": int(rebuilt), "slowest output s": stage.within(slowest, RESUME_S)}


def poison_to(plant: Plant) -> Callable[[], None]:
    """Return a function that sends a record that cannot be read, of the next kind each time."""
    kinds = itertools.cycle(POISONS.values())
    return lambda: plant.site.send(*next(kinds))


def poisoned(stage: Stage) -> Facts:
    """R12: a twentieth of the traffic cannot be read, in many ways; every other 2 s none is so."""
    with stage.plant() as (plant, load):
        send_poison = poison_to(plant)

        def poison(n: int) -> None:
            if n % 20 == 0 and n // STRETCH % 2:
                send_poison()

        plant.start()
        wait_more(plant)  # what waited for the worker's start is answered
        since = load.said
        load.extra = poison
        wanted = since + stage.times(1_000, 6_000)
        wait_for(lambda: load.said >= wanted, "the load", PATIENCE_S)
        load.end()
        plant.settled()
        letters = plant.metric("dead_letters_total")
    assert letters > 0
    clean, beside = (p99_ms(plant, load, since, stretch) for stretch in (0, 1))
    slower = round(beside / clean, 2)
    assert not stage.full or slower <= SLOWER, f"p99 {clean:.1f} ms, beside poison {beside:.1f}"
    return {
        "kinds": len(POISONS),
        "dead letters": int(letters),
        "p99 ms without and beside poison": [round(clean, 1), round(beside, 1)],
        "ratio": slower,
    }


def p99_ms(plant: Plant, load: Load, since: int, stretch: int) -> float:
    """End to end, of the answers to the load's even (0) or odd (1) stretches."""
    answers = plant.site.log(plant.settings.topics.predictions)
    numbered = [(load.number(record.value or b""), record) for record in answers]
    times = sorted(
        float(told)
        for number, record in numbered
        if number >= since and number // STRETCH % 2 == stretch
        if (told := dict(record.headers).get(END_TO_END_MS))  # a replay has none
    )
    return times[int(0.99 * (len(times) - 1))]


def not_finite(stage: Stage) -> Facts:
    """R13: one conversation's numbers overflow in the batch of others."""
    wild = {"features": {"audio": {"tensor": [9e3, 0]}}}
    with stage.plant() as (plant, load):
        load.extra = lambda n: plant.site.say("wild", n, **wild) if n % 10 == 0 else None
        plant.start()
        wait_for(lambda: load.said >= stage.times(400, 4_000), "the load", PATIENCE_S)
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
        wait_for(lambda: load.said >= stage.times(300, 3_000), "the load", PATIENCE_S)
        plant.kill(first)
        plant.start()
        wait_for(lambda: load.said >= stage.times(600, 6_000), "the load", PATIENCE_S)
        load.end()
        plant.settled()
        duplicates = plant.metric("duplicates_total", kind="late_fields")
    assert duplicates > 0
    return {"duplicates": int(duplicates)}


def out_of_order(stage: Stage) -> Facts:
    """R17: `seq` comes with gaps and out of order: answered as it lies in the log, and flagged."""
    order = (0, 2, 1, 3, 5, 4)
    flagged = {"seq_gap": 2, "seq_disorder": 2}  # of 2 and 5, of 1 and 4; 3 follows the highest
    with stage.plant() as (plant, load):

        def muddled(n: int) -> None:
            seq = order[n % len(order)]
            plant.site.say(f"muddled{n // len(order)}", n, seq=seq, text=f"the {seq}th")

        load.extra = muddled
        plant.start()
        wait_for(lambda: load.said >= stage.times(300, 3_000), "the load", PATIENCE_S)
        load.end()
        plant.settled()
        counted = plant.metric("seq_disorder_total")
        told = [
            json.loads(r.value or b"") for r in plant.site.log(plant.settings.topics.predictions)
        ]
    muddled_ones = [p for p in told if p["conversation_id"].startswith("muddled")]
    flags = Counter(flag for p in muddled_ones for flag in p.get("flags", ()))
    whole = len(muddled_ones) // len(order)
    assert whole > 0
    for flag, times in flagged.items():
        assert times * whole <= flags[flag] <= times * (whole + 1), f"{flag}: {flags[flag]}"
    assert counted == flags.total()
    return {"conversations": whole, **flags}


def heard_again_with_more(stage: Stage) -> Facts:
    """R18: the same utterance again, now with its voice: a duplicate, counted, without effect."""
    with stage.plant() as (plant, load):
        late, words = 0, set[int]()

        def words_first(n: int) -> None:
            nonlocal late
            who, turn = f"late{n // 20}", n % 20
            plant.site.say(who, turn, text=f"words {n}")
            words.add(n)
            if turn >= 2 and n - 2 in words:  # the load may begin before this is called
                late += 1
                features = {"audio": {"tensor": [1.0, n % 3 / 2.0]}}
                plant.site.say(who, turn - 2, text=f"words {n - 2}", features=features)

        load.extra = words_first
        plant.start()
        wait_for(lambda: load.said >= stage.times(300, 3_000), "the load", PATIENCE_S)
        load.end()
        plant.settled()
        duplicates = plant.metric("duplicates_total", kind="late_fields")
    assert duplicates == late, f"{late} came late, {duplicates:.0f} were duplicates"
    return {"duplicates": late}


def reply_lost(stage: Stage) -> Facts:
    """R7: the broker hears what is produced and committed, and its answers are thrown away."""
    proxy = stage.servers.kafka_proxy
    with stage.plant(bootstrap=stage.servers.proxied_kafka) as (plant, _):
        plant.start()
        wait_more(plant)
        dropped = proxy.dropped
        for _ in range(stage.times(3, 20)):
            proxy.mode = "drop_reply"
            time.sleep(0.2)
            proxy.mode = "pass"
            wait_more(plant)
    return {"replies dropped": proxy.dropped - dropped}


def failed_over(stage: Stage) -> Facts:
    """R9: a replica is promoted that lacks the last acknowledged writes."""
    first, second = stage.own_redis()
    proxy, replica = stage.proxy(first.port), redis.Redis(port=second.port)
    replica.replicaof("127.0.0.1", first.port)
    wait_for(
        lambda: replica.info("replication")["master_link_status"] == "up", "a replica", PATIENCE_S
    )
    with stage.plant(redis_url=f"redis://127.0.0.1:{proxy.port}/0") as (plant, _):
        for _ in range(2):
            plant.start()
        wait_more(plant, 60)
        assert second.server.process is not None
        second.server.process.send_signal(signal.SIGSTOP)  # it hears nothing from here on
        wait_more(plant, 20)
        began = time.monotonic()
        first.server.stop(hard=True)
        second.server.process.send_signal(signal.SIGCONT)
        replica.replicaof("NO", "ONE")
        proxy.target = second.port
        proxy.reset()
        wait_more(plant)
        resumed = time.monotonic() - began
        wait_more(plant, 40)
        stale = plant.metric("state_rebuilds_total", cause="stale_state")
        truncated = plant.metric("context_truncated_total")
    assert stale > 0, "the metric must have moved"
    assert truncated == 0, f"{truncated} predictions without their context"
    return {"stale states rebuilt": int(stale), "output after s": stage.within(resumed, RESUME_S)}


def slow_and_gone(stage: Stage) -> Facts:
    """R10: Redis takes 200 ms a reply, then is gone for half a minute."""
    proxy = stage.servers.redis_proxy
    with stage.plant(rate=40.0, redis_url=stage.servers.proxied_redis) as (plant, _):
        worker = plant.start()
        wait_more(plant)
        proxy.delay_s = 0.1  # each way
        wait_more(plant)
        proxy.delay_s = 0.0
        proxy.mode = "blackhole"
        wait_for(lambda: scraped(worker, "partitions_paused") > 0, "paused partitions", PATIENCE_S)
        time.sleep(stage.times(2, 30))
        queued = scraped(worker, "queue_depth")
        began = time.monotonic()
        proxy.mode = "pass"
        wait_more(plant)
        resumed = time.monotonic() - began
        assert worker.process.poll() is None, worker.log_tail()
    return {"queued while away": int(queued), "output after s": stage.within(resumed, RESUME_S)}


def full_store(stage: Stage) -> Facts:
    """R11: Redis refuses writes for want of memory, then evicts in spite of what it was told."""
    client = redis.Redis(port=stage.servers.redis.port)
    with stage.plant() as (plant, _):
        worker = plant.start()
        wait_more(plant)
        client.config_set("maxmemory", 1)
        try:
            wait_for(lambda: scraped(worker, "redis_up") == 0, "refused writes", PATIENCE_S)
        finally:
            client.config_set("maxmemory", 0)
        wait_more(plant)
        client.config_set("maxmemory-policy", "allkeys-random")
        client.config_set("maxmemory", client.info("memory")["used_memory"] - 100_000)
        time.sleep(2.0)
        client.config_set("maxmemory", 0)
        client.config_set("maxmemory-policy", "noeviction")
        wait_more(plant)
        evicted = client.info("stats")["evicted_keys"]
        rebuilt = plant.metric("state_rebuilds_total")
        truncated = plant.metric("context_truncated_total")
    assert evicted > 0 and rebuilt > 0, f"{evicted} keys evicted, {rebuilt} states rebuilt"
    assert truncated == 0
    return {"keys evicted": evicted, "states rebuilt": int(rebuilt)}


def slow_model(stage: Stage) -> Facts:
    """R15: inference 20 times slower for a while: no membership is lost."""
    slow_s = stage.times(10, 120)
    with stage.plant(rate=100.0, batch_ms=400.0, high_water=64, low_water=16) as (plant, _):
        worker = plant.start()
        wait_for(lambda: progress(plant) > 0, "the first answers", PATIENCE_S)
        until, deepest, paused = time.monotonic() + slow_s, 0.0, 0.0
        while time.monotonic() < until:
            deepest = max(deepest, scraped(worker, "queue_depth"))
            paused = max(paused, scraped(worker, "partitions_paused"))
            time.sleep(0.5)
        lost = scraped(worker, "rebalances_total", kind="lost")
        revoked = scraped(worker, "rebalances_total", kind="revoked")
        assert not lost and not revoked, "a slow model must not cost the membership"
        plant.batch_ms = 5.0
        plant.stop(worker)
        plant.start()
    return {"deepest queue": int(deepest), "partitions paused": int(paused)}


def overloaded(stage: Stage) -> Facts:
    """R26: twice what the worker can do; it drains afterwards."""
    seconds = stage.times(15, 300)
    # Batches of 16 in 80 ms: 200 a second, however fast the machine is.
    with stage.plant(rate=400.0, batch_ms=80.0, high_water=256, low_water=64) as (plant, load):
        worker = plant.start()
        wait_for(lambda: progress(plant) > 0, "the first answers", PATIENCE_S)
        began, first = time.monotonic(), resident(worker)
        time.sleep(seconds / 2)
        middle = resident(worker)
        time.sleep(seconds / 2)
        last, lag = resident(worker), scraped(worker, "consumer_lag_records")
        answered = sorted(plant.site.ends_of(plant.settings.topics.predictions))
        load.end()
        offered = load.said / (time.monotonic() - began)
        plant.settled(600.0)
    assert lag > 0, "it was not overloaded"
    assert answered[-1] < 3 * answered[0], f"partitions are served unevenly: {answered}"
    return {
        "offered /s": round(offered),
        "lag": int(lag),
        "answers by partition": answered,
        "resident MiB": [round(b / 2**20) for b in (first, middle, last)],
    }


def resident(worker: RunningWorker) -> float:
    """Bytes of memory a worker holds."""
    return scrape(worker.metrics).value("process_resident_memory_bytes")


def one_hot_and_many_short(stage: Stage) -> Facts:
    """R19: one conversation of very many turns and speakers, beside many of a single utterance."""
    hot, short = stage.times(400, 10_000), stage.times(1_000, 100_000)
    with stage.plant(rate=20.0) as (plant, load):
        plant.start()
        for n in range(hot):
            audio = {"audio": {"tensor": [n % 7 / 3, n % 3 / 2]}}
            plant.site.say("hot", n, speaker_id=f"s{n % 50}", features=audio)
        for n in range(short):
            plant.site.say(f"once-{n}", 0)
        load.end()
        plant.settled(600.0)
    return {"turns of the hot one": hot, "conversations of one": short}


def skewed_clocks(stage: Stage) -> Facts:
    """R24: producers whose clocks are an hour off: broker time orders and times everything."""
    hour_ms = 3_600_000
    with stage.plant() as (plant, load):

        def off(n: int) -> None:
            skew = hour_ms if n % 2 else -hour_ms
            body = {"conversation_id": f"skew{n % 5}", "utterance_id": f"k{n}", "speaker_id": "s"}
            event_time = int(time.time() * 1000) + skew
            value = json.dumps(body | {"text": "late or early", "event_time": event_time})
            plant.site.producer.produce(
                plant.settings.topics.utterances,
                value.encode(),
                str(body["conversation_id"]).encode(),
                timestamp=event_time,
            )
            plant.site.sent += 1

        load.extra = off
        worker = plant.start()
        wait_for(lambda: load.said >= stage.times(300, 3_000), "the load", PATIENCE_S)
        load.end()
        plant.settled()
        longest = scrape(worker.metrics).histogram("emotrack_end_to_end_seconds").quantile(0.99)
    assert longest < 60, f"the skew got into the latency: p99 {longest} s"
    return {"end to end p99 s": round(longest, 2)}


def partitioned(stage: Stage) -> Facts:
    """R29: the network between worker and Redis, worker and Kafka, both, goes silent."""
    kafka, store = stage.servers.kafka_proxy, stage.servers.redis_proxy
    slowest = 0.0
    with stage.plant(
        bootstrap=stage.servers.proxied_kafka, redis_url=stage.servers.proxied_redis
    ) as (plant, _):
        cut_off = plant.start()
        plant.start(
            bootstrap=stage.servers.kafka.bootstrap, redis_url=stage.servers.redis.url
        )  # it is on the right side
        wait_more(plant)
        for proxies in ((store,), (kafka,), (kafka, store)) * stage.times(1, 3):
            for proxy in proxies:
                proxy.mode = "blackhole"
            time.sleep(6.0)  # longer than a member's session
            for proxy in proxies:
                proxy.mode = "pass"
            slowest = max(slowest, wait_more(plant))
        assert cut_off.process.poll() is None, cut_off.log_tail()
    return {"slowest output s": stage.within(slowest, RESUME_S)}
