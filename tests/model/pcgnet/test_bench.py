"""The benchmark times what it reports: sizes, turns and counted work."""

from __future__ import annotations

from itertools import count

import pytest
import torch

from model.pcgnet import bench
from model.pcgnet.config import preset
from model.pcgnet.step import multiply_adds
from model.serving.row_stable import FullLinear


@pytest.mark.slow
def test_counted_products_of_a_step_are_those_it_multiplies(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every product goes through a row layer; counted while one step of four rows runs."""
    seen = []

    call, multiply = FullLinear.__call__, FullLinear.multiply

    def counting(self: FullLinear, x: torch.Tensor) -> torch.Tensor:
        seen.append(int(x.shape[0]) * self._weight.numel())
        return call(self, x)

    def counting_too(self: FullLinear, x: torch.Tensor, into: torch.Tensor) -> None:
        seen.append(int(x.shape[0]) * self._weight.numel())
        multiply(self, x, into)

    monkeypatch.setattr("model.serving.row_stable.has_half_kernel", lambda: False)
    monkeypatch.setattr(FullLinear, "__call__", counting)
    monkeypatch.setattr(FullLinear, "multiply", counting_too)
    by = bench.random_predictor(100)
    rows = 4  # of fewer, some products would be computed for four
    by.batch_sizes = (rows,)
    talks = bench.Talks.begin(by, 1)
    seen.clear()
    by._steps.clear()  # recorded again, so that Python runs once more
    talks.predict(talks.turns(0), lambda: 0.0)
    products = sum(seen) // rows
    expected = multiply_adds(preset("meld", hidden=100, persona_heads=2))
    assert products in (expected, 2 * expected)  # recording runs it once or twice


@pytest.mark.slow
def test_each_step_extends_the_windows() -> None:
    talks = bench.Talks.begin(bench.random_predictor(100), 2)
    clock = count()
    for t in range(3):
        assert talks.predict(talks.turns(t), lambda: float(next(clock))) == 1.0
    assert [w.count for w in talks.windows] == [3, 3]


@pytest.mark.slow
def test_the_reference_counts_every_utterance_once() -> None:
    by = bench.random_predictor(100)
    one, many = bench.FullRecompute(by, 1, 6), bench.FullRecompute(by, 17, 6)
    assert many.gflop == pytest.approx(17 * one.gflop, rel=0.02)
    assert one.gflop == pytest.approx(6 * bench.step_gflop(by), rel=0.05)
