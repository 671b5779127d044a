"""`emotrack train` and `evaluate` as a person types them, on generated conversations."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from model.checkpoint import load_checkpoint
from model.data import generated_conversations, write_data_set
from stream import cli_evaluate, cli_train
from stream.errors import ConfigError, ModelUnfit, SourceError

app = typer.Typer()
app.command("train")(cli_train.train)
app.command("evaluate")(cli_evaluate.evaluate)


def run(*arguments: str) -> None:
    """Run a command; what it raises is raised here."""
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_data_set(folder, generated_conversations(20, seed=3))
    return folder


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("runs")
    run(
        *("train", "--data", str(data), "--runs", str(runs), "--name", "one"),
        *("--epochs", "1", "--hidden", "8"),
    )
    return runs / "one"


def test_training_leaves_a_checkpoint_its_card_and_its_metrics(trained: Path) -> None:
    checkpoint = load_checkpoint(trained)
    metrics = json.loads((trained / "metrics.json").read_text("utf-8"))
    assert metrics["A1"]["checkpoint"] == checkpoint.digest
    assert metrics["A1"]["split"] == "dev"
    assert metrics["command"].startswith("emotrack train --set generated --seed 0")
    card = (trained / "README.md").read_text("utf-8")
    assert metrics["command"] in card
    assert "inner state" in card
    assert "television" not in card  # that is said of MELD only
    assert len(metrics["epochs"]["value"]) == 1


def test_evaluating_what_was_trained_repeats_its_metrics(
    data: Path, trained: Path, tmp_path: Path
) -> None:
    figures = tmp_path / "figures.json"
    run("evaluate", str(trained), "--data", str(data), "--json", str(figures))
    now = json.loads(figures.read_text("utf-8"))
    then = json.loads((trained / "metrics.json").read_text("utf-8"))
    for name in ("A1", "A4_auroc", "A4_c2_wf1", "A5_emotion", "A5_shift"):
        assert now[name] == then[name]
    assert {"machine", "command", "commit"} <= set(now)


def test_every_look_at_test_is_a_line_of_the_ledger_and_dev_is_none(
    data: Path, trained: Path, tmp_path: Path
) -> None:
    ledger = tmp_path / "ledger.csv"
    common = ("evaluate", str(trained), "--data", str(data), "--ledger", str(ledger))
    run(*common, "--split", "dev")
    assert not ledger.exists()
    run(*common, "--split", "test")
    run(*common, "--split", "test")
    with ledger.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2
    digest = load_checkpoint(trained).digest
    assert [row["checkpoint"] for row in rows] == [digest, digest]
    assert 0 <= float(rows[0]["wf1_low"]) <= float(rows[0]["wf1"]) <= 1


def test_a_look_at_test_that_cannot_be_recorded_is_refused(data: Path, trained: Path) -> None:
    missing = str(data / "nowhere" / "ledger.csv")
    with pytest.raises(ConfigError, match="--ledger"):
        run(
            *("evaluate", str(trained), "--data", str(data)),
            *("--split", "test", "--ledger", missing),
        )


def test_a_width_the_heads_cannot_share_is_one_clear_message(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="hidden=10"):
        run("train", "--data", str(data), "--runs", str(tmp_path), "--hidden", "10")


def test_wrong_folders_are_one_clear_message(data: Path, trained: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="EMOTRACK_DATA"):
        run("evaluate", str(trained), "--data", str(tmp_path))
    with pytest.raises(ModelUnfit, match="safetensors"):
        run("evaluate", str(tmp_path), "--data", str(data))
