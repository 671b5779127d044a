"""A third model is a folder, a line in the registry and a row of the study: nothing else."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from model.data.dataset import Dialogue
from model.data.reader import read_data_set
from model.data.writer import write_data_set
from model.interface import ServingOptions
from model.registry import KINDS, load_any, load_predictor
from model.study.rows import Row
from model.study.run import Job, load_answers, run_one
from model.whole_conversation import whole_answers
from stream.errors import ConfigError
from stream.settings import Settings
from tests.fakes.console import run
from tests.fakes.conversations import generated_conversations
from tests.stream.worker.test_loop import Plant

ROW = Row("counts", "word counts", set_name="generated", kind="counting", seeds=1, on_test=True)


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one line of the registry."""
    monkeypatch.setitem(KINDS, "counting", "tests.fakes.third_model")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_data_set(folder, generated_conversations(20, seed=3))
    return folder


@pytest.fixture
def folder(data: Path, tmp_path: Path) -> Path:
    """A checkpoint, trained from the command line."""
    run("train", "counting", "--data", str(data), "--runs", str(tmp_path), "--memory", "0.25")
    return tmp_path / "generated-counting"


def test_it_is_trained_and_evaluated_by_the_same_commands(
    data: Path, folder: Path, tmp_path: Path
) -> None:
    metrics = json.loads((folder / "metrics.json").read_text("utf-8"))
    places = f"--data {data} --set generated --runs {folder.parent}"
    command = f"emotrack train counting {places} --seed 0 --memory 0.25 --threads 1"
    assert metrics["command"] == command
    assert command in (folder / "README.md").read_text("utf-8")
    assert (folder / "learning-curves.png").is_file()
    figures = tmp_path / "figures.json"
    run("evaluate", str(folder), "--data", str(data), "--json", str(figures))
    assert json.loads(figures.read_text("utf-8"))["A1"] == metrics["A1"]
    assert metrics["A1"]["value"] > 0.3


def test_its_options_are_shown_and_those_of_others_are_refused(data: Path) -> None:
    assert "counting" in run("train", "--help")
    shown = run("train", "counting", "--help")
    assert "--memory" in shown and "--hidden" not in shown
    with pytest.raises(ConfigError, match="--memory is for counting"):
        run("train", "pcgnet", "--data", str(data), "--memory", "1")
    with pytest.raises(ConfigError, match="--hidden is for pcgnet"):
        run("train", "counting", "--data", str(data), "--hidden", "8")


def test_it_is_served_and_keeps_the_model_law(data: Path, folder: Path) -> None:
    """Utterance by utterance through the worker is what the whole conversations give at once."""
    plant = Plant(load_predictor(folder, ServingOptions(max_session_s=1e6, idle_s=1e6)))
    running = plant.worker()
    dialogues = read_data_set(data).split("dev")
    for dialogue in dialogues:
        publish(plant, dialogue)
    running.turns(60)
    expected = whole_answers(folder, dialogues)
    events = [json.loads(record.value or b"") for record in plant.predictions()]
    assert len(events) == len(expected) == sum(map(len, dialogues))
    for event in events:
        answer = expected[event["conversation_id"], event["utterance_id"]]
        assert list(event["probabilities"].values()) == pytest.approx(answer.emotion, abs=1e-5)
        assert (event["model"]["name"], event["model"]["digest"]) == (
            "counting",
            load_any(folder).digest,
        )


def publish(plant: Plant, dialogue: Dialogue) -> None:
    turns = zip(dialogue.utterance_ids, dialogue.speakers, dialogue.sentences, strict=True)
    for utterance, speaker, sentence in turns:
        plant.say(dialogue.dialogue_id, utterance_id=utterance, speaker_id=speaker, text=sentence)


def test_it_is_served_by_its_name_once_its_checkpoint_is_shipped(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("model.checkpoint_files.CHECKPOINTS", tmp_path / "shipped")
    shutil.copytree(folder, tmp_path / "shipped" / "counting-meld")
    assert load_predictor(Settings(model=Path("counting")).model).info.name == "counting"


def test_it_is_a_row_of_the_accuracy_study(data: Path, tmp_path: Path) -> None:
    job = Job(ROW, 0, data, tmp_path)
    run_one(job)
    assert job.done
    answers, calibration = load_answers(job.folder / "dev.npz")
    assert answers.classes == 7 and calibration == load_any(job.folder).calibration


def test_it_states_languages_and_abstains_outside_of_them(data: Path, tmp_path: Path) -> None:
    """By the option of every model and the judge that all share."""
    run(
        *("train", "counting", "--data", str(data), "--runs", str(tmp_path)),
        *("--name", "stated", "--languages", "en"),
    )
    predictor = load_predictor(tmp_path / "stated", ServingOptions())
    assert predictor.info.languages == ("en",)
    plant = Plant(predictor)
    running = plant.worker()
    plant.say("c", utterance_id="1", speaker_id="ann", text="What a lovely day, we left early.")
    plant.say("c", utterance_id="2", speaker_id="ann", text="Это был лучший день в моей жизни.")
    plant.say("c", utterance_id="3", speaker_id="ann", text="It is so dark.", language="fr")
    running.turns(20)
    events = [json.loads(record.value or b"") for record in plant.predictions()]
    assert [event["reason"] for event in events][1:] == ["language", "language"]
    assert events[0]["reason"] != "language"
