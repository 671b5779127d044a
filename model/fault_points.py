"""Places where a worker can be made to die, so that tests break it where it hurts most.

Each is named once in the code (`reach`) and does nothing unless armed, which only the environment
variable of `stream.worker.faults` does: one comparison a batch and place. Names are those of the
failure table: what a crash at each place leads to is in docs/reliability.md.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal, get_args

FaultPoint = Literal["F1", "F2", "F3", "F4", "F5", "F6", "F7", "F8", "F9", "F10"]
WHERE: Final[dict[FaultPoint, str]] = {
    "F1": "after poll",
    "F2": "after the state was read",
    "F3": "after the batch's graph was built",
    "F4": "during inference",
    "F5": "after inference, before the state is written",
    "F6": "after the state was written, before anything is produced",
    "F7": "after produce, before the acknowledgement",
    "F8": "after the acknowledgement, before the offsets are committed",
    "F9": "while partitions are revoked",
    "F10": "while draining",
}
FAULT_POINTS: Final[tuple[FaultPoint, ...]] = get_args(FaultPoint)

_armed: Callable[[FaultPoint], None] | None = None


def reach(point: FaultPoint) -> None:
    """Here is one of the places."""
    if _armed is not None:
        _armed(point)


def arm(action: Callable[[FaultPoint], None] | None) -> None:
    """Call `action` at every place from now on; None: at none."""
    global _armed
    _armed = action
