"""The laws from raw text on: a checkpoint with its own tuned encoder, sentences in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from model.data.dataset import DataSet, Dialogue
from model.evaluate import answers_of
from model.interface import Modality, Prediction, Predictor, ServingOptions, Tensor, Turn
from model.pcgnet.checkpoint import load_checkpoint, save_checkpoint
from model.pcgnet.recipe import Recipe
from model.pcgnet.train import fitting_config
from model.registry import load_predictor
from model.whole_conversation import whole_answers
from state.window import Window
from tests.fakes.conversations import generated_conversations
from tests.fakes.device import DEVICE
from tests.fakes.encoder import write_tiny_encoder
from tests.fakes.training import train

STORED = 2e-3  # the model law under the stored precision (architecture §3a)
RECIPE = Recipe(
    epochs=1, steps_at_least=1, batch_utterances=60, mixed_layers=2, tuned_layers=2,
    encoder_rate=1e-2, learning_rate=1e-2,
)  # fmt: skip
NAMES: tuple[Modality, ...] = ("audio", "video")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="module")
def data() -> DataSet:
    data = generated_conversations(16, seed=4)
    return replace(data, widths={**data.widths, "text": 16})


@pytest.fixture(scope="module")
def folder(data: DataSet, encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    trained = train(data, fitting_config(data, hidden=8), RECIPE, seed=0, encoder=encoder)
    where = tmp_path_factory.mktemp("checkpoint")
    save_checkpoint(
        where,
        trained.model,
        calibration=trained.calibration,
        thresholds=trained.thresholds,
        extractors={"text": "tiny"},
        card="",
        text=trained.text,
    )
    return where


@pytest.fixture(scope="module")
def served(folder: Path, encoder: Path) -> Predictor:
    return load_predictor(folder, ServingOptions(device=DEVICE, encoder=encoder))


def answers_to(by: Predictor, dialogue: Dialogue) -> list[Prediction]:
    """Utterance by utterance, words in."""
    window, answers = Window.empty(by.spec), []
    for i, (speaker, sentence) in enumerate(
        zip(dialogue.speakers, dialogue.sentences, strict=True)
    ):
        features = {
            name: Tensor("float32", values.shape, values.tobytes())
            for column, name in enumerate(NAMES, start=1)
            if dialogue.present[i, column]
            for values in (dialogue.features[name][i],)
        }
        traits = dialogue.features["persona"][i]
        persona = tuple(traits.tolist()) if dialogue.present[i, 3] else None
        (answer,) = by.predict([Turn(window, speaker, features, persona, sentence)])
        window, _ = window.push(
            by.spec.recurrence,
            answer.applied,
            utterance_id=str(i),
            speaker_id=speaker,
        )
        answers.append(answer)
    return answers


def bytes_of(answers: Sequence[Prediction]) -> list[bytes]:
    return [np.array(a.probabilities).tobytes() + a.applied.row.tobytes() for a in answers]


def longest(data: DataSet) -> Dialogue:
    return max(data.split("dev"), key=len)


def test_step_by_step_from_words_is_the_whole_conversation_at_once(
    folder: Path, encoder: Path, data: DataSet, served: Predictor
) -> None:
    dialogues = data.split("dev")
    whole = whole_answers(folder, dialogues, encoder=encoder)
    for dialogue in dialogues:
        for uid, answer in zip(dialogue.utterance_ids, answers_to(served, dialogue), strict=True):
            expected = whole[dialogue.dialogue_id, uid]
            np.testing.assert_allclose(answer.probabilities, expected.emotion, atol=STORED)
            assert (answer.shift is None) == (expected.shift is None)
            if answer.shift is not None and expected.shift is not None:
                np.testing.assert_allclose(answer.shift, expected.shift.ravel(), atol=STORED)


def test_a_later_sentence_changes_no_earlier_answer(
    folder: Path, encoder: Path, data: DataSet, served: Predictor
) -> None:
    """In the step to the byte; in the whole form too, which has the sentence in front of it."""
    dialogue = longest(data)
    cut = len(dialogue) - 2
    other = (*dialogue.sentences[:cut], *("stop doing that",) * 2)
    changed = replace(dialogue, sentences=other)
    before, after = bytes_of(answers_to(served, dialogue)), bytes_of(answers_to(served, changed))
    assert before[:cut] == after[:cut]
    assert before[cut:] != after[cut:]
    checkpoint = load_checkpoint(folder)
    scores = []
    for spoken in (dialogue, changed):
        one = replace(data, dialogues={**data.dialogues, "dev": (spoken,)})
        scores.append(answers_of(checkpoint, one, "dev", encoder=encoder).emotion)
    np.testing.assert_allclose(scores[0][:cut], scores[1][:cut], rtol=0, atol=1e-6)
    assert np.abs(scores[0][cut:] - scores[1][cut:]).max() > 1e-4


def test_words_give_the_same_bytes_alone_and_in_any_company(
    data: DataSet, served: Predictor
) -> None:
    dialogue = longest(data)
    first = [
        Turn(Window.empty(served.spec), "ann", {}, text=sentence) for sentence in dialogue.sentences
    ]
    alone = [served.predict([turn])[0] for turn in first]
    assert bytes_of(alone) == bytes_of(served.predict(first))
    assert bytes_of(alone) == bytes_of(served.predict(first[::-1])[::-1])
