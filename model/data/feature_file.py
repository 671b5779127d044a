"""Feature files: vectors of a table's rows, as `emotrack extract` writes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from model.atomic_files import write_whole
from model.data.arrays import matrix, measured, npz, read_arrays
from model.data.dataset import Floats
from model.errors import DataError

NAMES: Final = {"text": "text", "audio": "audio", "video": "video", "visual": "video",
                "persona": "persona"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class FeatureRows:
    """Vectors by modality: row i is the i-th utterance; a row of NaN is absent."""

    source: str
    vectors: Mapping[str, Floats]  # modality -> [rows, width]
    extractors: Mapping[str, str]  # modality -> recipe, where the file names it
    # modality -> name of each row, where its file has names: `model.data.feature_match` reads them
    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)  # modality -> its file

    @property
    def rows(self) -> int:
        return len(next(iter(self.vectors.values()), ()))

    def present(self, modality: str) -> NDArray[np.bool_]:
        """Return the rows that have a vector, [rows]."""
        return measured(self.vectors[modality])


def read_feature_rows(paths: Sequence[Path]) -> FeatureRows:
    """Read the arrays of one or several .npz files together (audio of one, video of another).

    Raises `DataError` when a file has none, two have the same, or their rows differ in number and
    have no names.
    """
    vectors: dict[str, Floats] = {}
    origin: dict[str, Path] = {}
    extractors, names = {}, {}
    for path in paths:
        arrays = read_arrays(path)
        known = {key: modality for key, modality in NAMES.items() if key in arrays}
        if not known:
            raise DataError(
                f"{path} holds none of {', '.join(NAMES)} (it has: {', '.join(arrays) or '-'})"
            )
        for key, modality in known.items():
            if modality in vectors:
                raise DataError(f"both {origin[modality]} and {path} hold {modality}: give one")
            vectors[modality], origin[modality] = matrix(path, key, arrays[key]), path
            if f"{key}_extractor" in arrays:
                extractors[modality] = str(arrays[f"{key}_extractor"])
            if "name" in arrays:
                names[modality] = _names(path, arrays["name"], len(vectors[modality]))
    source = ", ".join(str(path) for path in paths)
    first, *others = vectors
    for modality in others:
        if modality in names or first in names:
            continue
        if len(vectors[modality]) != len(vectors[first]):
            raise DataError(
                f"{origin[modality]}: `{modality}` has {len(vectors[modality])} rows, `{first}` "
                f"of {origin[first]} has {len(vectors[first])}: row i is the i-th utterance in both"
            )
    files = {modality: str(path) for modality, path in origin.items()}
    return FeatureRows(source, vectors, extractors, names, files)


def _names(path: Path, names: NDArray[Any], rows: int) -> tuple[str, ...]:
    if names.ndim != 1 or len(names) != rows:
        raise DataError(
            f"{path}: `name` has the shape {list(names.shape)}, the vectors have {rows} rows: "
            "give one name a row, or leave it out"
        )
    return tuple(map(str, names.tolist()))


def write_feature_rows(
    path: Path, modality: str, names: Sequence[str], vectors: NDArray[Any], extractor: str
) -> None:
    """Write a feature file atomically: `modality`, `name` and the recipe. Raises `OSError`."""
    arrays = {modality: vectors, "name": np.array(names)}
    arrays[f"{modality}_extractor"] = np.array(extractor)
    write_whole(path.parent, {path.name: npz(arrays)})
