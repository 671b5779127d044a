"""One prediction becomes one outcome, its events and one change of state, by literal examples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pytest
from msgspec import structs

from model.interface import Prediction
from state.window import Applied, Conversation
from stream.answers.apply import Answer, Model, Question, answer, as_moved, ask, change_of, drop
from stream.answers.outbox import outgoing, sent_before, sent_for, stored_output
from stream.events.cloudevents import Envelope
from stream.events.messages import Utterance
from stream.events.poison import Poison, Reason
from stream.ports import Record
from tests.fakes.predictor import SmallPredictor
from tests.stream.verify.answered_log import WIRE

MODEL = Model.of(SmallPredictor())
T0 = 1_700_000_000_000
STAYS = (0.9, 0.0, 0.0, 0.0, 0.1, 0.0, 0.0, 0.0, 0.0)  # calm, joy, anger: from (rows), to (columns)
CALM_TO_JOY = (0.1, 0.8, 0.0, 0.0, 0.1, 0.0, 0.0, 0.0, 0.0)


def prediction(
    probabilities: Sequence[float] = (0.7, 0.2, 0.1), shift: tuple[float, ...] | None = None
) -> Prediction:
    spec = MODEL.spec
    sizes = (spec.row_bytes, spec.conversation_bytes, spec.speaker_bytes)
    moved = None if shift is None else 1 - shift[0] - shift[4] - shift[8]
    applied = Applied(*(np.full(size, 7, np.uint8) for size in sizes))
    return Prediction(tuple(probabilities), shift, moved, ("text",), applied)


def question(
    stored: Conversation | None = None,
    offset: int = 0,
    *,
    truncated: bool = False,
    **fields: object,
) -> Question:
    utterance = structs.replace(Utterance("c", f"u{offset}", "ann", text="hi"), **fields)
    record = Record("u", 0, offset, T0 + offset, b"c", b"{}")
    return ask(record, utterance, stored, MODEL.spec, truncated=truncated)


def first() -> Answer:
    return answer(question(), prediction((0.7, 0.2, 0.1), STAYS), MODEL)


def alerting() -> tuple[Question, Prediction]:
    """Ann's second utterance: calm before, joy now."""
    return question(first().change.after, 1), prediction((0.1, 0.8, 0.1), CALM_TO_JOY)


def test_a_first_utterance_is_predicted_and_has_no_shift() -> None:
    found = first()
    assert (found.outcome, found.alert, found.poison) == ("predicted", None, None)
    assert found.event is not None
    assert (found.event.emotion, found.event.confidence, found.event.shift) == ("calm", 0.7, None)
    assert found.event.probabilities == {"calm": 0.7, "joy": 0.2, "anger": 0.1}
    assert msgspec.json.encode(found.event.context) == (
        b'{"utterances":0,"oldest_utterance_id":null,"first_position":0,"truncated":false}'
    )


def test_an_utterance_moves_its_conversation_on() -> None:
    after = first().change.after
    assert (after.offset, after.clock_ms, after.window.count) == (0, T0, 1)
    assert after.window.row_utterances == ("u0",) and list(after.window.speakers) == ["ann"]
    assert after.window.rows.tolist() == [[7] * MODEL.spec.row_bytes]
    assert after.fields_of("u0") is not None
    assert after.alert, "the rule remembers the speaker"
    ended = answer(question(after, 1, end_of_conversation=True, seq=4), prediction(), MODEL)
    assert (ended.change.after.session.ended, ended.change.after.session.last_seq) == (True, 4)


def test_a_likely_shift_raises_the_alert_of_its_prediction_once() -> None:
    found = answer(*alerting(), MODEL)
    assert found.event is not None and found.event.shift is not None and found.alert is not None
    assert (found.alert.from_, found.alert.to, found.alert.probability) == ("calm", "joy", 0.8)
    assert (found.alert.prediction_id, found.alert.rule) == (
        found.event.prediction_id,
        "emotion_shift",
    )
    assert (found.alert.utterance_id, found.alert.previous_utterance_id) == ("u1", "u0")
    again = question(found.change.after, 2)
    silent = answer(again, prediction((0.1, 0.8, 0.1), CALM_TO_JOY), MODEL)
    assert silent.alert is None, "the rule has fired just before"


