"""A model in this process: whole conversations, steps, and what is refused."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stream.errors import EmotrackError, InvalidUtterance, ModelUnfit
from stream.events.messages import Utterance, encode
from stream.offline import Answered, LoadedModel, State, load, loaded, rows
from tests.conftest import ROOT
from tests.fakes.predictor import SmallPredictor

Talk = list[dict[str, Any]]


@pytest.fixture
def model() -> LoadedModel:
    return LoadedModel(SmallPredictor())


def talk(count: int, seed: int = 0) -> Talk:
    draw = np.random.default_rng(seed)
    said: Talk = []
    for n in range(count):
        vector = {"audio": draw.normal(size=2)} if n % 3 else {"text": f"words {draw.integers(9)}"}
        said.append({"speaker": "ab"[n % 2], **vector})
    return said


def test_steps_and_many_conversations_give_what_one_call_gives(model: LoadedModel) -> None:
    talks = [talk(length, seed=length) for length in (7, 1, 12, 3)]
    alone = [model.predict(t) for t in talks]
    assert model.predict_many(talks) == alone
    for told, answers in zip(talks, alone, strict=True):
        state: State = None
        for utterance, answer in zip(told, answers, strict=True):
            before = state
            state, stepped = model.step(state, utterance)
            assert stepped == answer
            assert model.step(before, utterance)[1] == answer, "a state is never changed"


def test_more_conversations_than_a_batch_holds_are_answered_in_their_order() -> None:
    predictor = SmallPredictor()
    talks = {f"c{n}": talk(2, seed=n) for n in range(70)}
    answers = LoadedModel(predictor).predict_many(talks)
    assert [[a.conversation_id for a in part] for part in answers] == [[n] * 2 for n in talks]
    assert max(predictor.batches) == 32
    assert answers[69] == LoadedModel(SmallPredictor()).predict(
        [{**u, "conversation_id": "c69"} for u in talks["c69"]]
    )


def test_an_answer_has_the_fields_of_a_prediction_and_its_alert(model: LoadedModel) -> None:
    calm, angry = {"speaker": "a", "audio": [3.0, 0.0]}, {"speaker": "a", "audio": [-9.0, 20.0]}
    first, second = model.predict([calm, angry])
    assert (first.emotion, first.shift, first.alert) == ("calm", None, None)
    assert second.alert is not None and second.shift is not None
    assert (second.alert.from_, second.alert.to) == (second.shift.from_, second.shift.to)
    assert second.alert.previous_utterance_id == first.utterance_id == "0"
    (doubted,) = model.predict([{"speaker": "a", "text": "x", "language": "zh"}])
    assert (doubted.abstained, doubted.reason) == (True, "language")


def test_rows_have_a_column_a_field_and_one_a_label(model: LoadedModel) -> None:
    answers = model.predict(talk(3))
    table = rows(answers)
    assert [row["emotion"] for row in table] == [a.emotion for a in answers]
    assert [row["p_joy"] for row in table] == [a.probabilities["joy"] for a in answers]
    assert table[0]["shift_probability"] is None and table[0]["alert"] is False
    assert table[2]["shift_to"] == answers[2].shift.to if answers[2].shift else False


def test_names_of_a_table_numpy_values_and_vectors_of_any_form_are_read_alike(
    model: LoadedModel,
) -> None:
    (plain,) = model.predict([{"speaker": "7", "audio": [0.5, 1.25], "persona": [1, 2, 3, 4, 5]}])
    persona = np.arange(1, 6)
    forms: list[Any] = [np.array([0.5, 1.25], np.float16), (0.5, 1.25), {"tensor": [0.5, 1.25]}]
    for vector in forms:
        row = {"User": np.int64(7), "audio": vector, "persona": persona, "emotion": "joy", "x": 1}
        assert model.predict([row | {"text": float("nan"), "video": None}]) == [plain]
    event = Utterance("conversation", "0", "7", text="hi")
    assert model.predict([event]) == model.predict([{"participant": "7", "Utterance": "hi"}])
    assert encode(plain) == encode(model.predict([{"speaker": 7, "features": {
        "audio": [0.5, 1.25]}, "persona": persona}])[0])  # fmt: skip


def test_a_field_that_does_not_fit_is_flagged_as_a_worker_flags_it(model: LoadedModel) -> None:
    first, second = model.predict(
        [{"speaker": "a", "text": "x", "seq": "four"}, {"speaker": "a", "text": "y", "seq": 9}]
    )
    assert (first.flags, second.flags) == (["ignored_seq"], [])


@pytest.mark.parametrize(
    ("utterance", "sentence"),
    [
        ({"text": "hi"}, "utterance 1 of conversation has no `speaker`: it has 'text'"),
        ({"speeker": "a", "text": "hi"}, "rename 'speeker'"),
        ({"speaker": "a", "vidoe": [1, 2]}, "has 'vidoe': rename it to 'video'"),
        ({"speaker": "a"}, "neither text nor a feature vector"),
        ({"speaker": "a", "audio": [1.0]}, "`features.audio` has 1 numbers, the model takes 2"),
        ({"speaker": "a", "audio": [1, float("inf")]}, "is NaN or infinite"),
        ({"speaker": "a", "audio": ["x", "y"]}, "`audio` is no vector of numbers"),
        ({"speaker": "a", "audio": [[1, 2]]}, r"shape \[1, 2\]: give one vector"),
        ({"speaker": "a", "features": {"smell": [1]}}, "no dict of text, audio, video"),
        ({"speaker": "a", "audio": {"tensor": {"dtype": "int8"}}}, "is no packed tensor"),
        ({"speaker": "a", "text": "hi", "persona": [1]}, "`persona` has 1 numbers"),
        ({"speaker": ["a"], "text": "hi"}, "speaker_id"),
        ({"speaker": "a", "text": "hi", "utterance_id": "0"}, "was in 'conversation' before"),
        ({"speaker": "a", "text": "half \ud800"}, "utterance 1 of conversation"),
        ({"speaker": "a", "audio": [1e4, 0]}, "NaN or infinite: its vectors hold values far"),
        ("hi", "is of str: give a dict"),
    ],
)
def test_what_a_worker_would_not_answer_is_one_sentence(
    model: LoadedModel, utterance: Any, sentence: str
) -> None:
    with pytest.raises(InvalidUtterance, match=sentence):
        model.predict([{"speaker": "a", "text": "first"}, utterance])


def test_no_utterance_no_answer(model: LoadedModel) -> None:
    assert model.predict([]) == []
    assert model.predict_many([]) == []
    assert model.predict_many([[], talk(1)])[0] == []


def test_a_session_ends_as_a_worker_ends_it(model: LoadedModel) -> None:
    said = {"speaker": "a", "text": "x"}
    _, ended, new = model.predict([said, said | {"end_of_conversation": True}, said])
    assert (ended.context.utterances, new.context.utterances) == (1, 0)
    idle_ms = int(SmallPredictor().recurrence.idle_s * 1000)
    state, _ = model.step(None, said, at_ms=1_000)
    _, soon = model.step(state, said, at_ms=1_000 + idle_ms)
    _, late = model.step(state, said, at_ms=1_001 + idle_ms)
    assert (soon.context.utterances, late.context.utterances) == (1, 0)


def test_the_python_of_the_readme_works(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(loaded, "load_predictor", lambda *_: SmallPredictor())
    page = (ROOT / "README.md").read_text("utf-8")
    programs: list[str] = re.findall(r"^```python\n(.*?)^```$", page, re.M | re.S)
    (program,) = [text for text in programs if "offline" in text]
    exec(compile(program, "README.md", "exec"), {})
    assert capsys.readouterr().out.startswith("anna ")


def test_a_model_that_cannot_be_used_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ModelUnfit, match="nowhere"):
        load(tmp_path / "nowhere")
    monkeypatch.setitem(sys.modules, "model.checkpoint_files", None)  # as without torch
    with pytest.raises(ModelUnfit, match=r"needs .*: pip install 'emotrack\[worker\]'"):
        load("pcgnet")
    without = LoadedModel(SmallPredictor(encodes_text=False))
    with pytest.raises(ModelUnfit, match="install the encoder"):
        without.predict([{"speaker": "a", "text": "hi"}])
    assert issubclass(ModelUnfit, EmotrackError) and issubclass(InvalidUtterance, EmotrackError)


def test_an_answer_keeps_its_type(model: LoadedModel) -> None:
    assert all(isinstance(a, Answered) for a in model.predict(talk(2)))
    assert repr(model) == f"<small 1 {'d' * 16}: calm, joy, anger>"
