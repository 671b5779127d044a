"""The files of a data-set folder, opened and checked one by one: arrays, lines, meta.

Each check here needs one file only; `model.data.reader` compares the files.
"""

from __future__ import annotations

import gzip
import io
import json
import shlex
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from model.data.dataset import SENTIMENTS
from model.errors import DataError

Arrays = Mapping[str, NDArray[Any]]

# A truncated or hostile archive raises any of these (MemoryError: an absurd size).
UNREADABLE: Final = (OSError, ValueError, EOFError, KeyError, BadZipFile, zlib.error, MemoryError)


def sets_in(folder: Path) -> list[str]:
    """Return the names of the sets in `folder`, in order."""
    return sorted(p.name.removesuffix("_meta.json") for p in folder.glob("*_meta.json"))


def the_set_in(folder: Path) -> str:
    """Return the name of the only set in `folder`, or MELD's among several."""
    found = sets_in(folder)
    if not found:
        raise DataError(
            f"no data set in {folder}: expected <set>_meta.json, <set>_dialogues.jsonl.gz and "
            "<set>_features.npz (give the folder with --data, or set EMOTRACK_DATA)"
        )
    if len(found) > 1 and "meld" not in found:
        raise DataError(f"{folder} holds several sets ({', '.join(found)}): name one with --set")
    return "meld" if "meld" in found else found[0]


