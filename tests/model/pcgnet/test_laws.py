"""The laws of PCGNet: both forms agree, rows do not see each other, the past is finished."""

from __future__ import annotations

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
from msgspec import structs
from torch import Tensor

from model import interface as seam
from model.interface import INPUTS, MODALITIES
from model.pcgnet.checkpoint import Checkpoint
from model.pcgnet.collate import ConversationTensors, collate_conversations
from model.pcgnet.config import PcgnetConfig, preset
from model.pcgnet.model import WholeOutput
from model.pcgnet.predictor import PcgnetPredictor
from model.pcgnet.step import state_spec
from model.serving.calibration import Calibration, Thresholds
from state.window import Recurrence, Window
from tests.fakes.device import DEVICE

EXACT = 1e-5  # the model law with rounding off (docs/architecture.md §3a)
STORED = 2e-3  # and with values rounded as they are stored
COLUMNS = (*INPUTS, "present")


def config(window: int = 10, *, store: Any = "float32", max_speakers: int = 32) -> PcgnetConfig:
    return PcgnetConfig(
        labels=("calm", "glad", "cross"),
        text=12,
        audio=6,
        video=5,
        hidden=16,
        persona_heads=2,
        store_dtype=store,
        recurrence=Recurrence(window=window, max_speakers=max_speakers),
    )


@cache
def checkpoint(settings_: tuple[int, str, int] = (10, "float32", 32)) -> Checkpoint:
    """Waves instead of random weights: no generator's version matters; float16, as if saved."""
    window, store, speakers = settings_
    cfg = config(window, store=store, max_speakers=speakers)
    empty = Checkpoint(
        config=cfg,
        weights={},
        calibration=Calibration(1.3, 0.8),
        thresholds=Thresholds(),
        extractors={},
        name="pcgnet",
        version="0",
        digest="d" * 64,
    )
    model = replace_weights(empty)
    return replace(empty, weights=model)


def replace_weights(blank: Checkpoint) -> dict[str, Tensor]:
    from model.pcgnet.model import Pcgnet

    weights = {}
    for number, (name, value) in enumerate(Pcgnet(blank.config).state_dict().items()):
        wave = torch.sin(torch.arange(value.numel()) * (0.71 + 0.013 * number) + number)
        scale = 1.0 + 0.5 * wave if name.endswith("_scale") else 0.45 * wave
        weights[name] = scale.reshape(value.shape).half().float()
    return weights


@cache
def predictor(window: int = 10, store: str = "float32", speakers: int = 32) -> PcgnetPredictor:
    return PcgnetPredictor(checkpoint((window, store, speakers)), torch.device(DEVICE))


def talk(
    speakers: Sequence[str],
    seed: int = 0,
    *,
    absent: float = 0.3,
    starts: Sequence[int] = (),
) -> ConversationTensors:
    """A conversation of random numbers; each input of each utterance is absent now and then."""
    draw = torch.Generator().manual_seed(seed)
    turns = len(speakers)
    parts = {
        name: torch.randn(turns, width, generator=draw) for name, width in config().widths.items()
    }
    present = torch.rand(turns, len(INPUTS), generator=draw) >= absent
    session_start = torch.zeros(turns, dtype=torch.bool)
    session_start[list(starts)] = True
    return ConversationTensors(
        **parts, present=present, speakers=tuple(speakers), session_start=session_start
    )


def crowd(turns: int, people: int, seed: int = 0) -> list[str]:
    chosen = np.random.default_rng(seed).integers(0, people, turns)
    return [f"speaker {i}" for i in chosen]


def turn_of(conversation: ConversationTensors, t: int, window: Window) -> seam.Turn:
    features: dict[seam.Modality, seam.Tensor] = {}
    for column, name in enumerate(MODALITIES):
        if conversation.present[t, column]:
            values = getattr(conversation, name)[t].numpy()
            features[name] = seam.Tensor("float32", values.shape, values.tobytes())
    persona = tuple(conversation.persona[t].tolist()) if conversation.present[t, 3] else None
    return seam.Turn(window, conversation.speakers[t], features, persona)


