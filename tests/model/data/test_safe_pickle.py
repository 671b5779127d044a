"""Feature pickles are read as data; what would run is refused by its name, and nothing runs."""

from __future__ import annotations

import builtins
import os
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.data.safe_pickle import Refused, load_pickle
from model.errors import DataError


class Calls:
    """Pickles as a call of `function`."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self._call = (function, arguments)

    def __reduce__(self) -> Any:
        return self._call


class Mine:
    """A class of its own."""

    stored = 1


def written(folder: Path, value: Any, protocol: int = 2) -> Path:
    path = folder / "features.pkl"
    path.write_bytes(value if isinstance(value, bytes) else pickle.dumps(value, protocol))
    return path


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.float32).reshape(2, 3),
        np.asfortranarray(np.arange(6, dtype=np.int64).reshape(2, 3)),
        np.arange(3, dtype=">f8"),
        np.array([True, False]),
        np.array(["so", "long"]),
        np.array([b"so", b"long"]),
        np.zeros((0, 4), np.float16),
        np.array(2.5),
    ],
    ids=lambda array: f"{array.dtype}-{array.shape}",
)
def test_arrays_of_every_protocol_read_back(
    tmp_path: Path, protocol: int, array: np.ndarray[Any, Any]
) -> None:
    back = load_pickle(written(tmp_path, {"a": [array, (array.T,)]}, protocol))
    assert back["a"][0].dtype == array.dtype
    np.testing.assert_array_equal(back["a"][0], array)
    np.testing.assert_array_equal(back["a"][1][0], array.T)


@pytest.mark.parametrize("protocol", range(6))
def test_plain_values_read_back(tmp_path: Path, protocol: int) -> None:
    inside: list[Any] = [1, 1 << 90, 0.5, None, True, "é", b"\xff\x00", b""]
    value = {"a": (inside, [inside]), 3: {1, 2}, "f": frozenset({4}), "c": 1j, "d": {}}
    assert load_pickle(written(tmp_path, value, protocol)) == value


@pytest.mark.parametrize("protocol", [2, 5])
def test_numpy_scalars_read_back(tmp_path: Path, protocol: int) -> None:
    back = load_pickle(written(tmp_path, [np.float32(0.5), np.int64(-3)], protocol))
    assert back == [0.5, -3]


def python_2(array_bytes: bytes, shape: tuple[int, int]) -> bytes:
    """{'a': array} as Python 2 and numpy 1 wrote it with protocol 2: its bytes are a str."""
    rows, width = shape
    raw = b"T" + struct.pack("<I", len(array_bytes)) + array_bytes
    return (
        b"\x80\x02}U\x01acnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01K" + bytes([rows]) + b"K" + bytes([width]) + b"\x86cnumpy\ndtype\nU\x02f4K\x00K\x01"
        b"\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89" + raw + b"tbs."
    )


def test_a_python_2_pickle_reads_back(tmp_path: Path) -> None:
    array = np.array([[1.5, -2.0], [300.25, 0.0]], "<f4")
    back = load_pickle(written(tmp_path, python_2(array.tobytes(), (2, 2))))
    np.testing.assert_array_equal(back["a"], array)


@pytest.mark.parametrize("protocol", [0, 2, 5])
@pytest.mark.parametrize(
    ("value", "name"),
    [
        (Calls(os.system, "touch ran"), f"asks for {os.system.__module__}.system"),
        (Calls(builtins.eval, "open('ran', 'w')"), "eval"),
        (Calls(builtins.getattr, "a", "upper"), "getattr"),
        (Calls(np.load, "ran"), "load"),
        (Calls(np.fromfile, "ran"), "fromfile"),
        (Calls(np.array, [1]), "array"),
        (Mine(), "Mine|copyreg|copy_reg"),
        (np.array([Calls(os.system, "touch ran")]), "O8|system"),
        (np.array([{"a": 1}], object), "O8"),
        (np.zeros(2, [("a", "f4"), ("b", "O")]), "V12"),
        (np.zeros(2, "M8[s]"), "M8"),
        ({"a": [Calls(os.system, "touch ran")]}, "system"),
        (os.system, "system"),
        (np.ndarray, "function or a type"),
        (np.dtype("f4"), "function or a type"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_a_name_neither_of_numpy_nor_plain_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: Any, name: str, protocol: int
) -> None:
    monkeypatch.chdir(tmp_path)
    path = written(tmp_path, [value], protocol)
    with pytest.raises(Refused, match=name) as met:
        load_pickle(path)
    assert str(path) in str(met.value)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["features.pkl"]


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (b"c_codecs\nencode\n(U\x01aU\x03hextR.", "the codec 'hex'"),
        (b"cbuiltins\nbytearray\n(J\xff\xff\xff\x7ftR.", "makes bytes of int"),
        (b"c_codecs\nencode\nN}U\x0c__defaults__)s\x86b.", "changes a function"),
        (b"cnumpy\nndarray\n(K\x03tR.", "a numpy array of its own"),
        (b"U\x01aQ.", "kept elsewhere"),
        (b"(" * 3 + b"]" + b"\x85" * 40 + b".", "more than 16 deep"),
        (b"cnumpy.core.multiarray\n_reconstruct\n(NNNtR.", "never got its numbers"),
        (b"\x82\x01.", "no pickle of features"),
        (b"r\xff\xff\xff\x7f.", "no pickle of features"),
        (b"", "no pickle of features"),
    ],
)
def test_hand_written_attacks_end_in_a_sentence(tmp_path: Path, code: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_pickle(written(tmp_path, b"\x80\x02" + code))


def test_an_array_whose_bytes_do_not_fit_its_shape_is_refused(tmp_path: Path) -> None:
    four = np.zeros(4, "<f4").tobytes()
    with pytest.raises(DataError, match=r"shape \(2, 3\) needs 24 bytes, it has 16"):
        load_pickle(written(tmp_path, python_2(four, (2, 3))))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_truncated_pickle_is_named(tmp_path: Path, share: float) -> None:
    whole = pickle.dumps({"a": np.arange(50.0)}, 2)
    path = written(tmp_path, whole[: int(share * len(whole))])
    with pytest.raises(DataError, match=r"features\.pkl is no pickle of features, or damaged"):
        load_pickle(path)


def test_a_file_larger_than_the_bound_is_not_read(tmp_path: Path) -> None:
    path = written(tmp_path, np.zeros(1000))
    with pytest.raises(DataError, match="at most 1000 are read"):
        load_pickle(path, largest=1000)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere"):
        load_pickle(tmp_path / "nowhere.pkl")


def test_a_list_inside_itself_ends(tmp_path: Path) -> None:
    loop: list[Any] = [1]
    loop.append(loop)
    assert load_pickle(written(tmp_path, loop)) == [1, None]


def test_a_container_shared_a_million_times_is_walked_once(tmp_path: Path) -> None:
    bomb: list[Any] = [0]
    for _ in range(14):
        bomb = [bomb] * 100
    assert len(load_pickle(written(tmp_path, bomb))) == 100
