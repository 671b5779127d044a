"""`emotrack predict` as a person types it, with the small model."""

from __future__ import annotations

import csv
import gzip
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from model.data.writer import write_data_set
from stream.errors import ConfigError, EmotrackError
from stream.main import app
from stream.offline import LoadedModel, loaded
from tests.fakes.conversations import generated_conversations
from tests.fakes.predictor import SmallPredictor

TABLE = """call_id,turn,speaker,transcript,emotion
a,0,ann,hello there,calm
a,1,ann,I see,joy
b,0,ben,where is it?,anger
b,1,ben,"at last, thanks",joy
a,2,sue,no!,anger
"""


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loaded, "load_predictor", lambda *_: SmallPredictor())


@pytest.fixture
def calls(tmp_path: Path) -> Path:
    file = tmp_path / "calls.csv"
    file.write_text(TABLE)
    return file


def run(*arguments: object, stdin: str = "") -> Result:
    result = CliRunner().invoke(
        app, ["predict", *map(str, arguments)], stdin, catch_exceptions=False
    )
    assert result.exit_code == 0, result.output
    return result


def read(file: Path) -> list[dict[str, Any]]:
    with file.open(encoding="utf-8", newline="") as rows:
        return list(csv.DictReader(rows))


def expected() -> dict[tuple[str, str], dict[str, Any]]:
    """The answers by call and turn, from Python."""
    talks: dict[str, list[dict[str, Any]]] = {}
    for row in csv.DictReader(TABLE.splitlines()):
        talks.setdefault(row["call_id"], []).append(dict(row))
    answers = LoadedModel(SmallPredictor()).predict_many(talks)
    return {
        (a.conversation_id, a.utterance_id): json.loads(json.dumps(a.probabilities))
        for part in answers
        for a in part
    }


def test_a_table_of_calls_becomes_a_table_of_answers_in_its_order(
    calls: Path, tmp_path: Path
) -> None:
    result = run(calls, "--out", tmp_path / "answers.csv")
    rows = read(tmp_path / "answers.csv")
    assert [row["utterance_id"] for row in rows] == ["0", "1", "0", "1", "2"]
    stated = {
        (r["conversation_id"], r["utterance_id"]): {
            label: float(r[f"p_{label}"]) for label in ("calm", "joy", "anger")
        }
        for r in rows
    }
    assert stated == expected()
    assert {row["alert"] for row in rows} <= {"true", "false"} and rows[0]["shift_to"] == ""
    assert "answered 5 utterances of 2 conversations" in result.stderr
    assert "answers.csv" in result.stderr and result.stdout == ""


@pytest.mark.parametrize("form", [".jsonl", "-"])
def test_json_lines_are_whole_answers(calls: Path, tmp_path: Path, form: str) -> None:
    out = tmp_path / "answers.jsonl"
    result = run(calls, "--out", out) if form == ".jsonl" else run(calls)
    lines = (out.read_text("utf-8") if form == ".jsonl" else result.stdout).splitlines()
    answers = [json.loads(line) for line in lines]
    stated = {(a["conversation_id"], a["utterance_id"]): a["probabilities"] for a in answers}
    assert stated == expected()
    assert answers[0]["alert"] is None and answers[0]["model"]["name"] == "small"


def test_a_parquet_has_typed_columns(calls: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="the extra parquet is not installed")
    run(calls, "--out", tmp_path / "answers.parquet")
    table = parquet.read_table(tmp_path / "answers.parquet")
    run(calls, "--out", tmp_path / "answers.csv")
    assert table.column_names == list(read(tmp_path / "answers.csv")[0])
    assert str(table.schema.field("p_joy").type) == "double"
    assert str(table.schema.field("abstained").type) == "bool"
    assert table.column("reason").null_count == 5


def test_without_pyarrow_a_parquet_is_refused_before_the_work(
    calls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ConfigError, match=r"pip install 'emotrack\[parquet\]', or name a \.csv"):
        run(calls, "--out", tmp_path / "answers.parquet")


def test_vectors_of_a_file_are_heard_by_their_names(calls: Path, tmp_path: Path) -> None:
    names = ["b_0", "b_1", "a_2", "a_1", "a_0"]
    audio = np.array([[1, 0], [2, 0], [3, 0], [4, 0], [5, 0]], np.float32)
    np.savez(tmp_path / "a.npz", audio=audio, name=np.array(names))
    run(calls, "--features", tmp_path / "a.npz", "--out", tmp_path / "answers.csv")
    one_by_one = LoadedModel(SmallPredictor()).predict(
        [
            {"speaker": "ann", "text": "hello there", "audio": [5, 0]},
            {"speaker": "ann", "text": "I see", "audio": [4, 0]},
            {"speaker": "sue", "text": "no!", "audio": [3, 0]},
        ]
    )
    found = [row for row in read(tmp_path / "answers.csv") if row["conversation_id"] == "a"]
    assert [float(row["p_joy"]) for row in found] == [a.probabilities["joy"] for a in one_by_one]
    assert found[0]["modalities_used"] == "text audio"