def push(spec: Any, turn: seam.Turn, answer: seam.Prediction) -> Window:
    new, _ = turn.window.push(
        spec.recurrence, answer.applied, utterance_id="u", speaker_id=turn.speaker_id
    )
    return new


def step_through(
    by: PcgnetPredictor, conversations: Sequence[ConversationTensors]
) -> list[list[seam.Prediction]]:
    """Utterance by utterance, all conversations side by side."""
    windows = [Window.empty(by.spec) for _ in conversations]
    answers: list[list[seam.Prediction]] = [[] for _ in conversations]
    for t in range(max(len(c.speakers) for c in conversations)):
        going = [i for i, c in enumerate(conversations) if t < len(c.speakers)]
        for i in going:
            starts = conversations[i].session_start
            if starts is not None and starts[t]:
                windows[i] = Window.empty(by.spec)
        turns = [turn_of(conversations[i], t, windows[i]) for i in going]
        for i, turn, answer in zip(going, turns, by.predict(turns), strict=True):
            answers[i].append(answer)
            windows[i] = push(by.spec, turn, answer)
    return answers


def whole_pass(of: Checkpoint, conversations: Sequence[ConversationTensors]) -> WholeOutput:
    model = of.model()
    with torch.inference_mode():
        out: WholeOutput = model(collate_conversations(conversations, of.config))
    return out


def assert_forms_agree(
    conversations: Sequence[ConversationTensors],
    tolerance: float,
    window: int = 10,
    store: str = "float32",
    speakers: int = 32,
) -> None:
    source = checkpoint((window, store, speakers))
    answers = list(
        itertools.chain(*step_through(predictor(window, store, speakers), conversations))
    )
    out = whole_pass(source, conversations)
    emotion = torch.softmax(out.emotion / source.calibration.emotion, 1)
    stepped = torch.tensor([s.probabilities for s in answers])
    assert (emotion - stepped).abs().max() <= tolerance
    top = emotion.topk(2, dim=1).values
    clear = top[:, 0] - top[:, 1] > tolerance
    assert torch.equal(emotion.argmax(1)[clear], stepped.argmax(1)[clear])
    assert [i for i, s in enumerate(answers) if s.shift is not None] == out.pairs[:, 1].tolist()
    if len(out.pairs):
        shift = torch.softmax(out.shift / source.calibration.shift, 1)
        stepped = torch.tensor([s.shift for s in answers if s.shift is not None])
        assert (shift - stepped).abs().max() <= tolerance


def as_bytes(prediction: seam.Prediction) -> bytes:
    numbers = np.array([*prediction.probabilities, *(prediction.shift or ())]).tobytes()
    arrays = prediction.applied
    return numbers + arrays.row.tobytes() + arrays.arrays.tobytes() + arrays.speaker.tobytes()


@pytest.mark.slow
@pytest.mark.parametrize("window", [1, 10, 16, 64])
@pytest.mark.parametrize(
    ("store", "tolerance"), [("float32", EXACT), ("float16", STORED), ("bfloat16", 8 * STORED)]
)
def test_step_by_step_equals_one_pass(window: int, store: str, tolerance: float) -> None:
    """Shorter and longer than the window, 1, 2, 5 and 10 speakers; 64 is longer than any talk.

    bfloat16 keeps three bits less, so a rounding that flips between the forms weighs eight times.
    """
    talks = [talk(crowd(n, s, n), seed=n) for n, s in ((1, 1), (4, 1), (30, 2), (25, 5), (40, 10))]
    assert_forms_agree(talks, tolerance, window, store)


