"""Linear layers and batch sizes for which a row's bytes do not depend on its batch.

A matrix product adds up in another order for another number of rows, so a row's last bits depend
on its batch. Not for every size: kernels work in tiles of rows, and many sizes give the same bytes.
`proven_sizes` finds those that do, on this machine and for the actual computation; a batch is then
padded to one of them (docs/architecture.md §3a, serving law).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.interface import Turn
from state.window import Speaker, StateSpec, Window

# Multiples of six keep the float16-weight kernel (six rows high) at full height: measured, it
# reaches 0.8-1.0 of sgemm's speed from 12 rows on; under four rows it gives other bytes. The
# largest limits the working set.
CANDIDATE_SIZES: Final = (2, 4, 6, 8, 12, 18, 24, 36, 48)
# Products of two rows are computed for this many rows: two alone take a kernel of other bytes. All
# other operations run on two rows, measured 50 us faster for one conversation; for a single row the
# last numbers of a layer of 200 would be computed by other instructions than in a larger batch.
TILE: Final = 4


class RowLinear(Protocol):
    """[M, I] -> [M, O]: one weight matrix on one device."""

    bias: Tensor  # [O]

    def __call__(self, x: Tensor) -> Tensor: ...

    def multiply(self, x: Tensor, into: Tensor) -> None:
        """Write the product, without the bias, into a contiguous [M, O]."""


class HalfLinear:
    """Products of float16 weights in float32 (FBGEMM): half the memory traffic of float32.

    Uses the plain bindings although torch marks them deprecated: their successor,
    ``quantized::linear_dynamic_fp16``, runs the same kernel with 20 us more a call.
    """

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        self.bias = bias.contiguous()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # warned once, at the first call of each
            self._packed = torch.fbgemm_pack_gemm_matrix_fp16(weight.contiguous())
            self(torch.zeros(1, weight.shape[1]))

    def __call__(self, x: Tensor) -> Tensor:
        return torch.fbgemm_linear_fp16_weight_fp32_activation(x, self._packed, self.bias)

    def multiply(self, x: Tensor, into: Tensor) -> None:
        torch.fbgemm_linear_fp16_weight_fp32_activation(x, self._packed, None, into)


class FullLinear:
    """Products of float32 weights, on any device."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        self._weight, self.bias = weight.t().contiguous(), bias

    def __call__(self, x: Tensor) -> Tensor:
        return torch.addmm(self.bias, x, self._weight)

    def multiply(self, x: Tensor, into: Tensor) -> None:
        torch.mm(x, self._weight, out=into)


class RowLinears:
    """Several layers of one shape, each applied to its own rows: [slots, M, I] -> [slots, M, O].

    Allocates one result and adds all biases at once: an allocation and an addition for each, and
    stacking, would take as long as a product of four rows.
    """

    def __init__(self, layers: Sequence[RowLinear], bias: Tensor | None = None) -> None:
        """Store the layers, and a `bias` [slots, M or 1, O] that replaces their own."""
        self._layers = list(layers)
        own = torch.stack([layer.bias for layer in layers])[:, None]
        self._bias, self._width = own if bias is None else bias, int(own.shape[2])

    def __call__(self, x: Tensor, rows: int) -> Tensor:
        """Apply the layers: [slots, M, I] -> [slots, M, O], where M is `rows`."""
        return self.multiply(x, rows).add_(self._bias)

    def multiply(self, x: Tensor, rows: int, slots: Sequence[int] | None = None) -> Tensor:
        """Return products without biases; `slots` are the parts of `x` that the layers read."""
        size = tile_of(rows)
        parts = tiled(x, rows).unbind()
        chosen = parts if slots is None else [parts[slot] for slot in slots]
        out = torch.empty(len(self._layers), size, self._width, device=x.device)
        for layer, part, into in zip(self._layers, chosen, out.unbind(), strict=True):
            layer.multiply(part, into)
        return out if rows == size else out.narrow(1, 0, rows)