def test_lines_from_stdin_are_answered_as_they_come() -> None:
    lines = [
        {"conversation_id": "c", "utterance_id": str(n), "speaker_id": "s", "text": f"t{n}"}
        for n in (0, 1, 1)
    ]
    result = run("-", stdin="".join(json.dumps(line) + "\n" for line in lines))
    answers = [json.loads(line) for line in result.stdout.splitlines()]
    assert [a["utterance_id"] for a in answers] == ["0", "1"]
    assert answers[1]["shift"]["previous_utterance_id"] == "0"
    assert "not answered, as they repeat an id: 1" in result.stderr


def test_what_did_not_fit_is_said_and_flagged(calls: Path, tmp_path: Path) -> None:
    calls.write_text("call_id,speaker,text,seq\na,s,hi,one\na,s,ho,2\n")
    result = run(calls, "--out", tmp_path / "answers.csv")
    assert [row["flags"] for row in read(tmp_path / "answers.csv")] == ["ignored_seq", ""]
    assert "`seq` of 1 utterances" in result.stderr


def test_a_data_set_is_answered_by_its_split(tmp_path: Path) -> None:
    data = generated_conversations(20, seed=3)
    said = {
        split: tuple(replace(d, features={}, present=d.present & False) for d in part)
        for split, part in data.dialogues.items()
    }
    write_data_set(tmp_path, replace(data, widths={}, extractors={}, dialogues=said))
    run(tmp_path, "--raw-text", "--out", tmp_path / "answers.csv", "--split", "test")
    assert len(read(tmp_path / "answers.csv")) == sum(map(len, data.split("test")))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (("a,2,sue,no!", "a,2,,no!"), "line 6: no speaker_id"),
        (("a,2,sue,no!", "a,1,sue,no!"), "have an id that their conversation has had"),
        (("a,2,sue,no!", "a,2,sue,"), "neither text nor a feature vector"),
    ],
)
def test_a_row_that_does_not_fit_is_one_sentence_and_nothing_is_written(
    calls: Path, tmp_path: Path, change: tuple[str, str], sentence: str
) -> None:
    calls.write_text(TABLE.replace(*change))
    with pytest.raises(EmotrackError, match=sentence):
        run(calls, "--out", tmp_path / "answers.csv")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["calls.csv"]


def test_a_vector_of_another_width_is_refused_with_nothing_written(
    calls: Path, tmp_path: Path
) -> None:
    np.savez(tmp_path / "a.npz", audio=np.ones((5, 3), np.float32))
    with pytest.raises(EmotrackError, match="has 3 numbers, the model takes 2"):
        run(calls, "--features", tmp_path / "a.npz", "--out", tmp_path / "answers.csv")
    assert not (tmp_path / "answers.csv").exists()


def test_an_answer_that_fails_under_way_leaves_no_half_file(calls: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", audio=np.array([[1, 0]] * 4 + [[1e4, 0]], np.float32))
    with pytest.raises(EmotrackError, match=r"'2' of 'a': the model's result .* NaN or infinite"):
        run(calls, "--features", tmp_path / "a.npz", "--out", tmp_path / "answers.csv")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.npz", "calls.csv"]


def test_the_cure_for_a_packed_file_answers_it(calls: Path, tmp_path: Path) -> None:
    packed = tmp_path / "calls.jsonl"
    packed.write_bytes(gzip.compress(b"{}"))
    with pytest.raises(EmotrackError, match=r"gzip -dc .*calls.jsonl \| emotrack predict -"):
        run(packed)


def test_a_table_without_rows_has_answers_without_rows(calls: Path, tmp_path: Path) -> None:
    calls.write_text(TABLE.splitlines()[0] + "\n")
    result = run(calls, "--out", tmp_path / "answers.csv")
    assert read(tmp_path / "answers.csv") == [] and "answered 0 utterances" in result.stderr


def test_a_reader_that_has_read_enough_is_no_error(tmp_path: Path) -> None:
    """As `emotrack predict calls.csv | head -1` ends."""
    line = '{"conversation_id":"c","utterance_id":"%d","speaker_id":"s","text":"hi"}'
    (tmp_path / "c.jsonl").write_text("\n".join(line % i for i in range(4000)))
    program = (
        "import sys; from stream import main; from stream.offline import loaded\n"
        "from tests.fakes.predictor import SmallPredictor\n"
        "loaded.load_predictor = lambda *_: SmallPredictor()\n"
        f"sys.argv = ['emotrack', 'predict', {str(tmp_path / 'c.jsonl')!r}]\n"
        "main.main()"
    )
    head = subprocess.run(
        ["bash", "-c", 'set -o pipefail; "$0" -c "$1" | head -1', sys.executable, program],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert (head.returncode, head.stderr) == (0, "")
    assert json.loads(head.stdout)["utterance_id"] == "0"


@pytest.mark.parametrize(
    ("out", "sentence"),
    [
        ("answers.xlsx", "ends in .csv, .jsonl, .parquet, or - for"),
        ("nowhere/answers.csv", "there is no folder"),
        ("calls.csv", "is what is read"),
    ],
)
def test_a_file_that_cannot_be_written_is_known_before_the_work(
    calls: Path, tmp_path: Path, out: str, sentence: str
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        run(calls, "--out", tmp_path / out)
    assert calls.read_text() == TABLE