@pytest.mark.slow
@pytest.mark.parametrize("subset", list(itertools.product([False, True], repeat=4)))
def test_forms_agree_on_any_subset_of_inputs(subset: tuple[bool, ...]) -> None:
    conversation = replace(talk(crowd(8, 2)), present=torch.tensor([subset] * 8))
    assert_forms_agree([conversation], EXACT)


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(
    speakers=st.lists(st.sampled_from("abcdef"), min_size=1, max_size=20),
    starts=st.sets(st.integers(1, 19)),
    limit=st.sampled_from([1, 3]),
    window=st.sampled_from([1, 4]),
    seed=st.integers(0, 1000),
)
def test_forms_agree_on_any_talk(
    speakers: list[str], starts: set[int], limit: int, window: int, seed: int
) -> None:
    """Any order of speakers, sessions, forgotten speakers and window."""
    inside = sorted(t for t in starts if t < len(speakers))
    assert_forms_agree([talk(speakers, seed, starts=inside)], EXACT, window, speakers=limit)


@cache
def pool() -> tuple[list[seam.Turn], list[bytes]]:
    """70 turns of 70 conversations at different points, and the bytes of each answered alone."""
    by = predictor(store="float16")
    turns = []
    for i in range(70):
        conversation = talk(crowd(1 + i % 13, 1 + i % 4, i), seed=i)
        window = Window.empty(by.spec)
        for t in range(len(conversation.speakers) - 1):
            turn = turn_of(conversation, t, window)
            window = push(by.spec, turn, by.predict([turn])[0])
        turns.append(turn_of(conversation, len(conversation.speakers) - 1, window))
    return turns, [as_bytes(by.predict([turn])[0]) for turn in turns]


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(st.data())
def test_a_rows_bytes_do_not_depend_on_its_batch(data: st.DataObject) -> None:
    """The serving law: other rows, their number and the place in the batch leave no trace."""
    turns, alone = pool()
    order = data.draw(st.permutations(range(len(turns))))
    size = data.draw(st.integers(1, len(turns)))
    chosen = order[:size]
    together = predictor(store="float16").predict([turns[i] for i in chosen])
    assert [as_bytes(answer) for answer in together] == [alone[i] for i in chosen]


@pytest.mark.slow
def test_the_serving_law_holds_without_the_float16_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """On another processor: float32 products, and single rows where no size can be proven."""
    monkeypatch.setattr("model.serving.row_stable.has_half_kernel", lambda: False)
    by = PcgnetPredictor(checkpoint((10, "float16", 32)), torch.device("cpu"))
    turns = pool()[0][:23]
    alone = [as_bytes(by.predict([turn])[0]) for turn in turns]
    assert [as_bytes(answer) for answer in by.predict(turns[::-1])] == alone[::-1]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["meld", "meld-minilm"])
def test_the_serving_law_holds_at_full_size(name: str) -> None:
    from model.pcgnet.model import Pcgnet

    cfg = preset(name)
    torch.manual_seed(3)
    weights = {k: v.half().float() for k, v in Pcgnet(cfg).state_dict().items()}
    source = replace(checkpoint(), config=cfg, weights=weights)
    by = PcgnetPredictor(source, torch.device("cpu"))
    draw = np.random.default_rng(0)
    turns = []
    for i in range(60):
        values = draw.normal(size=cfg.text).astype(np.float32)
        text = seam.Tensor("float32", values.shape, values.tobytes())
        turns.append(seam.Turn(Window.empty(by.spec), f"speaker {i % 3}", {"text": text}))
    windows = [push(by.spec, t, answer) for t, answer in zip(turns, by.predict(turns), strict=True)]
    turns = [structs.replace(t, window=w) for t, w in zip(turns, windows, strict=True)]
    alone = [as_bytes(by.predict([turn])[0]) for turn in turns]
    for size in (1, 2, 3, 5, 7, 11, 13, 23, 31, 47, 49, 60):
        chosen = draw.permutation(60)[:size]
        together = by.predict([turns[i] for i in chosen])
        assert [as_bytes(answer) for answer in together] == [alone[i] for i in chosen]


@pytest.mark.slow
def test_a_later_utterance_changes_nothing_earlier_when_stepping() -> None:
    short = talk(crowd(12, 3), seed=5)
    by = predictor(store="float16")
    long = talk(crowd(12, 3), seed=6)
    joined = ConversationTensors(
        speakers=short.speakers + long.speakers,
        **{n: torch.cat((getattr(short, n), getattr(long, n))) for n in COLUMNS},
    )
    first = [as_bytes(s) for s in step_through(by, [replace(short, session_start=None)])[0]]
    assert [as_bytes(s) for s in step_through(by, [joined])[0]][:12] == first


