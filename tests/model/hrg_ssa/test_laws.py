"""The laws of HRG-SSA: both forms agree, rows do not see each other, the past is finished."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from model.hrg_ssa.collate import Talk, collate_talks
from model.hrg_ssa.config import HrgSsaConfig
from model.hrg_ssa.model import NO_LABEL, HrgSsa, WholeTalks, elu, past_of
from model.study.ablations import network_of
from state.window import Recurrence

EXACT = 2e-5  # with rounding off


def config(window: int = 4, *, store: Any = "float32", **changes: Any) -> HrgSsaConfig:
    sizes: dict[str, Any] = {
        "text": 12, "audio": 6, "video": 5, "width": 16, "heads": 2, "head_width": 8,
        "feed_forward": 24, "graph_heads": 2, "detector": 6, "pooled": 2, "shift_width": 8,
        "stack_layers": 2, "graph_layers": 2, "decoder_layers": 2,
        "recurrence": Recurrence(window=window, max_speakers=changes.pop("speakers", 32)),
    }  # fmt: skip
    return HrgSsaConfig(("calm", "glad", "cross"), store_dtype=store, **{**sizes, **changes})


@cache
def model(window: int = 4, store: str = "float32", research: str = "") -> HrgSsa:
    """Waves instead of random weights: no generator's version matters."""
    settings = config(window, store=store, research=(research,) if research else ())
    made: HrgSsa = network_of(settings)(settings)
    with torch.no_grad():
        for number, (name, value) in enumerate(made.named_parameters()):
            wave = torch.sin(torch.arange(value.numel()) * (0.71 + 0.013 * number) + number)
            scale = 1.0 + 0.5 * wave if "norm" in name or ".scale" in name else 0.5 * wave
            value.copy_(scale.reshape(value.shape).half().float())
    return made.eval()


def talk(
    speakers: Sequence[str], seed: int = 0, *, absent: float = 0.3, starts: Sequence[int] = ()
) -> Talk:
    """A conversation of random numbers; inputs are absent now and then, words too."""
    draw = torch.Generator().manual_seed(seed)
    turns = len(speakers)
    lengths = torch.randint(0, 7, (turns,), generator=draw).tolist()
    session_start = torch.zeros(turns, dtype=torch.bool)
    session_start[list(starts)] = True
    return Talk(
        states=tuple(torch.randn(n, 12, generator=draw) for n in lengths),
        audio=torch.randn(turns, 6, generator=draw),
        video=torch.randn(turns, 5, generator=draw),
        present=torch.rand(turns, 2, generator=draw) >= absent,
        speakers=tuple(speakers),
        session_start=session_start,
    )


def crowd(turns: int, people: int, seed: int = 0) -> list[str]:
    chosen = np.random.default_rng(seed).integers(0, people, turns)
    return [f"speaker {i}" for i in chosen]


def whole(talks: Sequence[Talk], by: HrgSsa, history: Tensor | None = None) -> WholeTalks:
    with torch.inference_mode():
        out: WholeTalks = by(by.collate(talks), history)
    return out


def keeping_all(kept: int) -> HrgSsa:
    """The small model, which keeps up to `kept` states of a past utterance."""
    settings = config(research=("all-tokens",), pooled=kept)
    made: HrgSsa = network_of(settings)(settings)
    weights = {k: v for k, v in model().state_dict().items() if k != "pool_query"}
    made.load_state_dict(weights, strict=False)
    return made.eval()


@pytest.mark.slow
def test_a_twin_may_keep_every_token_of_the_past() -> None:
    """Room for more changes nothing, too little room cuts the end, and each token counts."""
    talks = [talk(crowd(9, 3), seed=3), talk(crowd(5, 2), seed=4)]
    out = whole(talks, keeping_all(8))
    wider = whole(talks, keeping_all(20))
    assert torch.allclose(out.emotion, wider.emotion, atol=EXACT)
    again = whole(talks, keeping_all(8), out.history)
    assert torch.allclose(out.emotion, again.emotion, atol=EXACT)
    cut = whole(talks, keeping_all(4))
    assert not torch.allclose(out.emotion, cut.emotion, atol=EXACT)
    longest = max(range(8), key=lambda i: len(talks[0].states[i]))
    for token in range(len(talks[0].states[longest])):
        states = [state.clone() for state in talks[0].states]
        states[longest][token] += 1.0
        other = whole([replace(talks[0], states=tuple(states)), talks[1]], keeping_all(8))
        assert not torch.equal(out.emotion[longest + 1], other.emotion[longest + 1])


