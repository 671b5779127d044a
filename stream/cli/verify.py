"""`emotrack verify`: recompute every answer from the log and report violated promises."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.console import Console
from rich.progress import TaskProgressColumn, TimeRemainingColumn

from stream.cli.options import (
    Bootstrap,
    ConfigFile,
    Device,
    Model,
    Prefix,
    ProgressLines,
    RedisUrl,
    SettingThreads,
    moment,
    progress_bar,
    settings_of,
)
from stream.errors import ConfigError, EmotrackError

if TYPE_CHECKING:
    from stream.verify.selection import Selection

LINE_EVERY_S: Final = 10.0
REMEMBERED_TEXTS: Final = 20_000  # vectors of 768 bytes, and their tokens


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
    since: Annotated[
        str | None,
        typer.Option(help="check what came since: 2026-01-31T12:00 (UTC), or an age: 30m, 2h, 3d"),
    ] = None,
    partition: Annotated[
        list[int] | None,
        typer.Option(help="check only this partition of the utterances topic (repeat it)"),
    ] = None,
    sample: Annotated[
        str | None,
        typer.Option(
            help="check a share of the conversations: 0.1 or 10%; the same ones each time"
        ),
    ] = None,
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
    alone: Annotated[
        bool,
        typer.Option("--alone", help="recompute each answer alone, not side by side (slower)"),
    ] = False,
    encoders: Annotated[
        int | None, typer.Option(min=1, help="texts encoded at a time [this process's CPUs]")
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="write the report here too")
    ] = None,
    config: ConfigFile = None,
) -> None:
    """Recompute the log and compare predictions, alerts, dead letters and Redis with it.

    Reads what the topics held when it began, and changes nothing; workers may go on. --since,
    --partition and --sample look at a part, together or alone, and the report says what was left
    out. Exit code 0: no violations; 1: violations; 2: it cannot run.
    """
    try:
        if json_file is not None:
            try:  # before the long work, not after it
                json_file.parent.mkdir(parents=True, exist_ok=True)
                json_file.touch()
            except OSError as error:
                raise CannotVerify(f"{json_file} cannot be written: {error.strerror}") from None
        settings = settings_of(context)
        selection = selected(since, partition, sample)
        from stream.serve import load_model
        from stream.verify.recompute import SIDE_BY_SIDE
        from stream.verify.run import verify_topics
        from stream.worker.cpus import usable_cpus

        predictor = load_model(
            settings,
            remembered_texts=REMEMBERED_TEXTS,
            texts_at_once=encoders or max(1, int(usable_cpus() / settings.threads)),
        )
        columns = TaskProgressColumn(), TimeRemainingColumn()
        lines = ProgressLines(LINE_EVERY_S)
        with progress_bar("verifying", *columns, lines=lines) as progress:
            report = verify_topics(
                settings,
                predictor,
                selection=selection,
                tolerance=tolerance,
                allow_truncation=truncation,
                side_by_side=1 if alone else SIDE_BY_SIDE,
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


def selected(since: str | None, partitions: list[int] | None, sample: str | None) -> Selection:
    """Return what these flags select. Raises `ConfigError` for a time or share that is none."""
    from stream.verify.selection import Selection

    now = datetime.now(UTC)
    since_ms = moment(since, now)
    if since_ms is not None and since_ms > now.timestamp() * 1000:
        raise ConfigError(f"--since {since} is in the future: times are UTC")
    share = 1.0 if sample is None else share_of(sample)
    return Selection(since_ms, None if not partitions else frozenset(partitions), share)


def share_of(text: str) -> float:
    """Return a share above 0 and up to 1. Raises `ConfigError`."""
    number = text.strip()
    try:
        share = float(number[:-1]) / 100 if number.endswith("%") else float(number)
    except ValueError:
        share = 0.0
    if not 0.0 < share <= 1.0:
        raise ConfigError(f"--sample {text} is no share: write 0.1 or 10%, at most 1 or 100%")
    return share
