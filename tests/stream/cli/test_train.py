"""`emotrack train` and `evaluate` as a user types them, on generated conversations."""

from __future__ import annotations

import csv
import errno
import json
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from model.data.writer import write_data_set
from model.errors import CheckpointError
from model.pcgnet.checkpoint import load_checkpoint, save_checkpoint
from model.text.languages import Languages
from stream.errors import ConfigError, ModelUnfit, SourceError
from stream.main import EXTRA_OF
from tests.fakes.console import run
from tests.fakes.conversations import generated_conversations
from tests.fakes.encoder import write_tiny_encoder


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
        *("--epochs", "1", "--hidden", "8", "--text", "vectors"),
    )
    return runs / "one"


def test_training_leaves_a_checkpoint_its_card_and_its_metrics(data: Path, trained: Path) -> None:
    checkpoint = load_checkpoint(trained)
    metrics = json.loads((trained / "metrics.json").read_text("utf-8"))
    assert metrics["A1"]["checkpoint"] == checkpoint.digest
    assert metrics["A1"]["split"] == "dev"
    places = f"--data {data} --set generated --name one --runs {trained.parent}"
    assert metrics["command"].startswith(f"emotrack train {places} --text vectors --seed 0")
    card = (trained / "README.md").read_text("utf-8")
    assert metrics["command"] in card
    assert "inner state" in card
    assert "television" not in card  # the card of MELD alone mentions it
    assert len(metrics["epochs"]["value"]) == 1
    assert (trained / "learning-curves.png").read_bytes().startswith(b"\x89PNG")
    with (trained / "epochs.csv").open(encoding="utf-8", newline="") as file:
        (epoch,) = csv.DictReader(file)
    assert (epoch["epoch"], epoch["best"]) == ("1", "yes")
    f1 = metrics["epochs"]["value"][0]["dev_weighted_f1"]
    assert float(epoch["dev_weighted_f1"]) == pytest.approx(f1, abs=1e-6)
    assert not (trained / "progress.pt").exists()  # of no use once the run has ended


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


@pytest.mark.slow
def test_the_encoder_is_tuned_with_the_graph_and_evaluated_from_sentences(
    data: Path, tmp_path: Path
) -> None:
    """The default for a set with sentences, on a tiny encoder: raw text in, the same scores out."""
    encoder = write_tiny_encoder(tmp_path / "encoder", layers=3)
    settings = tmp_path / "small.yaml"
    settings.write_text("recipe: {tuned_layers: 2, mixed_layers: 2}\nmodel: {hidden: 8}\n")
    run(
        *("train", "--data", str(data), "--runs", str(tmp_path), "--name", "tuned"),
        *("--epochs", "1", "--encoder", str(encoder), "--recipe", str(settings)),
    )
    checkpoint = load_checkpoint(tmp_path / "tuned")
    assert checkpoint.text is not None
    assert checkpoint.text.delta
    assert checkpoint.extractors["text"] == checkpoint.text.extractor
    then = json.loads((tmp_path / "tuned" / "metrics.json").read_text("utf-8"))
    figures = tmp_path / "figures.json"
    run(
        *("evaluate", str(tmp_path / "tuned"), "--data", str(data), "--json", str(figures)),
        *("--encoder", str(encoder)),
    )
    now = json.loads(figures.read_text("utf-8"))
    assert now["A1"] == then["A1"]


def test_ten_conversations_in_a_csv_become_a_model(tmp_path: Path) -> None:
    """The commands of docs/data.md, with a model as small as can be."""
    lines = ["conversation_id,speaker_id,text,emotion"]
    for talk in range(10):
        for turn in range(6):
            text, emotion = [("That is great", "joy"), ("I hate it", "anger")][(talk + turn) % 2]
            lines.append(f"talk {talk},{'ann' if turn % 2 else 'bob'},{text},{emotion}")
    table = tmp_path / "talks.csv"
    table.write_text("\n".join(lines), "utf-8")
    encoder = write_tiny_encoder(tmp_path / "encoder")
    folder = tmp_path / "set"
    run("data", "convert", str(table), "--out", str(folder), "--name", "talks")
    run(
        *("train", "--data", str(folder), "--runs", str(tmp_path), "--text", "frozen"),
        *("--encoder", str(encoder), "--epochs", "2", "--hidden", "8"),
    )
    checkpoint = load_checkpoint(tmp_path / "talks")
    assert set(checkpoint.config.labels) == {"joy", "anger"}
    assert (checkpoint.config.audio, checkpoint.config.video) == (0, 0)


