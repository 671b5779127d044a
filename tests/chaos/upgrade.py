"""Two versions of the worker in one group: this one, and the one that was delivered before it."""

from __future__ import annotations

import os
import re
import subprocess
import tarfile
from collections import Counter
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Final

from state.window import LAYOUT
from stream.local.worker_process import RunningWorker
from stream.metrics.scrape import scrape
from tests.chaos.plant import Plant
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
    swaps, slowest = 0, 0.0
    rebuilt = Counter[str]()
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
                    rebuilt += rebuilds(leaving)
                    leave(plant, leaving, killed=(swaps + lap) % 2 == 0)
                    slowest = max(slowest, wait_more(plant))
        for staying in plant.workers:
            rebuilt += rebuilds(staying)
        load.end()
        plant.settled()
    foreign = rebuilt.pop("other_model", 0)
    assert not +rebuilt, f"states lost or damaged by the other version: {dict(rebuilt)}"
    same = layout_of(old) == LAYOUT
    assert bool(foreign) is not same, (
        f"{foreign} foreign states, layouts {layout_of(old)}, {LAYOUT}"
    )
    return {
        "before": BEFORE,
        "layouts": [layout_of(old), LAYOUT],
        "workers replaced": swaps,
        "states rebuilt": foreign,
        "slowest output s": stage.within(slowest, OUTPUT_S),
    }


def rebuilds(worker: RunningWorker) -> Counter[str]:
    """The states that a worker has rebuilt, by cause."""
    by_cause = scrape(worker.metrics).by_label("emotrack_state_rebuilds_total", "cause")
    return Counter({cause: int(count) for cause, count in by_cause.items()})


def layout_of(checkout: Path) -> int:
    """The layout of the stored bytes of a version; those before it had a number have the first."""
    found = re.search(r"^LAYOUT: Final = (\d+)", (checkout / "state/window.py").read_text(), re.M)
    return 1 if found is None else int(found[1])


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
