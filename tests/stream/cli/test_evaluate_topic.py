"""Answers of a topic are joined with the labels of a set, and scored."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest

from model.data.convert import to_data_set
from model.data.dataset import DataSet
from model.data.table import read_table
from stream.cli.evaluate_topic import joined, score_table
from stream.errors import SourceError
from stream.events.messages import Context, InputRef, ModelRef, PredictionEvent, Shift

LABELS = ("calm", "joy")


@pytest.fixture
def data(tmp_path: Path) -> DataSet:
    """One dev conversation: calm, joy, and one without a label; two speakers."""
    file = tmp_path / "calls.csv"
    file.write_text(
        "call_id,turn,speaker,text,emotion,split\n"
        "t,0,a,x,calm,train\nt,1,a,y,joy,train\n"
        "d,0,a,x,calm,dev\nd,1,b,y,joy,dev\nd,2,a,z,joy,dev\nd,3,b,w,,dev\n"
        "e,0,a,x,calm,dev\ne,1,a,x,calm,dev\n"
    )
    return to_data_set("calls", read_table(file))


def event(
    turn: int, joy: float, *, conversation: str = "d", digest: str = "d", shift: float | None = None
) -> PredictionEvent:
    return PredictionEvent(
        conversation_id=conversation,
        utterance_id=str(turn),
        speaker_id="a",
        prediction_id="p",
        emotion="joy" if joy > 0.5 else "calm",
        probabilities={"calm": 1 - joy, "joy": joy},
        confidence=max(joy, 1 - joy),
        sentiment="neutral",
        shift=None if shift is None else Shift(shift, "calm", "joy", "0"),
        modalities_used=["text"],
        context=Context(0, None, 0, False),
        model=ModelRef("m", "1", digest, "none"),
        input=InputRef("t", 0, turn),
        abstained=joy == 0.5,
    )


SAID = [event(0, 0.1), event(1, 0.8), event(2, 0.4, shift=0.9), event(3, 0.5)]


def test_the_scores_are_those_of_the_labelled_answers(data: DataSet) -> None:
    (answered,) = joined(SAID, data, "dev")
    report = answered.report
    assert report.utterances == 3
    assert report.accuracy.value == pytest.approx(2 / 3)
    assert report.confusion.tolist() == [[1, 0], [1, 1]]
    assert report.pairs == 1
    assert report.abstention.abstained == 1 / 4
    assert np.isnan(report.shift_c2_accuracy.value), "an event does not state it"
    assert report.emotion.after.ece == pytest.approx((0.1 + 0.2 + 0.6) / 3, abs=1e-6)
    rows = [row for _, row in answered.rows()]
    assert [(r["label"], r["emotion"], r["right"], r["text"]) for r in rows] == [
        ("calm", "calm", True, "x"),
        ("joy", "joy", True, "y"),
        ("joy", "calm", False, "z"),
        (None, "calm", None, "w"),
    ]


def test_shifts_are_scored_by_the_probabilities_as_sent(data: DataSet) -> None:
    stays = [event(turn, 0.1, conversation="e", shift=0.2 if turn else None) for turn in (0, 1)]
    (answered,) = joined([*SAID, *stays], data, "dev")
    assert answered.report.pairs == 2 and answered.report.shift_base_rate == 0.5
    assert answered.report.shift_auroc.value == 1.0
    assert answered.report.shift.after.ece == pytest.approx((0.1 + 0.2) / 2, abs=1e-6)


@pytest.mark.parametrize("prefix", ["", "run-2-"])
@pytest.mark.parametrize("name", ["d", "calls-d"])
def test_conversations_are_known_as_they_were_published(
    data: DataSet, prefix: str, name: str
) -> None:
    named = [event(turn, 0.9, conversation=prefix + name) for turn in range(4)]
    others = [event(0, 0.9, conversation="other"), event(9, 0.9, conversation=prefix + name)]
    (answered,) = joined([*others, *named], data, "dev", id_prefix=prefix)
    assert len(answered.events) == 4


def test_each_model_has_scores_of_its_own_and_the_latest_answer_counts(data: DataSet) -> None:
    events = [event(0, 0.9), event(0, 0.1), event(0, 0.9, digest="e"), event(1, 0.9, digest="e")]
    one, other = joined(events, data, "dev")
    assert (one.report.accuracy.value, other.report.accuracy.value) == (1.0, 0.5)
    table = score_table([one, other], 4, "calls dev")
    cells = [[str(cell) for cell in column.cells] for column in table.columns]
    assert cells[1][:2] == ["1 of 4", "1"] and cells[2][:2] == ["2 of 4", "2"]
    assert "nan" not in " ".join(cell for column in cells for cell in column)


@pytest.mark.parametrize(
    ("events", "sentence"),
    [
        ([], r"t has no answer to a conversation of calls dev \(it is empty\)"),
        ([event(0, 0.1, conversation="x")], r"it has those of 'x' and others\): publish them"),
        ([event(3, 0.1)], "none of the answered utterances of calls dev has a label"),
    ],
)
def test_what_cannot_be_scored_is_one_sentence(
    data: DataSet, events: Sequence[PredictionEvent], sentence: str
) -> None:
    with pytest.raises(SourceError, match=sentence):
        joined(events, data, "dev", topic="t")


def test_answers_in_other_labels_are_refused(data: DataSet) -> None:
    other = msgspec.structs.replace(event(0, 0.1), probabilities={"calm": 0.5, "rage": 0.5})
    with pytest.raises(SourceError, match="answers calm, rage, the set calls has calm, joy"):
        joined([other], data, "dev")
