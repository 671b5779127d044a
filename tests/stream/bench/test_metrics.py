"""The figures that `bench metrics` computes from a worker's slices."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stream.bench.metrics import FULL, HEAD, LEFT_OUT, ORDER, InTurns, Slice, costs, rows, slices_in


def slices(*cpu_us: float, utterances: int = FULL) -> list[Slice]:
    """Slices of a flood, in the order that a worker takes them."""
    return [
        (ORDER[n % len(ORDER)], us * utterances / 1e6, utterances) for n, us in enumerate(cpu_us)
    ]


def test_neighbours_are_compared_in_either_order() -> None:
    found = costs(slices(*[999.0] * LEFT_OUT, 110, 100, 101, 112))
    assert [tuple(round(us, 6) for us in pair) for pair in found] == [(110, 100), (112, 101)]


def test_the_end_of_a_flood_is_left_out() -> None:
    cold = slices(*[1.0] * LEFT_OUT)
    assert costs([*cold, *slices(110, 100, utterances=FULL - 1)]) == []


def test_the_cost_is_a_share_of_the_loops_time_without() -> None:
    found = rows([(110.0, 100.0), (90.0, 80.0)] * 20, 2.5)
    assert found["metrics_cost"]["value"] == pytest.approx(100 * 10 / 90, abs=0.01)
    assert found["metrics_cost_upper_95"]["value"] == found["metrics_cost"]["value"]  # no spread
    assert found["metrics_scrape"]["value"] == 2.5


def test_the_slices_are_found_in_the_workers_log(tmp_path: Path) -> None:
    printed = slices(1, 2, 3)
    log = tmp_path / "log"
    log.write_text(f"a line\n{HEAD}{json.dumps(printed)}\n", "utf-8")
    assert slices_in(log) == printed


def test_every_other_slice_observes_nothing() -> None:
    class Real:
        facts = 0

        def read(self, *_: object) -> None:
            self.facts += 1

        def answered(self, *_: object) -> None:
            self.facts += 1

    class Step:
        results = (1, 2, 3)

    real = Real()
    by = InTurns(real)
    for _ in range(2 * len(ORDER)):
        by.read(1)
        by.answered(Step())
    assert real.facts == 2 * len(ORDER)  # half of twice as many
    assert [on for on, _, _ in by.slices] == [*ORDER, *ORDER]
    assert {n for _, _, n in by.slices} == {3}
