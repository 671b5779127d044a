"""Training: it learns, it repeats, and it never sees the test split."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from model.data.dataset import DataSet, Dialogue, column_statistics
from model.errors import DataError, ModelError
from model.pcgnet.collate import Batch
from model.pcgnet.config import PcgnetConfig
from model.pcgnet.model import Pcgnet, WholeOutput
from model.pcgnet.recipe import BALANCES, Recipe
from model.pcgnet.train import fitting_config
from model.pcgnet.whole import answer
from model.scoring.answers import emotion_weighted_f1
from model.training.loop import Trained, as_saved, check_labels, normalise_inputs
from model.training.progress import Epoch, Listener
from tests.fakes.conversations import generated_conversations
from tests.fakes.training import train

RECIPE = Recipe(epochs=6, steps_at_least=1, batch_utterances=100, learning_rate=1e-2, warm_up=0.15)


@cache
def data() -> DataSet:
    return generated_conversations(40, seed=1)


def locked_test(data: DataSet) -> DataSet:
    """A set whose test split cannot be read."""
    return replace(data, dialogues={s: d for s, d in data.dialogues.items() if s != "test"})


@cache
def trained(seed: int = 0) -> Trained[Pcgnet]:
    return train(locked_test(data()), config(), RECIPE, seed=seed)


def config() -> PcgnetConfig:
    return fitting_config(data(), hidden=16, window=4)


def test_training_never_asks_for_the_test_split_and_lowers_the_dev_loss() -> None:
    history = trained().history
    untrained = Pcgnet(config())
    normalise_inputs(untrained, data().split("train"))
    assert history[-1].dev_loss < 0.8 * history[0].dev_loss
    assert trained().chosen.dev_weighted_f1 > 0.2 + emotion_weighted_f1(
        answer(untrained, data().split("dev"))
    )


def test_the_epoch_with_the_best_dev_score_is_the_one_returned() -> None:
    best = max(trained().history, key=lambda epoch: epoch.dev_weighted_f1)
    assert trained().chosen == best
    found = answer(trained().model, data().split("dev"))
    assert emotion_weighted_f1(found) == best.dev_weighted_f1


def test_training_does_not_see_the_emotions_in_what_is_answered_of_a_pair(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The shift head would learn to undo them."""
    forward = Pcgnet.forward

    def poisoned(model: Pcgnet, batch: Batch, *, rounding: bool = True) -> WholeOutput:
        out = forward(model, batch, rounding=rounding)
        return replace(out, shift=out.shift * torch.nan) if model.training else out

    monkeypatch.setattr(Pcgnet, "forward", poisoned)
    run = train(data(), config(), replace(RECIPE, epochs=1), seed=0)
    assert np.isfinite(run.history[-1].train_loss)


@pytest.mark.slow
def test_equal_seeds_give_equal_weights_and_others_differ() -> None:
    short = replace(RECIPE, epochs=1, contrast_weight=0.05)
    one, same, other = (train(data(), config(), short, seed=seed) for seed in (3, 3, 4))
    first, again, third = (run.model.state_dict() for run in (one, same, other))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], third[name]) for name in first)
    assert (one.calibration, one.thresholds) == (same.calibration, same.thresholds)


def test_training_leaves_torchs_generator_and_threads_as_they_were() -> None:
    torch.manual_seed(11)
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    train(data(), config(), replace(RECIPE, epochs=1), seed=0, threads=threads + 1)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == threads


def test_progress_reaches_the_end_and_every_epoch_is_reported() -> None:
    shares: list[float] = []
    reported: list[Epoch] = []
    short = replace(RECIPE, epochs=2)
    listener = Listener(on_share=shares.append, on_epoch=reported.append)
    run = train(data(), config(), short, seed=0, listener=listener)
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert tuple(reported) == run.history


def test_normalisation_is_of_the_train_split_alone() -> None:
    normal = column_statistics(data().split("train"))
    for name, (mean, deviation) in normal.items():
        stored = trained().model.get_buffer(f"{name}_mean").numpy()
        np.testing.assert_array_equal(stored, mean)
        scale = trained().model.get_buffer(f"{name}_scale").numpy()
        np.testing.assert_allclose(scale, 1 / deviation, rtol=1e-6)


def test_the_returned_weights_survive_float16() -> None:
    model = trained().model
    again = as_saved(model)
    for before, after in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(before, after)


