"""`emotrack thresholds` as a person types it: a table, and a copy under a new digest."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from model import scoring
from model.checkpoint_files import default_checkpoint, text_encoder_of
from model.data.writer import write_data_set
from model.pcgnet.checkpoint import load_checkpoint, save_checkpoint
from model.pcgnet.model import Pcgnet
from model.pcgnet.train import fitting_config
from model.scoring.card import front_matter
from model.serving.calibration import Calibration, Thresholds
from model.training.loop import normalise_inputs
from stream.errors import ConfigError, ModelUnfit
from tests.fakes import console
from tests.fakes.conversations import generated_conversations

SCORING = Path(scoring.__path__[0])
DATA = generated_conversations(120, seed=3)
FEW = generated_conversations(10, seed=3)
CARD = "---\nlicense: unknown\n---\n\n# A model\n\nIt fires at 0.900.\n"
SHIPPED = {
    "pcgnet": "3264bba2a19615fe2eb55e3f7a9605fcc08790ee94d69ebe413be0456d1a913a",
    "hrg-ssa": "af28729484918ad74ad84a680c313d8eb787b91e0a6d57550afaf17581a29f09",
}


def run(*arguments: str) -> str:
    return " ".join(console.run(*arguments).split())


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """A checkpoint, a set with enough shifts on dev and one with few."""
    folder = tmp_path_factory.mktemp("thresholds")
    model = Pcgnet(fitting_config(DATA, hidden=8))
    normalise_inputs(model, DATA.split("train"))
    save_checkpoint(
        folder / "own", model, calibration=Calibration(0.8, 1.1, "dev"),
        thresholds=Thresholds(0.2, 0.9, 0.8), extractors={"audio": "praat"}, card=CARD,
    )  # fmt: skip
    for name, data in (("data", DATA), ("few", FEW)):
        write_data_set(folder / name, data)
    return folder / "own", str(folder / "data"), str(folder / "few")


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_points_are_shown_and_nothing_is_written(made: tuple[Path, str, str]) -> None:
    checkpoint, data, _ = made
    before = contents(checkpoint)
    said = run("thresholds", str(checkpoint), "--data", data, "--utterances-an-hour", "1200")
    assert "5 per 100" in said and "least sure 5 %" in said
    assert "an hour" in said and "nan" not in said
    assert contents(checkpoint) == before


def test_a_budget_is_written_to_a_copy_with_a_new_digest(
    made: tuple[Path, str, str], tmp_path: Path
) -> None:
    checkpoint, data, _ = made
    before, old = contents(checkpoint), load_checkpoint(checkpoint)
    out = tmp_path / "calm"
    said = run(
        *("thresholds", str(checkpoint), "--data", data, "--false-alarms", "5"),
        *("--abstain", "10", "--out", str(out)),
    )
    new = load_checkpoint(out)
    assert contents(checkpoint) == before
    assert new.digest != old.digest and new.digest in said
    assert new.thresholds.shift_exit < new.thresholds.shift != old.thresholds.shift
    assert (new.calibration, new.extractors, new.config) == (
        old.calibration, old.extractors, old.config,
    )  # fmt: skip
    assert (out / "model.safetensors").read_bytes() == before["model.safetensors"]
    metrics = json.loads((out / "metrics.json").read_text("utf-8"))
    assert metrics["A4_auroc"]["alert_false_per_100_pairs"] <= 5
    assert metrics["A5_emotion"]["abstained_share"] == pytest.approx(0.1, abs=0.01)
    assert metrics["A1"]["checkpoint"] == new.digest
    assert "--false-alarms 5 --abstain 10" in metrics["command"]
    card = (out / "README.md").read_text("utf-8")
    assert card.startswith("---\nlicense: unknown\n---\n\n# A model\n\nThresholds set again")
    assert old.digest in card and card.endswith("It fires at 0.900.\n")


def test_a_budget_an_hour_follows_from_the_traffic(made: tuple[Path, str, str]) -> None:
    checkpoint, data, _ = made
    common = ("thresholds", str(checkpoint), "--data", data)
    dev = DATA.split("dev")
    utterances = sum(len(d) for d in dev)
    pairs = sum(len(d) - len(set(d.speakers)) for d in dev)
    budget = 5 / 100 * pairs / utterances * 1200  # the same as 5 of 100 pairs
    hourly = ("--false-alarms-an-hour", str(budget), "--utterances-an-hour", "1200")
    chosen = [
        said.split("chosen")[1].split()[1] for said in (
            run(*common, *hourly), run(*common, "--false-alarms", "5"),
        )
    ]  # fmt: skip
    assert chosen[0] == chosen[1]


def test_a_checkpoint_is_never_replaced(made: tuple[Path, str, str]) -> None:
    checkpoint, data, _ = made
    before = contents(checkpoint)
    for out in (checkpoint, checkpoint / "README.md"):
        with pytest.raises(ModelUnfit, match="never replaced"):
            run("thresholds", str(checkpoint), "--data", data, "--alert-at", "0.5", "--out",
                str(out))  # fmt: skip
    assert contents(checkpoint) == before


def test_few_shifts_give_the_fallback_and_a_warning(
    made: tuple[Path, str, str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    checkpoint, _, few = made
    out = tmp_path / "fallback"
    said = run(
        *("thresholds", str(checkpoint), "--data", few),
        *("--false-alarms", "2", "--out", str(out)),
    )
    said += capfd.readouterr().err
    assert "fewer than the 20" in said and "0.5 is a fallback" in said
    points = load_checkpoint(out).thresholds
    assert (points.shift, points.shift_exit) == (0.5, 0.4)
    assert "too few shifts" in (out / "README.md").read_text("utf-8")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--false-alarms-an-hour", "3"), "--utterances-an-hour"),
        (("--false-alarms", "3", "--alert-at", "0.5"), "choose one"),
        (("--abstain", "3", "--abstain-below", "0.5"), "choose one"),
        (("--out", "somewhere"), "what is to be set"),
    ],
)
def test_options_that_contradict_are_one_sentence(
    made: tuple[Path, str, str], options: tuple[str, ...], says: str
) -> None:
    checkpoint, data, _ = made
    with pytest.raises(ConfigError, match=says):
        run("thresholds", str(checkpoint), "--data", data, *options)


def test_points_that_it_has_already_are_not_written(
    made: tuple[Path, str, str], tmp_path: Path
) -> None:
    checkpoint, data, _ = made
    with pytest.raises(ModelUnfit, match="has these thresholds"):
        run("thresholds", str(checkpoint), "--data", data, "--abstain-below", "0.2", "--out",
            str(tmp_path / "same"))  # fmt: skip
    assert not (tmp_path / "same").exists()


@pytest.mark.parametrize("kind", ["pcgnet", "hrg-ssa"])
def test_the_shipped_checkpoints_keep_their_digests(kind: str) -> None:
    folder = default_checkpoint(kind)
    assert (folder / "digest").read_text("utf-8").strip() == SHIPPED[kind]
    assert text_encoder_of(Path(kind)) is not None  # its files are read against the digest
    before, front, card = (folder / "README.md").read_text("utf-8").split("---\n", 2)
    assert before == ""
    matter = yaml.safe_load(front)
    assert (matter["license"], matter["language"], matter["datasets"]) == (
        "other", ["en"], ["declare-lab/MELD"],
    )  # fmt: skip
    assert matter == yaml.safe_load(front_matter("meld", ("en",)).strip("-\n"))
    assert (SCORING / "card_licence_meld.md").read_text("utf-8") in card
    for said in ("GPL-3.0", "| none |", "commercial use", "doi 10."):
        assert said in card
