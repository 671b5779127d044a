"""The protocol that workers join by, from what the broker offers; servers: tests/integration."""

from __future__ import annotations

import pytest

from stream.brokers.kafka_config import consumer_config
from stream.brokers.takeover import Offer, ask, judge
from stream.settings import Settings

DEFAULT = Offer(45_000, 5_000)
QUICK = Offer(6_000, 1_000)
MIXED = Offer(6_000, 1_000, classic=True)
OLD = Offer(none="this broker has no other")


@pytest.mark.parametrize(
    ("told", "offer", "protocol", "times", "cured"),
    [
        ({}, QUICK, "consumer", (8, 2), False),
        ({}, Offer(10_000, 1_000), "consumer", (12, 2), False),
        ({}, DEFAULT, "classic", (12, 2), False),
        ({}, OLD, "classic", (12, 2), False),
        ({}, MIXED, "classic", (12, 2), False),
        (
            {"group_protocol": "consumer"},
            MIXED,
            "consumer",
            (8, 2),
            True,
        ),
        ({"session_timeout_ms": 6_000}, DEFAULT, "classic", (8, 2), False),
        ({"session_timeout_ms": 2_000}, QUICK, "classic", (4, 2), False),
        ({"session_timeout_ms": 45_000}, DEFAULT, "consumer", (51, 6), False),
        ({"group_protocol": "consumer"}, DEFAULT, "consumer", (51, 6), True),
        ({"group_protocol": "consumer"}, QUICK, "consumer", (8, 2), False),
        ({"group_protocol": "consumer"}, OLD, "consumer", (51, 6), True),
    ],
)
def test_the_protocol_is_the_new_one_where_its_session_is_short_enough(
    told: dict[str, str], offer: Offer, protocol: str, times: tuple[int, int], cured: bool
) -> None:
    found = judge(Settings(**told), offer)  # type: ignore[arg-type]  # pydantic reads them
    assert (found.protocol, found.killed_s, found.stopped_s) == (protocol, *times)
    assert (found.cure is not None) == cured
    assert f"up to {times[0]} s" in found.says and f"up to {times[1]} s" in found.says


def test_the_reason_is_said() -> None:
    assert "would be 45 s" in judge(Settings(), DEFAULT).why
    assert "no other" in judge(Settings(), OLD).why
    assert "consumer.session.timeout.ms=6000" in judge(Settings(), QUICK).why


@pytest.mark.parametrize(
    "settings",
    [
        Settings(group_protocol="classic"),
        Settings(mock_broker=True),
        Settings(runtime="faust"),
    ],
)
def test_where_the_session_is_ours_no_broker_is_asked(settings: Settings) -> None:
    found = ask(settings)  # nothing listens there
    assert (found.protocol, found.session_ms) == ("classic", 10_000)
    assert "EMOTRACK_SESSION_TIMEOUT_MS=10000" in found.says


@pytest.mark.parametrize("session_ms", [100, 2_000, 10_000, 60_000])
def test_what_is_said_of_the_classic_protocol_is_what_the_consumer_gets(session_ms: int) -> None:
    settings = Settings(group_protocol="classic", session_timeout_ms=session_ms)
    config, found = consumer_config(settings), ask(settings)
    assert config["session.timeout.ms"] == found.session_ms == session_ms
    assert config["heartbeat.interval.ms"] == found.heartbeat_ms <= session_ms / 4
    assert found.heartbeat_ms <= 1_000
