"""Utterances in a table: a CSV file or JSON lines, with the column names people really use."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, TextIO

from model.data.arrays import json_objects
from model.errors import DataError

# Our name first, then what else it is called; case, spaces and dashes do not matter.
ALIASES: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "conversation_id": ("conversation", "dialogue_id", "dialogue", "dialog_id", "call_id",
                            "session_id", "thread_id", "chat_id"),
        "utterance_id": ("uid", "turn_id", "message_id", "turn"),
        "speaker_id": ("speaker", "speaker_name", "user", "author", "participant"),
        "text": ("utterance", "sentence", "transcript", "message"),
        "emotion": ("label",),
        "split": (),
        "seq": (),
        "start_ms": (),
        "end_ms": (),
        "speaker_role": ("role",),
        "event_time": ("timestamp",),
        "language": (),
    }
)  # fmt: skip
CSV_SUFFIXES: Final = (".csv", ".tsv")
LINE_SUFFIXES: Final = (".jsonl", ".ndjson", ".gz")
NO_RENAMES: Final[Mapping[str, str]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class TableRow:
    """One utterance: where it stands, and its cells by our names; what is empty is left out."""

    place: str
    cells: Mapping[str, Any]


def is_table(path: Path) -> bool:
    """Whether the file is called like a CSV file."""
    return path.suffix.lower() in CSV_SUFFIXES


def read_table(path: Path, renamed: Mapping[str, str] = NO_RENAMES) -> Iterator[TableRow]:
    """Each row of `path`; `renamed` maps our names to the file's where the aliases do not.

    CSV by comma, semicolon or tab, whichever the header holds most of. Raises `DataError` naming
    file, line and both sizes.
    """
    if is_table(path):
        return _csv_rows(path, renamed)
    if path.suffix.lower() in LINE_SUFFIXES:
        return _json_rows(path, renamed)
    raise DataError(f"{path}: give a .csv or .tsv file, or JSON lines in a .jsonl file")


def _csv_rows(path: Path, renamed: Mapping[str, str]) -> Iterator[TableRow]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield from _cells(path, file, renamed)
    except (OSError, UnicodeError, csv.Error) as error:
        raise DataError(f"cannot read {path}: {error}") from error


def _cells(path: Path, file: TextIO, renamed: Mapping[str, str]) -> Iterator[TableRow]:
    header_line = file.readline()
    file.seek(0)
    reader = csv.reader(file, delimiter=max(",;\t", key=header_line.count), strict=True)
    header = next(reader, [])
    names = our_names(str(path), header, renamed)
    for cells in reader:
        if not any(cell.strip() for cell in cells):
            continue
        place = f"{path}, line {reader.line_num}"
        if len(cells) != len(header):
            raise DataError(
                f"{place}: {len(cells)} cells, the header has {len(header)} (is a text with a "
                "comma not quoted?)"
            )
        row = dict(zip(header, cells, strict=True))
        yield TableRow(place, _present({ours: row[theirs] for ours, theirs in names.items()}))


def _json_rows(path: Path, renamed: Mapping[str, str]) -> Iterator[TableRow]:
    for number, row in json_objects(path):
        place = f"{path}, line {number}"
        names = our_names(place, list(row), renamed)
        yield TableRow(place, _present({ours: row[theirs] for ours, theirs in names.items()}))


def _present(cells: Mapping[str, Any]) -> dict[str, Any]:
    trimmed = {k: v.strip() if isinstance(v, str) else v for k, v in cells.items()}
    return {k: v for k, v in trimmed.items() if v is not None and v != ""}


def our_names(
    place: str, columns: Sequence[str], renamed: Mapping[str, str] = NO_RENAMES
) -> dict[str, str]:
    """Our name -> the file's column, for those of our columns the file has."""
    spelled = {_plain(column): column for column in reversed(columns)}
    found = {}
    for ours, aliases in ALIASES.items():
        if ours in renamed:
            if renamed[ours] not in columns:
                raise DataError(
                    f"{place} has no column {renamed[ours]!r} (it has: {', '.join(columns)})"
                )
            found[ours] = renamed[ours]
        else:
            name = next((name for name in (ours, *aliases) if name in spelled), None)
            if name is not None:
                found[ours] = spelled[name]
    return found


def _plain(column: str) -> str:
    return column.strip().lower().replace(" ", "_").replace("-", "_")
