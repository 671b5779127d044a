"""The languages that a checkpoint states, and the judge of what is said in others. No torch.

A text outside of them still gets an answer, which abstains with the judge's reason. First the
stated language decides, then the script of the letters (Unicode's names), then an identifier.
"""

from __future__ import annotations

import hashlib
import re
import sys
import unicodedata
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from model.errors import RecipeError
from model.interface import Doubt
from model.text.identifier import Identifier, identity
from model.text.language_codes import code_of, codes

VERSION: Final = 1  # of the rules here: another number gives the same checkpoint another digest
# Nats of evidence for another language from which a text is in it. On the train splits of MELD and
# EmoryNLP 5 of 17,540 utterances reach it, two of them in Italian (docs/decisions.md).
MARGIN: Final = 20.0
# The time of a text is bounded: characters of it that are judged, and of its distinct words.
MOST_READ: Final = 4_000
MOST_LETTERS: Final = 400
QUOTES: Final = str.maketrans("\u2018\u2019\u02bc\u0092`", "'''''")
# By the first word of their letters' names in Unicode; a language that is in none is in Latin.
SCRIPTS: Final = {
    "CYRILLIC": "ab av ba be bg ce cu cv kk kv ky mk mn os ru sr tg tt uk",
    "ARABIC": "ar ary arz fa ks ps sd sdh ug ur uzs",
    "DEVANAGARI": "bh gom hi mr ne pi sa",
    "GREEK": "el grc",
    "HEBREW": "hbo he yi",
    "BENGALI": "as bn",
    "TIBETAN": "bo dz",
    "ETHIOPIC": "am ti",
    "CJK": "ja ko wuu yue zh",
    "IDEOGRAPHIC": "ja ko wuu yue zh",
    "BOPOMOFO": "yue zh",
    "HIRAGANA": "ja",
    "KATAKANA": "ja",
    "HANGUL": "ko",
    "ARMENIAN": "hy",
    "CANADIAN": "cr iu oj",
    "GEORGIAN": "ka",
    "GUJARATI": "gu",
    "GURMUKHI": "pa",
    "KANNADA": "kn",
    "KHMER": "km",
    "LAO": "lo",
    "MALAYALAM": "ml",
    "MYANMAR": "my",
    "ORIYA": "or",
    "SINHALA": "si",
    "TAMIL": "ta",
    "TELUGU": "te",
    "THAANA": "dv",
    "THAI": "th",
    "YI": "ii",
}
LATIN: Final = "LATIN"
TWO_SCRIPTS: Final = {"sr": LATIN}  # beside the one above
# Languages that a text of a few words cannot tell apart, and that share their words.
SIBLINGS: Final = ("en pcm", "no nb nn", "bs hr sr", "id ms", "ar ary arz", "zh wuu yue", "ku sdh")
# Nobody's first language, or none: what the identifier takes names and noise for.
NOT_SPOKEN: Final = frozenset({"eo", "grc", "hbo", "la", "vo", "zxx"})


def judged_by() -> str:
    """Return what judges here: the rules and the identifier, by version."""
    return f"judge {VERSION}, {identity()}"


@dataclass(frozen=True, slots=True)
class Languages:
    """Languages as a checkpoint states them: part of its digest, since they decide answers."""

    known: tuple[str, ...]  # ISO 639-1
    margin: float = MARGIN
    judged_by: str = ""  # as `judged_by()` when it was stated

    @staticmethod
    def of(stated: Iterable[str]) -> Languages:
        """Return what a checkpoint of these languages states.

        Raises `RecipeError` for what is no language of ISO 639-1.
        """
        known = []
        for name in stated:
            code = code_of(name)
            if code is None or codes().get(code) != code:
                raise RecipeError(
                    f"{name!r} is no language: give codes of ISO 639-1 with commas between them, "
                    "for instance en,de"
                )
            known.append(code)
        return Languages(tuple(dict.fromkeys(known)), judged_by=judged_by())

    @property
    def scripts(self) -> tuple[str, ...]:
        """The scripts that the languages are written in, by Unicode's names."""
        return tuple(sorted(_scripts_of(self.known)))

    def digest(self, files: str) -> str:
        """Return the digest of the model whose files have the digest `files`.

        Another one where other rules or another identifier judge here than was stated: they may
        give other answers, so states and predictions must not be taken for the same model's.
        """
        if self.judged_by == judged_by():
            return files
        return hashlib.sha256(f"{files} {judged_by()}".encode()).hexdigest()


