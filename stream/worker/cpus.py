"""CPUs that this process may use: its affinity and the quotas of its control groups (Linux).

A thread more than that does not only not help: the threads of one product wait for the one that has
no CPU (docs/sizing.md).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Final

ROOT: Final = Path("/")
GROUPS: Final = Path("sys/fs/cgroup")
Quota = Callable[[Path], float | None]
"""Reads the CPUs that a group may use; None: it is not limited."""


def usable_cpus(root: Path = ROOT) -> float:
    """Return the CPUs that this process may use at once; a quota may be a fraction.

    `root` is where /proc and /sys are. What cannot be read limits nothing.
    """
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min([float(count or 1), *_quotas(root)])


def threads_fault(threads: int, cpus: float) -> str | None:
    """Return what is wrong with `threads` where `cpus` may be used, and the cure; None if nothing.

    One thread is never wrong: there is no smaller number.
    """
    most = max(1, int(cpus))
    if threads <= most:
        return None
    return (
        f"THREADS is {threads}, and this process may use {cpus:g} CPU{'s' * (cpus != 1)}: its "
        f"threads wait for each other. Set EMOTRACK_THREADS to {most}, or give it {threads} whole "
        "cores; more workers do more with the same cores (docs/sizing.md)"
    )


def _quotas(root: Path) -> Iterator[float]:
    """Yield the quotas, in CPUs, of this process' groups and of those around them."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        number, controllers, path = line.split(":", 2)
        if number == "0":
            yield from _along(root / GROUPS, path, _quota_v2)
        elif "cpu" in controllers.split(","):
            yield from _along(root / GROUPS / "cpu", path, _quota_v1)


def _along(mount: Path, path: str, quota: Quota) -> Iterator[float]:
    """Yield the quota of a group and of each around it, up to the mount.

    A container may see its own group as the mount, while its path is that of the host: groups that
    are not there are passed over.
    """
    group = PurePosixPath(path.lstrip("/"))
    for each in (group, *group.parents):
        try:
            found = quota(mount / each)
        except (OSError, ValueError):
            continue
        if found is not None:
            yield found


def _quota_v2(group: Path) -> float | None:
    quota, period = (group / "cpu.max").read_text().split()
    return None if quota == "max" else int(quota) / int(period)


def _quota_v1(group: Path) -> float | None:
    quota = int((group / "cpu.cfs_quota_us").read_text())
    return None if quota < 0 else quota / int((group / "cpu.cfs_period_us").read_text())
