"""Baselines: fitted on train, chosen on dev, scored by the same code as a checkpoint."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from model.data.dataset import SPLITS, UNLABELLED, DataSet, Dialogue, Split, speaker_pairs
from model.data.splits import restaged
from model.errors import DataError
from model.pcgnet.model import Pcgnet
from model.pcgnet.train import fitting_config
from model.pcgnet.whole import answer
from model.scoring.scores import Doubles
from model.study.baselines import BaselineName, fit_baseline
from tests.fakes.conversations import generated_conversations

DATA = generated_conversations(30, seed=5)
NAMES: tuple[BaselineName, ...] = ("majority", "logistic", "markov", "gru")


class Watched(DataSet):
    """A data set that remembers which splits were asked for."""

    def __init__(self, data: DataSet) -> None:
        super().__init__(data.name, data.labels, data.widths, data.extractors, data.dialogues)
        object.__setattr__(self, "asked", set[Split]())

    asked: set[Split]

    def split(self, name: Split) -> tuple[Dialogue, ...]:
        self.asked.add(name)
        return super().split(name)


@pytest.mark.parametrize("name", NAMES)
def test_it_answers_the_rows_a_checkpoint_answers(name: BaselineName) -> None:
    theirs = answer(Pcgnet(fitting_config(DATA, hidden=8)), DATA.split("dev"))
    ours = fit_baseline(name, DATA, "dev").answers
    for column in ("labels", "dialogue", "shifts", "pair_dialogue"):
        np.testing.assert_array_equal(getattr(ours, column), getattr(theirs, column))
    assert ours.emotion.shape == theirs.emotion.shape
    assert ours.shift.shape == theirs.shift.shape


@pytest.mark.parametrize("name", NAMES)
def test_the_test_split_is_read_only_on_request(name: BaselineName) -> None:
    watched = Watched(DATA)
    fit_baseline(name, watched, "dev")
    assert watched.asked == {"train", "dev"}


def test_majority_always_answers_the_commonest_class_of_train() -> None:
    report = fit_baseline("majority", DATA, "dev").report(DATA.labels)
    train = np.concatenate([d.labels for d in DATA.split("train")])
    common = int(np.bincount(train).argmax())
    dev = np.concatenate([d.labels for d in DATA.split("dev")])
    assert report.accuracy.value == pytest.approx((dev == common).mean())
    assert report.shift_auroc.value == pytest.approx(0.5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["logistic", "gru"])
def test_vectors_that_lean_towards_their_emotion_are_learned(name: BaselineName) -> None:
    report = fit_baseline(name, DATA, "test").report(DATA.labels)
    assert report.accuracy.value > report.majority.accuracy + 0.2
    assert report.shift_auroc.value > 0.6


@pytest.mark.slow
@pytest.mark.parametrize("name", ["logistic", "gru"])
def test_equal_seeds_give_equal_answers(name: BaselineName) -> None:
    one, two = (fit_baseline(name, DATA, "dev", seed=3) for _ in range(2))
    np.testing.assert_array_equal(one.answers.emotion, two.answers.emotion)
    assert (one.calibration, one.thresholds) == (two.calibration, two.thresholds)


@pytest.mark.slow
def test_a_markov_chain_helps_where_emotions_last() -> None:
    data = restaged(murmured(generated_conversations(60, seed=6)), 0.8)
    alone, chained = (fit_baseline(n, data, "test").report(DATA.labels) for n in NAMES[1:3])
    assert chained.accuracy.value > alone.accuracy.value + 0.02
    assert chained.shift_auroc.value > alone.shift_auroc.value


def test_the_chain_is_the_forward_filter_of_each_speaker() -> None:
    """Against all courses of emotion of a speaker, weighed one by one."""
    alone, chained = (fit_baseline(name, DATA, "dev") for name in NAMES[1:3])
    dialogue = next(
        d for d in DATA.split("dev") if (np.array(d.speakers) == d.speakers[0]).sum() > 2
    )
    at = np.flatnonzero(np.array(dialogue.speakers) == dialogue.speakers[0])[:3]
    offset = sum(len(d) for d in DATA.split("dev")[: DATA.split("dev").index(dialogue)])
    classes = len(DATA.labels)
    counts, prior = np.ones((classes, classes)), np.ones(classes)
    for d in DATA.split("train"):
        np.add.at(prior, d.labels, 1)
        np.add.at(counts, tuple(d.labels[speaker_pairs(d)].T), 1)
    moves, prior = counts / counts.sum(1, keepdims=True), prior / prior.sum()
    seen = np.exp(alone.answers.emotion[offset + at]) / prior
    course = np.einsum("i,i,ij,j,jk,k->k", prior, seen[0], moves, seen[1], moves, seen[2])
    found = np.exp(chained.answers.emotion[offset + at[2]])
    np.testing.assert_allclose(found, course / course.sum(), rtol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["markov", "gru"])
def test_baselines_with_a_past_read_the_past_only(name: BaselineName) -> None:
    """Another last utterance changes the answer to it and to none before it."""
    baseline = fit_baseline(name, DATA, "test")
    changed = fit_baseline(name, with_other_last_rows(DATA), "test")
    owner = baseline.answers.dialogue
    last = np.append(np.diff(owner) > 0, True)
    np.testing.assert_allclose(
        baseline.answers.emotion[~last], changed.answers.emotion[~last], atol=1e-6
    )
    gap: Doubles = np.abs(baseline.answers.emotion - changed.answers.emotion)[last]
    assert (gap.max(1) > 1e-3).all()


def murmured(data: DataSet) -> DataSet:
    """A set whose vectors tell less of the emotion."""
    rng = np.random.default_rng(0)

    def noisy(d: Dialogue) -> Dialogue:
        width = d.features["text"].shape
        features = {m: np.zeros_like(x) for m, x in d.features.items()}
        noise = 0.4 * rng.normal(size=width)
        features["text"] = (d.features["text"] + noise).astype(np.float32)
        return replace(d, features=features)

    return replace(data, dialogues={s: tuple(map(noisy, data.split(s))) for s in SPLITS})


def with_other_last_rows(data: DataSet) -> DataSet:
    """The last utterance of each test dialogue says the opposite."""

    def turned(dialogue: Dialogue) -> Dialogue:
        features = {m: values.copy() for m, values in dialogue.features.items()}
        features["text"][-1] *= -1
        return replace(dialogue, features=features)

    test = tuple(turned(d) for d in data.split("test"))
    return replace(data, dialogues={**data.dialogues, "test": test})


def test_inputs_that_are_not_named_are_not_read() -> None:
    blind = {m: values * 0 for m, values in DATA.split("dev")[0].features.items() if m != "text"}
    dev = DATA.split("dev")
    first = replace(dev[0], features={**dev[0].features, **blind})
    other = replace(DATA, dialogues={**DATA.dialogues, "dev": (first, *dev[1:])})
    one, two = (fit_baseline("logistic", d, "dev", inputs=("text",)) for d in (DATA, other))
    np.testing.assert_array_equal(one.answers.emotion, two.answers.emotion)


@pytest.mark.slow
def test_missing_labels_are_refused_and_missing_pairs_are_not() -> None:
    silent = tuple(replace(d, labels=np.full_like(d.labels, UNLABELLED)) for d in DATA.split("dev"))
    with pytest.raises(DataError, match="dev split of generated"):
        fit_baseline("majority", replace(DATA, dialogues={**DATA.dialogues, "dev": silent}), "test")
    alone = tuple(replace(d, speakers=tuple(map(str, range(len(d))))) for d in DATA.split("test"))
    data = replace(DATA, dialogues={**DATA.dialogues, "test": alone})
    for name in NAMES:
        assert fit_baseline(name, data, "test").report(DATA.labels).pairs == 0
