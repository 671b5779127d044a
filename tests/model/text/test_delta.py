"""A change by training is restored nearly as it was, and never in another encoder."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from model.errors import EncoderMissing
from model.text.sentence_encoder import SCALE, apply_delta, delta_of


def layer(seed: int) -> nn.Linear:
    torch.manual_seed(seed)
    return nn.Linear(6, 4)


def tuned(base: nn.Linear) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(9)
    return {
        "weight": base.weight.detach() + 0.01 * torch.randn(4, 6, generator=draw),
        "bias": base.bias.detach() + 0.02,
    }


def test_a_change_comes_back_within_half_a_step_of_its_rows_scale() -> None:
    base = layer(0)
    wanted = tuned(base)
    delta = delta_of(dict(base.named_parameters()), wanted)
    assert delta["weight"].dtype == torch.int8
    error_allowed = delta["weight" + SCALE] / 2 + 1e-7
    apply_delta(base, delta)
    assert bool(((base.weight - wanted["weight"]).abs() <= error_allowed).all())
    assert torch.equal(base.bias, layer(0).bias + (wanted["bias"] - layer(0).bias))


def test_an_unchanged_tensor_is_not_stored() -> None:
    base = dict(layer(0).named_parameters())
    delta = delta_of(base, {**base, "bias": base["bias"] + 1})
    assert set(delta) == {"bias"}


def test_a_delta_of_another_encoder_is_refused() -> None:
    delta = delta_of(dict(layer(0).named_parameters()), tuned(layer(0)))
    with pytest.raises(EncoderMissing, match="weight"):
        apply_delta(nn.Linear(5, 4), delta)
