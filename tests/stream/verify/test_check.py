"""`emotrack verify` on logs in memory: none on a right log, for each broken promise its own."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any
from weakref import WeakSet

import numpy as np
import pytest
from msgspec import structs

from state.codec import OFFSET
from stream.events.poison import Poison, Reason
from stream.verify import recompute
from stream.verify.report import CHECKED, Report
from stream.verify.timelines import Timelines
from tests.fakes.predictor import INFO, SmallPredictor
from tests.stream.verify.answered_log import HOUR_MS, AnsweredLog


@pytest.fixture
def log() -> AnsweredLog:
    """Two conversations side by side, answered."""
    made = AnsweredLog()
    for i in range(8):
        for name in ("a", "b"):
            made.answer(made.say(name, f"{name}{i}", speaker_id=f"s{i % 2}"))
    assert made.records("shift-alerts"), "the rule fires somewhere in it"
    return made


def violated(report: Report) -> dict[str, int]:
    """Return the number of violations of each invariant; none with zero."""
    assert report.ok == (not report.totals)
    return {invariant.name: n for invariant, n in report.totals.items()}


def says(report: Report) -> str:
    (violation,) = report.violations
    return violation.says


def test_a_right_log_of_every_kind_of_record_has_no_violation(log: AnsweredLog) -> None:
    """Poison, a tombstone, a duplicate, a result that is not finite, an idle gap, a repeat."""
    log.answer(log.log.append("utterances", b"k", b"{"))
    log.log.append("utterances", b"a", None)
    log.answer(log.say("a", "a3", speaker_id="s1"))
    log.answer(log.say("a", "huge", features={"audio": {"tensor": [9e3, 0]}}))
    log.talk("a", 2, start=20)
    log.now_ms += 2 * HOUR_MS
    log.talk("a", 2)  # ids that were seen before the gap
    log.talk("b", 1, start=30)
    last = log.records("predictions")[-1]
    log.log.append("predictions", last.key, last.value, last.headers)
    report = log.verify()
    assert violated(report) == {}
    counts = report.counts
    assert counts["records"] == counts["committed"] == 16 + 4 + 5
    assert counts["compared"] == counts["predictions"] - 1 == 21
    assert (counts["duplicates"], counts["controls"], counts["dead_letters"]) == (1, 1, 2)
    assert (counts["prediction_repeats"], counts["states"], counts["truncated"]) == (1, 2, 0)


def test_the_flags_of_what_was_left_out_are_part_of_the_recomputed_answer(
    log: AnsweredLog,
) -> None:
    log.answer(log.say("a", "ua", seq="3", language=7))
    log.answer(log.say("a", "ub", end_ms=0.5, text="half \ud83d"))
    assert violated(log.verify()) == {}
    last = log.records("predictions")[-1]
    event = json.loads(last.value or b"")
    assert event["flags"] == ["ignored_end_ms", "repaired_text"]
    wrong = json.dumps(event | {"flags": []}).encode()
    log.log.records["predictions", last.partition][-1] = structs.replace(last, value=wrong)
    assert not log.verify().ok


def test_an_answer_that_abstains_for_its_language_is_recomputed(log: AnsweredLog) -> None:
    """Its reason, that no alert follows from it, and the rule's state of the one after it."""
    alerts = len(log.records("shift-alerts"))
    for i, language in enumerate(("zh", "en", "zh", "zh", "en", "en", "en")):
        log.answer(log.say("c", f"c{i}", language=language))
    events = [json.loads(r.value or b"") for r in log.records("predictions")[-7:]]
    assert [e["reason"] for e in events].count("language") == 3
    assert len(log.records("shift-alerts")) > alerts, "the undoubted ones at the end may alert"
    assert violated(log.verify()) == {}
    log.rewrite("predictions", -7, abstained=False, reason=None)
    assert set(violated(log.verify()))


def test_a_dead_letter_of_the_workers_device_counts_as_its_answer(log: AnsweredLog) -> None:
    """No recompute can meet it; also for an id that was seen before an idle gap."""
    exhausted = Poison(Reason.DEVICE_EXHAUSTED, "the device is out of memory")
    log.answer(log.say("a", "new"), trusted=exhausted)
    log.talk("a", 1, start=20)
    log.now_ms += 2 * HOUR_MS
    log.answer(log.say("a", "a20"), trusted=exhausted)
    log.talk("a", 1, start=21)
    report = log.verify()
    assert violated(report) == {}
    assert report.counts["dead_letters"] == 2


