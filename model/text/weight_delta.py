"""Changes of an encoder's weights by training, in 8 bits a number.

A tuned weight is its base plus `scale * number`, with one scale per row of a matrix. The difference
is small and so is the error of its rounding: at most half a 127th of a row's largest change.
Vectors (biases, norms) are stored as float32 differences, and only tensors that changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor, nn

from model.errors import EncoderMissing

SCALE: Final = ".scale"  # suffix of the entry of a matrix's scales
_LEVELS: Final = 127


def delta_of(base: Mapping[str, Tensor], tuned: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return what to add to `base` [name -> tensor] to get (nearly) `tuned`, as stored."""
    delta: dict[str, Tensor] = {}
    for name, value in tuned.items():
        change = (value.detach() - base[name].detach()).to(torch.float32)
        if not bool(change.any()):
            continue
        if change.ndim != 2:
            delta[name] = change.contiguous()
            continue
        scale = (change.abs().amax(1, keepdim=True) / _LEVELS).clamp_min(1e-12)  # [rows, 1]
        delta[name] = (change / scale).round().to(torch.int8).contiguous()
        delta[name + SCALE] = scale.contiguous()
    return delta


@torch.no_grad()
def apply_delta(network: nn.Module, delta: Mapping[str, Tensor]) -> None:
    """Add a stored difference to a base network's weights, in place.

    Raises `EncoderMissing` where the network has no such weight.
    """
    weights = dict(network.named_parameters())
    for name, stored in delta.items():
        if name.endswith(SCALE):
            continue
        if name not in weights or weights[name].shape != stored.shape:
            raise EncoderMissing(f"the encoder has no weight {name} of size {list(stored.shape)}")
        scale = delta.get(name + SCALE)
        change = stored.float() if scale is None else stored.float() * scale
        weights[name].add_(change)
