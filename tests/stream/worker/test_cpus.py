"""CPUs that a process may use, by its affinity and its control groups."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from stream.worker.cpus import threads_fault, usable_cpus

ALL = float(len(os.sched_getaffinity(0)))


def group(root: Path, cgroup: str, **files: str) -> Path:
    """Write /proc/self/cgroup and files of groups; a file's name has `__` for `/`."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(cgroup)
    for name, text in files.items():
        path = root / "sys/fs/cgroup" / name.replace("__", "/").replace("cpu_", "cpu.")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_the_smallest_quota_of_the_groups_around_it_counts(tmp_path: Path) -> None:
    files = {"a__cpu_max": "50000 100000\n", "a__b__cpu_max": "max 100000\n"}
    assert usable_cpus(group(tmp_path, "0::/a/b\n", **files)) == 0.5


def test_version_1_of_control_groups_is_read_too(tmp_path: Path) -> None:
    """A container whose mount is its own group, and whose path is the host's."""
    files = {"cpu__cpu_cfs_quota_us": "75000\n", "cpu__cpu_cfs_period_us": "100000\n"}
    assert (
        usable_cpus(group(tmp_path, "4:cpu,cpuacct:/docker/123\n1:name=systemd:/\n", **files))
        == 0.75
    )


@pytest.mark.parametrize(
    "files",
    [{}, {"cpu_max": "max 100000\n"}, {"cpu_max": "?"}, {"cpu_max": "9900000 100000\n"}],
)
def test_without_a_quota_the_affinity_is_all(tmp_path: Path, files: dict[str, str]) -> None:
    assert usable_cpus(group(tmp_path, "0::/\n", **files)) == ALL


def test_a_system_without_control_groups_has_its_affinity(tmp_path: Path) -> None:
    assert usable_cpus(tmp_path) == ALL


@pytest.mark.parametrize(("threads", "cpus"), [(1, 0.5), (1, 1), (2, 2), (2, 2.9)])
def test_threads_that_have_whole_cores_are_well(threads: int, cpus: float) -> None:
    assert threads_fault(threads, cpus) is None


def test_more_threads_than_whole_cores_are_a_fault_with_its_cure() -> None:
    assert "may use 1.5 CPUs" in (threads_fault(2, 1.5) or "")
    assert "EMOTRACK_THREADS to 3, or give it 4 whole" in (threads_fault(4, 3.9) or "")


@pytest.mark.parametrize("threads", ["1", "2"])
@pytest.mark.parametrize(
    "command", [["config", "show"], ["serve", "--bootstrap", "127.0.0.1:1"]], ids=lambda c: c[0]
)
@pytest.mark.slow
def test_the_console_warns_a_process_with_one_cpu_of_a_second_thread(
    command: list[str], threads: str
) -> None:
    """Linux gives the process one CPU; that the broker does not answer comes after it."""
    (first, *_) = sorted(os.sched_getaffinity(0))
    ran = subprocess.run(
        [sys.executable, "-m", "stream.main", *command],
        env=os.environ | {"EMOTRACK_THREADS": threads},
        preexec_fn=lambda: os.sched_setaffinity(0, {first}),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    warned = "THREADS is 2, and this process may use 1 CPU: " in ran.stderr
    assert warned == (threads == "2"), ran.stderr
    assert "Traceback" not in ran.stderr