def test_a_prediction_that_is_missing_breaks_i1(log: AnsweredLog) -> None:
    del log.records("predictions")[5]
    report = log.verify()
    assert violated(report)["I1"] == 1
    (lost,) = [v for v in report.violations if v.invariant.name == "I1"]
    assert (lost.position, lost.conversation) == (("utterances", 0, 5), "b")
    assert "without an outcome" in lost.says


def test_what_is_not_committed_may_be_unanswered(log: AnsweredLog) -> None:
    del log.records("predictions")[-1]
    assert violated(log.verify()) == {"I1": 1}
    report = log.verify(committed=15)
    assert violated(report) == {} and report.counts["open"] == 1


def test_two_outcomes_break_i1(log: AnsweredLog) -> None:
    record = log.say("a", "late", features={"audio": {"tensor": [9e3, 0]}})
    log.answer(record)
    letter = log.records("dead-letters")[-1]
    other = dict(letter.headers) | {
        "emotrack_dlq_offset": b"3",
        "emotrack_dlq_id": b"utterances-0-3",
    }
    log.log.append("dead-letters", letter.key, letter.value, tuple(other.items()))
    assert set(violated(log.verify())) == {"I1"}


@pytest.mark.parametrize("reason", [b"bad_json", b"not_finite_result"])
def test_a_dead_letter_of_a_valid_record_breaks_i1(log: AnsweredLog, reason: bytes) -> None:
    broken = log.log.append("utterances", b"k", b"{")
    log.answer(broken)
    letter = log.records("dead-letters").pop()
    fine = log.say("c", "c0")
    headers = dict(letter.headers) | {
        "emotrack_dlq_offset": b"%d" % fine.offset,
        "emotrack_dlq_id": b"utterances-0-%d" % fine.offset,
        "emotrack_dlq_reason": reason,
    }
    log.log.append("dead-letters", fine.key, fine.value, tuple(headers.items()))
    report = log.verify()
    assert violated(report) == {"I1": 2}, "one was dead-lettered wrongly, one not at all"


def test_poison_that_is_in_no_dead_letter_breaks_i1(log: AnsweredLog) -> None:
    log.log.append("utterances", b"k", b"{")
    report = log.verify()
    assert violated(report) == {"I1": 1} and says(report) == "no dead letter of a bad_json record"


def test_an_answer_to_no_record_breaks_i1(log: AnsweredLog) -> None:
    record = log.say("a", "gone")
    log.answer(record)
    del log.records("utterances")[record.offset]
    del log.entries["a"]
    assert violated(log.verify()) == {"I1": 1}


def test_a_repeat_with_other_bytes_breaks_i2(log: AnsweredLog) -> None:
    again = log.records("predictions")[4]
    log.log.append("predictions", again.key, again.value, again.headers)
    log.rewrite("predictions", -1, confidence=0.5)
    report = log.verify()
    assert violated(report) == {"I2": 1} and "other bytes" in says(report)


def test_an_id_that_is_not_the_hash_of_its_position_breaks_i2(log: AnsweredLog) -> None:
    log.rewrite("predictions", 4, prediction_id="0" * 32)
    assert violated(log.verify())["I2"] == 1


def test_a_duplicate_that_is_answered_breaks_i2(log: AnsweredLog) -> None:
    again = log.say("a", "a3")
    forgotten = structs.replace(log.known["a"], recent=b"")
    log.known["a"] = forgotten
    log.answer(again)
    log.entries.clear()
    report = log.verify()
    assert violated(report) == {"I2": 1} and "duplicate" in says(report)


def test_a_second_prediction_with_another_context_breaks_i2(log: AnsweredLog) -> None:
    """Unless it says that its context is truncated: then it was answered again after a loss."""
    record = log.records("utterances")[4]
    known = dict(log.known)
    log.answer(record, truncated=True)
    log.known = known
    log.keep("a")
    report = log.verify()
    assert violated(report) == {} and report.counts["recomputed"] == 1
    context = {"utterances": 0, "oldest_utterance_id": None, "first_position": 4}
    log.rewrite("predictions", -1, context=context | {"truncated": False})
    assert "I2" in violated(log.verify())


def test_positions_that_go_back_break_i3(log: AnsweredLog) -> None:
    predictions = log.records("predictions")
    predictions[4], predictions[6] = predictions[6], predictions[4]
    report = log.verify()
    assert (
        violated(report) == {"I3": 1} and says(report) == "position 4 is answered after position 6"
    )


def test_a_key_that_is_not_the_conversation_breaks_i3(log: AnsweredLog) -> None:
    log.records("predictions")[4] = structs.replace(log.records("predictions")[4], key=b"b")
    assert violated(log.verify()) == {"I3": 1}


