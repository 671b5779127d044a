"""`emotrack bench`: measure speed and size, print a table, write figures with `--json`."""

from __future__ import annotations

import shlex
import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table

from model.study.figures import machine, write_figures
from stream.cli.options import (
    Checkpoint,
    Data,
    JsonFile,
    KafkaJars,
    SetName,
    model_errors,
    read_conversations,
)
from stream.errors import ModelUnfit
from stream.local.servers import KAFKA_JARS, redis_server

app = typer.Typer(
    no_args_is_help=True, help="Measure speed and size (alone on the machine, for honest figures)."
)


@app.command()
def model(
    device: Annotated[
        Literal["cpu", "cuda"], typer.Option(help="cuda: P5 alone, on a GPU")
    ] = "cpu",
    json: JsonFile = None,
) -> None:
    """The model alone: incremental step against full recompute, speed (P1, P3, P4, P9; P5)."""
    from model.errors import ModelError
    from stream.bench.model import run_bench_cuda, run_bench_model

    try:
        rows = run_bench_model(say=say) if device == "cpu" else run_bench_cuda(say=say)
    except ModelError as error:
        raise ModelUnfit(str(error)) from None
    finish(rows, json)


@app.command("hrg-ssa")
def hrg_ssa(
    model: Annotated[
        Path | None, typer.Option(help="checkpoint folder (default: the shipped HRG-SSA)")
    ] = None,
    utterances: Annotated[int, typer.Option(min=5, help="timed, after the window is full")] = 60,
    json: JsonFile = None,
) -> None:
    """HRG-SSA from words to answer: its step against re-encoding the window, and its state."""
    from stream.bench.hrg_ssa import run_bench_hrg_ssa

    rows = run_bench_hrg_ssa(model or Path("hrg-ssa"), utterances=utterances, say=say)
    finish(rows, json)


@app.command()
def state(
    redis_url: Annotated[
        str | None, typer.Option(help="an idle Redis; none: one of our own is started")
    ] = None,
    json: JsonFile = None,
) -> None:
    """A conversation's cost in Redis: bytes an utterance, memory (P7)."""
    from stream.bench.state import run_bench_state

    with ExitStack() as stack:
        if redis_url is None:
            scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            redis_url = stack.enter_context(redis_server(scratch)).url
        finish(run_bench_state(redis_url=redis_url), json)


@app.command()
def pipeline(
    partitions: Annotated[int, typer.Option(min=1)] = 2,
    runs: Annotated[int, typer.Option(min=1, help="open loops, after one to warm up")] = 5,
    utterances: Annotated[int, typer.Option(min=500, help="for the capacity")] = 8_000,
    conversations: Annotated[int, typer.Option(min=10, help="active ones, for P10")] = 10_000,
    jars: KafkaJars = KAFKA_JARS,
    json: JsonFile = None,
) -> None:
    """The whole worker on Apache Kafka and Redis: capacity, latency, memory (P6, P8, P10)."""
    from stream.bench.pipeline import LoadPlan, run_bench_pipeline

    plan = LoadPlan(partitions, utterances, runs, conversations)
    finish(run_bench_pipeline(plan=plan, say=say, jars=jars), json)


@app.command()
def start(
    runs: Annotated[int, typer.Option(min=1, help="cold and warm starts each")] = 5,
    jars: KafkaJars = KAFKA_JARS,
    json: JsonFile = None,
) -> None:
    """From process start to ready, on Apache Kafka and Redis, with cold and warm files."""
    from stream.bench.start import run_bench_start

    finish(run_bench_start(runs=runs, say=say, jars=jars), json)


@app.command()
def metrics(
    utterances: Annotated[int, typer.Option(min=20_000, help="answered in all")] = 200_000,
    jars: KafkaJars = KAFKA_JARS,
    json: JsonFile = None,
) -> None:
    """The cost of observing: CPU of the worker's loop with its metrics and without, in turns."""
    from stream.bench.metrics import run_bench_metrics

    finish(run_bench_metrics(utterances=utterances, say=say, jars=jars), json)


@app.command()
def real(
    data: Data = None,
    set_name: SetName = None,
    split: Annotated[Literal["train", "dev", "test"], typer.Option()] = "test",
    limit_conversations: Annotated[int | None, typer.Option(min=1)] = None,
    model: Checkpoint = None,
    jars: KafkaJars = KAFKA_JARS,
    json: JsonFile = None,
) -> None:
    """Real conversations through Kafka, Redis and two workers, bytes compared with the oracle's."""
    from stream.bench.conversations import run_bench_real
    from stream.client.data_source import DataChoice

    choice = DataChoice(split, set_name, limit_conversations)
    conversations = read_conversations(data, set_name)
    finish(run_bench_real(conversations, choice, say=say, jars=jars, model=model), json)


