"""The cut model gives the scores of py3langid's own."""

from __future__ import annotations

import string

import pytest
from py3langid.langid import MODEL_FILE, LanguageIdentifier

from model.text.identifier import Identifier, identity
from stream.bench.languages import written

KNOWN, OTHERS = ("en",), ("de", "es", "fr", "pl", "vi")
LETTERS = string.ascii_lowercase + "äöüßéèêàçñáíóúąćęłńóśźżăâđêôơưạếộườấầ"


@pytest.mark.slow
def test_what_is_cut_away_changes_no_score() -> None:
    whole = LanguageIdentifier.from_model_file(MODEL_FILE)
    whole.set_languages([*KNOWN, *OTHERS])
    cut = Identifier.load(KNOWN, OTHERS.__contains__, LETTERS)
    assert cut is not None
    allowed = set(LETTERS + " '")
    for texts in written()["latin"].values():
        for text in texts:
            plain = "".join(c if c in allowed else " " for c in text.lower())
            scores = dict(whole.rank(plain))
            expected = max(scores[o] for o in OTHERS) - scores["en"]
            assert cut.margin(plain) == pytest.approx(expected, abs=1e-3), text


def test_languages_that_cannot_be_told_apart_are_not() -> None:
    assert Identifier.load(KNOWN, lambda _: False, LETTERS) is None
    assert Identifier.load((), OTHERS.__contains__, LETTERS) is None


def test_its_identity_names_version_and_data() -> None:
    name, version, word, digest = identity().replace(",", "").split()
    assert (name, word, len(digest)) == ("py3langid", "data", 16)
    assert version[0].isdigit()
