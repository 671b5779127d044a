"""The formula of `emotrack capacity`: laws, a worked example, and the console."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from model.interface import ServingOptions
from model.registry import load_predictor
from stream import main
from stream.bench.sizing import (
    DAY_S,
    KIB,
    Plan,
    Traffic,
    default_plan,
    hrg_ssa_sizes,
    mean_stored,
    needs,
    pcgnet_sizes,
    rebuild_records,
    redis_bytes,
)
from stream.bench.state import spec_of
from stream.errors import ConfigError
from tests.conftest import ROOT

CALLS = Traffic(20_000, 8.0, 6.0)
PCGNET = pcgnet_sizes()
traffics = st.builds(
    Traffic,
    st.integers(1, 100_000),
    st.floats(0.1, 60),
    st.floats(0.1, 60),
    st.sampled_from(["text", "features"]),
    st.integers(1, 8),
)


def capacity(*arguments: str) -> str:
    """Run the command; what a person can cure is raised."""
    ran = CliRunner().invoke(main.app, ["capacity", *arguments])
    if isinstance(ran.exception, ConfigError):
        raise ran.exception
    assert ran.exit_code == 0, ran.output
    return ran.stdout


@pytest.mark.parametrize("hidden", [128, 200, 400])
def test_a_pcgnet_s_sizes_are_those_of_its_own_state(hidden: int) -> None:
    spec, sizes = spec_of(hidden), pcgnet_sizes(hidden)
    assert (sizes.row, sizes.conversation, sizes.speaker) == (
        spec.row_bytes,
        spec.conversation_bytes,
        spec.speaker_bytes,
    )
    assert sizes.window == spec.recurrence.window
    assert sizes.stored(1, 2) == sizes.written


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pcgnet", "hrg-ssa"])
def test_the_sizes_of_what_is_shipped_are_those_of_its_checkpoint(name: str) -> None:
    spec = load_predictor(Path(name), ServingOptions(device="cpu")).spec
    sizes = pcgnet_sizes() if name == "pcgnet" else hrg_ssa_sizes()
    assert (sizes.row, sizes.conversation, sizes.speaker, sizes.window) == (
        spec.row_bytes,
        spec.conversation_bytes,
        spec.speaker_bytes,
        spec.recurrence.window,
    )


def test_twenty_thousand_calls_worked_by_hand() -> None:
    """8 utterances a minute for 6 minutes, raw text in."""
    found = needs(CALLS, PCGNET, Plan(rate=60, rebuild_rate=69))
    assert found.utterances_per_s == pytest.approx(2_666.7, abs=0.1)
    assert (found.workers, found.cores, found.partitions) == (89, 89, 178)  # 2667 / 30
    # As many again as end in 30 minutes: 20,000 x 30 / 6.
    assert found.conversations_in_redis == 120_000
    whole = 10 * 1_546 + 512 + 2 * 2_318
    most = 1.1 * 120_000 * (1.5 * KIB + 1.125 * whole) / 1e9
    assert 0.95 * most < found.redis_gb < most  # live ones are not full yet
    # 48 utterances of each: half of the live ones, and all of 50,000 that ended within 15 minutes.
    assert found.rebuild_records == 20_000 * 24.5 + 50_000 * 48
    assert found.changed_records == 20_000 * 24.5, "who has ended is not asked for"
    load = 2_666.67 / 60 / 89  # of the same cores, which go on serving
    assert found.changed_s == pytest.approx(found.changed_records / 69 / 89 / (1 - load), rel=1e-3)
    assert found.standstill_s == pytest.approx(found.rebuild_records / 69 / 89)
    assert found.caught_up_s == pytest.approx(
        found.standstill_s / (1 - 2_666.67 / 60 / 89), rel=1e-3
    )
    assert found.disk_gb == pytest.approx(found.kafka_mb_per_s / 1e3 * 7 * DAY_S * 3)


@given(traffics)
def test_twice_the_conversations_need_twice_of_what_adds_up(traffic: Traffic) -> None:
    twice = replace(traffic, conversations=2 * traffic.conversations)
    plan = default_plan(traffic.input)
    one, two = needs(traffic, PCGNET, plan), needs(twice, PCGNET, plan)
    for name in ("redis_gb", "redis_mb_per_s", "kafka_mb_per_s", "disk_gb"):
        assert getattr(two, name) == pytest.approx(2 * getattr(one, name))
    assert one.workers <= two.workers <= 2 * one.workers
    assert one.worker_memory_gib > 1


@given(traffics)
def test_no_worker_is_given_more_than_its_share(traffic: Traffic) -> None:
    plan = default_plan(traffic.input)
    found = needs(traffic, PCGNET, plan)
    assert traffic.per_s <= found.workers * plan.rate * plan.load_share * (1 + 1e-9)
    assert found.partitions % found.workers == 0, "else one worker has more than another"
    assert found.standstill_s < found.caught_up_s < math.inf


@given(traffics, st.floats(1, 3_600))
def test_redis_keeps_what_ended_for_twice_idle_s(traffic: Traffic, idle_s: float) -> None:
    live = redis_bytes(traffic, PCGNET, 1e-9)
    kept, longer = (redis_bytes(traffic, PCGNET, t) for t in (idle_s, 2 * idle_s))
    assert live < kept < longer
    assert longer - live == pytest.approx(2 * (kept - live))
    assert rebuild_records(traffic, idle_s) < rebuild_records(traffic, 2 * idle_s)


@settings(deadline=None)
@given(traffics)
def test_the_mean_over_a_call_is_the_mean_over_its_utterances(traffic: Traffic) -> None:
    last = math.ceil(traffic.utterances)
    each = [PCGNET.stored(n, traffic.speakers) for n in range(1, last + 1)]
    assert mean_stored(traffic, PCGNET) == pytest.approx(sum(each) / last)
    assert mean_stored(traffic, PCGNET) <= PCGNET.stored(last, traffic.speakers)


def test_a_worker_that_is_given_all_it_can_do_never_catches_up() -> None:
    plan = Plan(rate=1.0, rebuild_rate=1.0, load_share=1.0)
    assert needs(Traffic(120, 1.0, 6.0), PCGNET, plan).caught_up_s == math.inf


def test_the_console_prints_what_the_formula_returns() -> None:
    told: dict[str, Any] = json.loads(capacity("--conversations", "20000", "--json"))
    assert told["needs"] == asdict(needs(CALLS, PCGNET, default_plan("text")))
    text = capacity("--conversations", "20000")
    page = (ROOT / "docs/sizing.md").read_text("utf-8")
    assert f"$ emotrack capacity --conversations 20000\n{text}" in page
    for fact in ("89 (50% of 60/s each; THREADS=1)", "178 (two a worker", "120,000 conversations"):
        assert fact in text
    assert "of 1800 s included" in text and "without answers (2,890,000 records" in text


@pytest.mark.parametrize(
    ("flag", "value", "name"),
    [("--rate", "120", "workers"), ("--rebuild-rate", "690", "standstill_s"),
     ("--hidden", "64", "redis_gb"), ("--window", "5", "redis_gb"), ("--idle-s", "60", "redis_gb"),
     ("--retention-days", "1", "disk_gb"), ("--replication", "1", "disk_gb"),
     ("--load-share", "0.9", "workers"), ("--input", "features", "workers"),
     ("--utterance-bytes", "1", "disk_gb"), ("--speakers", "1", "redis_gb")],
)  # fmt: skip
def test_every_choice_lowers_what_it_is_there_for(flag: str, value: str, name: str) -> None:
    plain, chosen = (
        json.loads(capacity("--conversations", "20000", "--json", *more))["needs"]
        for more in ((), (flag, value))
    )
    assert chosen[name] < plain[name]


def test_a_rate_of_one_s_own_makes_rebuilds_faster_in_proportion() -> None:
    told = json.loads(capacity("--conversations", "9", "--rate", "120", "--json"))["plan"]
    assert told["rebuild_rate"] == pytest.approx(138)


def test_hrg_ssa_needs_words_and_a_measured_rate() -> None:
    with pytest.raises(ConfigError, match="--input text"):
        capacity("--conversations", "9", "--model", "hrg-ssa", "--input", "features")
    with pytest.raises(ConfigError, match="--rate"):
        capacity("--conversations", "9", "--model", "hrg-ssa")
    assert "workers" in capacity("--conversations", "9", "--model", "hrg-ssa", "--rate", "30")
