"""A worker that was assigned partitions is not ready while they stand still; not for ever."""

from __future__ import annotations

from stream.worker.recovery import LIMIT_S, QUIET_S, SETTLED_S, Settling


def test_without_a_check_a_worker_is_ready_at_once() -> None:
    settling = Settling()
    assert settling.is_ready(0.0, checking=False)
    settling.assigned(0.0)
    assert all(settling.is_ready(float(s), checking=False) for s in range(100))


def test_it_is_not_ready_from_the_first_check_until_none_was_seen_for_a_while() -> None:
    settling = Settling()
    settling.assigned(0.0)
    assert settling.is_ready(1.0, checking=False)
    assert not settling.is_ready(2.0, checking=True)
    assert not settling.is_ready(2.0 + QUIET_S - 0.1, checking=False)
    assert settling.is_ready(2.0 + QUIET_S, checking=False)
    assert not settling.is_ready(3.0 + QUIET_S, checking=True), "the next state of another model"


def test_checks_without_end_do_not_hold_an_update_for_ever() -> None:
    settling = Settling()
    settling.assigned(0.0)
    ready = [settling.is_ready(float(s), checking=True) for s in range(int(LIMIT_S) + 10)]
    assert ready == [False] * int(LIMIT_S) + [True] * 10


def test_a_check_of_a_worker_that_has_settled_has_another_reason() -> None:
    """Redis lost its data: were all workers unready, nothing would be better."""
    settling = Settling()
    settling.assigned(0.0)
    assert settling.is_ready(SETTLED_S, checking=False)
    assert settling.is_ready(SETTLED_S + 1, checking=True)
    settling.assigned(SETTLED_S + 2)
    assert not settling.is_ready(SETTLED_S + 3, checking=True)


def test_assignments_one_after_the_other_do_not_move_the_limit() -> None:
    settling = Settling()
    for s in range(int(LIMIT_S)):
        settling.assigned(float(s))
        assert not settling.is_ready(float(s), checking=True)
    assert settling.is_ready(LIMIT_S, checking=True)
