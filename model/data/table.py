"""Utterances in a table: a CSV file or JSON lines, with column names in common use."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from model.data.arrays import json_objects, not_utf8
from model.errors import DataError

# Our name, then its aliases; case, spaces and dashes do not matter.
ALIASES: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "conversation_id": ("conversation", "dialogue_id", "dialogue", "dialog_id", "call_id",
                            "session_id", "thread_id", "chat_id"),
        "utterance_id": ("uid", "turn_id", "message_id", "turn"),
        "speaker_id": ("speaker", "speaker_name", "user", "author", "participant"),
        "text": ("utterance", "sentence", "transcript", "message"),
        "emotion": ("label",),
        "sentiment": (),
        "split": (),
        "seq": (),
        "start_ms": (),
        "end_ms": (),
        "speaker_role": ("role",),
        "event_time": ("timestamp",),
        "language": (),
        "clip": ("clip_id", "clip_name"),  # name of its sound or video: `feature_match`
    }
)  # fmt: skip
IDS: Final = ("conversation_id", "utterance_id", "speaker_id")
_ROUNDED: Final = re.compile(r"\d[.,]\d+E\+\d\d+")  # 1.23457E+17: how a spreadsheet shows an id
LONGEST_CELL: Final = 16 << 20  # Python's limit of 128 KiB is less than a record may have
CSV_SUFFIXES: Final = (".csv", ".tsv")
LINE_SUFFIXES: Final = (".jsonl", ".ndjson", ".gz")


@dataclass(frozen=True, slots=True)
class TableRow:
    """One utterance: its place in the file, and its non-empty cells by our names."""

    place: str
    cells: Mapping[str, Any]


def read_table(path: Path, renamed: Mapping[str, str] = MappingProxyType({})) -> Iterator[TableRow]:
    """Yield the rows of `path`; `renamed` maps our names to the file's where no alias fits.

    CSV is split by comma, semicolon or tab, the most frequent in the header. Raises `DataError`
    naming file, line and both sizes.
    """
    if path.suffix.lower() in CSV_SUFFIXES:
        return _csv_rows(path, renamed)
    if path.suffix.lower() in LINE_SUFFIXES:
        return _json_rows(path, renamed)
    raise DataError(f"{path}: give a .csv or .tsv file, or JSON lines in a .jsonl file")


def _csv_rows(path: Path, renamed: Mapping[str, str]) -> Iterator[TableRow]:
    csv.field_size_limit(LONGEST_CELL)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header_line = file.readline()
            file.seek(0)
            reader = csv.reader(file, delimiter=max(",;\t", key=header_line.count), strict=True)
            header = next(reader, [])
            names = _our_names(str(path), header, renamed)
            _require_once(path, header, names)
            for cells in reader:
                if not any(cell.strip() for cell in cells):
                    continue
                place = f"{path}, line {reader.line_num}"
                if len(cells) != len(header):
                    raise DataError(
                        f"{place}: {len(cells)} cells, the header has {len(header)} (is a text "
                        "with a comma not quoted?)"
                    )
                yield _row(place, dict(zip(header, cells, strict=True)), names)
    except UnicodeDecodeError as error:
        raise DataError(not_utf8(path)) from error
    except (OSError, UnicodeError, csv.Error) as error:
        raise DataError(f"cannot read {path}: {error}") from error


def _require_once(path: Path, header: Sequence[str], names: Mapping[str, str]) -> None:
    """Raise `DataError` where a column that is read is there twice: one of them would be lost."""
    if twice := sorted({theirs for theirs in names.values() if header.count(theirs) > 1}):
        raise DataError(
            f"{path}: the header has {', '.join(map(repr, twice))} more than once: rename or "
            "remove the columns that are not meant"
        )


def _json_rows(path: Path, renamed: Mapping[str, str]) -> Iterator[TableRow]:
    for number, row in json_objects(path):
        place = f"{path}, line {number}"
        yield _row(place, row, _our_names(place, list(row), renamed))


def _row(place: str, row: Mapping[str, Any], names: Mapping[str, str]) -> TableRow:
    cells = {ours: row[theirs] for ours, theirs in names.items()}
    trimmed = {k: v.strip() if isinstance(v, str) else v for k, v in cells.items()}
    for name in IDS:
        if isinstance(id := trimmed.get(name), str) and _ROUNDED.fullmatch(id):
            raise DataError(
                f"{place}: {name} {id!r} is a long number as a spreadsheet rounds it, so that "
                "different ids become one: take the ids from where they came from, and make the "
                "column text before a spreadsheet saves it"
            )
    return TableRow(place, {k: v for k, v in trimmed.items() if v is not None and v != ""})


def _our_names(place: str, columns: Sequence[str], renamed: Mapping[str, str]) -> dict[str, str]:
    """Return our name -> the file's column, for the columns that the file has."""
    spelled = {
        column.strip().lower().replace(" ", "_").replace("-", "_"): column
        for column in reversed(columns)
    }
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
