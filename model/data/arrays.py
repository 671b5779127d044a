"""The files of a data-set folder, opened and checked one by one: arrays, lines, meta.

What is checked here needs one file only; `model.data.reader` fits them together.
"""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TextIO
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from model.errors import DataError

Arrays = Mapping[str, NDArray[Any]]

# A truncated or hostile archive shows itself as any of these (MemoryError: a size nobody has).
UNREADABLE: Final = (OSError, ValueError, EOFError, KeyError, BadZipFile, zlib.error, MemoryError)


def the_set_in(folder: Path) -> str:
    """Name of the only set in `folder`, or of MELD among several."""
    found = sorted(p.name.removesuffix("_meta.json") for p in folder.glob("*_meta.json"))
    if not found:
        raise DataError(
            f"no data set in {folder}: expected <set>_meta.json, <set>_dialogues.jsonl.gz and "
            "<set>_features.npz (give the folder with --data, or set EMOTRACK_DATA)"
        )
    if len(found) > 1 and "meld" not in found:
        raise DataError(f"{folder} holds several sets ({', '.join(found)}): name one with --set")
    return "meld" if "meld" in found else found[0]


def read_meta(path: Path) -> dict[str, Any]:
    """The meta file; its ``labels`` are at least one, each a name of its own."""
    try:
        meta = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"cannot read {path}: {error}") from error
    labels = meta.get("labels") if isinstance(meta, dict) else None
    if not isinstance(labels, list) or not labels:
        raise DataError(f'{path} names no labels: it needs "labels": ["…", "…"] in index order')
    for label in labels:
        if not isinstance(label, str) or not label.strip() or labels.count(label) > 1:
            raise DataError(f"{path}: label {label!r} is no name of its own (labels: {labels})")
    return dict(meta)


def meta_numbers(path: Path, meta: Mapping[str, Any], key: str, width: int) -> NDArray[np.float32]:
    """The list `key` of a meta file as `width` finite numbers."""
    try:
        numbers = np.asarray(meta[key], np.float32)
    except (TypeError, ValueError) as error:
        raise DataError(f"{path}: `{key}` is no list of numbers: {error}") from error
    if numbers.shape != (width,):
        raise DataError(f"{path}: `{key}` has shape {numbers.shape}, its array has {width} columns")
    if not np.isfinite(numbers).all():
        raise DataError(
            f"{path}: `{key}` holds NaN or Inf at column {_first(~np.isfinite(numbers))}"
        )
    return numbers


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Every array of an .npz; nothing is unpickled."""
    try:
        # numpy leaves the file of a broken archive open when it opened it itself
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {key: archive[key] for key in archive.files}
    except TypeError as error:  # numpy.load gave a bare array
        raise DataError(f"cannot read {path}: it is no .npz archive of named arrays") from error
    except UNREADABLE as error:
        said = str(error) or type(error).__name__
        raise DataError(f"cannot read {path}: {said} (truncated, or no .npz?)") from error


def npz(arrays: Mapping[str, NDArray[Any]], *, compressed: bool = True) -> bytes:
    """The bytes of an .npz of these arrays."""
    file = io.BytesIO()
    save: Any = np.savez_compressed if compressed else np.savez
    save(file, allow_pickle=False, **arrays)
    return file.getvalue()


def matrix(path: Path, key: str, array: NDArray[Any]) -> NDArray[np.float32]:
    """[rows, width] as float32, NaN where nothing was measured; Inf is refused."""
    if array.ndim != 2 or array.shape[1] == 0:
        raise DataError(f"{path}: `{key}` has shape {array.shape}, expected [rows, width]")
    if array.dtype.kind not in "fiu":
        raise DataError(f"{path}: `{key}` holds {array.dtype}, expected numbers")
    with np.errstate(over="ignore"):
        values = array.astype(np.float32)
    infinite = np.isinf(values)
    if infinite.any():
        row, column = (int(i) for i in np.argwhere(infinite)[0])
        raise DataError(
            f"{path}: `{key}` row {row}, column {column} is {array[row, column]}, not a finite "
            "float32: a number that could not be measured is NaN"
        )
    return values


def measured(values: NDArray[np.float32]) -> NDArray[np.bool_]:
    """[rows]: whether anything of the row was measured."""
    return np.asarray((~np.isnan(values)).any(axis=1))


def mask(path: Path, key: str, array: NDArray[Any], rows: int) -> NDArray[np.bool_]:
    """[rows] of truth values."""
    if array.shape != (rows,) or array.dtype.kind not in "biu":
        raise DataError(
            f"{path}: `{key}` has shape {array.shape} of {array.dtype}, expected ({rows},) of bool"
        )
    return array.astype(np.bool_)


def read_lines(folder: Path, name: str) -> tuple[Path, Iterator[tuple[int, dict[str, Any]]]]:
    """The dialogues' file, gzipped or plain, and its (line number, object)."""
    path = folder / f"{name}_dialogues.jsonl.gz"
    plain = folder / f"{name}_dialogues.jsonl"
    if path.is_file() and plain.is_file():
        raise DataError(f"both {path} and {plain.name} are there: remove the one that is not meant")
    if plain.is_file():
        path = plain
    return path, json_objects(path)


def json_objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, object) of a file of JSON lines, gzipped if it is called so; blank ones not."""
    number = 0
    try:
        with _opened(path) as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, _object(path, number, line)
    except (OSError, UnicodeError, EOFError, zlib.error) as error:
        raise DataError(f"cannot read {path} after line {number}: {error}") from error


def _opened(path: Path) -> TextIO:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8")
    return path.open(encoding="utf-8-sig")


def _object(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}, line {number}: no JSON: {error}") from error
    if not isinstance(value, dict):
        raise DataError(f"{path}, line {number}: {type(value).__name__}, expected an object {{…}}")
    return value


def same_rows(path: Path, arrays: Arrays, keys: Sequence[str]) -> int:
    """The number of rows all of `keys` have."""
    sizes = {key: arrays[key].shape[0] if arrays[key].ndim else 0 for key in keys}
    first = keys[0]
    for key, size in sizes.items():
        if size != sizes[first]:
            raise DataError(
                f"{path}: `{first}` has {sizes[first]} rows, but `{key}` has {size}: row i of "
                "every array is the same utterance"
            )
    return sizes[first]


def _first(bad: NDArray[np.bool_]) -> int:
    return int(np.flatnonzero(bad)[0])
