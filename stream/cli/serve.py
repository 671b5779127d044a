"""`emotrack serve`: answer the utterances topic until SIGTERM or Ctrl-C, then drain."""

from __future__ import annotations

import gc
from typing import Annotated, Literal

import structlog
import typer

from stream.cli.options import (
    Bootstrap,
    ConfigFile,
    Device,
    Model,
    Prefix,
    SettingThreads,
    settings_of,
)
from stream.worker.cpus import threads_fault, usable_cpus
from stream.worker.process import arm_from_environment, configure_log, stop_on_signals

log = structlog.get_logger()
app = typer.Typer(no_args_is_help=True)


@app.command()
def serve(
    context: typer.Context,
    bootstrap: Bootstrap = None,
    redis_url: Annotated[
        str | None, typer.Option(help="redis://... or memory:// [EMOTRACK_REDIS_URL]")
    ] = None,
    group: Annotated[str | None, typer.Option(help="consumer group [EMOTRACK_GROUP]")] = None,
    topic_prefix: Prefix = None,
    model: Model = None,
    device: Device = None,
    threads: SettingThreads = None,
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
    config: ConfigFile = None,
) -> None:
    """Answer utterances with predictions and shift alerts.

    Every setting can be given as EMOTRACK_NAME or in a TOML file; these flags win over both.
    Start several with one group to share the partitions. SIGTERM drains and exits 0.
    """
    settings = settings_of(context)
    gc.disable()  # until all is loaded: imports make no garbage, and a search for it costs a second
    lines = configure_log(settings)
    try:
        warn_of_threads(settings.threads)
        from stream.serve import run_worker

        arm_from_environment()
        raise typer.Exit(run_worker(settings, stop=stop_on_signals()))
    finally:
        lines.close()
        gc.enable()


def warn_of_threads(threads: int) -> None:
    """Log that there are more threads than CPUs, where there are."""
    if fault := threads_fault(threads, usable_cpus()):
        log.warning("more threads than CPUs", cure=fault)