def test_a_later_utterance_or_another_talk_changes_nothing_earlier_in_one_pass() -> None:
    mine, other = talk(crowd(12, 3), seed=5), talk(crowd(30, 4), seed=7)
    changed = replace(mine, text=mine.text.clone(), present=torch.ones_like(mine.present))
    changed.present[:-1] = mine.present[:-1]
    changed.text[-1] += 5.0
    before = whole_pass(checkpoint(), [mine]).emotion
    assert torch.allclose(whole_pass(checkpoint(), [other, mine]).emotion[30:], before, atol=1e-6)
    after = whole_pass(checkpoint(), [changed]).emotion
    assert torch.allclose(after[:-1], before[:-1], atol=1e-6)
    assert not torch.allclose(after[-1], before[-1], atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["text", "audio", "video", "persona"])
def test_each_input_changes_the_answer_when_present(name: str) -> None:
    conversation = talk(crowd(6, 2), absent=0.0)
    other = replace(conversation, **{name: getattr(conversation, name) + 0.5})
    gone = conversation.present.clone()
    gone[:, INPUTS.index(name)] = False
    without = replace(conversation, present=gone)
    by = predictor()
    answers = [
        torch.tensor([s.probabilities for s in step_through(by, [c])[0]])
        for c in (conversation, other, without)
    ]
    for one, two in itertools.combinations(answers, 2):
        assert (one - two).abs().max() > 1e-3


def test_what_is_absent_is_not_looked_at() -> None:
    conversation = talk(crowd(6, 2), absent=0.5)
    wild = replace(conversation, audio=conversation.audio.clone())
    wild.audio[~wild.present[:, 1]] = float("nan")
    same = whole_pass(checkpoint(), [wild]).emotion
    assert torch.equal(same, whole_pass(checkpoint(), [conversation]).emotion)


@pytest.mark.slow
def test_the_33rd_speaker_makes_the_first_one_a_stranger() -> None:
    """A returning speaker starts cold in both forms, though their words may still be in reach."""
    speakers = [f"speaker {i}" for i in range(33)] + ["speaker 32", "speaker 1", "speaker 0"]
    conversation = talk(speakers, seed=2)
    answers = step_through(predictor(64), [conversation])[0]
    assert [s.shift is not None for s in answers] == [False] * 33 + [True, True, False]
    assert_forms_agree([conversation], EXACT, 64)


@pytest.mark.slow
def test_a_session_starts_from_nothing() -> None:
    talks = [talk(crowd(9, 2, 1), seed=1), talk(crowd(9, 2, 1), seed=1, starts=[5])]
    assert_forms_agree(talks, EXACT)
    out = whole_pass(checkpoint(), talks).emotion
    tail = talk(crowd(9, 2, 1), seed=1)
    cut = ConversationTensors(
        speakers=tail.speakers[5:], **{n: getattr(tail, n)[5:] for n in COLUMNS}
    )
    fresh = whole_pass(checkpoint(), [cut]).emotion
    assert torch.allclose(out[9 + 5 :], fresh, atol=1e-6)
    assert not torch.allclose(out[5:9], fresh, atol=1e-3)


def test_every_parameter_gets_a_gradient() -> None:
    model = checkpoint().model().train()
    out = model(collate_conversations([talk(crowd(12, 3), seed=4)], config()))
    target = torch.zeros(len(out.pairs), dtype=torch.long)
    loss = torch.nn.functional.cross_entropy(out.shift, target)
    loss = loss + torch.nn.functional.cross_entropy(out.emotion, torch.ones(12, dtype=torch.long))
    torch.autograd.backward(loss)
    without = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


def test_emotion_and_shift_nodes_differ() -> None:
    nodes = whole_pass(checkpoint(), [talk(crowd(12, 3))]).nodes
    assert (nodes[:, 0] - nodes[:, 1]).abs().amax((1, 2)).min() > 1e-2


