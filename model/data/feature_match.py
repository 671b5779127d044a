"""Find the utterance of each row of a feature file: by its name, else by order.

A row's name is compared with the utterance's `clip` (a column of the table, for sound and video;
folders and suffix do not matter), its `utterance_id`, both ids (`call-7_u3`, `call-7-u3`) and its
place in the table.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import PurePath
from typing import Any, Final, NamedTuple

import numpy as np

from model.data.dataset import Floats
from model.data.feature_file import FeatureRows
from model.errors import DataError

_DIGITS: Final = re.compile(r"(\d+)")
_SHOWN: Final = 3
OF_CLIPS: Final = ("audio", "video")  # sentences are named by the ids of the table


class RowKey(NamedTuple):
    """The names of an utterance of a table."""

    conversation: str
    utterance: str
    clip: str | None = None


def row_keys(cells: Iterable[Mapping[str, Any]]) -> Iterator[RowKey]:
    """Yield the key of each row's cells, by our names; without an id its place is the id."""
    places: Counter[str] = Counter()
    for row in cells:
        conversation = str(row.get("conversation_id"))
        clip = row.get("clip")
        utterance = str(row.get("utterance_id", places[conversation]))
        yield RowKey(conversation, utterance, None if clip is None else str(clip))
        places[conversation] += 1


def matched(
    features: FeatureRows, keys: Sequence[RowKey], warn: Callable[[str], None] = lambda _: None
) -> FeatureRows:
    """Return the rows in the order of the utterances; absent where an utterance has none.

    A file whose rows have no names is taken in its order. So is one whose names are of no
    utterance, with a warning, unless they contradict it. Raises `DataError` where they do, and
    where some names are an utterance's and some are not.
    """
    vectors = dict(features.vectors)
    told: set[str] = set()

    def once(sentence: str) -> None:  # several modalities may be of one file
        if sentence not in told:
            told.add(sentence)
            warn(sentence)

    for modality, names in features.names.items():
        known = keys if modality in OF_CLIPS else [key._replace(clip=None) for key in keys]
        places = _places(features.files[modality], names, known, once)
        if places is not None:
            vectors[modality] = _placed(features.vectors[modality], places)
    for modality, values in vectors.items() if features.names else ():
        if len(values) != len(keys):
            raise DataError(
                f"{features.files.get(modality, features.source)} has {len(values)} rows, the "
                f"conversations have {len(keys)} utterances: row i of the vectors belongs to the "
                "i-th utterance, where a name does not tell: add a column `clip` with the names"
            )
    return replace(features, vectors=vectors, names={})


def _placed(values: Floats, places: Sequence[int | None]) -> Floats:
    """Return row `places[i]` as the i-th, NaN for None."""
    found = np.full((len(places), values.shape[1]), np.nan, np.float32)
    for i, place in enumerate(places):
        if place is not None:
            found[i] = values[place]
    return found


def _places(
    file: str, names: Sequence[str], keys: Sequence[RowKey], warn: Callable[[str], None]
) -> list[int | None] | None:
    """Return the row of each utterance, None to take the rows in their order."""
    forms = [_names_of(i, key) for i, key in enumerate(keys)]
    if len(names) == len(keys) and all(n in form for n, form in zip(names, forms, strict=True)):
        return None  # the names are those of the order
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        if any(name in form for name in twice for form in forms):
            raise DataError(
                f"{file} has the name {twice[0]!r} more than once, so its rows belong to no one "
                "utterance each: give each clip a name of its own, as in a column `clip`"
            )
    elif (by_name := _best(names, keys)) is not None:
        return _by_name(file, names, keys, by_name, warn)
    _require_no_contradiction(file, names)
    if len(names) == len(keys):
        warn(
            f"{file}: its names ({_listed(names)}) are no utterance ids, and there is no column "
            "`clip` with them: row i is taken for the i-th utterance. Add the column `clip` to be "
            "sure"
        )
    return None


def _names_of(place: int, key: RowKey) -> tuple[str, ...]:
    """Return the names under which an utterance's row may be: those of its clip, else its ids."""
    return _clip(key) or (key.utterance, *_both(key), str(place))


def _clip(key: RowKey) -> tuple[str, ...]:
    if not key.clip:
        return ()
    name = PurePath(key.clip.replace("\\", "/")).name
    return tuple(dict.fromkeys((key.clip, name, PurePath(name).stem)))


def _both(key: RowKey) -> tuple[str, ...]:
    return tuple(f"{key.conversation}{mark}{key.utterance}" for mark in "_-")


def _best(names: Sequence[str], keys: Sequence[RowKey]) -> dict[str, int] | None:
    """Return the utterance of each name, by the kind of name that knows most; None by none."""
    kinds: list[Callable[[RowKey], tuple[str, ...]]] = [_clip, lambda key: (key.utterance,), _both]
    best: dict[str, int] | None = None
    most = 0
    for kind in kinds:
        counts = Counter(name for key in keys for name in kind(key))
        of = {n: i for i, key in enumerate(keys) for n in kind(key) if counts[n] == 1}
        if (known := sum(name in of for name in names)) > most:
            best, most = of, known
    return best


def _by_name(
    file: str,
    names: Sequence[str],
    keys: Sequence[RowKey],
    of: Mapping[str, int],
    warn: Callable[[str], None],
) -> list[int | None]:
    if strangers := [name for name in names if name not in of]:
        raise DataError(
            f"{file}: {len(names) - len(strangers)} of its {len(names)} names are those of an "
            f"utterance, and {_listed(strangers)} of none: add a column `clip` with the name of "
            "each utterance's clip, or leave these clips out"
        )
    places: list[int | None] = [None] * len(keys)
    for row, name in enumerate(names):
        if (other := places[of[name]]) is not None:
            raise DataError(f"{file}: {names[other]!r} and {name!r} name one utterance: give one")
        places[of[name]] = row
    if without := places.count(None):
        first = keys[places.index(None)]
        warn(
            f"{file}: {without} of {len(keys)} utterances have no row of their name, so they have "
            f"none of its vectors (first: {first.utterance!r} of {first.conversation!r})"
        )
    return places


def _require_no_contradiction(file: str, names: Sequence[str]) -> None:
    """Raise `DataError` where numbers stand in the order of texts: 0, 1, 10, 11, 2."""
    by_number = sorted(names, key=_number_parts)
    if list(names) == sorted(names) and by_number != list(names):
        i = next(i for i, (a, b) in enumerate(zip(names, by_number, strict=True)) if a != b)
        raise DataError(
            f"{file}: its names are numbers that were sorted as text (row {i} is {names[i]!r}, by "
            f"number it would be {by_number[i]!r}), so row i is not the i-th utterance: add a "
            "column `clip` with the name of each utterance's clip, or extract them again in order, "
            "as in `emotrack extract audio $(ls -v clips/*.wav)`"
        )


def _number_parts(name: str) -> list[tuple[int, int, str]]:
    """Return a key that sorts texts with their numbers as numbers."""
    return [
        (0, int(part), "") if part.isdecimal() else (1, 0, part)
        for part in _DIGITS.split(name)
        if part
    ]


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(map(repr, names[:_SHOWN]))
    return f"{shown} and {len(names) - _SHOWN} more" if len(names) > _SHOWN else shown
