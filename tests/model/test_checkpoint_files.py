"""A checkpoint is its bytes: it loads as it was saved, and damage is reported in a sentence."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from model.checkpoint_files import calibration_from, default_checkpoint, write_card
from model.errors import CheckpointError
from model.interface import ServingOptions
from model.pcgnet.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from model.pcgnet.config import PcgnetConfig
from model.pcgnet.model import Pcgnet
from model.registry import load_predictor
from model.serving.calibration import Calibration, Thresholds
from model.text.languages import Languages
from state.window import Recurrence

CONFIG = PcgnetConfig(
    labels=("calm", "glad"), text=6, audio=4, video=0, hidden=8, recurrence=Recurrence(window=3)
)


FITTED = Calibration(1.5, 2.0, "dev", 0.6, (0.25, -0.5), (0.5, 1.4, -0.6))


def saved(folder: Path, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    save_checkpoint(
        folder,
        Pcgnet(CONFIG),
        calibration=FITTED,
        thresholds=Thresholds(0.3, 0.8, 0.6),
        extractors={"text": "made up"},
        card="# A model\n",
        version="7",
    )
    return folder


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    found = load_checkpoint(saved(tmp_path))
    assert found.config == CONFIG
    assert (found.version, found.calibration.shift, found.thresholds.shift_exit) == ("7", 2.0, 0.6)
    assert found.calibration == FITTED
    assert found.model().config == CONFIG


def test_temperatures_of_an_older_version_come_without_a_map() -> None:
    stored = {"emotion": 1.5, "shift": 2.0, "fitted_on": "dev"}
    assert calibration_from(stored) == Calibration(1.5, 2.0, "dev")


def test_the_same_model_gives_the_same_bytes_and_another_does_not(tmp_path: Path) -> None:
    first, again, other = (saved(tmp_path / str(i), seed) for i, seed in enumerate((1, 1, 2)))
    for name in ("model.safetensors", "config.json", "digest"):
        assert (first / name).read_bytes() == (again / name).read_bytes()
    assert load_checkpoint(first).digest != load_checkpoint(other).digest


def test_a_model_saved_again_after_loading_is_unchanged(tmp_path: Path) -> None:
    """Matrices are float16 on disk: once rounded they stay."""
    found = load_checkpoint(saved(tmp_path / "a"))
    digest = save_checkpoint(
        tmp_path / "b",
        found.model(),
        calibration=found.calibration,
        thresholds=found.thresholds,
        extractors=found.extractors,
        card="",
        version=found.version,
    )
    assert digest == found.digest


def test_the_card_is_no_part_of_the_digest(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    before = load_checkpoint(folder).digest
    write_card(folder, "---\nlicense: other\n---\n# Another card\n")
    assert load_checkpoint(folder).digest == before


def flip_a_weight(folder: Path) -> None:
    file = folder / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def edit_settings(folder: Path) -> None:
    file = folder / "config.json"
    file.write_text(file.read_text().replace('"window": 3', '"window": 4'))


def widen(folder: Path) -> None:
    """A digest that matches, but settings that do not fit the weights."""
    import hashlib

    edit = json.loads((folder / "config.json").read_text())
    edit["model"]["text"] = 7
    (folder / "config.json").write_text(json.dumps(edit))
    both = (folder / "model.safetensors").read_bytes() + (folder / "config.json").read_bytes()
    (folder / "digest").write_text(hashlib.sha256(both).hexdigest())


def cut_short(folder: Path) -> None:
    import hashlib

    weights = (folder / "model.safetensors").read_bytes()[:100]
    (folder / "model.safetensors").write_bytes(weights)
    both = weights + (folder / "config.json").read_bytes()
    (folder / "digest").write_text(hashlib.sha256(both).hexdigest())


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda f: (f / "model.safetensors").unlink(), "emotrack train"),
        (lambda f: (f / "digest").unlink(), "cannot be read"),
        (flip_a_weight, "damaged or was edited"),
        (edit_settings, "damaged or was edited"),
        (cut_short, "train it anew"),
        (widen, "project.text.weight"),
    ],
)
def test_a_checkpoint_that_cannot_be_used_says_why_and_what_to_do(
    tmp_path: Path, damage: Callable[[Path], None], says: str
) -> None:
    folder = saved(tmp_path)
    damage(folder)
    with pytest.raises(CheckpointError, match=says) as error:
        load_predictor(folder, ServingOptions(device="cpu"))
    assert str(tmp_path) in str(error.value)


@pytest.mark.slow
def test_the_recurrence_given_at_loading_is_part_of_the_states_digest(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    stored = load_predictor(folder, ServingOptions(device="cpu"))
    other = load_predictor(folder, ServingOptions(device="cpu", window=5))
    assert (stored.spec.recurrence.window, other.spec.recurrence.window) == (3, 5)
    assert stored.spec.digest != other.spec.digest
    assert stored.info.digest == other.info.digest


@pytest.mark.slow
def test_the_shipped_checkpoint_loads_and_is_small() -> None:
    folder = default_checkpoint()
    assert sum(f.stat().st_size for f in folder.iterdir()) <= 16 * 2**20
    info = load_predictor(serving=ServingOptions(device="cpu")).info
    assert set(info.sentiment) == set(info.labels)
    assert info.inputs["text"] == 384


def test_a_parameter_missing_from_the_weights_is_named(tmp_path: Path) -> None:
    from model.pcgnet.predictor import PcgnetPredictor

    whole: Checkpoint = load_checkpoint(saved(tmp_path))
    without = {name: w for name, w in whole.weights.items() if name != "task"}
    with pytest.raises(KeyError, match="task"):
        PcgnetPredictor(replace(whole, weights=without), torch.device("cpu"))


def test_languages_are_saved_and_what_judges_them_is_part_of_the_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker with another identifier must not take its answers for those of this one."""
    languages = Languages.of(["en"])
    torch.manual_seed(0)
    save_checkpoint(
        tmp_path, Pcgnet(CONFIG), calibration=FITTED, thresholds=Thresholds(), extractors={},
        card="", languages=languages,
    )  # fmt: skip
    found = load_checkpoint(tmp_path)
    assert found.languages == languages
    assert found.digest == (tmp_path / "digest").read_text("utf-8").strip()
    assert found.info({}, frozenset()).languages == ("en",)
    monkeypatch.setattr("model.text.languages.identity", lambda: "py3langid 0.5, data 0")
    assert load_checkpoint(tmp_path).digest != found.digest


def test_an_older_checkpoint_states_no_language(tmp_path: Path) -> None:
    found = load_checkpoint(saved(tmp_path))
    assert found.languages is None and found.judge() is None
    assert found.info({}, frozenset()).languages == ()
