"""Label sets in the order of the weights, and the sentiment of each label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

MELD_LABELS: Final = ("neutral", "surprise", "fear", "sadness", "joy", "disgust", "anger")
IEMOCAP_LABELS: Final = ("happy", "sad", "neutral", "angry", "excited", "frustrated")

SENTIMENTS: Final = ("positive", "neutral", "negative")

# Surprise is of either sentiment; neutral raises no false alarm.
_LABELS_OF: Final[Mapping[str, tuple[str, ...]]] = {
    "positive": ("joy", "happy", "excited", "joyful", "peaceful", "powerful"),
    "negative": ("fear", "sadness", "disgust", "anger", "sad", "angry", "frustrated", "mad",
                 "scared"),
}  # fmt: skip


def sentiment_of(labels: tuple[str, ...]) -> dict[str, str]:
    """Map each label to its sentiment; an unknown label is neutral."""
    known = {label: sentiment for sentiment, names in _LABELS_OF.items() for label in names}
    return {label: known.get(label.lower(), "neutral") for label in labels}


def checked_sentiment(labels: Sequence[str], chosen: Mapping[str, str]) -> Mapping[str, str]:
    """Return the chosen sentiment of each label, else the usual one. Raises ValueError."""
    if len(labels) < 2 or len(set(labels)) != len(labels):
        raise ValueError(f"labels must be two or more different names, not {labels!r}")
    if chosen and set(chosen) != set(labels):
        raise ValueError("sentiment must name each label once")
    return chosen or sentiment_of(tuple(labels))