@pytest.mark.slow
@pytest.mark.parametrize("window", [1, 4, 16])
def test_with_its_own_answers_as_history_one_pass_repeats_them(window: int) -> None:
    """In the order of time, each answer told to the later ones, and all at once."""
    by = model(window)
    talks = [talk(crowd(n, s, n), seed=n) for n, s in ((1, 1), (4, 1), (20, 2), (15, 5))]
    own = whole(talks, by)
    assert torch.equal(own.history, own.emotion.argmax(1))
    again = whole(talks, by, own.history)
    assert (own.emotion - again.emotion).abs().max() <= EXACT
    assert (own.shift - again.shift).abs().max() <= 10 * EXACT


@pytest.mark.slow
@settings(max_examples=10, deadline=None)
@given(
    speakers=st.lists(st.sampled_from("abcdef"), min_size=1, max_size=14),
    starts=st.sets(st.integers(1, 13)),
    seed=st.integers(0, 1000),
)
def test_a_session_reads_nothing_of_the_one_before(
    speakers: list[str], starts: set[int], seed: int
) -> None:
    inside = sorted(t for t in starts if t < len(speakers))
    spoken = talk(speakers, seed, starts=inside)
    cuts = [0, *inside, len(speakers)]
    parts = [
        Talk(
            spoken.states[a:b], spoken.audio[a:b], spoken.video[a:b], spoken.present[a:b],
            spoken.speakers[a:b],
        )
        for a, b in itertools.pairwise(cuts)
    ]  # fmt: skip
    difference = whole([spoken], model()).emotion - whole(parts, model()).emotion
    assert difference.abs().max() <= EXACT


@pytest.mark.slow
@pytest.mark.parametrize("told", [True, False])
def test_a_later_utterance_or_another_talk_changes_nothing_earlier(told: bool) -> None:
    mine, other = talk(crowd(9, 3), seed=5), talk(crowd(12, 4), seed=7)
    changed = replace(mine, audio=mine.audio.clone(), present=torch.ones(9, 2, dtype=torch.bool))
    changed.present[:-1] = mine.present[:-1]
    changed.audio[-1] += 5.0

    def scores(talks: list[Talk]) -> Tensor:
        count = sum(len(t.speakers) for t in talks)
        return whole(talks, model(), torch.arange(count) % 3 if told else None).emotion

    before = scores([mine])
    after = scores([changed])
    assert torch.allclose(after[:-1], before[:-1], atol=1e-5)
    assert not torch.allclose(after[-1], before[-1], atol=1e-3)
    beside = scores([mine, other])[:9]
    assert torch.allclose(beside, before, atol=1e-5)


def test_labels_of_the_past_change_the_answer() -> None:
    spoken = talk(crowd(6, 2), seed=3)
    told = [torch.full((6,), label) for label in (0, 1, NO_LABEL)]
    scores = [whole([spoken], model(), history).emotion for history in told]
    for one, two in itertools.combinations(scores, 2):
        assert torch.equal(one[0], two[0]), "the first utterance has no past"
        assert (one[1:] - two[1:]).abs().max() > 1e-3


def test_an_utterances_own_label_never_reaches_its_answer() -> None:
    """The published code is told gold labels; here not even its own of this utterance."""
    spoken = talk(crowd(6, 2), seed=3)
    history = torch.zeros(6, dtype=torch.long)
    other = history.clone()
    other[3] = 2
    one, two = (whole([spoken], model(), h).emotion for h in (history, other))
    assert torch.equal(one[:4], two[:4])
    assert (one[4:] - two[4:]).abs().max() > 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("name", ["states", "audio", "video"])
