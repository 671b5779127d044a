"""`emotrack serve` as a child process, for the demo, the benchmarks and the tests."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from stream.local.servers import ServerFailed, end, free_ports, says_ok

READY_S: Final = 60.0
POLL_S: Final = 0.1
DRAIN_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class RunningWorker:
    """A worker that is ready, or still starts (see `local_worker`)."""

    process: subprocess.Popen[bytes]
    url: str  # of its HTTP endpoints, without a path
    log: Path

    @property
    def metrics(self) -> str:
        return f"{self.url}/metrics"

    def kill(self) -> None:
        """Kill it, as a crash would."""
        end(self.process, DRAIN_S, hard=True)

    def stop(self) -> int:
        """Stop it as Kubernetes does: SIGTERM, SIGKILL after `DRAIN_S`. Return the exit code."""
        return end(self.process, DRAIN_S)

    def is_ready(self) -> bool:
        """Return true if /readyz answers with success."""
        return says_ok(f"{self.url}/readyz")

    def log_tail(self, characters: int = 1500) -> str:
        """Return the end of its log."""
        return self.log.read_text(errors="replace")[-characters:]


@contextlib.contextmanager
def local_worker(
    settings: Mapping[str, object],
    log: Path,
    *,
    ready_s: float = READY_S,
    poll_s: float = POLL_S,
    module: str = "stream.main",
    directory: Path | None = None,
) -> Iterator[RunningWorker]:
    """Run `emotrack serve` with these settings alone until the block ends; wait until it is ready.

    The names of `settings` are fields of `stream.settings.Settings`. With `ready_s` = 0 the worker
    is yielded while it still starts; its readiness is checked every `poll_s`. `directory` has the
    packages in which `module` is found. Raises `ServerFailed` with the end of the worker's log.
    """
    (port,) = free_ports(1)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("EMOTRACK_")}
    settings = {"metrics_port": port, **settings}
    environment |= {f"EMOTRACK_{name.upper()}": str(value) for name, value in settings.items()}
    with log.open("ab") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", module, "serve"],
            env=environment,
            cwd=directory,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C ends this process, which then stops the worker
        )
    worker = RunningWorker(process, f"http://127.0.0.1:{settings['metrics_port']}", log)
    try:
        wait_ready(worker, ready_s, poll_s)
        yield worker
    finally:
        worker.stop()


def wait_ready(worker: RunningWorker, ready_s: float = READY_S, poll_s: float = POLL_S) -> None:
    """Wait until the worker is ready. Raises `ServerFailed` with the end of its log."""
    deadline = time.monotonic() + ready_s
    while time.monotonic() < deadline:
        if worker.process.poll() is not None:
            raise ServerFailed(f"the worker ended; its log says:\n{worker.log_tail()}")
        if worker.is_ready():
            return
        time.sleep(poll_s)
    if ready_s:
        raise ServerFailed(
            f"the worker was not ready within {ready_s:.0f} s; its log says:\n{worker.log_tail()}"
        )