class Judge:
    """Says of an utterance whether it is outside of the languages stated. Pure, one thread."""

    def __init__(self, languages: Languages) -> None:
        """Load the identifier: a second, 25 MiB."""
        self._accepted = _with_siblings(languages.known)
        self._scripts = _scripts_of(languages.known)
        self._margin = languages.margin
        self._identifier = Identifier.load(self._accepted, self._is_other, _letters(self._scripts))

    def doubt(self, text: str | None, stated: str | None) -> Doubt | None:
        """Return why an answer to this utterance must abstain, or None.

        `stated` is the utterance's field `language`; without a text it decides alone.
        """
        code = code_of(stated)
        if code is not None and code not in self._accepted:
            return "language"
        if text is None:
            return None
        text = text[:MOST_READ].translate(QUOTES)
        if not text.isascii():
            text = unicodedata.normalize("NFKC", text)
        if not (text.isascii() and text.isprintable() and LATIN in self._scripts):
            if not _says_something(text):
                return "unknown_words"
            own, other = self._split(text)
            if other > own:
                return "language"
            text = self._own_letters(text)
        if self._identifier is None:
            return None
        words = _distinct_words(text)
        return "language" if words and self._identifier.margin(words) > self._margin else None

    def margin(self, text: str) -> float:
        """Return the identifier's evidence against a text of the known scripts, in nats."""
        words = _distinct_words(self._own_letters(text.translate(QUOTES)))
        return self._identifier.margin(words) if self._identifier and words else 0.0

    def _is_other(self, label: str) -> bool:
        return label not in NOT_SPOKEN and bool(_scripts_of((label,)) & self._scripts)

    def _split(self, text: str) -> tuple[int, int]:
        """Return the numbers of letters in the known scripts and in others."""
        scripts = [script_of(c) for c in text if c.isalpha()]
        own = sum(script in self._scripts for script in scripts)
        return own, sum(script is not None for script in scripts) - own

    def _own_letters(self, text: str) -> str:
        """Return the text with a space for each letter of another script."""
        if text.isascii() and LATIN in self._scripts:
            return text
        return "".join(c if not c.isalpha() or script_of(c) in self._scripts else " " for c in text)


def _with_siblings(known: Collection[str]) -> frozenset[str]:
    families = (frozenset(family.split()) for family in SIBLINGS)
    return frozenset(known).union(*(family for family in families if family & set(known)))


def _scripts_of(known: Collection[str]) -> frozenset[str]:
    found = {s for s, members in SCRIPTS.items() if not set(members.split()).isdisjoint(known)}
    placed = " ".join(SCRIPTS.values()).split()
    found |= {LATIN for language in known if language not in placed}
    return frozenset(found | {TWO_SCRIPTS[code] for code in known if code in TWO_SCRIPTS})


@lru_cache(maxsize=1 << 14)
def script_of(letter: str) -> str | None:
    """Return the script of a letter, None for those that many share (modifier letters)."""
    first = re.split("[ -]", unicodedata.name(letter, "UNNAMED"), maxsplit=1)[0]
    return None if first == "MODIFIER" else first


@lru_cache(maxsize=4)
def _letters(scripts: frozenset[str]) -> str:
    """Return the small letters of these scripts."""
    every = map(chr, range(sys.maxunicode + 1))
    letters = (c for c in every if c.isalpha() and c == c.lower())
    wanted = tuple(scripts)
    return "".join(c for c in letters if unicodedata.name(c, "").startswith(wanted))


def _says_something(text: str) -> bool:
    """Return false for text of which nothing is visible, or symbols (emoji) alone are."""
    kinds = [unicodedata.category(c)[0] for c in text]
    return any(kind in "LN" for kind in kinds) or kinds.count("P") > kinds.count("S")


def _distinct_words(text: str) -> str:
    """Return each word once, in small letters, with a space between them.

    "No, no, no!" is no more evidence than "No!", and "sooooo" none for a language with long vowels.
    """
    words = re.findall(r"[^\W\d_]+(?:'[^\W\d_]+)*", text.lower())
    short = (re.sub(r"(.)\1\1+", r"\1\1", word) for word in words)
    return " ".join(dict.fromkeys(short))[:MOST_LETTERS]
