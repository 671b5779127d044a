"""`emotrack serve`: follow the utterances topic until SIGTERM or Ctrl-C, then drain."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Annotated, Literal

import typer

from stream.settings import load_settings
from stream.worker.logs import configure_log
from stream.worker.signals import arm_from_environment, stop_on_signals

app = typer.Typer(no_args_is_help=True)


@app.command()
def serve(
    bootstrap: Annotated[
        str | None, typer.Option(help="Kafka brokers [EMOTRACK_BOOTSTRAP, 127.0.0.1:9092]")
    ] = None,
    redis_url: Annotated[
        str | None, typer.Option(help="redis://... or memory:// [EMOTRACK_REDIS_URL]")
    ] = None,
    group: Annotated[str | None, typer.Option(help="consumer group [EMOTRACK_GROUP]")] = None,
    topic_prefix: Annotated[
        str | None, typer.Option(help="prefix of the four topics [EMOTRACK_TOPIC_PREFIX]")
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(
            help="checkpoint folder, or a model's name [EMOTRACK_MODEL, the shipped PCGNet]"
        ),
    ] = None,
    device: Annotated[
        Literal["auto", "cpu", "cuda"] | None, typer.Option(help="[EMOTRACK_DEVICE, auto]")
    ] = None,
    threads: Annotated[int | None, typer.Option(help="[EMOTRACK_THREADS, 1]")] = None,
    metrics_port: Annotated[
        int | None, typer.Option(help="0: any free port [EMOTRACK_METRICS_PORT, 9464]")
    ] = None,
    allow_create_time: Annotated[
        bool | None, typer.Option(help="accept producer time [EMOTRACK_ALLOW_CREATE_TIME]")
    ] = None,
    runtime: Annotated[
        Literal["native", "faust"] | None,
        typer.Option(help="who reads the topic [EMOTRACK_RUNTIME, native]"),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="TOML file with any setting [EMOTRACK_CONFIG]")
    ] = None,
) -> None:
    """Answer utterances with predictions and shift alerts.

    Every setting can be given as EMOTRACK_NAME or in a TOML file; these flags win over both.
    Start several with one group to share the partitions. SIGTERM drains and exits 0.
    """
    flags = {
        "bootstrap": bootstrap,
        "redis_url": redis_url,
        "group": group,
        "topic_prefix": topic_prefix,
        "model": model,
        "device": device,
        "threads": threads,
        "metrics_port": metrics_port,
        "allow_create_time": allow_create_time,
        "runtime": runtime,
    }
    settings = load_settings(flags, config)
    gc.disable()  # until all is loaded: imports make no garbage, and looking for it costs a second
    lines = configure_log(settings)
    try:
        from stream.serve import run_worker

        arm_from_environment()
        raise typer.Exit(run_worker(settings, stop=stop_on_signals()))
    finally:
        lines.close()
        gc.enable()
