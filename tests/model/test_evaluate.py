"""Evaluation of saved checkpoints, and of the shipped one where real conversations are."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from model.checkpoint_files import default_checkpoint
from model.data.dataset import UNLABELLED, Dialogue, speaker_pairs
from model.data.reader import read_data_set
from model.errors import CheckpointError
from model.evaluate import answers_of, compare, evaluate
from model.pcgnet.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from model.pcgnet.model import Pcgnet
from model.pcgnet.train import fitting_config
from model.pcgnet.whole import answer
from model.scoring.bootstrap import SCORES
from model.scoring.calibrate import shift_cells
from model.scoring.report import goal_rows, report_data, score
from model.serving.calibration import Calibration, Thresholds
from model.training.loop import normalise_inputs
from model.whole_conversation import whole_answers
from tests.fakes.conversations import generated_conversations

DATA = generated_conversations(20, seed=2)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    torch.manual_seed(2)  # whatever ran before in this process
    model = Pcgnet(fitting_config(DATA, hidden=16))
    normalise_inputs(model, DATA.split("train"))
    return saved(model, tmp_path_factory.mktemp("checkpoint"))


def saved(model: Pcgnet, folder: Path) -> Checkpoint:
    """The model, written and read again."""
    save_checkpoint(
        folder,
        model,
        calibration=Calibration(1.2, 0.9, "dev"),
        thresholds=Thresholds(0.1, 0.9, 0.8),
        extractors=DATA.extractors,
        card="",
    )
    return load_checkpoint(folder)


def test_every_utterance_and_every_speakers_pair_is_answered_once(checkpoint: Checkpoint) -> None:
    dialogues = DATA.split("train")
    found = answer(checkpoint.model(), dialogues)
    assert len(found.labels) == sum(len(d) for d in dialogues)
    assert len(found.shifts) == sum(len(speaker_pairs(d)) for d in dialogues)
    truth = np.concatenate([d.labels for d in dialogues])
    np.testing.assert_array_equal(found.labels, truth)
    moved = [d.labels[p[:, 0]] != d.labels[p[:, 1]] for d in dialogues for p in [speaker_pairs(d)]]
    assert found.shifted.sum() == np.concatenate(moved).sum()


def test_pairs_are_scored_as_they_are_answered(tmp_path: Path) -> None:
    """With both utterances' emotions in them, not as the shift head alone is trained."""
    model = Pcgnet(fitting_config(DATA, hidden=16))
    calibration = saved(model, tmp_path).calibration
    dialogues = DATA.split("dev")
    found = shift_cells(answer(model, dialogues).shift, calibration)
    stated = whole_answers(tmp_path, dialogues)
    wanted = [
        cells.ravel()
        for dialogue in dialogues
        for utterance in dialogue.utterance_ids
        if (cells := stated[dialogue.dialogue_id, utterance].shift) is not None
    ]
    assert len(found) == len(wanted)
    np.testing.assert_allclose(np.sort(found, axis=0), np.sort(wanted, axis=0), atol=2e-3)


def test_no_label_reaches_an_answer(checkpoint: Checkpoint) -> None:
    """Scrambled labels change the truth that is scored against, and not one logit."""
    dialogues = DATA.split("dev")
    other = [replace(d, labels=(d.labels + 1) % 7) for d in dialogues]
    model = checkpoint.model()
    honest, scrambled = answer(model, dialogues), answer(model, other)
    np.testing.assert_array_equal(honest.emotion, scrambled.emotion)
    np.testing.assert_array_equal(honest.shift, scrambled.shift)
    assert not np.array_equal(honest.labels, scrambled.labels)


def test_unlabelled_utterances_are_read_but_not_scored(checkpoint: Checkpoint) -> None:
    def forget_first(dialogue: Dialogue) -> Dialogue:
        labels = dialogue.labels.copy()
        labels[0] = UNLABELLED
        return replace(dialogue, labels=labels)

    dialogues = DATA.split("dev")
    model = checkpoint.model()
    full = answer(model, dialogues)
    part = answer(model, [forget_first(d) for d in dialogues])
    first = np.unique(full.dialogue, return_index=True)[1]
    np.testing.assert_array_equal(part.emotion, np.delete(full.emotion, first, axis=0))
    assert len(part.shifts) < len(full.shifts)


def test_the_report_is_what_the_answers_say(checkpoint: Checkpoint) -> None:
    found = answer(checkpoint.model(), DATA.split("train"))
    report = score(found, checkpoint.calibration, checkpoint.thresholds, DATA.labels)
    assert report.accuracy.value == pytest.approx((found.emotion.argmax(1) == found.labels).mean())
    assert report.shift_base_rate == pytest.approx(found.shifted.mean())
    assert report.weighted_f1.low <= report.weighted_f1.value <= report.weighted_f1.high
    assert report.shift_auroc.low <= report.shift_auroc.value <= report.shift_auroc.high
    assert report.pairs == len(found.shifts)
    assert list(report.class_f1) == list(DATA.labels)


