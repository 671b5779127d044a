"""A start waits for a server that is away, not for a mistake, and not for ever."""

from __future__ import annotations

from threading import Event

import pytest
from structlog.testing import capture_logs

from stream.errors import BrokerUnreachable, StoreUnfit, StoreUnreachable
from stream.metrics.catalogue import Metrics
from stream.worker.observe import Health
from stream.worker.starting import TRY_S, Patience, Stopped
from stream.worker.throttle import EVERY_S, Throttle

AWAY = BrokerUnreachable("no broker answers at kafka:9092")


class Hours(Event):
    """A stop that is not set; who waits for it moves the hand clock on."""

    def __init__(self) -> None:
        super().__init__()
        self.s = 0.0

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None and 0 < timeout <= TRY_S
        self.s += timeout
        return self.is_set()


class Server:
    """A step of the start whose server answers after some tries; raises `fault` until then."""

    def __init__(self, fault: Exception, tries: int, health: Health) -> None:
        self.fault, self.left, self.health = fault, tries, health
        self.seen: list[str] = []

    def __call__(self) -> str:
        self.seen.append(self.health.waiting)
        self.left -= 1
        if self.left >= 0:
            raise self.fault
        return "answer"


def patience(limit_s: float, hours: Hours, health: Health) -> Patience:
    return Patience(limit_s, health=health, metrics=Metrics(), stop=hours, now=lambda: hours.s)


@pytest.mark.parametrize("fault", [AWAY, StoreUnreachable("no Redis answers")])
def test_the_step_is_tried_until_its_server_answers(fault: Exception) -> None:
    hours, health = Hours(), Health()
    step = Server(fault, 3, health)
    assert patience(60, hours, health).until_reached(step) == "answer"
    assert hours.s == 3 * TRY_S
    assert step.seen == ["", str(fault), str(fault), str(fault)] and health.waiting == ""


def test_the_limit_is_one_for_all_steps_and_the_last_fault_is_raised() -> None:
    hours, health = Hours(), Health()
    waits = patience(10, hours, health)
    waits.until_reached(Server(AWAY, 3, health))
    with pytest.raises(BrokerUnreachable, match="kafka:9092"):
        waits.until_reached(Server(AWAY, 1_000, health))
    assert hours.s == 10


def test_without_a_limit_the_first_fault_is_raised_at_once() -> None:
    hours, health = Hours(), Health()
    with pytest.raises(BrokerUnreachable):
        patience(0, hours, health).until_reached(Server(AWAY, 1, health))
    assert hours.s == 0 and health.waiting == ""


def test_what_a_person_must_cure_is_never_waited_for() -> None:
    hours, health = Hours(), Health()
    with pytest.raises(StoreUnfit, match="evict"):
        patience(60, hours, health).until_reached(Server(StoreUnfit("it may evict"), 1, health))
    assert hours.s == 0


def test_a_stop_ends_the_wait() -> None:
    hours, health = Hours(), Health()
    hours.set()
    with pytest.raises(Stopped):
        patience(60, hours, health).until_reached(Server(AWAY, 1_000, health))


def test_the_fault_is_logged_at_once_then_once_a_minute() -> None:
    hours, health = Hours(), Health()
    throttle = Throttle(lambda: hours.s)
    with capture_logs(processors=[throttle]) as lines, pytest.raises(BrokerUnreachable):
        patience(3 * EVERY_S, hours, health).until_reached(Server(AWAY, 1_000, health))
    assert [line["gives_up_in_s"] for line in lines] == [180, 120, 60]
    assert {line["fault"] for line in lines} == {str(AWAY)}


@pytest.mark.parametrize(
    ("fault", "gauge"),
    [(AWAY, "broker_up"), (StoreUnreachable("no Redis answers"), "redis_up")],
)
def test_the_server_that_is_waited_for_is_a_gauge_of_0(fault: Exception, gauge: str) -> None:
    hours, health, metrics = Hours(), Health(), Metrics()
    waits = Patience(10, health=health, metrics=metrics, stop=hours, now=lambda: hours.s)
    waits.until_reached(Server(fault, 1, health))
    assert f"\nemotrack_{gauge} 0.0\n" in metrics.render().decode()
