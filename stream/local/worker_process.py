"""`emotrack serve` as a child process, for the demo, the benchmarks and the tests."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from stream.local.servers import ServerFailed, free_ports, says_ok

READY_S: Final = 60.0
DRAIN_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class RunningWorker:
    """A worker that said it is ready (or is about to, see `local_worker`)."""

    process: subprocess.Popen[bytes]
    url: str  # of its HTTP endpoints, without a path
    log: Path

    @property
    def metrics(self) -> str:
        return f"{self.url}/metrics"

    def kill(self) -> None:
        """End it as a crash would: SIGKILL."""
        self.process.kill()
        self.process.wait(DRAIN_S)

    def stop(self) -> int:
        """End it as Kubernetes would: SIGTERM, then wait; returns the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(DRAIN_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait(DRAIN_S)

    def is_ready(self) -> bool:
        """Whether /readyz says so."""
        return says_ok(f"{self.url}/readyz")

    def log_tail(self, characters: int = 1500) -> str:
        """The end of what it logged."""
        return self.log.read_text(errors="replace")[-characters:]


@contextlib.contextmanager
def local_worker(
    settings: Mapping[str, object],
    log: Path,
    *,
    ready_s: float = READY_S,
    module: str = "stream.main",
    directory: Path | None = None,
) -> Iterator[RunningWorker]:
    """Run `emotrack serve` with these settings alone; wait until it is ready; SIGTERM at the end.

    `settings` are field names of `stream.settings.Settings`. Raises `ServerFailed` with the end of
    its log. With `ready_s` = 0 it is handed over while it still starts. `module` is what is run, of
    the packages in `directory` where one is named.
    """
    (port,) = free_ports(1)
    kept = {k: v for k, v in os.environ.items() if not k.startswith("EMOTRACK_")}
    named = {"metrics_port": port, **settings}
    given = {f"EMOTRACK_{name.upper()}": str(value) for name, value in named.items()}
    with log.open("ab") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", module, "serve"],
            env=kept | given,
            cwd=directory,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C ends its owner first, and then the worker
        )
    worker = RunningWorker(process, f"http://127.0.0.1:{named['metrics_port']}", log)
    try:
        wait_ready(worker, ready_s)
        yield worker
    finally:
        worker.stop()


def wait_ready(worker: RunningWorker, ready_s: float = READY_S) -> None:
    """Return once it is ready. Raises `ServerFailed` with the end of its log."""
    deadline = time.monotonic() + ready_s
    while time.monotonic() < deadline:
        if worker.process.poll() is not None:
            raise ServerFailed(f"the worker ended; its log says:\n{worker.log_tail()}")
        if worker.is_ready():
            return
        time.sleep(0.1)
    if ready_s:
        raise ServerFailed(
            f"the worker was not ready within {ready_s:.0f} s; its log says:\n{worker.log_tail()}"
        )
