"""Answers and alerts in a table file: .csv, .jsonl or .parquet, written as they come."""

from __future__ import annotations

import csv
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO, Final, Protocol, Self

import msgspec

from stream.errors import ConfigError
from stream.events.answer_rows import Row

SUFFIXES: Final = (".csv", ".jsonl", ".parquet")
STANDARD_OUTPUT: Final = Path("-")
GROUP_ROWS: Final = 10_000  # of a .parquet file in memory


class _Form(Protocol):
    def write(self, event: object, row: Row) -> None: ...

    def close(self) -> None: ...


class AnswerFile:
    """A file of answers: rows under fixed columns, or in a .jsonl the events as they are.

    With `whole` the name is given to the file when the context ends without an error, and nothing
    is left where it does not. Without, rows are there as they come; a .parquet file is readable
    only once it is closed.
    """

    def __init__(self, path: Path, columns: Mapping[str, type], *, whole: bool) -> None:
        """Open the file; `-` is standard output, for JSON lines. Raises `ConfigError`."""
        self._path, self._columns = path, columns
        self._part = (
            path.with_name(f".{path.name}.part") if whole and path != STANDARD_OUTPUT else path
        )
        self._form: _Form | None = _form(path, self._part, columns)
        self.written = 0
        self.other_columns = 0  # rows that were not written: they have columns of another model

    def write(self, event: object, row: Row) -> None:
        """Write an event, or its row. Raises `ConfigError` where there is no room."""
        assert self._form is not None, "closed"
        if not isinstance(self._form, _Lines) and not row.keys() <= self._columns.keys():
            self.other_columns += 1
            return
        try:
            self._form.write(event, row)
        except BrokenPipeError:
            raise
        except OSError as error:
            self._drop()
            raise _unwritable(self._path, error) from error
        self.written += 1

    def close(self) -> None:
        """Write what is left and give the file its name. Idempotent."""
        form, self._form = self._form, None
        if form is None:
            return
        try:
            form.close()
            if self._part != self._path:
                os.replace(self._part, self._path)
        except OSError as error:
            raise _unwritable(self._path, error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None or self._part == self._path:
            self.close()
            return
        self._drop()
        with suppress(OSError):
            self._part.unlink()

    def _drop(self) -> None:
        """Close the file with what is in it; what does not fit is lost."""
        form, self._form = self._form, None
        with suppress(OSError):
            if form is not None:
                form.close()


def require_answer_file(
    path: Path, sources: Sequence[Path] = (), *, new: bool = False, lines: bool = False
) -> None:
    """Raise `ConfigError` before the work where a file could not be written after it.

    `new`: it must not be there. `lines`: `-` will do, for JSON lines on standard output. `sources`
    are what is read.
    """
    if path == STANDARD_OUTPUT and lines:
        return
    if path.suffix.lower() not in SUFFIXES:
        more = ", or - for JSON lines" if lines else ""
        raise ConfigError(f"{path}: give a name that ends in {', '.join(SUFFIXES)}{more}")
    if path.suffix.lower() == ".parquet":
        _arrow()
    if not path.parent.is_dir():
        raise ConfigError(
            f"{path}: there is no folder {path.parent}: make it, or name another file"
        )
    if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise ConfigError(f"{path} cannot be written: name another file")
    if new and path.exists():
        raise ConfigError(f"{path} is there already: name another file, or move it away")
    for source in sources:
        if source.exists() and path.exists() and source.samefile(path):
            raise ConfigError(f"{path} is what is read: name another file for the answers")


def _form(path: Path, part: Path, columns: Mapping[str, type]) -> _Form:
    try:
        if path == STANDARD_OUTPUT:
            return _Lines(sys.stdout.buffer, closes=False)
        if path.suffix.lower() == ".csv":
            return _Csv(part, columns)
        if path.suffix.lower() == ".parquet":
            return _Parquet(part, columns)
        return _Lines(part.open("wb"), closes=True)
    except OSError as error:
        raise _unwritable(path, error) from error


class _Lines:
    """Each event as a line of JSON."""

    def __init__(self, file: BinaryIO, *, closes: bool) -> None:
        self._file, self._closes = file, closes

    def write(self, event: object, row: Row) -> None:
        self._file.write(msgspec.json.encode(event) + b"\n")
        self._file.flush()

    def close(self) -> None:
        self._file.flush()
        if self._closes:
            self._file.close()


class _Csv:
    """A header, and a line a row; true and false as in JSON, nothing for None."""

    def __init__(self, path: Path, columns: Mapping[str, type]) -> None:
        self._file = path.open("w", encoding="utf-8", newline="")
        self._rows = csv.DictWriter(self._file, list(columns), lineterminator="\n")
        self._rows.writeheader()

    def write(self, event: object, row: Row) -> None:
        self._rows.writerow({name: _cell(value) for name, value in row.items()})
        self._file.flush()

    def close(self) -> None:
        self._file.close()


class _Parquet:
    """Typed columns, by pyarrow."""

    def __init__(self, path: Path, columns: Mapping[str, type]) -> None:
        arrow, parquet = _arrow()
        types = {str: arrow.string(), float: arrow.float64(), bool: arrow.bool_()}
        self._arrow = arrow
        self._schema = arrow.schema([(name, types[kind]) for name, kind in columns.items()])
        self._writer = parquet.ParquetWriter(str(path), self._schema)
        self._rows: list[Row] = []

    def write(self, event: object, row: Row) -> None:
        self._rows.append(row)
        if len(self._rows) >= GROUP_ROWS:
            self._flush()

    def _flush(self) -> None:
        self._writer.write_table(self._arrow.Table.from_pylist(self._rows, schema=self._schema))
        self._rows = []

    def close(self) -> None:
        if self._rows:
            self._flush()
        self._writer.close()


def _cell(value: Any) -> Any:
    return ("false", "true")[value] if isinstance(value, bool) else value


def _arrow() -> tuple[Any, Any]:
    """Import pyarrow. Raises `ConfigError` where it is not installed."""
    try:
        arrow, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError:
        raise ConfigError(
            "a .parquet file needs pyarrow, which is not installed: pip install "
            "'emotrack[parquet]', or name a .csv or .jsonl file"
        ) from None
    return arrow, parquet


def _unwritable(path: Path, error: OSError) -> ConfigError:
    why = error.strerror or str(error)
    return ConfigError(f"{path} cannot be written ({why}): make room there or name another file")
