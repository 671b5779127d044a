"""A log with holes proves less: no false violation, and a true one is still found."""

from __future__ import annotations

import json

import pytest

from stream.verify.report import Invariant
from tests.stream.verify.answered_log import HOUR_MS, AnsweredLog


@pytest.mark.parametrize("removed", [range(3), range(7), [3], [0, 4]])
def test_what_was_removed_after_it_was_answered_is_no_violation(removed: list[int]) -> None:
    log = AnsweredLog()
    log.talk("c", 8)
    log.keep("c")
    report = log.verify(removed=set(removed))
    assert report.violations == []
    assert report.counts["lost"] == len(removed)
    assert report.counts["holed"] > 0, "it says that it did not judge all"


def test_what_comes_before_the_hole_is_judged() -> None:
    log = AnsweredLog()
    log.talk("c", 8)
    log.rewrite("predictions", 2, sentiment="mixed")
    assert [v.invariant for v in log.verify(removed={5}).violations] == [Invariant.I5]


def test_a_session_that_began_after_the_hole_is_judged_again() -> None:
    log = AnsweredLog()
    log.talk("c", 4)
    log.now_ms += HOUR_MS
    log.talk("c", 4, start=4)
    values = [json.loads(r.value or b"") for r in log.records("predictions")]
    assert values[5]["context"]["first_position"] == 4
    log.rewrite("predictions", 5, sentiment="mixed")
    report = log.verify(removed={1})
    assert [v.invariant for v in report.violations] == [Invariant.I5]
    assert report.counts["compared"] == 1 + 3