@pytest.mark.slow
def test_a_set_without_dev_is_trained_with_dialogues_held_out(
    tmp_path: Path,
) -> None:
    made = generated_conversations(14, seed=1)
    whole = made.split("train") + made.split("dev") + made.split("test")
    write_data_set(tmp_path, replace(made, dialogues={"train": whole, "dev": (), "test": ()}))
    common = ("--data", str(tmp_path), "--runs", str(tmp_path), "--text", "vectors")
    result = run("train", *common, "--epochs", "1", "--hidden", "8")
    assert "1 of 14 train dialogues held out" in result
    result = run("train", *common, "--epochs", "1", "--hidden", "8", "--folds", "2")
    said = " ".join(result.split())
    assert "2 folds, weighted F1 of the one left out" in said
    assert "fold 1: trained on 7 dialogues; the 7 left out chose epoch 1" in said
    told = json.loads((tmp_path / "generated" / "folds.json").read_text("utf-8"))
    assert "chose its epoch, calibration and thresholds" in told["note"]
    ids = {dialogue.dialogue_id for dialogue in whole}
    assert set().union(*(fold["left_out"] for fold in told["folds"])) == ids
    digests = [load_checkpoint(tmp_path / "generated" / f"fold-{i}").digest for i in (1, 2)]
    assert [fold["checkpoint"] for fold in told["folds"]] == digests
    scores = [fold["weighted_f1"] for fold in told["folds"]]
    assert told["over_folds"]["weighted_f1"]["mean"] == pytest.approx(sum(scores) / 2)
    assert load_checkpoint(tmp_path / "generated" / "fold-2").config.hidden == 8


def test_the_papers_preset_fits_the_datas_widths(data: Path, tmp_path: Path) -> None:
    run(
        *("train", "--data", str(data), "--runs", str(tmp_path), "--text", "vectors"),
        *("--epochs", "1", "--preset", "meld", "--bidirectional"),
    )
    config = load_checkpoint(tmp_path / "generated").config
    assert (config.hidden, config.text, config.research) == (200, 384, ("bidirectional",))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("recipe: {epoch: 3}", "did you mean epochs"),
        ("model: {hiden: 3}", "did you mean hidden"),
        ("training: {}", "two sections"),
        ("recipe: {balance: equal}", "`balance` is 'equal', must be one of fixed"),
        ("recipe: {learning_rate: fast}", "`learning_rate` is 'fast', expected a number"),
        ("recipe: {epochs: many}", "`epochs` is 'many', expected a whole number"),
        ("model: {labels: [a, b]}", "`labels` follows from the data set: leave it out"),
        ("model: {recurrence: {window: wide}}", "`window`, which is 'wide', expected a whole"),
        ("recipe: [1", "cannot read"),
    ],
)
def test_a_wrong_recipe_is_named_with_what_would_do(
    data: Path, tmp_path: Path, content: str, says: str
) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(content, "utf-8")
    with pytest.raises(ConfigError, match=says):
        run("train", "--data", str(data), "--runs", str(tmp_path), "--recipe", str(recipe))


