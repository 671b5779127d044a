"""Two versions of the worker in one group: this one, and the one that was delivered before it."""

from __future__ import annotations

import os
import subprocess
import tarfile
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Final

from stream.local.worker_process import RunningWorker
from tests.chaos.plant import Plant, scraped
from tests.chaos.scenarios import OUTPUT_S, PATIENCE_S, Facts, Stage, owns, wait_more
from tests.conftest import ROOT
from tests.integration.workers import wait_for

# Another commit may be named, to see whether a state or an answer of it would still be understood.
BEFORE: Final = os.environ.get("EMOTRACK_CHAOS_BEFORE", "a6f53f1")
WORKERS: Final = 3
NEWER: Final = {"mood_hint": {"source": "agent"}, "schema_minor": 1}  # fields of a later event


def upgraded(stage: Stage) -> Facts:
    """R28: workers of two versions share a group while one replaces the other, forwards and back"""
    old = checked_out(BEFORE, stage.directory / "before")
    swaps, slowest, rebuilt = 0, 0.0, 0.0
    with stage.plant() as (plant, load):
        load.extra = partial(say_newer, plant)
        for _ in range(WORKERS):
            plant.start(checkout=old)
        wait_more(plant)
        for lap in range(stage.times(1, 4)):
            for checkout in (None, old):  # forwards, then back, with all that was stored
                for leaving in list(plant.workers):
                    coming = plant.start(checkout=checkout)
                    wait_for(partial(owns, coming), "its partitions", PATIENCE_S)
                    wait_more(plant)  # both versions are at work
                    swaps += 1
                    rebuilt += scraped(leaving, "state_rebuilds_total")
                    leave(plant, leaving, killed=(swaps + lap) % 2 == 0)
                    slowest = max(slowest, wait_more(plant))
        rebuilt += plant.metric("state_rebuilds_total")
        load.end()
        plant.settled()
    assert rebuilt == 0, f"{rebuilt:.0f} states of the other version were not understood"
    return {
        "before": BEFORE,
        "workers replaced": swaps,
        "states rebuilt": int(rebuilt),
        "slowest output s": stage.within(slowest, OUTPUT_S),
    }


def checked_out(commit: str, folder: Path) -> Path:
    """The packages and the tests' small worker as they were at a commit."""
    packed = subprocess.run(
        ["git", "-C", str(ROOT), "archive", commit, "stream", "model", "state", "tests"],
        capture_output=True,
        check=False,
    )
    assert not packed.returncode, f"commit {commit} is not in this clone: fetch its whole history"
    with tarfile.open(fileobj=BytesIO(packed.stdout)) as archive:
        archive.extractall(folder, filter="data")
    return folder


def say_newer(plant: Plant, n: int) -> None:
    """Now and then an event with fields that neither version knows."""
    if n % 20 == 0:
        audio = [n % 5 / 2, n % 3 / 2]
        features = {"audio": {"tensor": audio, "window_ms": 20}}
        plant.site.say(f"newer-{n // 600}", n, features=features, **NEWER)


def leave(plant: Plant, worker: RunningWorker, *, killed: bool) -> None:
    """Let a worker go: as an orchestrator would, or as a crash does."""
    if killed:
        plant.kill(worker)
    else:
        assert plant.stop(worker) == 0, worker.log_tail()
