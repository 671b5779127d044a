"""The first lines of `emotrack serve`, about its model."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from model.interface import ModelInfo
from state.window import Recurrence
from stream import serve
from stream.metrics.catalogue import Metrics
from stream.settings import Settings
from stream.worker.observe import Health
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


def test_workers_whose_states_are_foreign_to_each_other_show_it() -> None:
    """A window is not in the model's digest: without it, a mixture of workers could not be seen."""
    pages: list[tuple[dict[str, str], str]] = []
    for window in (3, 4, 4):
        predictor, metrics = SmallPredictor(Recurrence(window=window)), Metrics()
        settings = Settings(metrics_port=0)
        status = serve.open_status(settings, metrics, Health())
        try:
            serve.identify(status, metrics, predictor)
            version = json.loads(status.answer("/version")[2])
        finally:
            status.close()
        shown = f'state_digest="{predictor.spec.digest}"'
        info = [line for line in metrics.render().decode().splitlines() if shown in line]
        assert len(info) == 1 and info[0].startswith("emotrack_model_info{")
        pages.append((version, info[0]))
    three, four, also_four = pages
    assert three[0]["digest"] == four[0]["digest"]
    assert three[0]["state_digest"] != four[0]["state_digest"]
    assert four == also_four
