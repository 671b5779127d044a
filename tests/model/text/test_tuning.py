"""Tuning a sentence encoder: the part that is trained, its stored form, and serving."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from model.data.dataset import DataSet
from model.errors import CheckpointError, EncoderMissing
from model.interface import ServingOptions, Turn
from model.pcgnet.checkpoint import load_checkpoint, save_checkpoint
from model.pcgnet.model import Pcgnet
from model.pcgnet.recipe import Recipe
from model.pcgnet.train import fitting_config
from model.pcgnet.whole import answer
from model.registry import load_predictor
from model.scoring.calibrate import emotion_probabilities
from model.text.encode_sentences import with_text
from model.text.sentence_encoder import SentenceEncoder, TextEncoder, encoder_digest, find_encoder
from model.text.tuning import TunedEncoder
from model.training.loop import Trained
from state.window import Window
from tests.fakes.conversations import generated_conversations
from tests.fakes.encoder import write_tiny_encoder
from tests.fakes.training import train

SENTENCES = ["we wrote it down", "oh", "", "what a lovely day this smells rotten stop doing that"]
RECIPE = Recipe(
    epochs=2, steps_at_least=1, batch_utterances=60, mixed_layers=2, tuned_layers=2,
    encoder_rate=1e-2, learning_rate=1e-2,
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="module")
def data() -> DataSet:
    data = generated_conversations(16, seed=2)
    return replace(data, widths={**data.widths, "text": 16})


@pytest.fixture(scope="module")
def trained(data: DataSet, folder: Path) -> Trained[Pcgnet]:
    return train(data, fitting_config(data, hidden=8), RECIPE, seed=0, encoder=folder)


def keep(where: Path, trained: Trained[Pcgnet]) -> None:
    save_checkpoint(
        where,
        trained.model,
        calibration=trained.calibration,
        thresholds=trained.thresholds,
        extractors={},
        card="",
        text=trained.text,
    )


@pytest.mark.parametrize("kind", ["bert", "roberta"])
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_before_training_the_two_halves_are_the_whole_encoder(
    tmp_path: Path, kind: str, layers: int
) -> None:
    """States are stored as float16 between the halves: the difference is theirs."""
    where = write_tiny_encoder(tmp_path, kind=kind)
    halves = TunedEncoder(where, trained=2, layers=layers).eval()
    whole = SentenceEncoder.load(where, TextEncoder(encoder_digest(where), "tiny", layers))
    with torch.no_grad():
        vectors = halves(halves.lower(SENTENCES)).numpy()
    np.testing.assert_allclose(vectors, whole.encode(SENTENCES), rtol=0, atol=2e-3)


def test_a_sentences_vector_does_not_depend_on_its_neighbours(folder: Path) -> None:
    halves = TunedEncoder(folder, trained=2, layers=2).eval()
    states = halves.lower(SENTENCES)
    with torch.no_grad():
        together = halves(states)
        for i, state in enumerate(states):
            torch.testing.assert_close(halves([state])[0], together[i], rtol=0, atol=1e-6)


def test_the_saved_encoder_is_the_one_evaluated(folder: Path) -> None:
    """The 8-bit copy that dev chooses on, and the encoder a worker loads, say the same."""
    halves = TunedEncoder(folder, trained=2, layers=2)
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in halves.parameters():
            weight.add_(0.05 * torch.randn(weight.shape, generator=draw))
        judged = halves.as_saved()
        vectors = judged(judged.lower(SENTENCES)).numpy()
    loaded = SentenceEncoder.load(folder, halves.text_encoder())
    np.testing.assert_allclose(vectors, loaded.encode(SENTENCES), rtol=0, atol=2e-3)
    untuned = SentenceEncoder.load(folder, replace(halves.text_encoder(), delta={}))
    assert np.abs(vectors - untuned.encode(SENTENCES).astype(np.float32)).max() > 0.02


def test_encoding_many_equals_encoding_one_by_one(folder: Path) -> None:
    loaded = SentenceEncoder.load(folder, TextEncoder(encoder_digest(folder), "tiny", 2))
    together = loaded.encode_many(SENTENCES)
    np.testing.assert_allclose(together, loaded.encode(SENTENCES), rtol=0, atol=1e-3)


def test_layers_that_the_encoder_lacks_are_refused(folder: Path) -> None:
    with pytest.raises(EncoderMissing, match="3 layers"):
        TunedEncoder(folder, trained=4, layers=1)
    with pytest.raises(EncoderMissing, match="average 4"):
        TunedEncoder(folder, trained=2, layers=4)
    with pytest.raises(EncoderMissing, match="3 layers"):
        SentenceEncoder.load(folder, TextEncoder(encoder_digest(folder), "tiny", 5))


def test_training_changes_the_upper_layers_and_no_other(trained: Trained[Pcgnet]) -> None:
    assert trained.text is not None
    tensors = {name for name in trained.text.delta if not name.endswith(".scale")}
    assert tensors
    assert all(name.startswith(("encoder.layer.1.", "encoder.layer.2.")) for name in tensors)


def test_a_checkpoint_brings_its_encoder_and_the_worker_uses_it(
    tmp_path: Path, trained: Trained[Pcgnet], data: DataSet, folder: Path
) -> None:
    """Raw text through the worker's step is the whole form on the tuned encoder's vectors."""
    keep(tmp_path, trained)
    served = load_predictor(tmp_path, ServingOptions(device="cpu", encoder=folder))
    dialogue = data.split("dev")[0]
    loaded = SentenceEncoder.load(find_encoder(folder), load_checkpoint(tmp_path).text)
    alone = with_text(dialogue, loaded.encode(dialogue.sentences).astype(np.float32))
    alone = replace(alone, present=alone.present & np.array([True, False, False, False]))
    expected = answer(load_checkpoint(tmp_path).model(), [alone])
    first = Turn(Window.empty(served.spec), dialogue.speakers[0], {}, text=dialogue.sentences[0])
    (prediction,) = served.predict([first])
    (wanted,) = emotion_probabilities(expected.emotion[:1], trained.calibration)
    np.testing.assert_allclose(prediction.probabilities, wanted, atol=2e-3)


def test_a_damaged_or_missing_encoder_file_is_refused(
    tmp_path: Path, trained: Trained[Pcgnet], folder: Path
) -> None:
    keep(tmp_path, trained)
    (tmp_path / "encoder.safetensors").unlink()
    with pytest.raises(CheckpointError, match="missing, damaged"):
        load_checkpoint(tmp_path)


def test_another_encoder_than_the_checkpoints_is_refused(
    tmp_path: Path, trained: Trained[Pcgnet]
) -> None:
    other = write_tiny_encoder(tmp_path, seed=5)
    with pytest.raises(EncoderMissing, match="not the"):
        SentenceEncoder.load(other, trained.text)
