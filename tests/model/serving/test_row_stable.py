"""Batch sizes are proven, not assumed."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from model.serving.row_stable import (
    FullLinear,
    HalfLinear,
    RowLinears,
    has_half_kernel,
    proven_sizes,
    row_linear,
)


def test_sizes_that_give_other_bytes_are_left_out() -> None:
    """Kernels of which sizes 4 and 8 give the same bytes and 6 gives others."""

    def compute(rows: Sequence[int]) -> list[bytes]:
        other = len(rows) == 6
        return [bytes([row, other]) for row in rows]

    assert proven_sizes(compute, 24, (4, 6, 8)) == (4, 8)


def test_a_size_whose_bytes_depend_on_the_place_is_left_out() -> None:
    def compute(rows: Sequence[int]) -> list[bytes]:
        last_differs = len(rows) == 8
        return [
            bytes([row, last_differs and place == len(rows) - 1]) for place, row in enumerate(rows)
        ]

    assert proven_sizes(compute, 24, (4, 6, 8)) == (4, 6)


def test_a_size_whose_bytes_depend_on_a_neighbour_is_left_out() -> None:
    def compute(rows: Sequence[int]) -> list[bytes]:
        mixed = sum(rows) % 251 if len(rows) == 6 else 0
        return [bytes([row, mixed]) for row in rows]

    assert proven_sizes(compute, 24, (4, 6, 8)) == (4, 8)


def test_where_no_size_can_be_proven_rows_are_answered_one_by_one() -> None:
    calls = iter(range(10_000))
    assert proven_sizes(lambda rows: [next(calls).to_bytes(2) for _ in rows], 8, (4, 8)) == (1,)


def test_the_half_kernel_is_taken_only_where_it_is_exact() -> None:
    weight = torch.randn(8, 12, generator=torch.Generator().manual_seed(0))
    assert isinstance(row_linear(weight, torch.zeros(8)), FullLinear)
    kind = HalfLinear if has_half_kernel() else FullLinear
    assert isinstance(row_linear(weight.half().float(), torch.zeros(8)), kind)


@pytest.mark.parametrize("kernel", [FullLinear, HalfLinear])
def test_kernels_compute_the_product(kernel: type[FullLinear] | type[HalfLinear]) -> None:
    if kernel is HalfLinear and not has_half_kernel():
        pytest.skip("this build of torch has no float16-weight kernel for this CPU")
    draw = torch.Generator().manual_seed(0)
    weight = torch.randn(9, 12, generator=draw).half().float()
    x, bias = torch.randn(6, 12, generator=draw), torch.randn(9, generator=draw)
    assert torch.allclose(kernel(weight, bias)(x), x @ weight.t() + bias, atol=1e-5)


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 6])
@pytest.mark.parametrize("half", [True, False])
def test_several_layers_together_equal_each_alone(rows: int, half: bool) -> None:
    draw = torch.Generator().manual_seed(0)
    weights = torch.randn(3, 9, 12, generator=draw).half().float() / (1 if half else 3)
    x, bias = torch.randn(3, rows, 12, generator=draw), torch.randn(3, 9, generator=draw)
    layers = RowLinears([row_linear(w, b) for w, b in zip(weights, bias, strict=True)])
    expected = x @ weights.transpose(1, 2)
    assert torch.allclose(layers(x, rows), expected + bias[:, None], atol=1e-5)
    chosen = x[[0, 0, 2]] @ weights.transpose(1, 2)
    assert torch.allclose(layers.multiply(x, rows, (0, 0, 2)), chosen, atol=1e-5)
