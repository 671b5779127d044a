"""Utterances as a script has them, read as a worker reads them from a record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import numpy as np

from model.data.table import ALIASES
from model.interface import MODALITIES, ModelInfo
from stream.errors import InvalidUtterance
from stream.events.decode import check, pack, parse
from stream.events.messages import (
    Features,
    FeatureVector,
    FlaggedUtterance,
    PackedTensor,
    Utterance,
    encode,
)
from stream.events.poison import Reason, Rejected
from stream.events.recognise import nearest

Spoken = Mapping[str, Any] | Utterance
"""One utterance: `speaker`, and `text` or any of the vectors `audio`, `video`, `text`.

`persona`, `language`, `seq`, `utterance_id`, `end_of_conversation` and the other fields of an
utterance event may be there. `text` is a sentence or a vector; a vector is a list of numbers or
an array. The names that a table's columns may have will do. None and NaN are absent.
"""

_FIELDS: Final = frozenset(Utterance.__struct_fields__)
# Our name, then other names of it, as in a table; an utterance has no label and no split.
_NAMES: Final[Mapping[str, tuple[str, ...]]] = {
    **{name: () for name in (*Utterance.__struct_fields__, "audio")},
    **{name: ALIASES[name] for name in ALIASES if name in _FIELDS},
    "video": ("visual",),
}
_MEANT: Final = ("text", "audio", "video", "persona", "language")  # a typing error loses them


@dataclass(frozen=True, slots=True)
class Ids:
    """The ids of an utterance that has none of its own."""

    conversation: str = "conversation"
    utterance: str = "0"


def utterance_of(spoken: Spoken, ids: Ids, info: ModelInfo) -> Utterance:
    """Return what a worker of this model would read. Raises `InvalidUtterance`, as it refuses."""
    place = f"utterance {ids.utterance} of {ids.conversation}"
    if isinstance(spoken, Utterance):
        place, event = f"utterance {spoken.utterance_id!r} of {spoken.conversation_id!r}", spoken
    elif isinstance(spoken, Mapping):
        event = _event(spoken, ids, place)
    else:
        raise _wrong(place, f"is of {type(spoken).__name__}: give a dict or an `Utterance`")
    try:
        if isinstance(event, FlaggedUtterance):  # read from a file: its flags are not sent
            read: Utterance = event
        else:
            read = parse(encode(event, "msgpack"), "msgpack")  # as from the wire: types, flags
        check(read, info.inputs, info.own_extractors)
    except Rejected as met:
        raise InvalidUtterance(met.poison.reason.value, f"{place}: {met.poison.sentence}") from None
    except (TypeError, ValueError, OverflowError) as error:
        raise _wrong(place, f"cannot be sent: {error}") from None
    return read


def _event(spoken: Mapping[str, Any], ids: Ids, place: str) -> Utterance:
    cells = _cells(spoken, place)
    vectors: dict[str, FeatureVector] = _features(cells.pop("features", None), place)
    for modality in MODALITIES:
        if modality in cells and not isinstance(cells[modality], str):
            if modality in vectors:
                raise _wrong(place, f"has `{modality}` twice: beside and in `features`")
            vectors[modality] = _vector(cells.pop(modality), f"{place}: `{modality}`")
    if "persona" in cells:
        cells["persona"] = _floats(cells["persona"], f"{place}: `persona`").tolist()
    named = {"conversation_id": ids.conversation, "utterance_id": ids.utterance}
    fields = named | {name: cells[name] for name in cells if name in _FIELDS}
    if "speaker_id" not in fields:
        other = nearest("speaker_id", list(spoken)) or nearest("speaker", list(spoken))
        cure = f"rename {other!r}" if other else f"it has {', '.join(map(repr, spoken)) or 'none'}"
        raise _wrong(place, f"has no `speaker`: {cure}")
    for name in ("conversation_id", "utterance_id", "speaker_id"):
        if isinstance(fields[name], int) and not isinstance(fields[name], bool):
            fields[name] = str(fields[name])
    return Utterance(**fields, features=Features(**vectors) if vectors else None)


def _cells(spoken: Mapping[str, Any], place: str) -> dict[str, Any]:
    """Return what is there by our names; other columns of a table are left out.

    Raises `InvalidUtterance` for one that may be a typing error.
    """
    spelled = {str(key).strip().lower().replace(" ", "_").replace("-", "_"): key for key in spoken}
    cells: dict[str, Any] = {}
    known: set[Any] = set()
    for ours, aliases in _NAMES.items():
        names = [name for name in (ours, *aliases) if name in spelled]
        known.update(spelled[name] for name in names)
        value = spoken[spelled[names[0]]] if names else None
        if not (value is None or _is_nan(value) or _is_blank(value)):
            cells[ours] = value.item() if isinstance(value, np.generic) else value
    others = [key for key in spoken if key not in known]
    for name in _MEANT:
        if name not in cells and (other := nearest(name, others)):
            raise _wrong(place, f"has {other!r}: rename it to {name!r}, or leave it out")
    return cells


def _is_nan(value: Any) -> bool:
    if isinstance(value, float | np.floating):
        return bool(np.isnan(value))
    return type(value).__name__ in ("NAType", "NaTType")  # of pandas, which need not be installed


def _is_blank(value: Any) -> bool:
    return isinstance(value, str) and not value.strip()


def _features(value: Any, place: str) -> dict[str, FeatureVector]:
    if value is None:
        return {}
    if isinstance(value, Features):
        value = {m: getattr(value, m) for m in MODALITIES}
    if not isinstance(value, Mapping) or (unknown := set(value) - set(MODALITIES)):
        named = f" (it has {', '.join(map(repr, unknown))})" if isinstance(value, Mapping) else ""
        raise _wrong(place, f"has `features` that are no dict of text, audio, video{named}")
    return {
        str(m): _vector(vector, f"{place}: `features.{m}`")
        for m, vector in value.items()
        if vector is not None
    }


def _vector(value: Any, place: str) -> FeatureVector:
    """Return numbers, or a vector in the form of an event, as one that may be sent."""
    if isinstance(value, FeatureVector):
        return value
    extractor = None
    if isinstance(value, Mapping):
        value, extractor = value.get("tensor"), value.get("extractor")
    if isinstance(value, PackedTensor):
        return FeatureVector(value, extractor)
    if isinstance(value, Mapping):
        try:
            return FeatureVector(msgspec.convert(value, PackedTensor), extractor)
        except msgspec.ValidationError as error:
            raise _wrong(place, f"is no packed tensor: {error}") from None
    return FeatureVector(pack(_floats(value, place)), extractor)


def _floats(value: Any, place: str) -> np.typing.NDArray[np.float32]:
    try:
        with np.errstate(over="ignore"):  # what becomes infinite is refused by `check`
            numbers = np.asarray(value).astype(np.float32)
    except (TypeError, ValueError):
        raise _wrong(place, "is no vector of numbers") from None
    if numbers.ndim != 1:
        raise _wrong(place, f"has the shape {list(numbers.shape)}: give one vector, shape [n]")
    return numbers


def _wrong(place: str, sentence: str) -> InvalidUtterance:
    return InvalidUtterance(Reason.WRONG_TYPE.value, f"{place} {sentence}")
