"""The structure that CONTRIBUTING.md draws holds: rooms, floors, and no circle of files."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.rooms import Figure, circles, import_graph, measured, opening_words


@pytest.mark.parametrize("figure", measured(), ids=lambda figure: figure.name)
def test_a_figure_of_the_structure_holds(figure: Figure) -> None:
    assert figure.holds, "\n".join((figure.name, *figure.found))


def test_a_circle_is_found_however_far_round_and_within_functions(tmp_path: Path) -> None:
    bodies = {"a": "from stream import b", "b": "def f():\n    import stream.c", "c": "", "d": ""}
    bodies["c"] = "if TYPE_CHECKING:\n    from stream.a import X"
    modules = {}
    for name, body in bodies.items():
        modules[f"stream.{name}"] = tmp_path / f"{name}.py"
        modules[f"stream.{name}"].write_text(body)
    assert circles(import_graph(modules)) == [("stream.a", "stream.b", "stream.c")]
    modules["stream.c"] = tmp_path / "empty.py"
    modules["stream.c"].write_text("")
    assert circles(import_graph(modules)) == []


def test_a_question_that_opens_a_docstring_is_found(tmp_path: Path) -> None:
    file = tmp_path / "a.py"
    file.write_text('"""Count things."""\n\n\ndef f():\n    """What is counted."""\n')
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.rooms.ROOT", tmp_path)
        assert opening_words([file]) == ["a.py:4"]
