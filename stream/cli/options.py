"""Arguments that commands share, and the errors of the model as those of the console."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

import typer

from stream.errors import ConfigError, ModelUnfit, SourceError

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
Checkpoint = Annotated[
    Path | None,
    typer.Option(help="checkpoint folder, or a model's name (default: the shipped PCGNet)"),
]
TrainingDevice = Annotated[
    Literal["auto", "cpu", "cuda"],
    typer.Option(help="where an HRG-SSA is trained; on a GPU equal runs differ in their last bits"),
]
JsonFile = Annotated[Path | None, typer.Option("--json", help="write the figures here too")]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON")]


def read_conversations(folder: Path | None, name: str | None) -> DataSet:
    """Read a set; raises `ConfigError` without a folder, `SourceError` when it cannot be read."""
    from model.data.reader import read_data_set

    with model_errors():
        return read_data_set(conversations_folder(folder), name)


def conversations_folder(folder: Path | None) -> Path:
    """The folder given, else the shared one; raises `ConfigError` where neither is."""
    if folder is not None:
        return folder
    if not SHARED_DATA.is_dir():
        raise ConfigError("which conversations? Give a folder with --data or EMOTRACK_DATA")
    return SHARED_DATA


# Flags of settings; `load_settings` reads what is not given.
Bootstrap = Annotated[
    str | None, typer.Option(help="brokers, host:port[,host:port] [EMOTRACK_BOOTSTRAP]")
]
Prefix = Annotated[
    str | None, typer.Option(help="prefix of the four topics [EMOTRACK_TOPIC_PREFIX]")
]
RedisUrl = Annotated[
    str | None, typer.Option(help="where states are, redis://HOST:PORT/DB [EMOTRACK_REDIS_URL]")
]
Model = Annotated[
    Path | None, typer.Option(help="checkpoint folder or name [EMOTRACK_MODEL, pcgnet]")
]
ConfigFile = Annotated[
    Path | None, typer.Option(help="TOML file with any setting [EMOTRACK_CONFIG]")
]


@contextmanager
def model_errors() -> Iterator[None]:
    """Raise errors of the model, its data and its ledger as those of the console."""
    from model.errors import CheckpointError, EncoderMissing, LedgerError, ModelError, RecipeError

    try:
        yield
    except (RecipeError, LedgerError) as error:
        raise ConfigError(str(error)) from error
    except (EncoderMissing, CheckpointError) as error:
        raise ModelUnfit(str(error)) from error
    except ModelError as error:
        raise SourceError(str(error)) from error
