"""Utterances of a CSV file, and the vectors of a feature file, attached to them row by row."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from model.data.feature_file import FeatureRows
from model.data.feature_match import RowKey, matched, row_keys
from model.data.table import TableRow, read_table
from model.errors import DataError
from model.interface import MODALITIES
from stream.client.file_kind import require_table
from stream.client.repeats import Placed
from stream.errors import SourceError
from stream.events.decode import pack, parse, vectors_of
from stream.events.messages import PERSONA_SIZE, Features, FeatureVector, PackedTensor, Utterance
from stream.events.poison import Rejected
from stream.events.recognise import nearest

NUMBERS: Final = ("seq", "start_ms", "end_ms")
NEEDED: Final = ("conversation_id", "speaker_id")
COLUMNS_SHOWN: Final = 12
NOT_SENT: Final = ("emotion", "sentiment", "split")  # of a data set: no live utterance has them


def csv_utterances(path: Path) -> Iterator[Placed]:
    """Yield each row as an utterance, numbered in its conversation if there are no utterance ids.

    Raises `SourceError` naming the line.
    """
    counts: Counter[str] = Counter()
    try:
        require_table(path)
        for row in read_table(path):
            if missing := [name for name in NEEDED if name not in row.cells]:
                raise SourceError(f"{row.place}: {_missing(missing, path)}")
            conversation = row.cells["conversation_id"]
            yield row.place, _utterance(row, counts[conversation])
            counts[conversation] += 1
    except DataError as error:
        raise SourceError(str(error)) from error
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror}. Give a .csv") from error


def keys_of(path: Path) -> list[RowKey]:
    """Return what names each row of a table, for vectors. Raises `SourceError`."""
    try:
        return list(row_keys(row.cells for row in read_table(path)))
    except DataError as error:
        raise SourceError(str(error)) from error


def keys_of_lines(lines: Iterable[bytes]) -> list[RowKey]:
    """Return what names each JSON line, for vectors; what cannot be read is found when it is."""
    cells: list[dict[str, Any]] = []
    for line in lines:
        if line.strip():
            try:
                event = json.loads(line)
            except (ValueError, RecursionError):
                event = {}
            cells.append(event if isinstance(event, dict) else {})
    return list(row_keys(cells))


def in_their_order(features: FeatureRows, keys: Sequence[RowKey]) -> tuple[FeatureRows, list[str]]:
    """Return the vectors in the order of the utterances, and warnings. Raises `SourceError`."""
    warnings: list[str] = []
    try:
        return matched(features, keys, warnings.append), warnings
    except DataError as error:
        raise SourceError(str(error)) from error


def _missing(missing: Sequence[str], path: Path) -> str:
    """Return a sentence about cells that a row lacks: the columns that are there, the nearest."""
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        line = file.readline()
    columns = [name.strip(' "\r\n') for name in line.split(max(",;\t", key=line.count))]
    renames = [f"{other!r} to {name}" for name in missing if (other := nearest(name, columns))]
    cure = (
        f"rename {', '.join(renames)}"
        if renames
        else f"every utterance needs it, so name a column {' and one '.join(missing)}"
    )
    listed = ", ".join(map(repr, columns[:COLUMNS_SHOWN]))
    return f"no {' and no '.join(missing)} in this row: {cure}. The file has the columns {listed}"


def _utterance(row: TableRow, number: int) -> Utterance:
    event: dict[str, Any] = {"utterance_id": str(number), **row.cells}
    for name in NOT_SENT:
        event.pop(name, None)
    for name in NUMBERS:
        if name in event:
            event[name] = _number(event[name])
    try:
        return parse(json.dumps(event).encode(), "json")
    except Rejected as error:
        raise SourceError(f"{row.place}: {error.poison.sentence}") from None


def _number(cell: str) -> int | float | str:
    """Return a cell's number, as pandas writes it ("3.0"), too; else the cell, to be left out."""
    try:
        return int(cell)
    except ValueError:
        pass
    try:
        return float(cell)
    except ValueError:
        return cell


def require_sendable(features: FeatureRows, lines: int | None, name: str) -> None:
    """Raise `SourceError` unless there is a row for each of `lines` and none is NaN in part.

    A row of NaN alone is an absent vector, which is allowed. `lines` is None if not yet known.
    """
    if lines is not None and lines != features.rows:
        raise SourceError(_uneven(features, name, str(lines)))
    for modality, values in features.vectors.items():
        holes = np.argwhere(np.isnan(values) & features.present(modality)[:, None])
        if len(holes):
            row, column = holes[0].tolist()
            raise SourceError(
                f"{features.source}: `{modality}` row {row}, column {column} is NaN: put the "
                "checkpoint's train mean there (`emotrack extract` does, with --fill-from shipped)"
            )
    persona = features.vectors.get("persona")
    if persona is not None and persona.shape[1] != PERSONA_SIZE:
        raise SourceError(
            f"{features.source}: `persona` has {persona.shape[1]} numbers, a persona {PERSONA_SIZE}"
        )


def attached(
    utterances: Iterable[Utterance], features: FeatureRows, name: str
) -> Iterator[Utterance]:
    """Yield the i-th utterance with the i-th row of each array.

    Raises `SourceError` for a vector that an utterance already carries, and if there are more
    utterances than rows or fewer.
    """
    count = 0
    for count, utterance in enumerate(utterances, start=1):
        if count > features.rows:
            raise SourceError(_uneven(features, name, f"{count} or more"))
        yield _with_row(utterance, features, count - 1, name)
    if count < features.rows:
        raise SourceError(_uneven(features, name, str(count)))


def _uneven(features: FeatureRows, name: str, lines: str) -> str:
    return (
        f"{features.source} has {features.rows} rows, {name} has {lines} utterances: row i of the "
        "vectors belongs to the i-th utterance"
    )


def _with_row(utterance: Utterance, features: FeatureRows, row: int, name: str) -> Utterance:
    carried = vectors_of(utterance)
    vectors = dict(carried)
    for modality in MODALITIES:
        if modality not in features.vectors or not features.present(modality)[row]:
            continue
        if modality in carried:
            raise SourceError(
                f"utterance {row + 1} of {name} carries `{modality}`, and so does row {row} of "
                f"{features.source}: give one of them"
            )
        packed = pack_exactly(features.vectors[modality][row])
        vectors[modality] = FeatureVector(packed, features.extractors.get(modality))
    persona = utterance.persona
    if "persona" in features.vectors and features.present("persona")[row]:
        persona = [float(number) for number in features.vectors["persona"][row]]
    return msgspec.structs.replace(
        utterance, features=Features(**vectors) if vectors else None, persona=persona
    )


def pack_exactly(values: NDArray[np.float32]) -> PackedTensor:
    """Return float16 if it loses nothing (sentence vectors are stored so), else float32.

    Raw pitch near 300 Hz has steps of 0.25 in float16: not the number the model was trained on.
    """
    with np.errstate(over="ignore"):
        half = values.astype(np.float16)
    lossless = bool((half.astype(np.float32) == values).all())
    return pack(half, "float16") if lossless else pack(values, "float32")
