"""ISO 639-1 codes, read from what people write in a field `language`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Final

# "No language" in ISO 639 ("und", "mul", ...) and in the exports of other programs. "nan" and "na"
# are codes too (Min Nan, Nauru), but what arrives under them is an empty cell.
UNSTATED: Final = frozenset({"und", "mul", "mis", "zxx", "unk", "nan", "na", "nil", "xx", "xxx"})


@lru_cache(maxsize=256)
def code_of(stated: str | None) -> str | None:
    """Return the ISO 639-1 code of a stated language, None where none is stated.

    Reads BCP 47 tags and locales ("en-US", "en_GB.UTF-8"), three-letter codes ("eng") and names
    ("English", "English (US)"), in any case. A code of two or three letters that ISO 639-1 has no
    language for is returned as it is: it is a language, and none that a checkpoint can state.
    """
    words: list[str] = re.findall(r"[^\W\d_]+", (stated or "").casefold())
    if not words or words[0] in UNSTATED:
        return None
    first = words[0]
    known = codes().get("-".join(words)) or codes().get(first)
    if known is None and 2 <= len(first) <= 3 and first.isascii():
        return first
    return known


@lru_cache(maxsize=1)
def codes() -> Mapping[str, str]:
    """Return ISO 639-1 codes by themselves, by three-letter codes and by names, in lower case."""
    known: dict[str, str] = {}
    lines = Path(__file__).with_name("iso639.txt").read_text("utf-8").splitlines()
    for code, longer, *names in (line.split() for line in lines if not line.startswith("#")):
        spellings = (code, *longer.split(","), *(name.casefold() for name in names))
        known |= dict.fromkeys(spellings, code)
    return known
