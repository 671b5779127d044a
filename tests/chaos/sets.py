"""The sets of scenarios: a few in `make test`, all of them by `make chaos`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from tests.chaos import field_kafka, field_producers, field_redis, upgrade
from tests.chaos import inner_scenarios as inner
from tests.chaos import scenarios as outer
from tests.chaos.scenarios import Facts, Stage

Scenario = Callable[[Stage], Facts]

SHORT: Final[Mapping[str, Scenario]] = {
    "R1": outer.killed_at_every_place,
    "R4": outer.zombie,
    "R6": outer.broker_restarts,
    "R8": outer.emptied,
    "R12": outer.poisoned,
    "R13": outer.not_finite,
    "R16": outer.repeated,
}
LONG: Final[Mapping[str, Scenario]] = {
    "R1": outer.killed_at_every_place,
    "R1t": outer.killed_in_transactions,
    "R2": outer.killed_at_random,
    "R3": outer.drained,
    "R4": outer.zombie,
    "R5": outer.rebalances,
    "R6": outer.broker_restarts,
    "R7": outer.reply_lost,
    "R8": outer.emptied,
    "R9": outer.failed_over,
    "R10": outer.slow_and_gone,
    "R11": outer.full_store,
    "R12": outer.poisoned,
    "R13": outer.not_finite,
    "R14": inner.device_fails,
    "R15": outer.slow_model,
    "R16": outer.repeated,
    "R17": outer.out_of_order,
    "R18": outer.heard_again_with_more,
    "R19": outer.one_hot_and_many_short,
    "R20": inner.another_model,
    "R21": inner.soaked,
    "R24": outer.skewed_clocks,
    "R25": inner.replayed,
    "R26": outer.overloaded,
    "R27": inner.log_and_scrape_stuck,
    "R28": upgrade.upgraded,
    "R29": outer.partitioned,
    "R31": field_redis.demoted,
    "R32": field_redis.sentinels_fail_over,
    "R33": field_producers.three_partitioners,
    "R34": field_kafka.compacted,
}
