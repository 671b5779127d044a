"""A table of answers is whole or not there, and says why it cannot be written."""

from __future__ import annotations

from pathlib import Path

import pytest

from stream.client.answer_file import AnswerFile, require_answer_file
from stream.errors import ConfigError

COLUMNS = {"a": str, "b": float, "c": bool}
ROW = {"a": "x, y", "b": None, "c": True}


def test_a_whole_file_has_its_name_only_at_the_end(tmp_path: Path) -> None:
    out = tmp_path / "a.csv"
    out.write_text("before")
    with AnswerFile(out, COLUMNS, whole=True) as file:
        file.write(None, ROW)
        assert out.read_text() == "before"
    assert out.read_text() == 'a,b,c\n"x, y",,true\n'
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ConfigError])
@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_what_is_interrupted_leaves_what_was_there(
    tmp_path: Path, error: type[BaseException], name: str
) -> None:
    (tmp_path / name).write_text("before")
    with pytest.raises(error), AnswerFile(tmp_path / name, COLUMNS, whole=True) as file:
        file.write(ROW, ROW)
        raise error
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "before"


def test_rows_of_a_growing_table_are_there_as_they_come(tmp_path: Path) -> None:
    with AnswerFile(tmp_path / "a.csv", COLUMNS, whole=False) as file:
        file.write(None, ROW)
        assert (tmp_path / "a.csv").read_text().count("\n") == 2


def test_a_full_disk_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "a.csv").symlink_to("/dev/full")
    with pytest.raises(ConfigError, match=r"a\.csv cannot be written \(No space left"):
        AnswerFile(tmp_path / "a.csv", COLUMNS, whole=False).write(None, ROW)


def test_a_file_that_is_there_is_kept_where_it_must_be_new(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("before")
    require_answer_file(tmp_path / "a.csv")
    with pytest.raises(ConfigError, match="is there already: name another file"):
        require_answer_file(tmp_path / "a.csv", new=True)
    with pytest.raises(ConfigError, match="is what is read"):
        require_answer_file(tmp_path / "a.csv", [tmp_path / "a.csv"])
