"""The shipped model's lost states, computed anew in batches that are under way at the same time."""

from __future__ import annotations

import numpy as np
import pytest

from model.registry import load_predictor
from stream.worker.rebuild import READY_AHEAD, REPLAYED_AT_ONCE
from tests.stream.worker.test_loop import Plant
from tests.stream.worker.test_rebuild import answers, lose, of_oracle, settle

CONVERSATIONS = 2 * READY_AHEAD * REPLAYED_AT_ONCE + 5  # more than can be under way
WIDTHS = {"text": 384, "audio": 8, "video": 17}


@pytest.mark.slow
def test_rebuilt_states_are_those_that_were_served() -> None:
    plant = Plant(load_predictor())
    draw = np.random.default_rng(7)

    def say(turn: int) -> None:
        for number in range(CONVERSATIONS):
            features = {
                name: {"tensor": draw.normal(size=width).round(2).tolist()}
                for name, width in WIDTHS.items()
                if name == "text" or (number + turn) % 3
            }
            plant.say(f"c{number}", speaker_id=f"s{turn % 2}", features=features)

    running = plant.worker()
    for turn in range(3):
        say(turn)
    settle(plant, running)
    lose(plant)
    say(3)
    settle(plant, running)
    assert running.value("state_rebuilds_total", cause="missing_state") == CONVERSATIONS
    assert answers(plant) == of_oracle(plant)