@app.command()
def rebuild(
    conversations: Annotated[int, typer.Option(min=10, help="active ones")] = 1_000,
    utterances: Annotated[int, typer.Option(min=1, help="of each")] = 30,
    jars: KafkaJars = KAFKA_JARS,
    json: JsonFile = None,
) -> None:
    """Lost states computed again from the log by one worker (R8), features in and raw text in."""
    from stream.bench.rebuild import run_bench_rebuild

    finish(run_bench_rebuild(conversations, utterances, say=say, jars=jars), json)


@app.command()
def change(
    conversations: Annotated[int, typer.Option(min=4, help="that go on")] = 40,
    utterances: Annotated[int, typer.Option(min=1, help="of each, before the first change")] = 40,
    per_s: Annotated[float, typer.Option(min=0.5, help="utterances a second, of all")] = 6.0,
    partitions: Annotated[int, typer.Option(min=2)] = 4,
    window: Annotated[int, typer.Option(min=1, help="the other EMOTRACK_WINDOW")] = 8,
    input: Annotated[Literal["text", "features"], typer.Option()] = "text",
    jars: KafkaJars = KAFKA_JARS,
    json: JsonFile = None,
) -> None:
    """Silence while two workers are replaced: by equal ones, by another window, and back."""
    from stream.bench.change import Amounts, run_bench_change

    amounts = Amounts(conversations, utterances, per_s, partitions, window, input)
    finish(run_bench_change(amounts, say=say, jars=jars), json)


@app.command()
def languages(
    known: Annotated[str, typer.Option(help="codes of ISO 639-1, en,de")] = "en",
    data: Data = None,
    set_name: SetName = None,
    json: JsonFile = None,
) -> None:
    """The judge of languages: what abstains among texts of many, and its time a text."""
    from model.text.languages import Judge, Languages
    from stream.bench.languages import run_bench_languages

    with model_errors():
        judge = Judge(Languages.of(known.split(",")))
    conversations = None if data is None else read_conversations(data, set_name)
    finish(run_bench_languages(judge, conversations), json)


@app.command()
def capacity(
    calls: Annotated[int, typer.Option(min=20, help="live at the same time")] = 150,
    cached: Annotated[int, typer.Option(min=100, help="conversations, for the memory")] = 2_000,
    threads: Annotated[int, typer.Option(min=1, help="of the worker, for the rates")] = 1,
    jars: KafkaJars = KAFKA_JARS,
    json: JsonFile = None,
) -> None:
    """`emotrack capacity` against a worker, Redis and a log: how far its formula is off."""
    from stream.bench.capacity import Amounts, run_bench_capacity

    finish(run_bench_capacity(Amounts(calls, cached, threads=threads), say=say, jars=jars), json)


@app.command()
def verify(
    features: Annotated[int, typer.Option(min=300, help="utterances of vectors")] = 6_000,
    texts: Annotated[int, typer.Option(min=30, help="utterances of raw text")] = 300,
    rounds: Annotated[int, typer.Option(min=1, help="each way, in turns")] = 2,
    jars: KafkaJars = KAFKA_JARS,
    json: JsonFile = None,
) -> None:
    """Records a second that `emotrack verify` recomputes, alone and side by side."""
    from stream.bench.verify import Amounts, run_bench_verify

    amounts = Amounts(features, texts, rounds=rounds)
    finish(run_bench_verify(amounts, say=say, jars=jars), json)


def say(line: str) -> None:
    """Print a step of the work to stderr, apart from the table."""
    Console(stderr=True).print(f"[dim]{line}[/]", highlight=False)


def finish(rows: Mapping[str, Mapping[str, Any]], file: Path | None) -> None:
    """Print the rows, and write them to `file` if there is one."""
    here, console = machine(), Console(highlight=False)
    console.print(f"{here['cpu']}, {here['cores']} cores, Python {here['python']}")
    table = Table(box=None, padding=(0, 3, 0, 0), header_style="bold")
    for column in ("figure", "value", "", "first", "aim", "of runs"):
        number = column in ("value", "first", "aim")
        table.add_column(column, justify="right" if number else "left", no_wrap=True)
    for name, row in rows.items():
        goals = ("" if row.get(goal) is None else f"{row[goal]:g}" for goal in ("first", "aim"))
        runs = row.get("runs") or []
        spread = f"{min(runs):.4g} … {max(runs):.4g} ({len(runs)})" if len(runs) > 1 else ""
        table.add_row(name, f"{row['value']:.4g}", str(row["unit"]), *goals, spread)
    console.print(table)
    for name, row in rows.items():
        console.print(f"[dim]{name}: {row.get('reference', '')}[/]", soft_wrap=True)
    if file is not None:
        write_figures(file, rows, command=shlex.join(["emotrack", *sys.argv[1:]]))