def tile_of(rows: int) -> int:
    """Return the number of rows that a product of `rows` is computed for."""
    return TILE if rows == TILE // 2 else rows


def tiled(x: Tensor, rows: int) -> Tensor:
    """Repeat two rows [.., 2, I] to a tile; return other numbers of rows unchanged."""
    return x if tile_of(rows) == rows else torch.cat((x, x), dim=-2)


def apply_tiled(layer: RowLinear, x: Tensor, rows: int) -> Tensor:
    """Apply a layer to [M, I], where M is `rows`: [M, O]."""
    y = layer(tiled(x, rows))
    return y if tile_of(rows) == rows else y.narrow(0, 0, rows)


def row_linear(weight: Tensor, bias: Tensor) -> RowLinear:
    """Return the fastest kernel that is exact for `weight` [O, I] and `bias` [O].

    The float16 kernel is used only where rounding changes no weight: on a CPU that supports it, and
    with a checkpoint's matrices.
    """
    exact = torch.equal(weight, weight.to(torch.float16).to(weight.dtype))
    if weight.device.type == "cpu" and exact and has_half_kernel():
        return HalfLinear(weight, bias)
    return FullLinear(weight, bias)


def has_half_kernel() -> bool:
    """Return True where this build of torch can multiply by float16 weights on this CPU."""
    there = hasattr(torch, "fbgemm_linear_fp16_weight_fp32_activation")
    return there and "fbgemm" in torch.backends.quantized.supported_engines


def proven_sizes(
    compute: Callable[[Sequence[int]], list[bytes]],
    rows: int,
    candidates: Sequence[int] = CANDIDATE_SIZES,
) -> tuple[int, ...]:
    """Return the batch sizes that give each of `rows` sample rows the same bytes, ascending.

    `compute` takes sample indices and returns a row's bytes for each. A size is tried on all
    samples in two orders, so that neighbours and the place in the batch both change; the sizes that
    agree with the largest are returned. Where none agrees (seen with float32 weights and narrow
    layers), the only size is 1: slow, and exact by construction.
    """
    agree: dict[tuple[bytes, ...], list[int]] = {}  # sizes by their rows
    for size in candidates:
        straight = _in_batches(compute, list(range(rows)), size)
        # 7 is coprime to every candidate's divisors, so each row meets other neighbours
        shuffled = [(7 * i + 5) % rows for i in range(rows)]
        if straight == _in_batches(compute, shuffled, size):
            agree.setdefault(tuple(straight), []).append(size)
    if not agree:
        return (1,)
    best = max(agree.values(), key=lambda sizes: (max(sizes), len(sizes)))
    return tuple(best)


def empty_turn(spec: StateSpec) -> Turn:
    """Return the turn that fills a batch up to a proven size."""
    return Turn(Window.empty(spec), "nobody", {})


def sample_window(spec: StateSpec, dtype: torch.dtype, past: int, draw: torch.Generator) -> Window:
    """Return a window of `past` utterances of three speakers with random state, to prove sizes."""

    def arrays(count: int, nbytes: int) -> NDArray[np.uint8]:
        values = torch.rand(count * nbytes // dtype.itemsize, generator=draw).mul(2).sub(1)
        return values.to(dtype).view(torch.uint8).numpy().reshape(count, nbytes)

    names = tuple(f"speaker {i % 3}" for i in range(past))
    speakers = {
        name: Speaker(i, "", arrays(1, spec.speaker_bytes)[0]) for i, name in enumerate(names)
    }
    rows = arrays(past, spec.row_bytes)
    conversation = arrays(1, spec.conversation_bytes)[0] if past else None
    return Window(rows, names, ("",) * past, conversation, speakers, past)


def _in_batches(
    compute: Callable[[Sequence[int]], list[bytes]], order: list[int], size: int
) -> list[bytes]:
    rows: dict[int, bytes] = {}
    for at in range(0, len(order), size):
        batch = [order[(at + k) % len(order)] for k in range(size)]
        rows.update(zip(batch, compute(batch), strict=True))
    return [rows[i] for i in range(len(order))]
