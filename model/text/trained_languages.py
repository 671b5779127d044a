"""The languages that a training states in its checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from model.errors import DataError
from model.text.languages import Judge, Languages
from model.text.sentence_encoder import INSTALLED

CHECKED: Final = 1_000  # sentences of a training set
MOST_OUTSIDE: Final = 0.2  # share of them


def trained_languages(
    stated: str | None, encoder: str, sentences: Sequence[str]
) -> Languages | None:
    """Return what a training on these sentences states: the languages named, or the encoder's.

    `stated` are codes with commas between them, `encoder` the name of the recipe of its text. None
    where no language is known. Raises `RecipeError` for what is no language, and `DataError` where
    more than a fifth of the sentences are in others.
    """
    english = encoder.startswith(INSTALLED) and bool(sentences)
    names = stated.split(",") if stated is not None else ["en"] if english else []
    if not names:
        return None
    languages = Languages.of(names)
    sample = sentences[:: 1 + len(sentences) // CHECKED]
    judge = Judge(languages)
    outside = sum(judge.doubt(text, None) == "language" for text in sample)
    if outside > MOST_OUTSIDE * len(sample):
        raise DataError(
            f"{100 * outside / len(sample):.0f} % of the train sentences are not in "
            f"{', '.join(languages.known)}: name the languages of the set with --languages, and an "
            "encoder that reads them with --encoder"
        )
    return languages
