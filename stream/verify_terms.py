"""What `emotrack verify` holds the logs to: where they begin and end, and what is allowed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Terms:
    """What is known of the logs, and what is asked for."""

    committed: Mapping[int, int]  # next offset of the group, by partition
    lows: Mapping[int, int]  # the first offset each partition still holds
    ends: Mapping[int, int]
    dead_letters: str = "dead-letters"  # name of the topic
    max_uncommitted: int = 512
    topic_id: str = ""
    tolerance: float | None = None  # of a probability; None: bytes must be equal
    allow_truncation: bool = True
