"""py3langid's model of languages, cut down to the letters that it will read.

The package's own loader keeps 139 languages of all scripts (75 MiB) and writes a temporary file,
which a worker with a read-only root cannot. What is cut away here cannot be met by a text of the
letters given, so the scores are those of the whole model (a test compares them); 25 MiB are left.
"""

from __future__ import annotations

import hashlib
import lzma
from array import array
from collections.abc import Callable, Collection
from functools import lru_cache
from importlib.metadata import version
from io import BytesIO
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray
from py3langid.langid import MODEL_DIR, MODEL_FILE, LanguageIdentifier

PACKAGE: Final = "py3langid"
_DATA: Final = MODEL_DIR / MODEL_FILE
IsOther = Callable[[str], bool]


@lru_cache(maxsize=1)
def identity() -> str:
    """Return the identifier's name, version and a digest of its data."""
    data = hashlib.sha256(_DATA.read_bytes()).hexdigest()
    return f"{PACKAGE} {version(PACKAGE)}, data {data[:16]}"


class Identifier:
    """Tells known languages from others in text of the letters it was loaded for."""

    def __init__(self, model: LanguageIdentifier, known: Collection[str]) -> None:
        """Take a model of the languages `known`, one at least, and of others."""
        self._model, self._known = model, frozenset(known)

    @classmethod
    def load(cls, known: Collection[str], is_other: IsOther, letters: str) -> Self | None:
        """Load the model for text of `letters`, spaces and apostrophes: a second.

        It tells the languages `known` from those that `is_other` names. None where the model has
        none of one kind: nothing can be told apart.
        """
        alphabet = np.frombuffer(bytes(sorted(set((letters + " '").encode()))), np.uint8)
        with np.load(BytesIO(lzma.decompress(_DATA.read_bytes())), allow_pickle=False) as data:
            labels = data["classes"].tolist()
            chosen = [label for label in labels if label in known]
            others = [label for label in labels if label not in known and is_other(label)]
            if not chosen or not others:
                return None
            return cls(_cut(data, [*chosen, *others], alphabet), chosen)

    def margin(self, text: str) -> float:
        """Return by how much another language is likelier than each known one, in nats.

        The evidence of all n-grams of the text is added up: it grows with the text's length.
        """
        ranked = self._model.rank(text)  # the likeliest first
        known = next(score for name, score in ranked if name in self._known)
        return float(next(score for name, score in ranked if name not in self._known) - known)


def _cut(data: Any, chosen: list[str], alphabet: NDArray[np.uint8]) -> LanguageIdentifier:
    """Return the model of the chosen languages, with the states that the alphabet reaches."""
    moves, row_of = data["nextmove"].reshape(-1, 256), data["nextmove_row"]  # [rows, 256] [states]
    states = _reached(moves, row_of, alphabet)
    number = np.zeros(len(row_of), np.uint32)  # 0 where the alphabet does not lead
    number[states] = np.arange(len(states))
    rows, row_of = np.unique(row_of[states], return_inverse=True)
    moves = number[moves[rows]]
    features, feature_of = np.unique(data["out_feat"][states], return_inverse=True)
    nothing = int(features[0] < 0)  # -1: no feature ends in this state
    columns = [data["classes"].tolist().index(name) for name in chosen]
    return LanguageIdentifier(
        data["ptc"][:, columns][features[nothing:]],
        data["pc"][columns],
        chosen,
        _array(moves),
        (feature_of - nothing).tolist(),
        tk_row=_array(row_of),
    )


def _reached(
    moves: NDArray[np.uint32], row_of: NDArray[np.uint16], alphabet: NDArray[np.uint8]
) -> NDArray[np.intp]:
    """Return the states that text of these bytes can reach, the first one first."""
    seen = np.zeros(len(row_of), bool)
    seen[0], front = True, np.zeros(1, np.intp)
    while len(front):
        after = np.unique(moves[row_of[front]][:, alphabet])
        front = after[~seen[after]].astype(np.intp)
        seen[front] = True
    return np.flatnonzero(seen)


def _array(values: NDArray[Any]) -> array[int]:
    """Return numbers as Python's own array, which the model reads faster."""
    small = values.max() < 1 << 16
    stored = array("H" if small else "I")
    stored.frombytes(np.ascontiguousarray(values, np.uint16 if small else np.uint32).tobytes())
    return stored
