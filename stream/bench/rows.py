"""One measured figure, as `emotrack bench` prints it."""

from __future__ import annotations

from typing import TypedDict


class Row(TypedDict):
    """One row of the table and of ``--json``."""

    value: float
    unit: str
    first: float | None
    aim: float | None
    reference: str
    runs: list[float]