def test_a_state_of_other_arrays_breaks_i4(log: AnsweredLog) -> None:
    window = log.known["a"].window
    log.known["a"] = structs.replace(
        log.known["a"], window=structs.replace(window, rows=np.roll(window.rows, 1))
    )
    log.keep("a")
    report = log.verify()
    assert violated(report) == {"I4": 1}
    assert says(report) == "the stored state differs in: arrays of the rows"
    assert report.counts["states"] == 1


def test_a_state_at_a_position_of_another_conversation_breaks_i4(log: AnsweredLog) -> None:
    log.known["a"] = structs.replace(log.known["a"], offset=15)
    log.keep("a")
    report = log.verify()
    assert violated(report) == {"I4": 1} and "none that changes" in says(report)


def test_a_state_that_does_not_decode_breaks_i4(log: AnsweredLog) -> None:
    log.entries["a"].fields[OFFSET] = b"3"
    assert violated(log.verify()) == {"I4": 1}


def test_a_state_that_lacks_what_is_committed_breaks_i4(log: AnsweredLog) -> None:
    before = log.entries["a"]
    log.answer(log.say("a", "a40"))
    log.entries["a"] = before
    report = log.verify()
    assert violated(report) == {"I4": 1}
    assert "was applied and committed" in says(report)


def test_a_state_may_be_behind_the_log_ahead_of_it_or_gone(log: AnsweredLog) -> None:
    """It is read while workers go on: it is compared at its own position."""
    log.say("b", "b40")  # not answered yet: the state of b is behind
    log.answer(log.say("c", "c0"))
    log.known["c"] = structs.replace(log.known["c"], offset=99)
    log.keep("c")
    del log.entries["a"]
    report = log.verify(committed=16)
    assert violated(report) == {}
    counts = report.counts
    assert (counts["states"], counts["states_missing"], counts["states_moved_on"]) == (1, 1, 1)


def test_another_value_breaks_i5(log: AnsweredLog) -> None:
    log.rewrite("predictions", 4, sentiment="mixed")
    report = log.verify()
    assert violated(report) == {"I5": 1}
    assert "sentiment is 'mixed', not" in says(report)


def test_a_state_of_another_conversation_behind_an_answer_breaks_i5(log: AnsweredLog) -> None:
    """And I4, for its effect on the state remains."""
    log.known["a"] = structs.replace(log.known["a"], window=log.known["b"].window)
    log.talk("a", 1, start=50)
    assert set(violated(log.verify())) >= {"I4", "I5"}


def test_a_truncated_session_is_recomputed_from_its_start(log: AnsweredLog) -> None:
    record = log.say("a", "a60")
    log.answer(record, truncated=True)
    log.talk("a", 3, start=61)
    report = log.verify()
    assert violated(report) == {} and report.counts["truncated"] == 4
    assert report.counts["states"] == 2
    assert violated(log.verify(allow_truncation=False)) == {"I5": 4}


def test_a_truncated_session_may_be_saved_before_its_answer_is_sent(log: AnsweredLog) -> None:
    """Then only the stored state tells where it began."""
    log.answer(log.say("a", "a60"), truncated=True)
    log.records("predictions").pop()
    report = log.verify(committed=16)
    assert violated(report) == {} and report.counts["open"] == 1
    assert report.counts["states"] == 2


def test_a_repeated_id_after_a_loss_may_be_a_duplicate_or_not(log: AnsweredLog) -> None:
    """The worker that lost the state did not know the id; another one may have known it."""
    log.answer(log.say("a", "a60"), truncated=True)
    log.say("a", "a3", speaker_id="s1")
    report = log.verify()
    assert violated(report) == {} and report.counts["duplicates"] == 1


def test_a_context_that_is_silently_empty_breaks_i5(log: AnsweredLog) -> None:
    del log.known["a"]
    log.talk("a", 1, start=60)
    report = log.verify()
    assert set(violated(report)) == {"I4", "I5"}
    assert "context.first_position is 16, not 0" in report.violations[-1].says


def test_more_stored_than_is_bounded_breaks_i7(log: AnsweredLog) -> None:
    log.entries["a"].outputs *= 3
    assert violated(log.verify(max_uncommitted=2)) == {"I7": 1}


def test_a_state_that_never_expires_breaks_i7(log: AnsweredLog) -> None:
    log.ttl_ms = -1
    assert violated(log.verify()) == {"I7": 2}


def test_an_alert_that_is_missing_breaks_i8(log: AnsweredLog) -> None:
    log.records("shift-alerts").pop()
    assert violated(log.verify()) == {"I8": 1}


def test_an_alert_of_another_probability_breaks_i8(log: AnsweredLog) -> None:
    log.rewrite("shift-alerts", 0, probability=0.99)
    assert violated(log.verify()) == {"I8": 1}