def test_goal_rows_are_json_with_their_goals(checkpoint: Checkpoint) -> None:
    rows = goal_rows(evaluate(checkpoint, DATA, "dev"))
    assert set(rows) == {"A1", "A4_auroc", "A4_c2_wf1", "A5_emotion", "A5_shift"}
    for row in json.loads(json.dumps(rows)).values():
        assert {"value", "unit", "first", "aim", "reference"} <= set(row)


def test_what_is_not_a_number_is_null_in_json(checkpoint: Checkpoint) -> None:
    """Alone in their conversations, speakers have no pairs: no shift can be scored."""
    alone = [replace(d, speakers=tuple(map(str, range(len(d))))) for d in DATA.split("dev")]
    report = evaluate(
        checkpoint, replace(DATA, dialogues={**DATA.dialogues, "dev": tuple(alone)}), "dev"
    )
    rows = json.loads(json.dumps(goal_rows(report), allow_nan=False))
    assert rows["A4_auroc"]["value"] is None
    assert rows["A5_shift"]["value"] is None
    assert rows["A1"]["value"] > 0
    json.dumps(report_data(report), allow_nan=False)


def test_evaluating_twice_gives_the_same_report(checkpoint: Checkpoint) -> None:
    one, two = (repr(evaluate(checkpoint, DATA, "dev")) for _ in range(2))  # NaN equals itself
    assert one == two


def test_a_set_with_other_labels_or_widths_is_refused_in_one_sentence(
    checkpoint: Checkpoint,
) -> None:
    with pytest.raises(CheckpointError, match="trained on that set"):
        evaluate(checkpoint, replace(DATA, labels=tuple("abcdefg")), "dev")
    with pytest.raises(CheckpointError, match="300 numbers"):
        evaluate(checkpoint, replace(DATA, widths={**DATA.widths, "audio": 300}), "dev")


def test_a_split_without_labels_is_one_clear_sentence(checkpoint: Checkpoint) -> None:
    silent = [replace(d, labels=np.full_like(d.labels, UNLABELLED)) for d in DATA.split("dev")]
    data = replace(DATA, dialogues={**DATA.dialogues, "dev": tuple(silent)})
    with pytest.raises(CheckpointError, match="no labelled utterance"):
        answers_of(checkpoint, data, "dev")
    with pytest.raises(CheckpointError, match="--split"):
        evaluate(checkpoint, replace(DATA, dialogues={**DATA.dialogues, "dev": ()}), "dev")


def test_a_checkpoint_against_itself_differs_by_exactly_nothing(checkpoint: Checkpoint) -> None:
    one, other, found = compare(checkpoint, checkpoint, DATA, "dev")
    assert repr(one) == repr(other)
    assert [d.score for d in found] == list(SCORES)
    for difference in found:
        assert (difference.value, difference.low, difference.high) == (0, 0, 0)
        assert difference.share_not_above == 1
        assert difference.verdict == "within noise"


def test_checkpoints_that_read_different_inputs_can_be_compared(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    model = Pcgnet(replace(fitting_config(DATA, hidden=8), audio=0, video=0))
    other = saved(model, tmp_path)
    one, two, found = compare(checkpoint, other, DATA, "train")
    gap = next(d for d in found if d.score == "accuracy")
    assert gap.value == pytest.approx(one.accuracy.value - two.accuracy.value)
    assert gap.low < gap.high


def test_checkpoints_of_different_labels_cannot_be_compared(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    config = replace(fitting_config(DATA, hidden=8), labels=("calm", "joy"), sentiment={})
    with pytest.raises(CheckpointError, match="different labels"):
        compare(checkpoint, saved(Pcgnet(config), tmp_path), DATA, "dev")


@pytest.mark.slow
def test_the_shipped_checkpoint_scores_what_its_metrics_say(data_folder: Path | None) -> None:
    """metrics.json next to the shipped weights was written by `emotrack train` on dev."""
    folder = default_checkpoint()
    metrics = json.loads((folder / "metrics.json").read_text("utf-8"))
    shipped = load_checkpoint(folder)
    assert metrics["A1"]["checkpoint"] == shipped.digest
    if data_folder is None:
        pytest.skip("no real conversations here (EMOTRACK_DATA)")
    rows = goal_rows(evaluate(shipped, read_data_set(data_folder, "meld"), "dev"))
    # Another machine adds in another order: a few answers near a tie may differ.
    near = {"A1": 0.5, "A4_auroc": 0.003, "A4_c2_wf1": 0.7, "A5_emotion": 0.5, "A5_shift": 0.5}
    for name, row in rows.items():
        assert row["value"] == pytest.approx(metrics[name]["value"], abs=near[name])


def test_the_shipped_checkpoint_is_small_and_has_a_card() -> None:
    folder = default_checkpoint()
    assert sum(f.stat().st_size for f in folder.iterdir()) <= 16 * 2**20
    card = (folder / "README.md").read_text("utf-8")
    assert "inner state" in card
    assert "research" in card
