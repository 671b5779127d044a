"""`emotrack evaluate` and `baseline` as a user types them, on generated conversations."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

from model.data.writer import write_data_set
from model.pcgnet.checkpoint import load_checkpoint, save_checkpoint
from model.pcgnet.model import Pcgnet
from model.pcgnet.train import fitting_config
from model.serving.calibration import Calibration, Thresholds
from model.training.loop import normalise_inputs
from stream.errors import ConfigError, SourceError
from tests.fakes import console
from tests.fakes.conversations import generated_conversations
from tests.fakes.encoder import write_tiny_encoder

DATA = generated_conversations(20, seed=3)


def run(*arguments: str) -> str:
    """Run a command and return what it printed; raise what it raises."""
    return " ".join(console.run(*arguments).split())


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("data")
    write_data_set(folder, DATA)
    return str(folder)


def checkpoint(folder: Path, hidden: int) -> Path:
    model = Pcgnet(fitting_config(DATA, hidden=hidden))
    normalise_inputs(model, DATA.split("train"))
    calibration, points = Calibration(0.8, 1.1, "dev"), Thresholds(0.2, 0.9, 0.8)
    save_checkpoint(
        folder, model, calibration=calibration, thresholds=points, extractors={}, card=""
    )
    return folder


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("checkpoints")
    return checkpoint(folder / "one", 8), checkpoint(folder / "other", 16)


@pytest.mark.slow
def test_a_report_is_a_page_with_its_pictures_and_its_figures(
    data: str, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "new" / "report"
    run("evaluate", str(pair[0]), "--data", data, "--report", str(folder))
    assert sorted(p.name for p in folder.iterdir()) == ["report.html", "report.json"]
    page = (folder / "report.html").read_text("utf-8")
    assert page.count("data:image/png;base64,") == 6
    assert load_checkpoint(pair[0]).digest in page
    figures = json.loads((folder / "report.json").read_text("utf-8"))
    assert {"A1", "A4_auroc", "A4_c2_wf1", "A5_emotion", "A5_shift", "report"} <= set(figures)
    counted = sum(map(sum, figures["report"]["confusion"]))
    assert counted == figures["report"]["utterances"] == sum(len(d) for d in DATA.split("dev"))


def test_two_checkpoints_are_compared_in_a_table_and_in_the_figures(
    data: str, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    figures = tmp_path / "figures.json"
    one, other = map(str, pair)
    output = run("evaluate", one, "--data", data, "--against", other, "--json", str(figures))
    assert f"against {load_checkpoint(pair[1]).digest[:16]}" in output
    rows = json.loads(figures.read_text("utf-8"))["against"]
    gap = rows["weighted_f1"]
    assert gap["value"] == pytest.approx(gap["one"] - gap["other"])
    assert gap["verdict"] in output
    run("evaluate", one, "--data", data, "--against", one, "--json", str(figures))
    itself = json.loads(figures.read_text("utf-8"))["against"]
    assert {row["value"] for row in itself.values()} == {0.0}


def test_the_answers_are_a_row_an_utterance_and_add_up_to_the_scores(
    data: str, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    figures, answers = tmp_path / "figures.json", tmp_path / "answers.csv"
    run("evaluate", str(pair[0]), "--data", data, "--json", str(figures), "--answers", str(answers))
    with answers.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    dialogues = DATA.split("dev")
    assert [(r["conversation_id"], r["utterance_id"], r["speaker_id"]) for r in rows] == [
        (d.dialogue_id, id, speaker)
        for d in dialogues
        for id, speaker in zip(d.utterance_ids, d.speakers, strict=True)
    ]
    labelled = [row for row in rows if row["label"]]
    assert {row["right"] for row in rows if not row["label"]} <= {""}
    scores = json.loads(figures.read_text("utf-8"))["A1"]
    right = [row["right"] == "true" for row in labelled]
    assert right == [row["label"] == row["emotion"] for row in labelled]
    assert 100 * sum(right) / len(right) == pytest.approx(scores["accuracy"], abs=1e-3)
    for row in rows:
        stated = {name: float(p) for name, p in row.items() if name.startswith("p_")}
        assert sum(stated.values()) == pytest.approx(1, abs=1e-5)
        assert max(stated, key=stated.__getitem__) == f"p_{row['emotion']}"
        assert row["abstained"] == str(float(row["confidence"]) < 0.2).lower()
    first = {(r["conversation_id"], r["speaker_id"]) for r in rows if not r["shift_probability"]}
    assert sum(not r["shift_probability"] for r in rows) == len(first)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--answers", "answers.xlsx"), "ends in .csv, .jsonl, .parquet"),
        (("--topic", "t", "--report", "r"), "leave out the checkpoint, --against, --json and"),
    ],
)
def test_answers_that_cannot_be_written_or_scored_are_known_at_once(
    data: str, pair: tuple[Path, Path], arguments: tuple[str, ...], sentence: str
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        run("evaluate", str(pair[0]), "--data", data, *arguments)


def test_comparing_on_test_is_a_look_of_both(
    data: str, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    ledger = tmp_path / "ledger.csv"
    one, other = map(str, pair)
    common = ("--data", data, "--split", "test", "--ledger", str(ledger))
    run("evaluate", one, "--against", other, *common)
    run("baseline", "majority", *common)
    with ledger.open(encoding="utf-8", newline="") as file:
        looked = [row["checkpoint"] for row in csv.DictReader(file)]
    digests = [load_checkpoint(folder).digest for folder in pair]
    assert looked == [*digests, "baseline-majority-seed0"]


@pytest.mark.slow
def test_a_report_that_cannot_be_written_is_one_sentence_and_leaves_nothing(
    data: str, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("kept", "utf-8")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ConfigError, match="--report"):
            run("evaluate", str(pair[0]), "--data", data, "--report", str(folder))
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text("utf-8") == "kept"


@pytest.mark.slow
def test_a_baseline_is_scored_as_a_checkpoint_is(data: str, tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    encoder = ("--encoder", str(write_tiny_encoder(tmp_path / "encoder")), "--runs", str(tmp_path))
    common = ("--data", data, "--json", str(figures), "--text-only")
    output = run("baseline", "logistic", *common, *encoder)
    assert "inverse penalty" in output
    rows = json.loads(figures.read_text("utf-8"))
    assert rows["A1"]["checkpoint"] == "baseline-logistic-text-seed0"
    begins = f"emotrack baseline logistic --data {data} --set generated --split dev"
    assert rows["command"].startswith(begins)


def test_a_baseline_without_conversations_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="EMOTRACK_DATA"):
        run("baseline", "majority", "--data", str(tmp_path))


def test_help_imports_neither_torch_nor_matplotlib_nor_scikit_learn() -> None:
    code = (
        "import sys, stream.main\n"
        "sys.exit(bool({'torch', 'matplotlib', 'sklearn'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=120, check=False).returncode == 0
