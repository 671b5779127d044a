"""Scenarios of what happens inside a worker: its device, its model, its log, time and order.

Those of `tests.chaos.scenarios` break what is around it.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import struct
import termios
import time
from functools import partial
from typing import Any, Final
from urllib.parse import urlsplit

import redis

from stream.local.worker_process import RunningWorker
from stream.metrics.scrape import scrape
from stream.verify.run import verify_topics
from tests.chaos.plant import Plant, scraped
from tests.chaos.scenarios import (
    OUTPUT_S,
    PATIENCE_S,
    RATE,
    Facts,
    Stage,
    poison_to,
    resident,
    wait_more,
)
from tests.fakes.predictor import EXHAUSTING, SmallPredictor
from tests.integration.workers import wait_for

OTHER_DIGEST: Final = "e" * 64
PIPE: Final = 4_096  # bytes, the smallest: ten lines or so
LINE: Final = 500  # bytes; a pipe with less room is full
GROWTH: Final = 1.02  # criterion: memory over the last half of a soak
PLACE: Final = ("prediction_id", "input")  # of a prediction: they name its topic


def device_fails(stage: Stage) -> Facts:
    """R14: batches exhaust the device, one utterance does so alone, a device is lost."""
    huge = {"features": {"audio": {"tensor": [EXHAUSTING, 0]}}}
    sent, slowest = 0, 0.0
    with stage.plant() as (plant, load):

        def too_large(n: int) -> None:
            nonlocal sent
            if n % 20 == 0:
                plant.site.say("huge", n, **huge)
                sent += 1

        load.extra = too_large
        plant.start(small_largest_batch=3)
        for _ in range(stage.times(1, 5)):
            lost = plant.start(small_lost_after=20)
            wait_for(partial(has_ended, lost), "its end", PATIENCE_S)
            assert lost.process.returncode > 0, "a lost device is a failure, not a crash"
            assert "the device is lost" in lost.log_tail()
            plant.reap()
            slowest = max(slowest, wait_more(plant))
        wait_for(lambda: load.said >= stage.times(400, 4_000), "the load", PATIENCE_S)
        load.end()
        plant.settled()
        letters = plant.metric("dead_letters_total", reason="device_exhausted")
    assert 0 < letters <= sent
    return {
        "devices lost": stage.times(1, 5),
        "dead letters": sent,
        "slowest first output s": stage.within(slowest, OUTPUT_S),
    }


def has_ended(worker: RunningWorker) -> bool:
    """Return whether its process is over."""
    return worker.process.poll() is not None


def another_model(stage: Stage) -> Facts:
    """R20: workers come back with another model, and again with the first one."""
    with stage.plant() as (plant, _):
        rebuilt = 0.0
        for digest in (None, OTHER_DIGEST) * stage.times(1, 4):
            worker = plant.start(small_digest=digest)
            wait_more(plant, 30)
            rebuilt += scraped(worker, "state_rebuilds_total", cause="other_model")
            assert plant.stop(worker) == 0
        last = plant.start()
        wait_more(plant, 30)
        rebuilt += scraped(last, "state_rebuilds_total", cause="other_model")
    assert rebuilt > 0, "the metric must have moved"
    said = answered(plant)
    by_digest = {
        name: sum(one["model"]["digest"] == digest for one in said.values())
        for name, digest in (("first", SmallPredictor().digest), ("other", OTHER_DIGEST))
    }
    assert sum(by_digest.values()) == len(said) and all(by_digest.values()), by_digest
    theirs = verify_topics(
        plant.site.settings, SmallPredictor(digest=OTHER_DIGEST), allow_truncation=False
    )
    found = [v for v in theirs.violations if v.invariant.name in ("I2", "I3", "I5", "I8")]
    assert not found, f"of the other model: {found[0].says}"
    return {"predictions": by_digest, "states rebuilt": int(rebuilt)}


def soaked(stage: Stage) -> Facts:
    """R21: a day's births and ends of conversations in 20 minutes: nothing grows."""
    store, _ = stage.own_redis()
    seconds = stage.times(40, 1_200)
    looks: list[tuple[float, float, float]] = []  # memory, files, threads
    tails: list[float] = []
    with stage.plant(rate=2 * RATE, redis_url=store.url, idle_s=20.0) as (plant, load):
        worker = plant.start()
        wait_more(plant)
        before = scrape(worker.metrics).histogram("emotrack_end_to_end_seconds")
        for _ in range(12):
            time.sleep(seconds / 12)
            page = scrape(worker.metrics)
            now = page.histogram("emotrack_end_to_end_seconds")
            tails.append(now.minus(before).quantile(0.99))
            before = now
            looks.append((resident(worker), page.value("process_open_fds"), threads(worker)))
        load.end()
        plant.settled()
        assert plant.stop(worker) == 0
    client = redis.Redis(port=store.port)
    most = int(client.info("memory")["used_memory_peak"])
    wait_for(lambda: not conversations(client), "the end of every key", PATIENCE_S)
    (half, *_), (end, files, count) = looks[5], looks[-1]
    if stage.full:
        assert end <= GROWTH * half, f"memory grew from {half:.0f} to {end:.0f} bytes"
        held = looks[5][1:]
        assert files <= held[0] and count <= held[1], f"files and threads: {held}, {looks[-1][1:]}"
    return {
        "conversations": load.said // 30,
        "resident MiB, half and end": [round(b / 2**20, 1) for b in (half, end)],
        "files, threads": [int(files), int(count)],
        "p99 ms, early and late": [round(1000 * t, 1) for t in (tails[1], tails[-1])],
        "Redis at most MiB": round(most / 2**20, 1),
    }