def test_an_alert_where_the_rule_does_not_fire_breaks_i8(log: AnsweredLog) -> None:
    alert = log.records("shift-alerts")[0]
    quiet = log.records("predictions")[0]
    id = dict(quiet.headers)["ce_id"] or b""
    log.log.append("shift-alerts", alert.key, alert.value, alert.headers)
    where = {"topic": "utterances", "partition": 0, "offset": 0}
    log.rewrite("shift-alerts", -1, input=where, prediction_id=id.decode())
    report = log.verify()
    assert violated(report) == {"I8": 1} and "does not fire" in says(report)


def test_an_alert_of_a_prediction_that_was_never_sent_breaks_i8(log: AnsweredLog) -> None:
    alert = log.records("shift-alerts")[0]
    log.log.append("shift-alerts", alert.key, alert.value, alert.headers)
    log.rewrite("shift-alerts", -1, prediction_id="0" * 32)
    report = log.verify()
    assert violated(report) == {"I8": 1} and "nobody sent" in says(report)


def test_a_dead_letter_may_repeat_its_bytes_and_no_others(log: AnsweredLog) -> None:
    log.answer(log.log.append("utterances", b"k", b"{"))
    letter = log.records("dead-letters")[0]
    log.log.append("dead-letters", letter.key, letter.value, letter.headers)
    report = log.verify()
    assert violated(report) == {} and report.counts["dead_letter_repeats"] == 1
    log.records("dead-letters")[1] = structs.replace(letter, value=b"{}")
    assert violated(log.verify()) == {"I2": 1}
    log.records("dead-letters")[0] = structs.replace(letter, value=b"{}")
    assert violated(log.verify()) == {"I5": 1}, "not the record's own bytes"


def test_a_tolerance_excuses_small_differences_of_numbers_and_nothing_else(
    log: AnsweredLog,
) -> None:
    logged = json.loads(log.records("predictions")[4].value or b"")["probabilities"]
    nudged = {label: p + 2e-4 for label, p in logged.items()}
    log.rewrite("predictions", 4, probabilities=nudged)
    assert violated(log.verify()) == {"I5": 1}
    report = log.verify(tolerance=1e-3)
    assert violated(report) == {} and report.largest_difference == pytest.approx(2e-4)
    assert violated(log.verify(tolerance=1e-4)) == {"I5": 1}
    log.rewrite("predictions", 4, utterance_id="a9")
    assert "I5" in violated(log.verify(tolerance=1e-3))


def test_what_another_model_answered_is_counted_and_not_recomputed(log: AnsweredLog) -> None:
    class Other(SmallPredictor):
        info = replace(INFO, digest="e" * 64)

    log.predictor = Other()
    log.entries.clear()
    report = log.verify()
    assert violated(report) == {} and report.counts["other_model"] == 16


def test_without_the_logs_start_only_decidable_records_are_checked(log: AnsweredLog) -> None:
    """A session that began before the log's first record cannot be recomputed."""
    log.say("a", "a0")  # a duplicate of what is gone
    log.now_ms += 2 * HOUR_MS
    log.talk("a", 2, start=70)
    log.entries.pop("b")
    report = log.verify(low=6)
    assert violated(report) == {}
    alerts = sum(
        json.loads(r.value or b"")["input"]["offset"] < 6 for r in log.records("shift-alerts")
    )
    counts = report.counts
    assert (counts["before_log"], counts["undecided"], counts["compared"]) == (16 + alerts, 1, 2)
    log.rewrite("predictions", -1, sentiment="mixed")
    assert violated(log.verify(low=6)) == {"I5": 1}


def test_records_of_other_writers_are_counted(log: AnsweredLog) -> None:
    log.log.append("predictions", b"a", b"hello")
    log.log.append("dead-letters", b"a", b"hello")
    report = log.verify()
    assert violated(report) == {} and report.counts["not_ours"] == 2


def test_the_report_names_every_violation_as_plain_data(log: AnsweredLog) -> None:
    del log.records("predictions")[-2:]
    data = log.verify().as_json()
    assert data["records"] == 16 and data["violated"]["I1"] == 2
    first = data["violations"][0]
    assert set(first) == {"invariant", "topic", "partition", "offset", "conversation", "says"}
    assert list(data["violated"]) == [invariant.name for invariant in CHECKED]


