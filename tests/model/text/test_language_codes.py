"""Spellings of languages in a record, read as ISO 639-1."""

from __future__ import annotations

import pytest

from model.text.language_codes import code_of, codes


@pytest.mark.parametrize(
    ("stated", "code"),
    [
        ("en", "en"), ("EN", "en"), ("en-US", "en"), ("en_GB.UTF-8", "en"), ("eng", "en"),
        ("English", "en"), ("English (US)", "en"), ("  english ", "en"), ("zh-Hant-TW", "zh"),
        ("cmn", "zh"), ("yue", "zh"), ("ger", "de"), ("deu", "de"), ("Deutsch", "de"),
        ("pt-BR", "pt"), ("iw", "he"), ("nb", "nb"), ("Haitian Creole", "ht"), ("fil-PH", "tl"),
        ("tlh", "tlh"), ("haw", "haw"),
    ],
)  # fmt: skip
def test_a_stated_language_is_read(stated: str, code: str) -> None:
    assert code_of(stated) == code


@pytest.mark.parametrize(
    "stated", [None, "", " ", "und", "UND", "mul", "zxx", "nan", "NA", "n/a", "C", "??", "Simlish"]
)
def test_what_states_no_language_is_none(stated: str | None) -> None:
    assert code_of(stated) is None


def test_each_code_has_its_longer_spellings() -> None:
    two = {code for code in codes() if len(code) == 2 and codes()[code] == code}
    assert len(two) == 184
    assert set(codes().values()) == two