def read_meta(path: Path) -> dict[str, Any]:
    """Return the meta file, with one or more ``labels``, each a different name."""
    try:
        meta = json.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        name, folder = path.name.removesuffix("_meta.json"), path.parent
        found = sets_in(folder)
        there = f"it holds {', '.join(found)}" if found else "it holds no set"
        if not folder.is_dir():
            there = "there is no such folder"
        raise DataError(f"no set {name} in {folder}: {there}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"cannot read {path}: {error}") from error
    labels = meta.get("labels") if isinstance(meta, dict) else None
    if not isinstance(labels, list) or not labels:
        raise DataError(f'{path} names no labels: it needs "labels": ["…", "…"] in index order')
    for label in labels:
        if not isinstance(label, str) or not label.strip() or labels.count(label) > 1:
            raise DataError(f"{path}: label {label!r} is no name of its own (labels: {labels})")
    return dict(meta)


def meta_sentiment(path: Path, meta: Mapping[str, Any]) -> dict[str, str]:
    """Return the sentiments that a meta file states, by label; of some labels or of all."""
    stated = meta.get("sentiment", {})
    if not isinstance(stated, dict):
        raise DataError(f'{path}: `sentiment` is {stated!r}, expected {{"label": "negative", …}}')
    for label, sentiment in stated.items():
        check_sentiment(f"{path}: `sentiment`", label, sentiment, meta["labels"])
    return stated


def check_sentiment(place: str, label: str, sentiment: Any, labels: Sequence[str]) -> None:
    """Raise `DataError` unless one of `labels` is given a sentiment."""
    if label not in labels:
        raise DataError(f"{place} names {label!r}, which is no label (labels: {', '.join(labels)})")
    if sentiment not in SENTIMENTS:
        raise DataError(f"{place} of {label!r} is {sentiment!r}: say {', '.join(SENTIMENTS)}")


def meta_numbers(path: Path, meta: Mapping[str, Any], key: str, width: int) -> NDArray[np.float32]:
    """Return the list `key` of a meta file as `width` finite numbers."""
    try:
        numbers = np.asarray(meta[key], np.float32)
    except (TypeError, ValueError) as error:
        raise DataError(f"{path}: `{key}` is no list of numbers: {error}") from error
    if numbers.shape != (width,):
        raise DataError(f"{path}: `{key}` has shape {numbers.shape}, its array has {width} columns")
    bad = np.flatnonzero(~np.isfinite(numbers))
    if len(bad):
        raise DataError(f"{path}: `{key}` holds NaN or Inf at column {bad[0]}")
    return numbers


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Return every array of an .npz; nothing is unpickled."""
    try:
        # numpy leaves the file of a broken archive open when it opened it itself
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {key: archive[key] for key in archive.files}
    except TypeError as error:  # numpy.load returned a bare array
        raise DataError(f"cannot read {path}: it is no .npz archive of named arrays") from error
    except UNREADABLE as error:
        message = str(error) or type(error).__name__
        raise DataError(f"cannot read {path}: {message} (truncated, or no .npz?)") from error


def npz(arrays: Mapping[str, NDArray[Any]], *, compressed: bool = True) -> bytes:
    """Return the bytes of an .npz of these arrays."""
    file = io.BytesIO()
    save: Any = np.savez_compressed if compressed else np.savez
    save(file, allow_pickle=False, **arrays)
    return file.getvalue()


def matrix(path: Path, key: str, array: NDArray[Any]) -> NDArray[np.float32]:
    """Return [rows, width] as float32, NaN where nothing was measured; Inf is refused."""
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
    """Return [rows], true where any number of the row was measured."""
    return np.asarray((~np.isnan(values)).any(axis=1))


def dialogues_file(folder: Path, name: str) -> Path:
    """Return the path of the dialogues, gzipped or plain. Raises `DataError` where both exist."""
    path = folder / f"{name}_dialogues.jsonl.gz"
    plain = folder / f"{name}_dialogues.jsonl"
    if path.is_file() and plain.is_file():
        raise DataError(f"both {path} and {plain.name} are there: remove the one that is not meant")
    return plain if plain.is_file() else path


def json_objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line number, object) of JSON lines, gzipped if named .gz; skip blank lines."""
    number = 0
    try:
        package, encoding = (gzip, "utf-8") if path.suffix == ".gz" else (io, "utf-8-sig")
        with package.open(path, "rt", encoding=encoding) as file:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                try:
                    value = json.loads(line)
                except (ValueError, RecursionError) as error:
                    raise DataError(f"{path}, line {number}: no JSON: {error}") from error
                if not isinstance(value, dict):
                    kind = type(value).__name__
                    raise DataError(f"{path}, line {number}: {kind}, expected an object {{…}}")
                yield number, value
    except UnicodeDecodeError as error:
        raise DataError(not_utf8(path)) from error
    except (OSError, UnicodeError, EOFError, zlib.error) as error:
        raise DataError(f"cannot read {path} after line {number}: {error}") from error


def not_utf8(path: Path) -> str:
    """Return a sentence on a text file that is not UTF-8: the line, and the cure."""
    content, file, new = path.read_bytes(), shlex.quote(str(path)), f"new{''.join(path.suffixes)}"
    if path.suffix == ".gz":
        content = gzip.decompress(content)
    wide = content[:2] in (b"\xff\xfe", b"\xfe\xff")
    convert = f"iconv -f {'UTF-16' if wide else 'WINDOWS-1252'} -t UTF-8"
    command = f"{convert} {file} > {new}"
    if path.suffix == ".gz":
        command = f"gzip -dc {file} | {convert} | gzip > {new}"
    cure = (
        "save the file as UTF-8 (“CSV UTF-8” in a spreadsheet), or convert it from the encoding it "
        f"has, for instance: {command}"
    )
    if wide:
        return f"{path} is UTF-16, not UTF-8: {cure}"
    try:
        content.decode("utf-8")
    except UnicodeDecodeError as error:
        line, byte = content.count(b"\n", 0, error.start) + 1, content[error.start]
        return f"{path}, line {line}: byte 0x{byte:02x} is not UTF-8: {cure}"
    return f"{path} is not UTF-8: {cure}"


def same_rows(path: Path, arrays: Arrays, keys: Sequence[str]) -> int:
    """Return the number of rows of all `keys`. Raises `DataError` where they differ."""
    sizes = {key: arrays[key].shape[0] if arrays[key].ndim else 0 for key in keys}
    first = keys[0]
    for key, size in sizes.items():
        if size != sizes[first]:
            raise DataError(
                f"{path}: `{first}` has {sizes[first]} rows, but `{key}` has {size}: row i of "
                "every array is the same utterance"
            )
    return sizes[first]
