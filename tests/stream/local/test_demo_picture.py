"""The demo's picture: every speaker, sentence of an alert and emotion is in it, reproducibly."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from matplotlib import rc_context
from typer.testing import CliRunner

from stream.events.messages import (
    Context,
    InputRef,
    ModelRef,
    PredictionEvent,
    Shift,
    ShiftAlert,
    Utterance,
)
from stream.local.demo_picture import CALLOUT, LEFT, RIGHT, draw, spread
from stream.main import app

MODEL = ModelRef("small", "1", "digest", "none")
UTTERANCES = [
    Utterance("c", "u1", "Ann", text="How nice!"),
    Utterance("c", "u2", "Ben", text="It is broken."),
    Utterance("c", "u3", "Ann", text="Broken? And you say that only now, a week on, on a Sunday?"),
]


def answer(utterance: Utterance, emotion: str, shift: Shift | None = None) -> PredictionEvent:
    return PredictionEvent(
        conversation_id=utterance.conversation_id,
        utterance_id=utterance.utterance_id,
        speaker_id=utterance.speaker_id,
        prediction_id=utterance.utterance_id,
        emotion=emotion,
        probabilities={emotion: 0.7},
        confidence=0.7,
        sentiment="neutral",
        shift=shift,
        modalities_used=["text"],
        context=Context(0, None, 0, False),
        model=MODEL,
        input=InputRef("t", 0, 0),
    )


ANSWERS = {
    "u1": answer(UTTERANCES[0], "joy"),
    "u2": answer(UTTERANCES[1], "bliss"),  # of a model with labels of its own
    "u3": answer(UTTERANCES[2], "anger", Shift(0.9, "joy", "anger", "u1")),
}
ALERT = ShiftAlert(
    alert_id="a",
    conversation_id="c",
    speaker_id="Ann",
    from_="joy",
    to="anger",
    probability=0.9,
    rule="emotion_shift",
    severity="warning",
    utterance_id="u3",
    previous_utterance_id="u1",
    prediction_id="u3",
    model=MODEL,
    input=InputRef("t", 0, 0),
)


def test_the_picture_names_speakers_emotions_and_the_words_of_an_alert(tmp_path: Path) -> None:
    with rc_context({"svg.fonttype": "none"}):  # letters, not their outlines
        draw(tmp_path / "a.svg", {"call": UTTERANCES}, ANSWERS, [ALERT])
    drawn = (tmp_path / "a.svg").read_text("utf-8")
    for words in ("call", "Ann", "Ben", "joy", "anger", "Ann: joy → anger", "“Broken? And you say"):
        assert f">{words}" in drawn
    assert "Sunday" not in drawn, "long sentences are shortened"


@pytest.mark.parametrize("name", ["a.svg", "a.png"])
def test_equal_answers_give_an_equal_picture(tmp_path: Path, name: str) -> None:
    written = []
    for alerts in ([ALERT], [ALERT], []):
        draw(tmp_path / name, {"call": UTTERANCES}, ANSWERS, alerts)
        written.append((tmp_path / name).read_bytes())
    assert written[0] == written[1] != written[2]


@pytest.mark.parametrize("wanted", [[], [30.0], [30, 40, 860], [700, 800, 810, 820, 830]])
def test_callouts_neither_overlap_nor_leave_the_picture(wanted: Sequence[float]) -> None:
    placed = spread(wanted)
    assert len(placed) == len(wanted)
    assert all(b - a >= CALLOUT for a, b in pairwise(placed))
    assert all(x - CALLOUT / 2 >= LEFT and x + CALLOUT / 2 <= RIGHT for x in placed)


def test_another_kind_of_file_is_refused_before_anything_starts() -> None:
    ran = CliRunner().invoke(app, ["demo", "--picture", "timeline.pdf"])
    assert ran.exit_code != 0
    assert "ends in .svg or .png" in str(ran.exception)
