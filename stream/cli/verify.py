"""`emotrack verify`: recompute every answer from the log and report violated promises."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import TaskProgressColumn, TimeRemainingColumn

from stream.cli.options import (
    Bootstrap,
    ConfigFile,
    Device,
    Model,
    Prefix,
    RedisUrl,
    SettingThreads,
    progress_bar,
    settings_of,
)
from stream.errors import EmotrackError


class CannotVerify(EmotrackError):
    """The verification could not run: it says nothing about the topics."""

    exit_code = 2


def verify(
    context: typer.Context,
    bootstrap: Bootstrap = None,
    topic_prefix: Prefix = None,
    group: Annotated[
        str | None, typer.Option(help="the workers' group, whose commits count [EMOTRACK_GROUP]")
    ] = None,
    redis_url: RedisUrl = None,
    model: Model = None,
    device: Device = None,
    threads: SettingThreads = None,
    tolerance: Annotated[
        float | None,
        typer.Option(
            min=0.0, max=1.0, help="excused difference of a probability, e.g. 1e-3 for a GPU's"
        ),
    ] = None,
    truncation: Annotated[
        bool,
        typer.Option(
            "--truncation/--no-truncation",
            help="whether a prediction may say context.truncated (its session starts there then)",
        ),
    ] = True,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="write the report here too")
    ] = None,
    config: ConfigFile = None,
) -> None:
    """Recompute the log and compare predictions, alerts, dead letters and Redis with it.

    Reads what the topics held when it began, and changes nothing. Exit code 0: no violations; 1:
    violations; 2: it cannot run.
    """
    try:
        if json_file is not None:
            try:  # before the long work, not after it
                json_file.parent.mkdir(parents=True, exist_ok=True)
                json_file.touch()
            except OSError as error:
                raise CannotVerify(f"{json_file} cannot be written: {error.strerror}") from None
        settings = settings_of(context)
        from stream.serve import load_model
        from stream.verify.run import verify_topics

        predictor = load_model(settings)
        with progress_bar("verifying", TaskProgressColumn(), TimeRemainingColumn()) as progress:
            report = verify_topics(
                settings,
                predictor,
                tolerance=tolerance,
                allow_truncation=truncation,
                progress=progress,
            )
    except EmotrackError as error:
        raise CannotVerify(str(error)) from None
    from stream.verify.report import print_report

    print_report(report, Console(highlight=False))
    if json_file is not None:
        json_file.write_text(json.dumps(report.as_json(), indent=2) + "\n", "utf-8")
    if not report.ok:
        raise typer.Exit(1)
