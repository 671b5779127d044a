"""Training HRG-SSA: deterministic, resumable, told its own answers, test never touched."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from model.data.dataset import DataSet, Dialogue, Split
from model.errors import CheckpointError, EncoderMissing, RecipeError
from model.evaluate import evaluate
from model.hrg_ssa.checkpoint import HrgCheckpoint
from model.hrg_ssa.config import HrgSsaConfig
from model.hrg_ssa.kind import HrgOptions
from model.hrg_ssa.losses import alignment, primary_alignment
from model.hrg_ssa.model import NO_LABEL, HrgSsa
from model.hrg_ssa.plan import HrgPlan
from model.hrg_ssa.plan import plan as plan_hrg_ssa
from model.hrg_ssa.recipe import HrgRecipe
from model.hrg_ssa.t5 import t5_start
from model.hrg_ssa.train import Training
from model.hrg_ssa.whole import run, talk_of
from model.interface import ServingOptions
from model.registry import load_any, load_predictor
from model.serving.device import CPU
from model.study.ablations import network_of
from model.text.token_encoder import TokenEncoder, token_states
from model.train_run import carry_out
from model.training.loop import Trained
from model.training.options import Run
from model.training.progress import Listener
from state.window import Recurrence
from tests.fakes.conversations import generated_conversations
from tests.fakes.encoder import write_tiny_encoder
from tests.fakes.hrg_ssa import SIZES, hear_the_past, write_small_hrg_ssa
from tests.fakes.t5 import write_tiny_t5
from tests.fakes.training import train_hrg_ssa

RECIPE = HrgRecipe(
    epochs=2, steps_at_least=1, batch_utterances=60, learning_rate=3e-3, mixed_layers=2
)
SMALL = {name: value for name, value in SIZES.items() if name != "text"}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="module")
def data() -> DataSet:
    return generated_conversations(24, seed=1)


def words(encoder: Path) -> TokenEncoder:
    return TokenEncoder.load(encoder, layers=2, most_tokens=32)


def config(data: DataSet, **changes: object) -> HrgSsaConfig:
    sizes = {**SIZES, **changes}
    return HrgSsaConfig(data.labels, recurrence=Recurrence(window=3), **sizes)


def trained(
    data: DataSet, encoder: Path, recipe: HrgRecipe = RECIPE, **more: object
) -> Trained[HrgSsa]:
    made = {"seed": 3, "encoder": encoder, **more}
    return train_hrg_ssa(data, config(data), recipe, **made)  # type: ignore[arg-type]


def weights(found: Trained[HrgSsa]) -> Mapping[str, Tensor]:
    return found.model.state_dict()


def same(one: Trained[HrgSsa], two: Trained[HrgSsa]) -> bool:
    return all(torch.equal(value, weights(two)[name]) for name, value in weights(one).items())


@pytest.mark.slow
def test_emotions_are_learned_from_the_words(data: DataSet, encoder: Path) -> None:
    long = replace(RECIPE, epochs=8, patience=8, learning_rate=1e-2)
    chosen = trained(data, encoder, long).chosen
    assert chosen.dev_weighted_f1 > 0.5, "always neutral has about a quarter"


@pytest.mark.slow
def test_equal_arguments_give_equal_weights_and_a_killed_run_goes_on_to_them(
    data: DataSet, encoder: Path, tmp_path: Path
) -> None:
    whole = trained(data, encoder, cache=tmp_path / "cache")
    progress = tmp_path / "progress.pt"

    class Killed(Exception):
        pass

    def kill(_: object) -> None:
        raise Killed

    with pytest.raises(Killed):
        trained(data, encoder, progress=progress, listener=Listener(on_epoch=kill))
    again = trained(data, encoder, progress=progress, cache=tmp_path / "cache")
    assert same(whole, again)
    assert [e.number for e in again.history] == [1, 2]
    other = trained(data, encoder, seed=4)
    assert not same(whole, other)


def test_the_test_split_is_never_read(data: DataSet, encoder: Path) -> None:
    dialogues: dict[Split, tuple[Dialogue, ...]] = {
        split: part for split, part in data.dialogues.items() if split != "test"
    }
    locked = replace(data, dialogues=dialogues)  # the test split cannot be read
    one = replace(RECIPE, epochs=1)
    made = train_hrg_ssa(locked, config(data), one, encoder=encoder, seed=0)
    assert len(made.history) == 1


@pytest.mark.slow
def test_a_folder_is_written_scored_and_served(
    data: DataSet, encoder: Path, tmp_path: Path
) -> None:
    plan = plan_of(data, encoder)
    outcome = carry_out(plan, tmp_path)
    loaded = load_any(tmp_path)
    assert isinstance(loaded, HrgCheckpoint) and loaded.digest == outcome.digest
    again = evaluate(loaded, data, "dev", encoder=encoder)
    assert again.weighted_f1.value == outcome.report.weighted_f1.value
    chosen = outcome.trained.chosen
    assert again.weighted_f1.value == pytest.approx(chosen.dev_weighted_f1, abs=1e-9)
    card = (tmp_path / "README.md").read_text()
    assert "# HRG-SSA, causal, trained on generated" in card and "`emotrack train`" in card
    assert load_predictor(tmp_path, ServingOptions(device="cpu", encoder=encoder)).can_encode_text()


def plan_of(data: DataSet, encoder: Path, **model: object) -> HrgPlan:
    return plan_hrg_ssa(
        data,
        HrgOptions(encoder=encoder),
        Run(
            command="emotrack train",
            recipe_changes={"epochs": 1, "steps_at_least": 1, "mixed_layers": 2},
            model_changes={**SMALL, "text": 16, **model},
        ),
    )


def test_a_set_without_sentences_or_a_setting_nobody_knows_is_refused(
    data: DataSet, encoder: Path
) -> None:
    silent = replace(
        data,
        dialogues={
            split: tuple(replace(d, sentences=("",) * len(d)) for d in found)
            for split, found in data.dialogues.items()
        },
    )
    with pytest.raises(EncoderMissing, match="has no sentences"):
        plan_of(silent, encoder)
    with pytest.raises(RecipeError, match="did you mean pooled"):
        plan_of(data, encoder, poled=3)


def test_a_checkpoint_of_another_label_set_is_not_scored(
    data: DataSet, encoder: Path, tmp_path: Path
) -> None:
    other = write_small_hrg_ssa(tmp_path, encoder, labels=("calm", "glad", "cross"))
    with pytest.raises(CheckpointError, match="calm, glad, cross"):
        evaluate(load_any(other), data, "dev", encoder=encoder)


@pytest.mark.slow
@pytest.mark.parametrize("research", ["gold-history", "no-labels", "no-past"])
def test_research_twins_read_the_history_they_should(
    research: str, data: DataSet, encoder: Path
) -> None:
    """Gold: the true labels. No labels: none. No past: nothing at all."""
    dialogues = data.split("dev")
    states = token_states(words(encoder), dialogues)
    torch.manual_seed(0)
    settings = config(data, research=(research,))
    twin: HrgSsa = network_of(settings)(settings)
    hear_the_past(twin)
    talks = [talk_of(d, s, twin.config) for d, s in zip(dialogues, states, strict=True)]
    batch = twin.collate(talks)
    truth = torch.cat([torch.from_numpy(d.labels) for d in dialogues])
    scores = run(twin, batch, truth).emotion
    wrong = run(twin, batch, (truth + 1) % 7).emotion
    assert torch.equal(scores, wrong) == (research != "gold-history")
    assert bool((batch.past >= 0).any()) == (research != "no-past")


def test_past_labels_in_training_are_own_answers_or_none_and_never_the_truth(
    data: DataSet, encoder: Path
) -> None:
    training = Training(data, config(data), RECIPE, 0, words(encoder), None, {}, CPU, HrgSsa)
    at = torch.arange(len(training.own))
    truth = torch.zeros_like(at)
    assert (training._history(at, truth) == NO_LABEL).all(), "it has not answered yet"
    training.own.fill_(3)
    history = training._history(at, truth)
    assert set(history.tolist()) == {3, NO_LABEL}
    assert (history == NO_LABEL).float().mean() == pytest.approx(RECIPE.untold, abs=0.1)
    training.recipe = replace(RECIPE, untold=0.0, ramp=0.5)
    assert (training._history(at, truth) == 0).all(), "a ramp begins with the truth"
    with pytest.raises(ValueError, match="untold is a share, not"):
        replace(RECIPE, untold=1.5)


def test_alignment_draws_pairs_together_and_leaves_out_who_is_not_there() -> None:
    eye, there = torch.eye(3)[None], torch.tensor([[True, True, True]])
    turned = eye.roll(1, dims=1)
    assert alignment(eye, eye, there) < alignment(eye, turned, there)
    two = torch.tensor([[True, True, False]])
    wild = eye.clone()
    wild[0, 2] = 100.0
    assert torch.equal(alignment(eye, eye, two), alignment(wild, wild, two))
    alone = torch.tensor([[True, False, False]])
    assert alignment(eye, eye, alone) == 0


def test_two_utterances_of_one_emotion_are_no_negatives_of_each_other() -> None:
    """Their texts are equal: pushing them apart would push an utterance from its own emotion."""
    nodes = torch.randn(1, 3, 3, 4, generator=torch.Generator().manual_seed(0))
    texts = torch.eye(4)[:2]
    joined = primary_alignment(nodes, texts, torch.tensor([[0, 0, 1]]))
    assert joined > 0
    assert primary_alignment(nodes, texts, torch.tensor([[0, 0, 0]])) == 0
    assert primary_alignment(nodes, texts, torch.tensor([[0, -1, -1]])) == 0


@pytest.mark.slow
def test_a_t5_folder_gives_encoder_decoder_and_vocabulary(data: DataSet, tmp_path: Path) -> None:
    folder = write_tiny_t5(tmp_path / "t5")
    plan = plan_hrg_ssa(
        data,
        HrgOptions(encoder=folder),
        Run(
            command="emotrack train",
            recipe_changes={"epochs": 1, "steps_at_least": 1, "batch_utterances": 40},
            model_changes={"detector": 6, "pooled": 2, "shift_width": 8},
        ),
    )
    assert (plan.config.width, plan.config.node_layers) == (16, (1,))
    assert plan.recipe.mixed_layers == 1
    known = HrgSsa(plan.config).state_dict()
    assert all(known[name].shape == value.shape for name, value in plan.start.items())
    carry_out(plan, tmp_path / "run")
    served = load_predictor(tmp_path / "run", ServingOptions(device="cpu", encoder=folder))
    assert served.can_encode_text()


@pytest.mark.slow
def test_pretrained_weights_wait_for_new_ones(data: DataSet, tmp_path: Path) -> None:
    """Two stages: the pretrained decoder moves in the second alone."""
    folder = write_tiny_t5(tmp_path)
    start = t5_start(folder, data.labels)
    small = {"detector": 6, "pooled": 2, "shift_width": 8}
    cfg = HrgSsaConfig(data.labels, words=start.words, **{**start.sizes, **small})
    for share, moves in ((1.0, False), (0.0, True)):
        recipe = replace(RECIPE, epochs=1, mixed_layers=1, new_only=share)
        made = train_hrg_ssa(data, cfg, recipe, encoder=folder, start=start.weights, seed=0)
        name = "decoder.blocks.0.own.q.weight"
        kept = torch.equal(weights(made)[name], start.weights[name].half().float())
        assert kept != moves


def test_a_gated_t5_and_a_label_it_has_no_word_for_are_refused(
    data: DataSet, tmp_path: Path
) -> None:
    from model.hrg_ssa.label_words import LabelWordsError

    with pytest.raises(EncoderMissing, match="gated feed-forward"):
        t5_start(write_tiny_t5(tmp_path / "gated", gated=True), data.labels)
    with pytest.raises(LabelWordsError, match="`neutral` is not one token"):
        t5_start(write_tiny_t5(tmp_path / "poor", known=("positive", "negative")), data.labels)


@pytest.mark.slow
def test_a_t5_of_base_shapes_gives_all_its_decoder(tmp_path: Path, data: DataSet) -> None:
    """d=768, 12 blocks, the upper six with the nodes; random weights of T5-base's sizes."""
    folder = write_tiny_t5(tmp_path, width=768, layers=12, heads=12)
    start = t5_start(folder, data.labels)
    assert start.sizes["node_layers"] == (6, 7, 8, 9, 10, 11)
    missing = HrgSsa(HrgSsaConfig(data.labels, words=start.words, **start.sizes)).load_state_dict(
        start.weights, strict=False
    )
    assert missing.unexpected_keys == []
    assert not any("own" in key for key in missing.missing_keys if "decoder" in key)


def test_settings_say_which_model_they_are_of(encoder: Path, tmp_path: Path) -> None:
    folder = write_small_hrg_ssa(tmp_path, encoder)
    stored = json.loads((folder / "config.json").read_text())
    assert (stored["name"], stored["text_encoder"]["tuned"]) == ("hrg-ssa", False)