def test_what_a_worker_without_an_encoder_answered_is_counted(log: AnsweredLog) -> None:
    """It answers from the vectors alone; its dead letters of bare text are believed."""
    log.predictor = SmallPredictor(encodes_text=False)
    vector = {"audio": {"tensor": [1.0, 2.0]}}
    log.answer(log.say("a", "both", text="hm", features=vector))
    log.answer(log.say("a", "bare", text="hm", features=None))
    log.talk("a", 1, start=80)
    log.predictor = SmallPredictor()
    report = log.verify()
    assert violated(report) == {} and report.counts["unencoded"] == 1
    assert report.counts["dead_letters"] == 1 and report.counts["states"] == 2


def test_conversations_that_start_again_are_dropped(
    log: AnsweredLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A day of short conversations must fit: utterances before an idle gap no longer count."""
    alive: WeakSet[Timelines] = WeakSet()
    at_once = []

    class Counted(Timelines):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            alive.add(self)
            at_once.append(len(alive))

    monkeypatch.setattr(recompute, "Timelines", Counted)
    for hour in range(6):
        log.now_ms += HOUR_MS
        log.talk(f"short{hour}", 3)
    log.talk("a", 2, start=90)
    log.talk("a", 1, start=3)  # an id seen before the gap
    report = log.verify(chunk=2)
    assert violated(report) == {} and report.counts["compared"] == 16 + 18 + 3
    assert report.counts["states"] == 8 and report.counts["states_missing"] == 0
    assert (len(at_once), max(at_once)) == (9, 3), "a, b, and the last hour's"


def test_a_reused_id_is_recomputed_with_the_flag_it_causes(log: AnsweredLog) -> None:
    log.answer(log.say("a", "a3", speaker_id="somebody else"))
    log.talk("a", 2, start=20)
    report = log.verify()
    assert violated(report) == {} and report.counts["duplicates"] == 1
    assert [json.loads(r.value or b"")["flags"] for r in log.records("predictions")[-2:]] == [
        ["id_reused"],
        [],
    ]
    log.rewrite("predictions", -2, flags=[])
    report = log.verify()
    assert violated(report) == {"I5": 1} and "flags is [], not ['id_reused']" in says(report)


def test_a_flag_of_a_reused_id_where_none_was_breaks_i5(log: AnsweredLog) -> None:
    log.rewrite("predictions", -1, flags=["id_reused"])
    assert violated(log.verify()) == {"I5": 1}


def test_a_state_that_forgot_a_dropped_utterance_breaks_i4(log: AnsweredLog) -> None:
    log.answer(log.say("a", "a3", speaker_id="somebody else"))
    assert violated(log.verify()) == {}
    log.known["a"] = structs.replace(log.known["a"], id_reused=False)
    log.keep("a")
    report = log.verify()
    assert violated(report) == {"I4": 1} and "differs in: id_reused" in says(report)


def test_a_state_with_the_fields_of_another_utterance_breaks_i4(log: AnsweredLog) -> None:
    recent = log.known["a"].recent
    log.known["a"] = structs.replace(log.known["a"], recent=recent[:-1] + b"?")
    log.keep("a")
    assert violated(log.verify()) == {"I4": 1}


def elsewhere(log: AnsweredLog, conversation: str) -> None:
    """A record of the conversation on another partition, which another partitioner chose."""
    value = log.records("utterances")[-1].value
    log.log.append("utterances", conversation.encode(), value, partition=1)


def test_moved_is_right_where_the_topic_has_the_conversation_on_several_partitions(
    log: AnsweredLog,
) -> None:
    log.talk("a", 1, start=20)
    log.rewrite("predictions", -1, flags=["moved"])
    report = log.verify()
    assert violated(report) == {"I5": 1}
    assert "says moved, but the log has its conversation on [0] alone" in says(report)
    elsewhere(log, "a")
    report = log.verify()
    assert violated(report) == {} and report.counts["moved"] == 1
    assert log.verify(lows={1: 1}).counts["undecided"] == 0, "what is there was found"


def test_moved_is_undecided_where_retention_took_the_other_partition(log: AnsweredLog) -> None:
    log.rewrite("predictions", -1, flags=["moved"])
    report = log.verify(lows={1: 7})
    assert violated(report) == {} and report.counts["undecided"] == 1


def test_a_repeat_may_differ_in_moved_and_in_nothing_else(log: AnsweredLog) -> None:
    """The store that counts a conversation's partitions may have lost its data in between."""
    elsewhere(log, "b")
    last = log.records("predictions")[-1]
    for flags in (["moved"], ["seq_gap", "moved"], ["seq_gap"]):
        log.log.append("predictions", last.key, last.value, last.headers)
        log.rewrite("predictions", -1, flags=flags)
        assert violated(log.verify()) == ({} if flags == ["moved"] else {"I2": 1})
        log.records("predictions").pop()
