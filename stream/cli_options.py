"""Arguments the model commands share: which conversations, how many threads, where figures go."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

import typer

from stream.errors import ConfigError, SourceError

if TYPE_CHECKING:
    from model.data import DataSet

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
TrainingDevice = Annotated[
    Literal["auto", "cpu", "cuda"],
    typer.Option(help="where an HRG-SSA is trained; on a GPU equal runs differ in their last bits"),
]
JsonFile = Annotated[Path | None, typer.Option("--json", help="write the figures here too")]


def read_conversations(folder: Path | None, name: str | None) -> DataSet:
    """Read a set; raises `ConfigError` without a folder, `SourceError` when it cannot be read."""
    from model.data import DataError, read_data_set

    try:
        return read_data_set(conversations_folder(folder), name)
    except DataError as error:
        raise SourceError(str(error)) from error


def conversations_folder(folder: Path | None) -> Path:
    """The folder given, else the shared one; raises `ConfigError` where neither is."""
    if folder is not None:
        return folder
    if not SHARED_DATA.is_dir():
        raise ConfigError("which conversations? Give a folder with --data or EMOTRACK_DATA")
    return SHARED_DATA


def hush_torch_geometric() -> None:
    """Its import warns that torch.jit.script is deprecated: nothing a reader of scores can cure."""
    warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", FutureWarning)
