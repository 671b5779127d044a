"""Options that commands share, and the mapping of the model's errors to the console's."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn

from stream.errors import ConfigError, ModelUnfit, SourceError
from stream.settings import Settings, load_settings

if TYPE_CHECKING:
    from model.data.dataset import DataSet


SHARED_DATA: Final = Path("../shared/data")
Data = Annotated[
    Path | None,
    typer.Option("--data", envvar="EMOTRACK_DATA", help="data-set folder (../shared/data)"),
]
SetName = Annotated[
    str | None, typer.Option("--set", help="which set of the folder, e.g. meld or emorynlp")
]
Encoder = Annotated[
    Path | None, typer.Option(help="sentence encoder folder (default: the installed one)")
]
Threads = Annotated[int, typer.Option(min=1, help="CPU threads")]
_CHECKPOINT = "checkpoint folder, or a model's name (default: the shipped PCGNet)"
Checkpoint = Annotated[Path | None, typer.Option(help=_CHECKPOINT)]
NamedCheckpoint = Annotated[Path | None, typer.Argument(help=_CHECKPOINT)]
TrainingDevice = Annotated[
    Literal["auto", "cpu", "cuda"],
    typer.Option(help="where an HRG-SSA is trained; on a GPU equal runs differ in their last bits"),
]
Ledger = Annotated[
    Path | None, typer.Option(help="where looks at test are recorded (default: next to the set)")
]
SplitName = Annotated[
    Literal["train", "dev", "test"],
    typer.Option(help="each look at test is written to the ledger"),
]
ReportFolder = Annotated[
    Path | None,
    typer.Option("--report", help="write a page with pictures (report.html, report.json) here"),
]
JsonFile = Annotated[Path | None, typer.Option("--json", help="write the figures here too")]
KafkaJars = Annotated[Path, typer.Option(help="Apache Kafka's jars, as `make kafka` gets them")]
FeatureFiles = Annotated[
    list[Path] | None,
    typer.Option(
        help=".npz of vectors, by their names, else row i of the i-th; may be given several times"
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON")]


def read_conversations(folder: Path | None, name: str | None) -> DataSet:
    """Read a set. Raises `ConfigError` without a folder, `SourceError` if it cannot be read."""
    from model.data.reader import read_data_set

    with model_errors():
        return read_data_set(conversations_folder(folder), name)


def data_words(folder: Path | None, set_name: str) -> list[str]:
    """Return the words of a command that name this set of this folder."""
    named = [] if folder is None else ["--data", str(folder)]
    return [*named, "--set", set_name]


def option_words(**options: object) -> list[str]:
    """Return the words of a command for options that are given: not None and not False."""
    words: list[str] = []
    for name, value in options.items():
        flag = f"--{name.replace('_', '-')}"
        if value is not None and value is not False:
            words += [flag] if value is True else [flag, str(value)]
    return words


def warn_of_labels(data: DataSet) -> None:
    """Say on stderr what looks like an oversight in a set's labels."""
    from model.data.label_warnings import label_warnings

    for warning in label_warnings(data):
        typer.echo(f"warning: {warning}", err=True)


def conversations_folder(folder: Path | None) -> Path:
    """Return `folder`, by default the shared one. Raises `ConfigError` if there is neither."""
    if folder is not None:
        return folder
    if not SHARED_DATA.is_dir():
        raise ConfigError("which conversations? Give a folder with --data or EMOTRACK_DATA")
    return SHARED_DATA


# Flags of settings: where one is absent, `load_settings` takes the variable, file or default.
Bootstrap = Annotated[
    str | None,
    typer.Option(help="brokers, host:port[,host:port] [EMOTRACK_BOOTSTRAP, 127.0.0.1:9092]"),
]
Prefix = Annotated[
    str | None, typer.Option(help="prefix of the four topics [EMOTRACK_TOPIC_PREFIX]")
]
Group = Annotated[
    str | None, typer.Option(help="consumer group of the workers [EMOTRACK_GROUP, emotrack]")
]
RedisUrl = Annotated[
    str | None,
    typer.Option(help="where states are, redis://… or redis+sentinel://… [EMOTRACK_REDIS_URL]"),
]
Model = Annotated[
    Path | None, typer.Option(help="checkpoint folder or name [EMOTRACK_MODEL, pcgnet]")
]
Device = Annotated[
    Literal["auto", "cpu", "cuda"] | None, typer.Option(help="[EMOTRACK_DEVICE, auto]")
]
SettingThreads = Annotated[int | None, typer.Option(help="[EMOTRACK_THREADS, 1]")]
AGE_S: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
ConfigFile = Annotated[
    Path | None, typer.Option(help="TOML file with any setting [EMOTRACK_CONFIG]")
]


def settings_of(context: typer.Context) -> Settings:
    """Read the settings, of which this command's flags win. Raises as `load_settings` does."""
    flags = {name: value for name, value in context.params.items() if name in Settings.model_fields}
    file = context.params.get("config")
    return load_settings(flags, Path(file) if file else None)


def moment(text: str | None, now: datetime) -> int | None:
    """Return the epoch milliseconds of a time or an age. Raises `ConfigError`."""
    if text is None:
        return None
    try:
        if text[-1:] in AGE_S and text[:-1].isdigit():
            at = now - timedelta(seconds=int(text[:-1]) * AGE_S[text[-1]])
        else:
            at = datetime.fromisoformat(text)
            at = at if at.tzinfo else at.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise ConfigError(
            f"{text!r} is no time: write 2026-01-31T12:00 (UTC), or an age as 90s, 30m, 2h, 3d"
        ) from None
    return int(at.timestamp() * 1000)


@contextmanager
def model_errors() -> Iterator[None]:
    """Raise errors of the model, its data and its ledger as errors of the console."""
    from model.errors import CheckpointError, EncoderMissing, LedgerError, ModelError, RecipeError

    try:
        yield
    except (RecipeError, LedgerError) as error:
        raise ConfigError(str(error)) from error
    except (EncoderMissing, CheckpointError) as error:
        raise ModelUnfit(str(error)) from error
    except ModelError as error:
        raise SourceError(str(error)) from error


@contextmanager
def progress_bar(
    title: str,
    *columns: ProgressColumn,
    total: int | None = None,
    transient: bool = False,
    lines: Callable[[int, int | None], str | None] | None = None,
) -> Iterator[Callable[..., None]]:
    """Show a bar on a terminal's stderr; elsewhere the lines of `lines`, without it nothing.

    Yields a function of the count so far, the total if it was not known, and a new description.
    """
    console = Console(stderr=True)
    if lines is not None and not console.is_terminal:

        def say(done: int, end: int | None = None, description: str | None = None) -> None:
            if line := lines(done, end):
                console.print(f"{description or title}: {line}", soft_wrap=True, highlight=False)

        yield say
        return
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        *(columns or [MofNCompleteColumn()]),
        console=console,
        disable=not console.is_terminal,
        transient=transient,
    ) as progress:
        task = progress.add_task(title, total=total)
        yield lambda done, end=None, description=None: progress.update(
            task, completed=done, total=end, description=description
        )


class ProgressLines:
    """A line of progress every so many seconds, with the time that is left: for a log."""

    def __init__(self, every_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._every_s, self._clock = every_s, clock
        self._began = self._last = clock()

    def __call__(self, done: int, total: int | None) -> str | None:
        """Return the line, None where the last one was just now."""
        now = self._clock()
        if now - self._last < self._every_s or not done or not total:
            return None
        self._last = now
        left = (now - self._began) * (total - done) / done
        return f"{done:,} of {total:,} records, {100 * done / total:.0f} %, {left:,.0f} s left"
