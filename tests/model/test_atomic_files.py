"""Files appear whole or not at all."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from model.atomic_files import write_whole


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """The system refuses to let any file grow beyond `size` bytes, as a full disk would."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_files_are_written_and_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    write_whole(folder, {"a": b"1", "b": b"2"})
    write_whole(folder, {"a": b"3"})
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == {"a": b"3", "b": b"2"}


def test_a_full_disk_leaves_what_was_there(tmp_path: Path) -> None:
    write_whole(tmp_path, {"a": b"old", "b": b"old"})
    with largest_file(1000), pytest.raises(OSError, match="too large"):
        write_whole(tmp_path, {"a": b"new", "b": b"x" * 5000})
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"a": b"old", "b": b"old"}


def test_a_full_disk_leaves_no_folder_that_was_not_there(tmp_path: Path) -> None:
    with largest_file(1000), pytest.raises(OSError, match="too large"):
        write_whole(tmp_path / "new", {"a": b"x" * 5000})
    assert not (tmp_path / "new").exists()