def test_the_rule_is_given_the_shift_that_was_logged_and_the_event_the_computed_one() -> None:
    asked, predicted = alerting()
    found = answer(asked, predicted, MODEL, logged_shift=0.59)
    assert found.alert is None
    assert found.event is not None and found.event.shift is not None
    assert found.event.shift.probability == 0.8
    assert answer(asked, prediction((0.9, 0.1, 0.0), STAYS), MODEL, logged_shift=0.6).alert


def test_a_first_utterance_has_no_shift_that_could_have_been_logged() -> None:
    assert answer(question(), prediction(), MODEL, logged_shift=0.9).alert is None


@pytest.mark.parametrize(
    ("predicted", "reason"),
    [
        (prediction((0.35, 0.33, 0.32)), "low_confidence"),
        (structs.replace(prediction(), modalities_used=("persona",)), "no_known_modality"),
        (structs.replace(prediction(), doubt="language"), "language"),
        (structs.replace(prediction((0.35, 0.33, 0.32)), doubt="language"), "language"),
        (structs.replace(prediction(), doubt="unknown_words"), "unknown_words"),
        (structs.replace(prediction(), doubt="language", modalities_used=()), "no_known_modality"),
    ],
)
def test_a_prediction_not_to_act_on_is_an_abstention(predicted: Prediction, reason: str) -> None:
    found = answer(question(), predicted, MODEL)
    assert found.event is not None
    assert (found.outcome, found.event.reason) == ("abstained", reason)
    assert found.change.after.window.count == 1, "and context of what follows all the same"


def test_no_alert_follows_from_an_utterance_that_is_doubted() -> None:
    asked, predicted = alerting()
    found = answer(asked, structs.replace(predicted, doubt="language"), MODEL)
    assert found.alert is None and found.event is not None and found.event.shift is not None
    after = question(found.change.after, 2)
    assert answer(after, predicted, MODEL).alert is None, "nor from a shift away from it"
    later = question(answer(after, predicted, MODEL).change.after, 3)
    assert answer(later, predicted, MODEL).alert


def test_the_model_is_told_the_stated_language() -> None:
    assert question(language="zh-CN").turn(MODEL.info).language == "zh-CN"


@pytest.mark.parametrize("truncated", [False, True])
def test_a_dead_letter_found_late_moves_the_position_and_nothing_else(truncated: bool) -> None:
    poison = Poison(Reason.NOT_FINITE_RESULT, "no number")
    before = first().change.after
    found = answer(question(before, 5), poison, MODEL)
    assert found == Answer("dead_lettered", found.change, poison=poison)
    assert found.change.after == structs.replace(before, offset=5)
    alone = answer(question(offset=5, truncated=truncated), poison, MODEL).change.after
    following = question(alone, 6)
    assert following.opening.new_session
    assert following.opening.before.session.truncated == truncated


def flags(found: Answer) -> list[str]:
    assert found.event is not None
    return found.event.flags


def dropped(stored: Conversation, offset: int, **fields: Any) -> Conversation:
    change = drop(question(stored, offset, utterance_id="u0", **fields))
    assert change is not None
    return change.after


def test_a_repeat_and_late_fields_change_nothing() -> None:
    after = first().change.after
    for language, kind in ((None, "utterance_id"), ("en", "late_fields")):
        asked = question(after, 1, utterance_id="u0", language=language)
        assert asked.repeats == kind
        assert drop(asked) is None


@pytest.mark.parametrize("fields", [{"text": "bye"}, {"speaker_id": "bob"}])
def test_another_utterance_under_a_known_id_is_dropped_and_the_next_answer_says_so(
    fields: dict[str, Any],
) -> None:
    before = first().change.after
    asked = question(before, 1, utterance_id="u0", **fields)
    assert asked.repeats == "other_utterance"
    after = dropped(before, 1, **fields)
    assert after == structs.replace(before, offset=1, id_reused=True), "and no more than that"
    late = question(after, 2, utterance_id="u0")
    assert late.repeats == "utterance_id", "the horizon still has the first one"
    nothing = answer(question(after, 2), Poison(Reason.NOT_FINITE_RESULT, "no"), MODEL)
    assert nothing.change.after.id_reused, "a dead letter is no answer"
    said = answer(question(nothing.change.after, 3), prediction(), MODEL)
    assert flags(said) == ["id_reused"]
    assert not said.change.after.id_reused
    assert flags(answer(question(said.change.after, 4), prediction(), MODEL)) == []


