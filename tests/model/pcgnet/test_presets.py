"""The presets are the paper's models: every weight is accounted for."""

from __future__ import annotations

import pytest

from model.interface import MODALITIES
from model.pcgnet.config import PcgnetConfig, preset
from model.study.ablations import network_of

# docs/models.md A10: the published code, with causal GRUs (A8) and as it is.
PUBLISHED = {"meld": (3_175_332, 2_695_332), "iemocap": (12_355_730, 10_435_730)}


def added_weights(config: PcgnetConfig) -> int:
    """Return the number of weights we added less those we left out (reasons: docs/decisions.md)."""
    h, m = config.hidden, len(MODALITIES)
    added = {
        "vectors for missing inputs": m * h + config.persona,
        "an embedding of the two tasks": 2 * h,
        "biases of persona values and persona keys": 2 * m * h,
        "bias of the interactive graph's values": h,
        "evidence of the utterance alone, for the shift head": (m * h + 1) * config.classes,
    }
    left_out = {
        "persona gates read their head's own value, not all of H": m * h * config.persona_heads
        - m * h,
        "distance weights of the two relations that never reach back": 2 * config.graph_heads,
    }
    return sum(added.values()) - sum(left_out.values())


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_preset_has_the_papers_number_of_weights_and_our_named_additions(name: str) -> None:
    causal, both_ways = PUBLISHED[name]
    config = preset(name)
    extra = added_weights(config)
    assert weights(config) == causal + extra
    assert weights(preset(name, research=("bidirectional",))) == both_ways + extra


def weights(config: PcgnetConfig) -> int:
    return sum(parameter.numel() for parameter in network_of(config)(config).parameters())
