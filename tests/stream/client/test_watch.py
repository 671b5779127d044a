"""Predictions and alerts as `emotrack watch` shows them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from stream.client import Received
from stream.client.watch import BAR, Event, bar, save, watch
from stream.events.messages import Context, InputRef, ModelRef, PredictionEvent, Shift, ShiftAlert

MODEL = ModelRef("pcgnet", "1", "d" * 64, "none")
INPUT = InputRef("emotrack.utterances", 0, 1)
PREDICTION = PredictionEvent(
    conversation_id="call-7", utterance_id="u1", speaker_id="anna", prediction_id="p1",
    emotion="joy", probabilities={"joy": 0.75, "calm": 0.25}, confidence=0.75,
    sentiment="positive", shift=Shift(0.61, "calm", "joy", "u0"), modalities_used=["text"],
    context=Context(1, "u0", 0, False), model=MODEL, input=INPUT,
)  # fmt: skip
ALERT = ShiftAlert(
    alert_id="a1", conversation_id="call-7", speaker_id="anna", from_="calm", to="joy",
    probability=0.9, rule="emotion_shift", severity="critical", utterance_id="u1",
    previous_utterance_id="u0", prediction_id="p1", model=MODEL, input=INPUT,
)  # fmt: skip


def received(event: PredictionEvent | ShiftAlert, *headers: tuple[str, bytes]) -> Event:
    if isinstance(event, PredictionEvent):
        return Received(event, headers, 0, 0, 0)
    return Received(event, headers, 0, 0, 0)


def shown(event: Event, *, terminal: bool = False) -> str:
    out = io.StringIO()
    console = Console(file=out, width=140, force_terminal=terminal, color_system=None)
    assert watch([event], console) == 1
    return out.getvalue()


def test_a_line_has_speaker_emotion_confidence_shift_and_latency() -> None:
    head, line, rest = shown(received(PREDICTION, ("emotrack_end_to_end_ms", b"12.345"))).split(
        "\n"
    )
    assert head.split(" | ") == [
        "time, UTC",
        "conversation",
        "speaker",
        "emotion",
        "confidence",
        "shift: probability, from and to",
        "latency, ms",
    ]
    for part in ("00:00:00", "call-7", "anna", "joy", "0.75", "0.61 calm -> joy", "12.3"):
        assert part in line
    assert rest == ""


@pytest.mark.parametrize("ms", [-(2**62), -1, 0, 32_503_680_000_000, 2**62])
@pytest.mark.parametrize("latency", [b"", b"soon", b"-3", None])
def test_no_time_and_no_header_of_another_writer_ends_the_watch(
    ms: int, latency: bytes | None
) -> None:
    headers: Any = (("emotrack_end_to_end_ms", latency),)
    assert "joy" in shown(Received(PREDICTION, headers, ms, 0, 0))


def test_a_first_utterance_shows_no_shift_and_an_abstained_one_its_reason() -> None:
    event = msgspec.structs.replace(PREDICTION, shift=None, abstained=True, reason="low_confidence")
    line = shown(received(event))
    assert "->" not in line
    assert "(low_confidence)" in line
    assert "joy" not in line


def test_an_alert_stands_out() -> None:
    assert "ALERT calm -> joy" in shown(received(ALERT))


def test_a_terminal_gets_a_table() -> None:
    drawn = shown(received(PREDICTION), terminal=True)
    assert "conversation" in drawn
    assert "call-7" in drawn


def test_json_lines_are_the_events_themselves() -> None:
    out = io.StringIO()
    watch([received(PREDICTION), received(ALERT)], Console(file=io.StringIO()), jsonl=True, out=out)
    first, second = out.getvalue().splitlines()
    assert msgspec.json.decode(first, type=PredictionEvent) == PREDICTION
    assert json.loads(second)["from"] == "calm"


def test_a_limit_ends_the_watch_without_asking_for_more() -> None:
    def endless() -> Iterator[Event]:
        yield received(PREDICTION)
        yield received(PREDICTION)
        raise AssertionError("a third event was requested")

    assert watch(endless(), Console(file=io.StringIO()), limit=2) == 2


def test_ctrl_c_is_the_usual_way_to_stop() -> None:
    def interrupted() -> Iterator[Event]:
        yield received(PREDICTION)
        raise KeyboardInterrupt

    assert watch(interrupted(), Console(file=io.StringIO())) == 1


@given(st.floats(0, 1))
def test_the_bar_is_always_ten_marks(probability: float) -> None:
    drawn = bar(probability).plain
    assert drawn.startswith("#" * round(probability * BAR))
    assert len(drawn) == BAR + len(f" {probability:.2f}")


def test_a_table_of_predictions_has_their_labels_and_their_time(tmp_path: Path) -> None:
    other = msgspec.structs.replace(PREDICTION, probabilities={"fear": 1.0})
    out = tmp_path / "predictions.csv"
    file = save([received(PREDICTION), received(other), received(PREDICTION)], out, alerts=False)
    assert (file.written, file.other_columns) == (2, 1)
    with out.open(encoding="utf-8", newline="") as opened:
        first, second = csv.DictReader(opened)
    assert first == second
    assert first["time"] == "1970-01-01T00:00:00.000+00:00"
    assert (first["p_joy"], first["shift_from"], first["flags"]) == ("0.75", "calm", "")
    lines = tmp_path / "predictions.jsonl"
    assert save([received(PREDICTION), received(other)], lines, alerts=False).written == 2
    assert json.loads(lines.read_text().splitlines()[1])["probabilities"] == {"fear": 1.0}


def test_a_table_of_alerts_and_one_of_nothing_have_a_header(tmp_path: Path) -> None:
    save([received(ALERT)], tmp_path / "alerts.csv", alerts=True)
    header, line = (tmp_path / "alerts.csv").read_text().splitlines()
    assert header.startswith("time,conversation_id,utterance_id,speaker_id,from,to,probability")
    assert line.split(",")[4:7] == ["calm", "joy", "0.9"]
    save([], tmp_path / "nothing.csv", alerts=True)
    assert (tmp_path / "nothing.csv").read_text() == header + "\n"
    assert save([received(ALERT)] * 3, tmp_path / "one.csv", alerts=True, limit=1).written == 1