def test_a_reused_id_is_said_across_the_end_of_a_session_and_not_across_an_idle_gap() -> None:
    """After the gap the state may have expired: only what the log tells may decide."""
    ended = answer(question(end_of_conversation=True), prediction(), MODEL).change.after
    after = dropped(ended, 1, text="bye")
    assert flags(answer(question(after, 2), prediction(), MODEL)) == ["id_reused"]
    gap = int(MODEL.spec.recurrence.idle_s * 1000)
    assert flags(answer(question(after, gap), prediction(), MODEL)) == ["id_reused"]
    assert flags(answer(question(after, gap + 1), prediction(), MODEL)) == []


def test_flags_have_one_order_and_moved_is_the_last() -> None:
    after = dropped(answer(question(seq=0), prediction(), MODEL).change.after, 1, text="bye")
    asked = question(after, 2, seq=7)
    alone = answer(asked, prediction(), MODEL)
    moved = answer(structs.replace(asked, moved=True), prediction(), MODEL)
    assert flags(alone) == ["seq_gap", "id_reused"]
    assert flags(moved) == ["seq_gap", "id_reused", "moved"]
    assert alone.event is not None and as_moved(alone.event) == moved.event
    assert alone.change.after.session == moved.change.after.session, "it marks the answer alone"


def test_an_id_within_the_horizon_is_a_duplicate() -> None:
    after = first().change.after
    assert question(after, 1, utterance_id="u0").repeats
    assert question(after, 1).repeats is None
    assert question(None, 1, utterance_id="u0").repeats is None


def test_what_a_rebuild_computes_is_the_change_of_the_answer() -> None:
    asked, predicted = alerting()
    change, fires = change_of(asked, predicted, MODEL)
    assert fires
    assert change.after.alert == answer(asked, predicted, MODEL).change.after.alert
    assert change.after.recent == answer(asked, predicted, MODEL).change.after.recent


def test_blank_text_is_no_text_for_the_model() -> None:
    assert question(text=" \n").turn(MODEL.info).text is None
    assert question(text=" x ").turn(MODEL.info).text == " x "
    assert question(persona=[1.0, 2.0]).turn(MODEL.info).persona == (1.0, 2.0)


def test_what_is_stored_is_sent_again_byte_for_byte() -> None:
    asked, predicted = alerting()
    found = answer(asked, predicted, MODEL)
    sent = sent_for(found, "json")
    assert [one.kind for one in sent] == ["p", "a"]
    assert sent_before(stored_output(found.outcome, sent)) == tuple(sent)
    letter = answer(asked, Poison(Reason.DEVICE_EXHAUSTED, "too large"), MODEL)
    assert [(s.kind, s.id, s.body) for s in sent_for(letter, "msgpack")] == [
        ("d", "device_exhausted", b"too large")
    ]


def test_answers_go_on_with_the_trace_and_alerts_name_the_event_that_caused_them() -> None:
    asked, predicted = alerting()
    traced = Envelope(id="e-7", traceparent="00-ab-cd-01", tracestate="v=1")
    sent = sent_for(answer(asked, predicted, MODEL), "json")
    event, alert = (dict(outgoing(s, asked.record, traced, WIRE).headers) for s in sent)
    for headers in (event, alert):
        assert (headers["traceparent"], headers["tracestate"]) == (b"00-ab-cd-01", b"v=1")
    assert "ce_causationid" not in event
    assert alert["ce_causationid"] == b"e-7"
    bare = dict(outgoing(sent[1], asked.record, Envelope(), WIRE).headers)
    assert bare["ce_causationid"] == b"u-0-1", "without an id, its position names an event"
    assert "traceparent" not in bare
