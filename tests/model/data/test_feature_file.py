"""Feature files are read side by side, and written whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from model.data.feature_file import read_feature_rows, write_feature_rows
from model.errors import DataError


def test_written_vectors_read_back_with_their_recipe(tmp_path: Path) -> None:
    vectors = np.array([[1.5, 2], [np.nan, 1], [np.nan, np.nan]], np.float32)
    write_feature_rows(tmp_path / "a.npz", "audio", ["x", "y", "z"], vectors, "praat")
    back = read_feature_rows([tmp_path / "a.npz"])
    np.testing.assert_array_equal(back.vectors["audio"], vectors)
    assert back.present("audio").tolist() == [True, True, False]
    assert (back.rows, back.extractors) == (3, {"audio": "praat"})
    with np.load(tmp_path / "a.npz") as arrays:
        assert arrays["name"].tolist() == ["x", "y", "z"]


def test_files_of_several_modalities_are_read_side_by_side(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", audio=np.ones((2, 3)), other=np.ones(9))
    np.savez(tmp_path / "v.npz", visual=np.ones((2, 4)))
    back = read_feature_rows([tmp_path / "a.npz", tmp_path / "v.npz"])
    assert {m: v.shape for m, v in back.vectors.items()} == {"audio": (2, 3), "video": (2, 4)}


def test_misfits_name_the_files_and_both_sizes(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", audio=np.ones((2, 3)))
    np.savez(tmp_path / "v.npz", video=np.ones((3, 4)))
    np.savez(tmp_path / "o.npz", other=np.ones((3, 4)))
    np.savez(tmp_path / "i.npz", text=np.full((2, 2), np.inf))
    files = {name: tmp_path / f"{name}.npz" for name in "avoi"}
    with pytest.raises(DataError, match=r"v\.npz: `video` has 3 rows, `audio` of .*a\.npz has 2"):
        read_feature_rows([files["a"], files["v"]])
    with pytest.raises(DataError, match=r"both .*a\.npz and .*a\.npz hold audio"):
        read_feature_rows([files["a"], files["a"]])
    with pytest.raises(DataError, match=r"o\.npz holds none of .* \(it has: other\)"):
        read_feature_rows([files["o"]])
    with pytest.raises(DataError, match=r"i\.npz: `text` row 0, column 0 is inf"):
        read_feature_rows([files["i"]])