def test_a_pair_is_answered_by_the_shift_head_and_by_both_emotions() -> None:
    out = whole_pass(checkpoint((10, "float16", 32)), [talk(crowd(12, 3))])
    log_p = torch.log_softmax(out.emotion, 1)
    for pair, (before, now) in enumerate(out.pairs.tolist()):
        stored = log_p[before].half().float()  # as it is stored
        wanted = out.shift_alone[pair].view(len(stored), -1) + stored[:, None] + log_p[now]
        torch.testing.assert_close(out.shift[pair].view_as(wanted), wanted)


def test_without_task_and_relations_both_tasks_collapse_into_one() -> None:
    """The published code's degeneracy: what keeps the tasks apart is embedding and relations."""
    names = ("task", "graph_attention.relation_bias", "graph_attention.distance_weight")
    flat = {n: torch.zeros_like(w) if n in names else w for n, w in checkpoint().weights.items()}
    nodes = whole_pass(replace(checkpoint(), weights=flat), [talk(crowd(12, 3))]).nodes
    assert torch.allclose(nodes[:, 0], nodes[:, 1], atol=1e-5)


@pytest.mark.parametrize("relation", range(8))
def test_an_edge_removed_changes_the_output(relation: int) -> None:
    """One edge of each relation, at an utterance that has it."""
    model = checkpoint().model()
    batch = collate_conversations([talk(["a", "b", "a", "c", "a"], seed=8)], config())
    edge = int(torch.nonzero(batch.relation == relation)[-1])
    keep = torch.arange(len(batch.relation)) != edge
    less = replace(
        batch,
        graph_edges=batch.graph_edges[:, keep],
        relation=batch.relation[keep],
        distance=batch.distance[keep],
    )
    with torch.inference_mode():
        nodes = (model(batch).nodes - model(less).nodes).abs().amax((2, 3))  # [N, 2]
    utterance, task = divmod(int(batch.graph_edges[1, edge]) // 3, 2)
    assert nodes[utterance, task] > 1e-4


def test_a_persona_edge_removed_changes_the_output() -> None:
    model = checkpoint().model()
    batch = collate_conversations([talk(["a", "b", "a"], seed=8)], config())
    less = replace(batch, persona_edges=batch.persona_edges[:, 1:])
    with torch.inference_mode():
        assert (model(batch).emotion - model(less).emotion).abs().max() > 1e-4


@pytest.mark.slow
def test_answers_of_a_known_model_stay_what_they_were() -> None:
    """Golden values: a change of the mathematics must be meant (and retrain the checkpoint)."""
    answers = step_through(predictor(), [talk(["a", "b", "a"], seed=9, absent=0.0)])[0]
    assert answers[2].probabilities == pytest.approx(GOLDEN_EMOTION, abs=1e-5)
    assert answers[2].shift_probability == pytest.approx(GOLDEN_SHIFT, abs=1e-5)


GOLDEN_EMOTION = (0.7084522, 0.2589632, 0.0325846)
GOLDEN_SHIFT = 0.9970670


def test_state_written_an_utterance_is_as_small_as_stated() -> None:
    """P7: 6.66 KiB at H=200, 13.3 at H=400, in float16."""
    for name, kib in (("meld", 6.66), ("iemocap", 13.3)):
        spec = state_spec(preset(name), "d")
        written = spec.row_bytes + spec.conversation_bytes + spec.speaker_bytes
        assert written / 1024 == pytest.approx(kib, abs=0.01)


@pytest.mark.slow
def test_state_does_not_grow_with_the_conversation() -> None:
    by = predictor(3, "float16", 2)
    window = Window.empty(by.spec)
    conversation = talk(crowd(60, 4), seed=3)
    sizes = []
    for t in range(60):
        turn = turn_of(conversation, t, window)
        window = push(by.spec, turn, by.predict([turn])[0])
        sizes.append(window.rows.nbytes + sum(s.arrays.nbytes for s in window.speakers.values()))
    assert max(sizes) == sizes[10] == sizes[-1]
