"""Places where tests can make a worker die, named as in docs/reliability.md.

Each is marked once in the code (`reach`) and does nothing unless armed (`arm_from_environment`,
and tests). The armed action is a global: as an argument it would pass through the worker, the
pipeline, the registry and both models' loaders, for tests alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal, get_args

FaultPoint = Literal[
    "F1",  # after poll
    "F2",  # after the state was read
    "F3",  # after the batch's graph was built
    "F4",  # during inference
    "F5",  # after inference, before the state is written
    "F6",  # after the state was written, before anything is produced
    "F7",  # after produce, before the acknowledgement
    "F8",  # after the acknowledgement, before the offsets are committed
    "F9",  # while partitions are revoked
    "F10",  # while draining
]
FAULT_POINTS: Final[tuple[FaultPoint, ...]] = get_args(FaultPoint)

_armed: Callable[[FaultPoint], None] | None = None


def reach(point: FaultPoint) -> None:
    """Mark a fault point, reached once a batch; do nothing unless armed."""
    if _armed is not None:
        _armed(point)


def arm(action: Callable[[FaultPoint], None] | None) -> None:
    """Call `action` at every fault point from now on; None disarms them."""
    global _armed
    _armed = action
