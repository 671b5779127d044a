"""A part of the log is checked: no false violation, a true one is still found, the rest is said."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import pytest
from msgspec import structs

from model.interface import Prediction, Turn
from stream.verify.recompute import BatchesDiffer
from stream.verify.report import Report
from stream.verify.selection import EVERYTHING, Selection, Stretch
from tests.fakes.predictor import SmallPredictor
from tests.stream.verify.answered_log import HOUR_MS, AnsweredLog

MINUTE_MS = 60_000


def violated(report: Report) -> dict[str, int]:
    """Return the number of violations of each invariant; none with zero."""
    return {invariant.name: n for invariant, n in report.totals.items()}


def talks(names: str = "abcdefgh", each: int = 6) -> AnsweredLog:
    """Conversations side by side, answered."""
    log = AnsweredLog()
    for i in range(each):
        for name in names:
            log.answer(log.say(name, f"{name}{i}", speaker_id=f"s{i % 2}"))
    return log


def since(log: AnsweredLog, offset: int, *, back: int = 0, needed: bytes = b"") -> Stretch:
    """Check from `offset` on, read from `back` on, with the context of the one-letter `needed`."""
    first_ms = log.records("utterances")[back].timestamp_ms
    return Stretch(back, offset, first_ms, frozenset(needed[i : i + 1] for i in range(len(needed))))


def test_a_repeat_chooses_the_same_conversations_and_a_larger_share_more() -> None:
    keys = [f"call {i}".encode() for i in range(2_000)]
    tenth, again, half = (Selection(share=share) for share in (0.1, 0.1, 0.5))
    chosen = {key for key in keys if tenth.in_sample(key)}
    assert chosen == {key for key in keys if again.in_sample(key)}
    assert 150 < len(chosen) < 250
    assert chosen < {key for key in keys if half.in_sample(key)}
    assert [k for k in (b"call 0", b"call 1", b"call 19") if tenth.in_sample(k)] == [b"call 19"], (
        "the hash is part of what a person relies on"
    )


def test_passes_look_at_each_conversation_of_the_sample_once() -> None:
    keys = [f"call {i}".encode() for i in range(1_000)]
    chosen = Selection(share=0.5)
    passes = chosen.passes(10_000, most=1_500)
    assert len(passes) == 4, "5,000 answers, at most 1,500 at once"
    counted = [sum(one.in_pass(key) for one in passes) for key in keys]
    assert counted == [int(chosen.in_sample(key)) for key in keys]
    assert Selection().passes(10, 1_500) == [EVERYTHING]


def test_a_sample_checks_its_conversations_and_counts_the_others() -> None:
    log = talks()
    selection = Selection(share=0.5)
    inside = [n for n in "abcdefgh" if selection.in_sample(n.encode())]
    outside = [n for n in "abcdefgh" if n not in inside]
    assert inside and outside
    report = log.verify(selection=selection)
    assert violated(report) == {}
    assert report.counts["records"] == report.counts["compared"] == 6 * len(inside)
    assert report.counts["unsampled"] == report.counts["unsampled_answers"] - alerts(log, outside)
    assert report.counts["unsampled"] == 6 * len(outside)
    assert report.counts["states"] == len(inside)
    for name, found in ((inside[0], {"I5": 1}), (outside[0], {})):
        own = [json.loads(r.value or b"")["conversation_id"] for r in log.records("predictions")]
        forged = replace_log(log)
        forged.rewrite("predictions", own.index(name), sentiment="mixed")
        assert violated(forged.verify(selection=selection)) == found


def alerts(log: AnsweredLog, names: list[str]) -> int:
    """Return how many alerts of these conversations there are."""
    return sum((r.key or b"").decode() in names for r in log.records("shift-alerts"))


def replace_log(log: AnsweredLog) -> AnsweredLog:
    """Return a copy whose topics can be changed."""
    copy = replace(log)
    copy.log.records.update({at: list(of) for at, of in log.log.records.items()})
    copy.known, copy.entries = dict(log.known), dict(log.entries)
    return copy


def test_passes_together_say_what_one_says() -> None:
    log = talks()
    log.answer(log.log.append("utterances", b"k", b"{"))
    log.log.append("utterances", b"a", None)
    log.rewrite("predictions", 7, sentiment="mixed")
    whole = log.verify()
    parts = [log.verify(selection=one) for one in EVERYTHING.passes(100, 40)]
    assert len(parts) == 3 and all(one.counts["records"] for one in parts)
    assert sum((one.counts for one in parts), start=type(whole.counts)()) == whole.counts
    assert sum((one.totals for one in parts), start=type(whole.totals)()) == whole.totals


def test_since_checks_what_came_later_with_the_context_of_what_was_open() -> None:
    log = talks("ab", 8)
    report = log.verify(stretch=since(log, 9, needed=b"ab"))
    assert violated(report) == {}
    assert (report.counts["records"], report.counts["context"]) == (7, 9)
    assert report.counts["compared"] == 7 and report.counts["states"] == 2
    log.rewrite("predictions", 4, sentiment="mixed")
    assert violated(log.verify(stretch=since(log, 9, needed=b"ab"))) == {}, "before what is checked"
    log.rewrite("predictions", 12, sentiment="mixed")
    assert violated(log.verify(stretch=since(log, 9, needed=b"ab"))) == {"I5": 1}


def test_what_began_before_is_said_and_not_judged() -> None:
    """The log is read from the middle of both sessions on, and `b` is not even recomputed there."""
    log = talks("ab", 8)
    report = log.verify(stretch=since(log, 9, back=4, needed=b"a"))
    assert violated(report) == {}
    assert report.counts["before_log"] == 7 + 2, "predictions and states"
    assert report.counts["compared"] == 0
    assert report.counts["before_since"] == 2 and report.counts["context"] == 3


def test_a_session_that_began_later_is_judged_whole() -> None:
    """Its conversation was silent before: an answer that is missing is missed."""
    log = talks("ab", 4)
    log.now_ms += HOUR_MS
    log.talk("x", 1)
    log.now_ms += 20 * MINUTE_MS
    log.talk("a", 3, start=4)
    at = since(log, 9, back=8)
    report = log.verify(stretch=at)
    assert violated(report) == {} and report.counts["compared"] == 3
    assert report.counts["states"] == 1
    del log.records("predictions")[-2]
    assert "I1" in violated(log.verify(stretch=at))


def test_an_id_that_repeats_one_of_an_earlier_session_is_no_lost_answer() -> None:
    """The session began after `since`, the id before: nothing that is read tells that it repeats.

    What follows differs from a recompute that takes it for new, and is not judged either.
    """
    log = AnsweredLog()
    log.talk("a", 3)
    log.answer(log.say("a", "last", end_of_conversation=True))
    log.talk("a", 1, start=10)
    log.answer(log.say("a", "a1", speaker_id="s1"))
    log.talk("a", 3, start=11)
    assert violated(log.verify()) == {}
    report = log.verify(stretch=since(log, 4))
    assert violated(report) == {}
    assert report.counts["undecided"] >= 1 and report.counts["compared"] >= 1
    log.now_ms += 2 * HOUR_MS
    log.talk("a", 2, start=20)
    log.rewrite("predictions", -1, sentiment="mixed")
    assert violated(log.verify(stretch=since(log, 4))) == {"I5": 1}, "after a pause all is known"


def test_a_state_that_no_answer_shows_yet_is_not_judged() -> None:
    """It was saved before the end of what is read, and began before what is checked."""
    log = talks("ab", 4)
    log.say("a", "open")
    report = log.verify(committed=8, stretch=since(log, 8))
    assert violated(report) == {}
    assert report.counts["open"] == 1 and report.counts["before_log"] == 1


def test_a_partition_alone_does_not_tell_if_an_answer_moved() -> None:
    log = talks("ab", 2)
    log.rewrite("predictions", -1, flags=["moved"])
    assert violated(log.verify()) == {"I5": 1}
    report = log.verify(selection=Selection(partitions=frozenset({0})))
    assert violated(report) == {} and report.counts["undecided"] == 1
    others = log.verify(selection=Selection(partitions=frozenset({1})))
    assert others.counts["predictions"] == 0 and others.counts["other_answers"] > 0


def test_side_by_side_says_what_one_at_a_time_says() -> None:
    """Two timelines, a repeat, a result that is not finite and a forged answer among them."""
    log = talks("abc", 5)
    log.answer(log.say("a", "a60"), truncated=True)
    log.answer(log.say("b", "huge", features={"audio": {"tensor": [9e3, 0]}}))
    log.answer(log.say("c", "c1", speaker_id="s1"))
    log.talk("a", 2, start=61)
    log.rewrite("predictions", 4, sentiment="mixed")
    alone, together = (log.verify(chunk=100, side_by_side=n) for n in (1, 256))
    assert alone.as_json() == together.as_json()
    assert violated(together) == {"I5": 1}


def test_conversations_are_recomputed_in_batches() -> None:
    log = talks("abcdefgh", 3)
    predictor = SmallPredictor()
    log.predictor = predictor
    log.verify(chunk=100)
    assert predictor.batches == [8, 1, 8, 8], "one of a chunk is recomputed alone, too"
    predictor.batches.clear()
    log.verify(chunk=100, side_by_side=1)
    assert predictor.batches == [1] * 24


def test_a_model_whose_answers_depend_on_their_batch_proves_nothing() -> None:
    class Leaking(SmallPredictor):
        def predict(self, turns: Sequence[Turn]) -> list[Prediction]:
            answers = super().predict(turns)
            if len(turns) < 2:
                return answers
            return [structs.replace(a, probabilities=answers[0].probabilities) for a in answers]

    log = talks("ab", 2)
    log.predictor = Leaking()
    with pytest.raises(BatchesDiffer, match="--alone"):
        log.verify(chunk=100)
    assert violated(log.verify(chunk=100, side_by_side=1)) == {}
