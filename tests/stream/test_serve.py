"""The first lines of `emotrack serve`, about its model."""

from __future__ import annotations

from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from model.interface import ModelInfo
from stream import serve
from stream.settings import Settings
from tests.fakes.predictor import SmallPredictor


class English(SmallPredictor):
    @property
    def info(self) -> ModelInfo:
        return replace(super().info, languages=("en", "de"))


@pytest.mark.parametrize(
    ("predictor", "warned", "shown"),
    [(English(), False, "en, de"), (SmallPredictor(), True, "none stated")],
)
def test_the_languages_of_the_checkpoint_are_named_or_that_it_states_none(
    predictor: SmallPredictor, warned: bool, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve, "load_model", lambda _: predictor)
    with capture_logs() as lines:
        serve.open_model(Settings())
    events = [line["event"] for line in lines if line["log_level"] == "warning"]
    assert any("states no languages" in event for event in events) == warned
    assert serve.describe(predictor)["languages"] == shown