def test_each_input_changes_the_answer_when_present(name: str) -> None:
    spoken = talk(crowd(6, 2), absent=0.0)
    spoken = replace(spoken, states=tuple(torch.randn(3, 12) for _ in range(6)))
    if name == "states":
        other = replace(spoken, states=tuple(s + 0.5 for s in spoken.states))
        without = replace(spoken, states=tuple(s[:0] for s in spoken.states))
    else:
        other = replace(spoken, **{name: getattr(spoken, name) + 0.5})
        without = replace(spoken, present=spoken.present.clone())
        without.present[:, ("audio", "video").index(name)] = False
    answers = [whole([t], model()).emotion for t in (spoken, other, without)]
    for one, two in itertools.combinations(answers, 2):
        assert (one - two).abs().max() > 1e-3


def test_absent_inputs_are_not_read() -> None:
    spoken = talk(crowd(6, 2), absent=0.5)
    wild = replace(spoken, audio=spoken.audio.clone())
    wild.audio[~wild.present[:, 0]] = float("nan")
    assert torch.equal(whole([wild], model()).emotion, whole([spoken], model()).emotion)


def test_without_a_word_the_voice_is_answered() -> None:
    spoken = talk(["a", "b"], absent=0.0)
    silent = replace(spoken, states=tuple(s[:0] for s in spoken.states))
    assert whole([silent], model()).emotion.isfinite().all()


def test_an_untrained_model_reads_nothing_of_the_past() -> None:
    """Both ways from it begin at zero; a trained one hears it both ways."""
    talks = [talk(crowd(9, 3), seed=3, absent=0.0)]
    told = torch.arange(9) % 3
    torch.manual_seed(0)
    fresh = HrgSsa(config()).eval()
    deafened = config(research=("no-past",))
    alone = network_of(deafened)(deafened).eval()
    alone.load_state_dict(fresh.state_dict())
    assert torch.allclose(
        whole(talks, fresh, told).emotion, whole(talks, alone, told).emotion, atol=EXACT
    )
    deaf = set[str]()
    for way in ("decoder.blocks.0.crosses.1.o.weight", "graph.out.0"):
        taught = copy.deepcopy(fresh)
        with torch.no_grad():
            taught.get_parameter(way).fill_(0.1)
        moved = whole(talks, taught, told).emotion - whole(talks, alone, told).emotion
        if moved[1:].abs().amax(1).min() < 1e-4:
            deaf.add(way)
    assert not deaf