def test_a_disk_that_is_full_leaves_the_checkpoint_that_was_there(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {file.name: file.read_bytes() for file in trained.iterdir()}

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("model.atomic_files.os.fsync", full)
    found = load_checkpoint(trained)
    with pytest.raises(CheckpointError, match="make room"):
        save_checkpoint(
            trained,
            found.model(),
            calibration=found.calibration,
            thresholds=found.thresholds,
            extractors={},
            card="another",
        )
    assert {file.name: file.read_bytes() for file in trained.iterdir()} == before


SMALL_HRG = """\
recipe: {mixed_layers: 2, epochs: 1, steps_at_least: 1}
model: {width: 16, heads: 2, head_width: 8, graph_heads: 2, feed_forward: 16, text: 16, detector: 4}
"""


@pytest.mark.slow
def test_the_other_model_is_trained_and_scored_by_the_same_commands(
    data: Path, tmp_path: Path
) -> None:
    encoder = write_tiny_encoder(tmp_path / "encoder")
    recipe = tmp_path / "small.yaml"
    recipe.write_text(SMALL_HRG)
    common = ("--data", str(data), "--encoder", str(encoder))
    run("train", "hrg-ssa", *common, "--runs", str(tmp_path), "--recipe", str(recipe))
    folder = tmp_path / "generated-hrg-ssa"
    metrics = json.loads((folder / "metrics.json").read_text("utf-8"))
    assert metrics["command"].startswith(f"emotrack train hrg-ssa --data {data} --set generated")
    figures = tmp_path / "figures.json"
    run("evaluate", str(folder), *common, "--json", str(figures))
    assert json.loads(figures.read_text("utf-8"))["A1"] == metrics["A1"]


@pytest.mark.parametrize("option", [("--hidden", "8"), ("--text", "vectors"), ("--preset", "meld")])
def test_what_is_only_pcgnets_is_refused_for_the_other(data: Path, option: tuple[str, str]) -> None:
    with pytest.raises(ConfigError, match=f"{option[0]} is for pcgnet"):
        run("train", "hrg-ssa", "--data", str(data), *option)
    with pytest.raises(ConfigError, match="--device is for hrg-ssa"):
        run("train", "--data", str(data), "--device", "cuda")
    with pytest.raises(ConfigError, match="--words-of is for hrg-ssa"):
        run("train", "--data", str(data), "--words-of", "pcgnet")


@pytest.mark.slow
def test_languages_are_stated_in_settings_card_and_command(data: Path, tmp_path: Path) -> None:
    common = ("train", "--data", str(data), "--runs", str(tmp_path), "--epochs", "1")
    run(*common, "--hidden", "8", "--text", "vectors", "--name", "stated", "--languages", "en")
    checkpoint = load_checkpoint(tmp_path / "stated")
    assert checkpoint.languages == Languages.of(["en"])
    card = (tmp_path / "stated" / "README.md").read_text("utf-8")
    assert "## Languages\n\nen, in Latin letters." in card
    assert "--languages en" in card
    with pytest.raises(ConfigError, match="ISO 639-1"):
        run(*common, "--text", "vectors", "--name", "wrong", "--languages", "klingon")
    with pytest.raises(SourceError, match=r"are not in de: .* --languages"):
        run(*common, "--text", "vectors", "--name", "german", "--languages", "de")


def test_a_checkpoint_of_another_encoder_states_no_language_by_itself(trained: Path) -> None:
    assert load_checkpoint(trained).languages is None
    card = (trained / "README.md").read_text("utf-8")
    assert "## Languages\n\nNone is stated: an utterance in any language is answered" in card


def test_epochs_of_a_recipe_are_the_epochs_that_run(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And without a terminal each is a plain line; 1e-3 is a number."""
    recipe = tmp_path / "short.yaml"
    recipe.write_text("recipe: {epochs: 2, learning_rate: 1e-3}\nmodel: {hidden: 8}\n", "utf-8")
    said = run(
        *("train", "--data", str(data), "--runs", str(tmp_path), "--text", "vectors"),
        *("--recipe", str(recipe)),
    )
    said += capsys.readouterr().err
    metrics = json.loads((tmp_path / "generated" / "metrics.json").read_text("utf-8"))
    assert len(metrics["epochs"]["value"]) == 2
    lines = [line for line in said.splitlines() if line.startswith("epoch ")]
    assert len(lines) == 2
    assert re.fullmatch(
        r"epoch 1 of at most 2: train loss \d+\.\d+, dev loss \d+\.\d+, dev weighted F1 \d+\.\d %, "
        r"best \d+\.\d % in epoch 1, at most \d+ s left",
        lines[0],
    )
    assert lines[1].endswith("nothing left")
    assert "learning_rate=0.001" in (tmp_path / "generated" / "README.md").read_text("utf-8")


def test_the_recipe_is_shown_without_any_data() -> None:
    shown = yaml.safe_load(run("train", "--show-recipe", "--text", "frozen", "--hidden", "16"))
    assert shown["recipe"]["epochs"] == 12
    assert shown["model"]["hidden"] == 16
    said = run("train", "hrg-ssa", "--show-recipe")
    assert yaml.safe_load(said)["recipe"]["sentence_weight"] == 0.3
    assert re.search(r"most_tokens: 128 +# \[tokens\] of an utterance; the rest is cut", said)


def emotrack(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "stream.main", *arguments], stderr=subprocess.PIPE, text=True,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip


def lines_of(process: subprocess.Popen[str], start: str, number: signal.Signals) -> list[str]:
    """Return what a process says, which gets a signal at each line with this start."""
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line)
        if line.startswith(start):
            process.send_signal(number)
    return said


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interruption_and_a_resumption_are_said(
    data: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    command = (
        *("train", "--data", str(data), "--runs", str(tmp_path), "--text", "vectors"),
        *("--hidden", "64", "--epochs", "40"),
    )
    with emotrack(*command) as process:
        said = lines_of(process, "epoch 2 of at most 40", number)
    assert process.returncode == code, said
    told = re.search(r"interrupted in epoch (\d+): run the same command again", said[-1])
    assert told, said
    done = int(told[1]) - 1
    assert f"it goes on after epoch {done}" in said[-1]
    rows = (tmp_path / "generated" / "epochs.csv").read_text("utf-8").splitlines()
    assert len(rows) == 1 + done
    with emotrack(*command) as process:
        said = lines_of(process, "epoch ", number)
    assert any(f"resuming: {done} epochs of at most 40 done" in line for line in said), said
    assert next(line for line in said if line.startswith("epoch ")).startswith(f"epoch {done + 1}")


def test_what_is_too_little_is_said_before_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_data_set(tmp_path, generated_conversations(8, seed=2))
    said = run(
        *("train", "--data", str(tmp_path), "--runs", str(tmp_path), "--text", "vectors"),
        *("--epochs", "1", "--hidden", "8"),
    )
    said = " ".join((said + capsys.readouterr().err).split())
    assert "warning: dev has 1 dialogue: the epoch" in said
    assert "it is the fallback 0.5; `emotrack thresholds` sets another" in said
    assert "an interval needs 10 at least" in said
    assert not re.search(r"\bnan\b|A4_|\baim\b", said)
    folder = tmp_path / "generated"
    assert load_checkpoint(folder).thresholds.shift == 0.5
    card = (folder / "README.md").read_text("utf-8")
    assert "Both are a fallback: dev has fewer than the 20 shifts" in card
    assert not re.search(r"\bnan\b", card)


def test_tensorboard_is_asked_for_by_its_extra(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(ModuleNotFoundError) as raised:
        run(
            *("train", "--data", str(data), "--runs", str(tmp_path), "--text", "vectors"),
            *("--tensorboard", str(tmp_path / "board")),
        )
    assert raised.value.name is not None
    assert EXTRA_OF[raised.value.name] == "tensorboard"
    assert not (tmp_path / "generated").exists()


def test_each_epoch_is_in_tensorboards_files(data: Path, tmp_path: Path) -> None:
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="the extra tensorboard"
    )
    run(
        *("train", "--data", str(data), "--runs", str(tmp_path), "--text", "vectors"),
        *("--epochs", "2", "--hidden", "8", "--tensorboard", str(tmp_path / "board")),
    )
    events = accumulator.EventAccumulator(str(tmp_path / "board" / "generated")).Reload()
    metrics = json.loads((tmp_path / "generated" / "metrics.json").read_text("utf-8"))
    found = [(event.step, event.value) for event in events.Scalars("dev/weighted_f1")]
    epochs = metrics["epochs"]["value"]
    assert found == [(e["number"], pytest.approx(e["dev_weighted_f1"])) for e in epochs]
