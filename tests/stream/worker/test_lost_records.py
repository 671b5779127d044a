"""Records that left the log: an answer whose context may lack one says so, and no other does."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy

import pytest

from stream.ports import Hole, Holes, LogUnavailable, Stretch
from tests.fakes.memory_log import LocalReader
from tests.stream.worker.test_loop import Plant
from tests.stream.worker.test_rebuild import (
    IDLE_S,
    RECURRENCE,
    Make,
    answers,
    contexts,
    lose,
    of_oracle,
    settle,
)

TOPIC = ("utterances", 0)


@pytest.fixture
def plant(make_predictor: Make) -> Plant:
    return Plant(make_predictor(recurrence=RECURRENCE))


def truncated(plant: Plant) -> list[int]:
    """The positions whose answers say that their context is truncated."""
    return [at for at, context in contexts(plant).items() if context["truncated"]]


@pytest.mark.parametrize(
    ("removed", "said"),
    [
        (range(7), [8]),  # compaction: all but the last of the key
        ([0], [8]),  # only the first
        ([3], [8]),  # in the midst of the session
        ([7], [8]),  # the last: nothing but the commit tells of it
    ],
)
def test_a_rebuild_without_some_of_the_session_says_so(
    plant: Plant, removed: list[int], said: list[int]
) -> None:
    running = plant.worker()
    plant.say("a", 8)
    settle(plant, running)
    plant.log.remove(*TOPIC, *removed)
    lose(plant)
    plant.say("a", 1)
    settle(plant, running)
    assert truncated(plant) == said


def test_a_conversation_that_was_removed_whole_is_not_called_new(plant: Plant) -> None:
    running = plant.worker()
    plant.say("a", 3)
    plant.say("b", 2)
    settle(plant, running)
    plant.log.remove(*TOPIC, 0, 1, 2)
    lose(plant)
    plant.say("a", 1)
    settle(plant, running)
    assert truncated(plant) == [5]


def test_a_session_after_the_removed_ones_is_whole(plant: Plant) -> None:
    running = plant.worker()
    plant.say("a", 3)
    settle(plant, running)
    plant.clock.ms += int(IDLE_S * 1000) + 1
    plant.say("b", 1)
    plant.clock.ms += int(IDLE_S * 1000) + 1
    plant.say("a", 3)
    settle(plant, running)
    plant.log.remove(*TOPIC, 0, 1)
    lose(plant)
    plant.say("a", 1)
    settle(plant, running)
    assert truncated(plant) == []
    assert answers(plant) == of_oracle(plant)


@pytest.mark.parametrize("s", [1, 30, 59])
def test_a_hole_just_before_what_is_scanned_counts(plant: Plant, s: int) -> None:
    """The records of a pause are gone: the session may have gone on through it."""
    running = plant.worker()
    plant.say("a", 2)
    plant.clock.ms += s * 1000
    plant.say("a", 1)
    plant.clock.ms += s * 1000
    plant.say("a", 1)
    settle(plant, running)
    plant.log.remove(*TOPIC, 2)
    lose(plant)
    plant.say("a", 1)
    settle(plant, running)
    assert truncated(plant) == [4]


def test_markers_of_transactions_are_no_loss(plant: Plant) -> None:
    running = plant.worker()
    for _ in range(4):
        plant.say("a", 1)
        plant.log.mark(*TOPIC)
    settle(plant, running)
    lose(plant)
    plant.say("a", 1)
    plant.log.mark(*TOPIC)
    plant.say("a", 1)
    settle(plant, running)
    assert truncated(plant) == []
    assert running.value("offsets_lost_total") == 0


def test_an_older_state_is_not_gone_on_from_as_if_nothing_were_gone(plant: Plant) -> None:
    running = plant.worker()
    plant.say("a", 2)
    settle(plant, running)
    snapshot = deepcopy(plant.memory)
    plant.say("a", 3)
    settle(plant, running)
    lose(plant, snapshot)  # it ends at 1
    plant.log.remove(*TOPIC, 3)
    plant.say("a", 1)
    settle(plant, running)
    assert truncated(plant) == [5]


def test_records_removed_before_they_were_read_are_said_to_be_missing(plant: Plant) -> None:
    running = plant.worker()
    plant.say("a", 2)
    plant.say("b", 1)
    settle(plant, running)
    plant.say("a", 3)
    plant.log.remove(*TOPIC, 3, 4)
    plant.say("c", 1)
    settle(plant, running)
    assert truncated(plant) == [5, 6], "c may have spoken in what is gone, too"
    assert running.value("offsets_lost_total") == 2
    plant.clock.ms += int(IDLE_S * 1000) + 1
    plant.say("d", 1)
    settle(plant, running)
    assert truncated(plant) == [5, 6]


def test_the_next_owner_says_it_too(plant: Plant) -> None:
    """It never read what is missing, and finds the states as the first one left them."""
    running = plant.worker()
    plant.say("a", 2)
    settle(plant, running)
    plant.say("a", 1)
    plant.log.remove(*TOPIC, 2)
    plant.say("b", 1)
    settle(plant, running)
    assert truncated(plant) == [3]
    running.source.take_away([0])
    plant.say("a", 1)
    successor = plant.worker()
    settle(plant, successor)
    assert truncated(plant) == [3, 4]


class Blind(LocalReader):
    """A log whose batches cannot be looked at for a while."""

    times = 3

    def lost(self, partition: int, holes: Sequence[Stretch]) -> list[Stretch]:
        self.times -= 1
        if self.times >= 0:
            raise LogUnavailable("nobody answers")
        return super().lost(partition, holes)


def test_a_hole_that_cannot_be_looked_into_is_read_again(plant: Plant) -> None:
    running = plant.worker()
    plant.say("a", 2)
    settle(plant, running)
    running.worker._recovery.reader = blind = Blind(plant.log, "utterances")
    plant.say("a", 3)
    plant.log.remove(*TOPIC, 2)
    settle(plant, running)
    assert blind.times < 0
    assert sorted(contexts(plant)) == [0, 1, 3, 4]
    assert truncated(plant) == [3, 4]


def test_holes_are_found_in_portions_and_at_both_ends(plant: Plant) -> None:
    plant.say("a", 9)
    plant.log.remove(*TOPIC, 0, 3, 4, 8)
    holes = Holes(0)
    for portion in LocalReader(plant.log, "utterances", portion=2).read(0, 0, 9):
        holes.add(portion)
    holes.reach(9, 5)
    assert [hole[:2] for hole in holes.found] == [(0, 1), (3, 5), (8, 9)]
    assert holes.found[-1] == Hole(8, 9, 5)