def test_every_parameter_gets_a_gradient() -> None:
    by = copy.deepcopy(model()).train()
    batch = collate_talks([talk(crowd(12, 3), seed=4), talk(crowd(5, 2), seed=5)], by.config)
    words = by.config.label_words
    sentence = torch.tensor([[words.start, *words.sentence(1, 0)[:-1]]] * len(batch))
    out = by(batch, torch.arange(len(batch)) % 3, sentence)
    loss = out.emotion[:, 0].sum() + out.shift[:, 1].sum()
    loss = loss + by.vocabulary_scores(out.sentence)[..., 0].sum()
    torch.autograd.backward(loss)
    without = [n for n, p in by.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


def edge(nodes: Tensor, speaker: Tensor, research: str = "") -> Tensor:
    by = model(research=research)
    x = nodes.permute(2, 0, 1, 3).reshape(3, -1, nodes.shape[3])
    return by.graph.edges(x, speaker)


def test_the_graph_passes_messages_along_its_edges() -> None:
    """The published graph's output does not depend on its edges (models.md B2, B9.1)."""
    draw = torch.Generator().manual_seed(0)
    nodes = torch.randn(1, 5, 3, 16, generator=draw)
    by = model(research="no-implicit").graph
    alternating = by(nodes, torch.tensor([[0, 1, 0, 1, 0]]))
    alone = by(nodes, torch.tensor([[0, 1, 2, 3, 4]]))
    assert torch.equal(alternating[:, :2], alone[:, :2]), "adjacency is the same in both"
    assert (alternating[:, 2:] - alone[:, 2:]).abs().amax((0, 2, 3)).min() > 1e-3


def test_explicit_edges_are_itself_the_one_before_and_the_speakers_own() -> None:
    bias = edge(torch.zeros(1, 4, 3, 16), torch.tensor([[-1, 7, 8, 7]]), "no-implicit")
    expected = torch.tensor([[1, 0, 0, 0], [0, 1, 0, 0], [0, 1, 1, 0], [0, 1, 1, 1]]).bool()
    assert torch.equal(torch.isfinite(bias[0, 0]), expected)
    assert not bias[2, 0][expected].any()


def test_implicit_edges_point_from_the_past_and_open_above_chance() -> None:
    draw = torch.Generator().manual_seed(1)
    nodes, speaker = torch.randn(2, 6, 3, 16, generator=draw), torch.arange(6).expand(2, 6)
    explicit = torch.isfinite(edge(nodes, speaker, "no-implicit"))
    both = edge(nodes, speaker)
    implicit = torch.isfinite(both) & ~explicit
    assert implicit.any()
    assert not implicit.triu(0).any(), "never itself, never later"
    place = torch.arange(1, 7).view(1, 1, 6, 1).expand_as(both)
    assert (both[implicit].exp() * place[implicit] > 1).all()


@pytest.mark.parametrize("length", [1, 6, 13, 486])
def test_a_score_is_the_same_wherever_it_stands_in_a_batch(length: int) -> None:
    """torch's own ELU computes the end of a tensor by other instructions (see `elu`)."""
    draw = torch.Generator().manual_seed(length)
    for _ in range(50):
        x = 3 * torch.randn(length, generator=draw)
        assert torch.equal(elu(x), elu(torch.cat((x, torch.zeros(1000))))[:length])
        assert torch.allclose(elu(x), F.elu(x), atol=1e-6)


def test_the_scorer_of_implicit_edges_is_trained() -> None:
    """The published one gets no gradient and stays at its random start (docs/models.md B3)."""
    by = copy.deepcopy(model())
    nodes = torch.randn(4, 5, 3, 16, generator=torch.Generator().manual_seed(2))
    torch.autograd.backward(by.graph(nodes, torch.arange(5).expand(4, 5)).square().sum())
    assert by.graph.relation.grad is not None and by.graph.relation.grad.any()


@pytest.mark.slow
def test_scores_under_the_forced_prefix_are_those_of_free_generation() -> None:
    """Greedy decoding that follows the template says the best-scored label word."""
    torch.manual_seed(0)
    by = HrgSsa(config())
    words = by.config.label_words
    batch = collate_talks([talk(crowd(8, 2), seed=s) for s in range(3)], by.config)
    label = torch.arange(len(batch)) % 3
    sentences = [words.sentence(int(c), by.config.sentiment_classes[int(c)]) for c in label]
    target = torch.tensor(sentences)
    shifted = torch.cat((torch.full((len(batch), 1), words.start), target[:, :-1]), dim=1)
    optimiser = torch.optim.Adam(by.parameters(), 1e-2)
    for _ in range(40):
        scores = by.vocabulary_scores(by(batch, label, shifted).sentence).flatten(0, 1)
        optimiser.zero_grad()
        torch.autograd.backward(F.cross_entropy(scores, target.flatten()))
        optimiser.step()
    by.eval()
    everyone = torch.arange(len(batch))
    with torch.inference_mode():
        encoded = by.encode(*batch.inputs(everyone))
        memory = by.remember(encoded, label)
        past = past_of(batch, everyone, by.decoder.past_keys_values(memory.pooled), memory.nodes)
        said = by.decide(encoded, past, by.prompt(len(batch))).emotion.argmax(1)
        tokens = torch.full((len(batch), 1), words.start)
        for _ in range(target.shape[1]):
            states, _ = by.decode(encoded, past, tokens)
            nearest = by.vocabulary_scores(states[:, -1]).argmax(1, keepdim=True)
            tokens = torch.cat((tokens, nearest), dim=1)
    free = tokens[:, 1:].tolist()
    at = len(words.prefix)
    follows = [i for i, t in enumerate(free) if tuple(t[:at]) == words.prefix]
    follows = [i for i in follows if free[i][at] in words.emotions]
    assert len(follows) > len(free) // 2, "it has learned the template"
    assert len({free[i][at] for i in follows}) > 1, "and tells labels apart"
    assert all(free[i][at] == words.emotions[int(said[i])] for i in follows)
