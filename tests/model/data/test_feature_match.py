"""Rows of a feature file go to the utterances that their names name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.data.feature_file import FeatureRows, read_feature_rows, write_feature_rows
from model.data.feature_match import RowKey, matched, row_keys
from model.errors import DataError

KEYS = [RowKey("a", "u1"), RowKey("a", "u2"), RowKey("b", "v1")]


def rows(*names: str, **more: tuple[str, ...]) -> FeatureRows:
    """Return a file whose row i is the number i."""
    named = {"audio": names, **more}
    vectors = {m: np.arange(len(n), dtype=np.float32)[:, None] for m, n in named.items()}
    return FeatureRows("a.npz", vectors, {}, named, {m: f"{m}.npz" for m in named})


def found(features: FeatureRows, keys: list[RowKey]) -> tuple[list[float | None], list[str]]:
    """Return the row that each utterance got, and the warnings."""
    warnings: list[str] = []
    values = matched(features, keys, warnings.append).vectors["audio"][:, 0].tolist()
    return [None if np.isnan(value) else value for value in values], warnings


@pytest.mark.parametrize(
    "names",
    [
        ("v1", "u1", "u2"),
        ("b_v1", "a_u1", "a_u2"),
        ("b-v1", "a-u1", "a-u2"),
    ],
)
def test_a_row_goes_to_the_utterance_of_its_name_whatever_the_order(names: tuple[str, ...]) -> None:
    assert found(rows(*names), KEYS) == ([1, 2, 0], [])


def test_a_clip_column_names_the_file_and_wins_over_the_ids() -> None:
    keys = [RowKey("a", "1", "clips/2.wav"), RowKey("a", "2", "C:\\clips\\1.wav")]
    assert found(rows("1", "2"), keys) == ([1, 0], [])
    assert found(rows("2", "1"), keys) == ([0, 1], [])
    texts = matched(rows("2", "1", text=("2", "1")), keys).vectors["text"]
    assert texts[:, 0].tolist() == [1, 0], "sentences have the ids of the table"


def test_clips_listed_as_text_find_their_utterances() -> None:
    """28 of 30 sounds went to another utterance: 0, 1, 10, 11, 2 is how a shell lists them."""
    names = sorted(map(str, range(30)))
    keys = [RowKey("a", str(i)) for i in range(30)]
    values, warnings = found(rows(*names), keys)
    assert [names[int(value or 0)] for value in values] == [str(i) for i in range(30)]
    assert warnings == []


def test_numbers_sorted_as_text_that_name_no_utterance_are_refused() -> None:
    names = sorted(map(str, range(12)))
    keys = [RowKey("a", f"u{i}") for i in range(12)]
    with pytest.raises(DataError, match=r"sorted as text \(row 2 is '10', by number .* '2'\)"):
        found(rows(*names), keys)
    in_order = [f"take-{i}" for i in range(12)]
    values, (warning,) = found(rows(*in_order), keys)
    assert values == list(range(12))
    assert "no utterance ids, and there is no column `clip`" in warning
    with pytest.raises(DataError, match="sorted as text"):
        found(rows(*sorted(in_order)), keys)


def test_the_order_is_taken_silently_where_the_names_are_those_of_the_order() -> None:
    """`extract text` names rows by utterance id, else by their place in the table."""
    twice = [RowKey("a", "0"), RowKey("a", "1"), RowKey("b", "0")]
    assert found(rows("0", "1", "0"), twice) == ([0, 1, 2], [])
    assert found(rows("0", "1", "2"), twice) == ([0, 1, 2], [])
    assert found(rows("0", "1", "2"), KEYS) == ([0, 1, 2], [])


def test_an_utterance_without_a_clip_has_no_vector_and_that_is_said() -> None:
    values, (warning,) = found(rows("v1", "u1"), KEYS)
    assert values == [1, None, 0]
    assert "audio.npz: 1 of 3 utterances have no row" in warning and "first: 'u2' of 'a'" in warning


@pytest.mark.parametrize(
    ("features", "sentence"),
    [
        (rows("u1", "u2", "x"), "2 of its 3 names are those of an utterance, and 'x' of none"),
        (rows("u1", "u1", "u2"), "has the name 'u1' more than once"),
        (rows("a_u1", "a-u1"), "'a_u1' and 'a-u1' name one utterance"),
        (rows("x", "y"), "audio.npz has 2 rows, the conversations have 3 utterances"),
    ],
)
def test_names_that_contradict_are_refused(features: FeatureRows, sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        matched(features, KEYS)


def test_each_file_is_matched_on_its_own(tmp_path: Path) -> None:
    write_feature_rows(tmp_path / "a.npz", "audio", ["v1", "u1"], np.array([[7.0], [8.0]]), "praat")
    write_feature_rows(tmp_path / "t.npz", "text", ["0", "1", "2"], np.ones((3, 2)), "minilm")
    read = read_feature_rows([tmp_path / "a.npz", tmp_path / "t.npz"])
    fitted = matched(read, KEYS)
    assert fitted.rows == 3 and fitted.present("audio").tolist() == [True, False, True]
    assert fitted.vectors["audio"][2] == 7 and fitted.present("text").all()


def test_keys_count_the_utterances_of_a_conversation_where_it_has_no_ids() -> None:
    cells: list[dict[str, Any]] = [
        {"conversation_id": "a"},
        {"conversation_id": 1, "clip": "x.wav"},
    ]
    cells += [{"conversation_id": "a", "utterance_id": 9}]
    assert list(row_keys(cells)) == [("a", "0", None), ("1", "0", "x.wav"), ("a", "9", None)]