def test_a_model_trained_on_all_inputs_answers_text_alone() -> None:
    def text_only(dialogue: Dialogue) -> Dialogue:
        present = dialogue.present.copy()
        present[:, 1:] = False
        return replace(dialogue, present=present)

    found = answer(trained().model, [text_only(d) for d in data().split("dev")])
    counts = np.bincount(found.labels, minlength=7)
    majority = counts.max() / counts.sum()
    assert (found.emotion.argmax(1) == found.labels).mean() > majority + 0.1


@pytest.mark.slow
def test_each_balance_of_the_losses_trains_and_weighs_otherwise() -> None:
    short = replace(RECIPE, epochs=2, contrast_weight=0.05)
    ends = set()
    for balance in BALANCES:
        history = train(data(), config(), replace(short, balance=balance), seed=0).history
        assert history[-1].dev_loss < history[0].dev_loss
        ends.add(history[-1].dev_loss)
    assert len(ends) == len(BALANCES)


class Killed(Exception):
    """Stands for a kill of the process."""


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_bytes(tmp_path: Path) -> None:
    """Every generator, the optimiser and the average must come back, or the ends differ."""
    recipe = replace(RECIPE, epochs=4, balance="uncertainty", contrast_weight=0.05)

    def killed(epoch: Epoch) -> None:
        if epoch.number == 2:
            raise Killed

    progress = tmp_path / "runs" / "progress.pt"
    with pytest.raises(Killed):
        train(
            data(), config(), recipe, seed=5, progress=progress, listener=Listener(on_epoch=killed)
        )
    reported: list[Epoch] = []
    listener = Listener(on_epoch=reported.append)
    resumed = train(data(), config(), recipe, seed=5, progress=progress, listener=listener)
    straight = train(data(), config(), recipe, seed=5)
    assert [epoch.number for epoch in reported] == [3, 4]
    assert resumed.history == straight.history
    again, first = resumed.model.state_dict(), straight.model.state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_the_progress_of_another_run_or_a_damaged_one_is_refused(tmp_path: Path) -> None:
    progress = tmp_path / "progress.pt"
    short = replace(RECIPE, epochs=1)
    train(data(), config(), short, seed=0, progress=progress)
    with pytest.raises(ModelError, match="other data or settings"):
        train(data(), config(), short, seed=1, progress=progress)
    progress.write_bytes(progress.read_bytes()[:-100])
    with pytest.raises(ModelError, match="delete it to start anew"):
        train(data(), config(), short, seed=0, progress=progress)


def test_training_stops_when_dev_gets_no_better() -> None:
    """With a learning rate of nearly zero no epoch can beat the first."""
    still = replace(RECIPE, epochs=9, patience=2, learning_rate=1e-9)
    assert len(train(data(), config(), still, seed=0).history) == 3


def test_a_small_set_is_repeated_until_enough_steps_are_made() -> None:
    few = replace(RECIPE, epochs=1, steps_at_least=20, batch_utterances=200, patience=100)
    steps: list[float] = []
    run = train(data(), config(), few, seed=0, listener=Listener(on_share=steps.append))
    assert len(run.history) > 1
    assert len(steps) >= 20


def test_a_split_without_a_label_is_named() -> None:
    none = replace(data(), dialogues={**data().dialogues, "dev": ()})
    with pytest.raises(DataError, match="the dev split of generated has no labelled utterance"):
        check_labels(none)


def test_a_set_with_text_alone_can_be_trained_on() -> None:
    def cut(dialogue: Dialogue) -> Dialogue:
        present = dialogue.present.copy()
        present[:, 1:] = False
        return replace(dialogue, present=present, features={"text": dialogue.features["text"]})

    whole = data()
    dialogues = {split: tuple(map(cut, found)) for split, found in whole.dialogues.items()}
    text = replace(whole, widths={"text": 384}, dialogues=dialogues)
    fitted = fitting_config(text, hidden=8)
    assert (fitted.audio, fitted.video) == (0, 0)
    run = train(text, fitted, replace(RECIPE, epochs=1), seed=0)
    assert np.isfinite(run.chosen.dev_loss)


def test_a_recipe_without_epochs_is_refused() -> None:
    with pytest.raises(ValueError, match="epochs"):
        replace(RECIPE, epochs=0)
