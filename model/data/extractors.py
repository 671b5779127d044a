"""Recipe names: the extractor of a data set's vectors, as the inputs of predictions state it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

PRAAT_COLUMNS: Final = (
    "duration", "avg_intensity", "intensity_variation", "avg_pitch", "pitch_std", "pitch_range",
    "articulation_rate", "mean_hnr",
)  # fmt: skip
ACTION_UNITS: Final = (
    "AU01", "AU02", "AU04", "AU05", "AU06", "AU07", "AU09", "AU10", "AU12", "AU14", "AU15",
    "AU17", "AU20", "AU23", "AU25", "AU26", "AU45",
)  # fmt: skip
PRAAT: Final = "praat: " + " ".join(PRAAT_COLUMNS)
OPENFACE: Final = "openface-au-intensity-mean: " + " ".join(ACTION_UNITS)
SENTENCES: Final = "all-MiniLM-L6-v2"
SENTENCES_WIDTH: Final = 384


def recipes(
    name: str, meta: Mapping[str, Any], widths: Mapping[str, int], scaled: Iterable[str]
) -> dict[str, str]:
    """Return modality -> recipe of its vectors in the set `name`, by its meta file or by a name.

    `scaled` are the modalities of which the set has only z-scored columns.
    """
    stated = meta.get("extractors")
    named = dict(stated) if isinstance(stated, Mapping) else {}
    found = {m: str(named.get(m) or _recipe(name, meta, m, width)) for m, width in widths.items()}
    return found | {m: f"{found[m]} (z-scored)" for m in scaled if m not in named}


def _recipe(name: str, meta: Mapping[str, Any], modality: str, width: int) -> str:
    if modality == "text":
        # the usual 384-wide encoder of this format
        usual = SENTENCES if width == SENTENCES_WIDTH else f"{name}-text: {width} numbers"
        return str(meta.get("text_encoder") or usual).split(",")[0]
    if modality == "persona":
        return f"{name}-persona: five per-utterance traits"
    keys = ("audio",) if modality == "audio" else ("visual", "video")
    columns = tuple(next((meta[f"{k}_columns"] for k in keys if f"{k}_columns" in meta), ()))
    if columns == PRAAT_COLUMNS:
        return PRAAT
    if columns == ACTION_UNITS:
        return OPENFACE
    return f"{name}-{modality}: {width} numbers"
