"""`emotrack bench start`: a worker's time from process start to ready, and its CPU time.

Real Kafka and Redis, the shipped model, raw text included (the sentence encoder is loaded before
`/readyz` answers 200). Cold: the files a worker reads were dropped from the page cache first.
"""

from __future__ import annotations

import contextlib
import os
import site
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

from stream.bench.rows import Row, figure
from stream.bench.servers import started
from stream.local.servers import KAFKA_JARS
from stream.local.worker_process import local_worker
from stream.metrics.scrape import scrape

READY_FIRST_S: Final = 10.0
POLL_S: Final = 0.01
CODE: Final = frozenset({".py", ".pyc", ".so", ".safetensors", ".json", ".txt", ".lua"})


def run_bench_start(
    *, runs: int, say: Callable[[str], None], jars: Path = KAFKA_JARS
) -> dict[str, Row]:
    """Start workers one after another, cold and warm in turn, and return the rows by name."""
    cold: list[tuple[float, float]] = []
    warm: list[tuple[float, float]] = []
    with started(jars, say, "start.") as (servers, scratch):
        servers.create_topics(2)
        settings, log = servers.worker_settings(), scratch / "worker.log"
        measure(settings, log)  # the first start compiles missing bytecode
        for number in range(runs):
            dropped = drop_file_cache()
            say(f"start {number + 1} of {runs}: cold ({dropped} files dropped), then warm")
            cold.append(measure(settings, log))
            warm.append(measure(settings, log))
    return rows_of(cold, warm)


def measure(settings: Mapping[str, object], log: Path) -> tuple[float, float]:
    """Start one worker and drain it; return seconds, and CPU seconds, until it was ready.

    Raises `ServerFailed`.
    """
    began = time.monotonic()
    with local_worker(settings, log, poll_s=POLL_S) as worker:
        ready_s = time.monotonic() - began
        return ready_s, scrape(worker.metrics).value("process_cpu_seconds_total")


def drop_file_cache() -> int:
    """Drop a worker's files from the page cache; return their number.

    Pages that other processes have mapped stay: run it alone on the machine.
    """
    dropped = 0
    for file in files_read():
        with contextlib.suppress(OSError), file.open("rb") as opened:
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            dropped += 1
    return dropped


def files_read() -> Iterator[Path]:
    """Yield files of the installed packages, Python's library, and ours with its checkpoint."""
    ours = str(Path(__file__).parents[2])
    for folder in (*site.getsitepackages(), sysconfig.get_path("stdlib"), ours):
        for place, below, names in os.walk(folder):
            below[:] = [name for name in below if not name.startswith(".")]
            yield from (Path(place, n) for n in names if Path(n).suffix in CODE or ".so." in n)


def rows_of(cold: list[tuple[float, float]], warm: list[tuple[float, float]]) -> dict[str, Row]:
    """Return the medians of the runs."""
    note = (
        "process start to /readyz 200, shipped model and sentence encoder; load average "
        f"{os.getloadavg()[0]:.1f}"
    )
    python = f"Python {sys.version_info.major}.{sys.version_info.minor}"
    return {
        "start_cold_s": figure(
            [ready_s for ready_s, _ in cold], "s", f"files dropped; {note}", READY_FIRST_S, digits=2
        ),
        "start_warm_s": figure(
            [ready_s for ready_s, _ in warm], "s", f"files cached; {note}", READY_FIRST_S, digits=2
        ),
        "start_cpu_s": figure(
            [cpu_s for _, cpu_s in warm], "s", f"CPU time until then, warm; {python}", digits=2
        ),
    }
