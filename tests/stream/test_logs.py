"""Logs are facts about records, never what somebody said."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Literal

import pytest
import structlog

from model.predictor import Predictor
from stream.serving import configure_log
from stream.settings import Settings
from tests.stream.test_worker import Plant

SPOKEN = "zanzibar"  # a word of the conversation that nothing else says


@pytest.fixture(autouse=True)
def _reset() -> Iterator[None]:
    yield
    structlog.reset_defaults()


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_no_text_of_a_conversation_is_ever_logged(
    log_format: Literal["console", "json"],
    predictor: Predictor,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Answered, repeated, refused for each kind of fault, held back: whatever happens to it."""
    configure_log(Settings(log_format=log_format, log_level="debug"))
    plant = Plant(predictor)
    plant.say(text=f"{SPOKEN} one", n=3)
    plant.say(utterance_id="u0", text=SPOKEN)
    plant.say(text=SPOKEN, features={"text": {"tensor": [1.0]}}, speaker_role=SPOKEN)
    plant.say(text=SPOKEN, is_partial=True)
    plant.say(text=[SPOKEN])
    plant.say(conversation="d", conversation_id="c", text=SPOKEN)
    plant.say(text=SPOKEN, speaker_id="")
    for value in (f'{{"text": "{SPOKEN}', f'{{"{SPOKEN}": 1}}', f'"{SPOKEN}"'):
        plant.log.append("utterances", b"c", value.encode())
    running = plant.worker()
    running.turns(3)
    running.store.away = True
    plant.say(conversation="e", text=SPOKEN)
    running.turns(3)
    running.store.away = False
    running.turns(100)
    running.worker.drain()
    out, err = capfd.readouterr()
    assert SPOKEN not in out + err
    assert err.count("record refused") >= 6 and "batch held" in err
    if log_format == "json":
        assert all(json.loads(line)["event"] for line in err.splitlines())
    assert len(plant.predictions()) >= 4