def threads(worker: RunningWorker) -> int:
    """Return the number of threads of its process."""
    return len(os.listdir(f"/proc/{worker.process.pid}/task"))


def conversations(client: redis.Redis) -> int:
    """Keys of conversations, and of what points to them, that are still there."""
    ours = (b"et:epoch", b"et:fence")
    return sum(1 for key in client.scan_iter("et:*", 1000) if not key.startswith(ours))


def replayed(stage: Stage) -> Facts:
    """R25: the same log twice: one worker and batches of one, four and batches of up to 64."""
    count = stage.times(600, 12_000)
    seen = []
    for workers, batch_max in ((1, 1), (4, 64)):
        with stage.plant(rate=0.0, batch_max=batch_max, batch_ms=1.0) as (plant, load):
            for _ in range(count):
                load.say()  # it says nothing by itself: all at once
            load.end()
            for _ in range(workers):
                plant.start(wait=False)
            plant.settled()
        seen.append(
            {
                who: {k: v for k, v in one.items() if k not in PLACE}
                for who, one in answered(plant).items()
            }
        )
    assert len(seen[0]) == count
    assert seen[0] == seen[1], "answers depend on the workers or on the batch"
    return {"predictions, each time": count}


def answered(plant: Plant) -> dict[tuple[str, str], dict[str, Any]]:
    """The predictions in the log by conversation and utterance; the same may be there twice."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for record in plant.site.log(plant.settings.topics.predictions):
        said = json.loads(record.value or b"{}")
        found[said["conversation_id"], said["utterance_id"]] = said
    return found


def log_and_scrape_stuck(stage: Stage) -> Facts:
    """R27: nobody reads the log's pipe, and somebody scrapes and never reads the page."""
    with stage.plant(log_level="debug") as (plant, load):
        send_poison = poison_to(plant)  # all kinds: of one reason there is a line a minute
        load.extra = lambda n: send_poison() if n % 2 else None
        os.mkfifo(plant.next_log)
        reader = os.open(plant.next_log, os.O_RDONLY | os.O_NONBLOCK)
        fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, PIPE)
        worker = plant.start()
        where = urlsplit(worker.url)
        hung = [socket.create_connection((where.hostname, where.port)) for _ in range(8)]
        for one in hung:
            one.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        wait_for(lambda: waiting(reader) > PIPE - LINE, "a full pipe", PATIENCE_S)
        stuck = wait_more(plant, 60)
        wait_for(lambda: load.said >= stage.times(1_000, 10_000), "the load", PATIENCE_S)
        load.end()
        plant.settled()
        tail = scrape(worker.metrics).histogram("emotrack_end_to_end_seconds").quantile(0.99)
        assert plant.stop(worker) == 0, "it must drain although nobody reads its last words"
        for one in hung:
            one.close()
        os.close(reader)
    return {
        "60 answers of each partition after s": stage.within(stuck, PATIENCE_S),
        "end to end p99 s": round(tail, 3),
    }


def waiting(reader: int) -> int:
    """Bytes in a pipe that nobody has read."""
    told = fcntl.ioctl(reader, termios.FIONREAD, struct.pack("i", 0))
    return int(struct.unpack("i", told)[0])
