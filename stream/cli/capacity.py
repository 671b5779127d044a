"""`emotrack capacity`: the sizes of an installation from its traffic."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Annotated, Final, Literal

import typer

from stream.bench.sizing import (
    LOAD_SHARE,
    RATES,
    REBUILD_RATES,
    Input,
    Needs,
    Plan,
    StateSizes,
    Traffic,
    hrg_ssa_sizes,
    needs,
    pcgnet_sizes,
)
from stream.cli.options import AsJson
from stream.errors import ConfigError

MINUTE: Final = 60.0


def capacity(
    conversations: Annotated[int, typer.Option(min=1, help="live at the same time")],
    utterances_per_minute: Annotated[
        float, typer.Option(min=0.001, help="of one conversation, all speakers together")
    ] = 8.0,
    call_minutes: Annotated[float, typer.Option(min=0.001, help="length of one")] = 6.0,
    input: Annotated[Input, typer.Option(help="what producers send")] = "text",
    speakers: Annotated[int, typer.Option(min=1, help="of one conversation")] = 2,
    utterance_bytes: Annotated[
        int | None, typer.Option(min=1, help="of a record [350 text, 1300 features]")
    ] = None,
    model: Annotated[Literal["pcgnet", "hrg-ssa"], typer.Option(help="its state's size")] = (
        "pcgnet"
    ),
    hidden: Annotated[int, typer.Option(min=1, help="hidden units of a PCGNet")] = 128,
    window: Annotated[
        int | None, typer.Option(min=1, help="EMOTRACK_WINDOW [10; hrg-ssa 8]")
    ] = None,
    idle_s: Annotated[float, typer.Option(min=0.001, help="EMOTRACK_IDLE_S")] = 900.0,
    rate: Annotated[
        float | None,
        typer.Option(min=0.001, help="utterances/s of one worker, of `emotrack bench pipeline`"),
    ] = None,
    rebuild_rate: Annotated[
        float | None,
        typer.Option(min=0.001, help="records/s of one worker, of `emotrack bench rebuild`"),
    ] = None,
    load_share: Annotated[
        float, typer.Option(min=0.01, max=0.95, help="of that rate that a worker is given")
    ] = LOAD_SHARE,
    retention_days: Annotated[float, typer.Option(min=0.001, help="of `topics create`")] = 7.0,
    replication: Annotated[int, typer.Option(min=1, help="of `topics create`")] = 3,
    json_out: AsJson = False,
) -> None:
    """Say how many workers, cores, partitions, GB and MB/s so much traffic needs.

    docs/sizing.md has the formula. Rates are those of a shared 2-core machine, one thread a worker,
    the shipped PCGNet: measure yours and give it with --rate.
    """
    sizes = state_sizes(model, hidden, window)
    traffic = Traffic(
        conversations, utterances_per_minute, call_minutes, input, speakers, utterance_bytes
    )
    plan = replace(
        plan_of(model, input, rate, rebuild_rate),
        load_share=load_share,
        idle_s=idle_s,
        retention_days=retention_days,
        replication=replication,
    )
    found = needs(traffic, sizes, plan)
    if json_out:
        told = {"traffic": asdict(traffic), "plan": asdict(plan), "needs": asdict(found)}
        typer.echo(json.dumps(told, indent=2))
        return
    for name, value in sentences(found, plan):
        typer.echo(f"{name:<26}{value}")


def state_sizes(model: str, hidden: int, window: int | None) -> StateSizes:
    """Return the sizes of a model's state."""
    sizes = pcgnet_sizes(hidden) if model == "pcgnet" else hrg_ssa_sizes()
    return sizes if window is None else replace(sizes, window=window)


def plan_of(model: str, input: Input, rate: float | None, rebuild_rate: float | None) -> Plan:
    """Return the plan of the given rates, else of the measured ones. Raises `ConfigError`.

    A rebuild computes what serving does: where only `rate` is given it is faster in proportion.
    """
    if model == "hrg-ssa" and input == "features":
        raise ConfigError("hrg-ssa reads words: --input text")
    if model == "hrg-ssa" and rate is None:
        raise ConfigError(
            "no rate of hrg-ssa was measured on a full queue: give yours with --rate (1000 by the "
            "milliseconds of a step that `emotrack bench hrg-ssa` prints is a lower bound)"
        )
    served = rate or RATES[input]
    ratio = 1.0 if model == "hrg-ssa" else REBUILD_RATES[input] / RATES[input]
    return Plan(served, rebuild_rate or served * ratio)


def sentences(found: Needs, plan: Plan) -> list[tuple[str, str]]:
    """Return the lines to print."""
    share = f"{plan.load_share:.0%} of {plan.rate:g}/s each"
    return [
        ("utterances", f"{found.utterances_per_s:,.1f}/s"),
        ("workers", f"{found.workers:,} ({share}; THREADS=1)"),
        ("cores for workers", f"{found.cores:,} whole ones"),
        (
            "partitions to make",
            f"{found.partitions:,} (two a worker; adding some later moves conversations)",
        ),
        (
            "memory a worker",
            f"{found.worker_memory_gib:.2f} GiB resident; limit it to a third more",
        ),
        (
            "Redis",
            f"{found.redis_gb:,.2f} GB of {found.conversations_in_redis:,} conversations, ended "
            f"ones of {2 * plan.idle_s:g} s included; maxmemory a quarter more",
        ),
        ("to Redis", f"{found.redis_mb_per_s:,.2f} MB/s"),
        ("to Kafka", f"{found.kafka_mb_per_s:,.2f} MB/s, before replication"),
        (
            "disk of the brokers",
            f"{found.disk_gb:,.1f} GB ({plan.retention_days:g} days, {plan.replication} replicas)",
        ),
        (
            "if Redis is lost",
            f"{duration(found.standstill_s)} without answers ({found.rebuild_records:,} records "
            f"computed again), {duration(found.caught_up_s)} until all is answered",
        ),
        (
            "if the model changes",
            f"{duration(found.changed_s)} until the last live conversation goes on "
            f"({found.changed_records:,} records computed again)",
        ),
    ]


def duration(seconds: float) -> str:
    """Return seconds, or minutes where there are some."""
    return f"{seconds:.1f} s" if seconds < 2 * MINUTE else f"{seconds / MINUTE:,.0f} min"
