"""Label sets in the order the weights know them, and what sentiment each label has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

MELD_LABELS: Final = ("neutral", "surprise", "fear", "sadness", "joy", "disgust", "anger")
IEMOCAP_LABELS: Final = ("happy", "sad", "neutral", "angry", "excited", "frustrated")

SENTIMENTS: Final = ("positive", "neutral", "negative")

# Surprise goes either way; neutral is the reading that raises no false alarm.
SENTIMENT: Final[Mapping[str, str]] = MappingProxyType(
    {
        "neutral": "neutral",
        "surprise": "neutral",
        "fear": "negative",
        "sadness": "negative",
        "joy": "positive",
        "disgust": "negative",
        "anger": "negative",
        "happy": "positive",
        "sad": "negative",
        "angry": "negative",
        "excited": "positive",
        "frustrated": "negative",
        "joyful": "positive",
        "mad": "negative",
        "peaceful": "positive",
        "powerful": "positive",
        "scared": "negative",
    }
)


def sentiment_of(labels: tuple[str, ...]) -> dict[str, str]:
    """Map each label to its sentiment; a label nobody has described is neutral."""
    return {label: SENTIMENT.get(label.lower(), "neutral") for label in labels}


def checked_sentiment(labels: Sequence[str], given: Mapping[str, str]) -> Mapping[str, str]:
    """Return the sentiment given of each label, else the usual one. Raises ValueError."""
    if len(labels) < 2 or len(set(labels)) != len(labels):
        raise ValueError(f"labels must be two or more different names, not {labels!r}")
    if given and set(given) != set(labels):
        raise ValueError("sentiment must name each label once")
    return given or sentiment_of(tuple(labels))
