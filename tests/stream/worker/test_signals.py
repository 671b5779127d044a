"""A worker dies at the place, and at the time, that the environment names; else at none."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from model.fault_points import FAULT_POINTS, arm, reach
from stream.errors import ConfigError
from stream.worker.process import VARIABLE, arm_from_environment


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    yield
    arm(None)


@pytest.fixture
def kills(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    sent: list[int] = []
    monkeypatch.setattr(os, "kill", lambda _process, number: sent.append(number))
    return sent


@pytest.mark.parametrize("point", FAULT_POINTS)
def test_it_dies_at_the_place_and_time_that_are_named(
    point: str, monkeypatch: pytest.MonkeyPatch, kills: list[int]
) -> None:
    monkeypatch.setenv(VARIABLE, f"{point}:2")
    arm_from_environment()
    died_after = []
    for place in FAULT_POINTS * 3:
        reach(place)
        died_after.append((place, len(kills)))
    first = next(n for n, (_, count) in enumerate(died_after) if count)
    assert died_after[first][0] == point
    assert first // len(FAULT_POINTS) == 1, "the second time"
    assert kills == [signal.SIGKILL]


def test_without_the_variable_nothing_is_armed(
    monkeypatch: pytest.MonkeyPatch, kills: list[int]
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    arm_from_environment()
    for place in FAULT_POINTS:
        reach(place)
    assert kills == []


@pytest.mark.parametrize("asked", ["F11:1", "F6", "F6:", "F6:x", "F6:-1", ""])
def test_a_fault_that_is_none_is_one_sentence(asked: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, asked)
    with pytest.raises(ConfigError, match=f"{VARIABLE}={asked}: give one of F1, F2.* and a count"):
        arm_from_environment()
