"""One measured figure, as `emotrack bench` prints it."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import TypedDict


class Row(TypedDict):
    """One row of the table and of ``--json``."""

    value: float
    unit: str
    first: float | None
    aim: float | None
    reference: str
    runs: list[float]


def figure(
    runs: Sequence[float],
    unit: str,
    reference: str,
    first: float | None = None,
    aim: float | None = None,
    *,
    digits: int | None = None,
) -> Row:
    """Summarise runs by their median, each rounded to `digits` where given."""
    shown = [run if digits is None else round(run, digits) for run in runs]
    value = statistics.median(shown)
    return Row(value=value, unit=unit, first=first, aim=aim, reference=reference, runs=shown)
