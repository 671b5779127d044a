"""Predictors say of an answer that its utterance is outside of what the checkpoint states."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from msgspec import structs

from model.checkpoint_files import default_checkpoint
from model.errors import EncoderMissing
from model.interface import Doubt, Predictor, ServingOptions, Tensor, Turn
from model.registry import load_any, load_predictor
from model.text.languages import Languages
from model.text.sentence_encoder import SPACE, find_encoder, mostly_unknown
from state.window import Window
from tests.fakes.encoder import write_tiny_encoder
from tests.fakes.hrg_ssa import write_small_hrg_ssa

pytestmark = pytest.mark.slow  # a checkpoint is loaded: seconds
CASES: list[tuple[str, Doubt | None]] = [
    ("I am fine, thank you.", None),
    ("42", None),
    ("Rachel!", None),
    ("Great 😀", None),
    ("我很生气，别再给我打电话了。", "language"),  # noqa: RUF001
    ("Ich habe dir doch gesagt, dass ich keine Zeit habe.", "language"),
    ("😡😡 👍", "unknown_words"),
    ("\u200b", "unknown_words"),
    ("".join(chr(0x1D4EA + ord(c) - 97) for c in "hello"), "unknown_words"),  # script letters
]


@pytest.fixture(scope="module")
def shipped() -> Predictor:
    try:
        find_encoder()
    except EncoderMissing as why:
        pytest.skip(str(why))
    return load_predictor(default_checkpoint(), ServingOptions(device="cpu"))


def turn(by: Predictor, text: str | None, language: str | None = None, *, vector: bool) -> Turn:
    values = np.random.default_rng(1).normal(size=384).astype(np.float32) / 20
    features = {"text": Tensor("float32", (384,), values.tobytes())} if vector else {}
    return Turn(Window.empty(by.spec), "ann", features, None, text, language)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["pcgnet", "hrg-ssa"])
def test_shipped_checkpoints_state_english(kind: str) -> None:
    checkpoint = load_any(default_checkpoint(kind))
    assert checkpoint.languages == Languages.of(["en"])
    recorded = (default_checkpoint(kind) / "digest").read_text("utf-8").strip()
    assert checkpoint.digest == recorded, "nothing else judges here than was stated"
    card = (default_checkpoint(kind) / "README.md").read_text("utf-8")
    assert "## Languages\n\nen, in Latin letters." in card


def test_raw_text_outside_of_what_it_knows_is_doubted_and_answered(shipped: Predictor) -> None:
    turns = [turn(shipped, text, vector=False) for text, _ in CASES]
    assert [p.doubt for p in shipped.predict(turns)] == [doubt for _, doubt in CASES]
    assert [p.doubt for p in shipped.begin(turns)()] == [doubt for _, doubt in CASES]
    assert all(p.modalities_used == ("text",) for p in shipped.predict(turns))


def test_vectors_without_text_are_doubted_for_the_stated_language_alone(shipped: Predictor) -> None:
    spoken = [(None, None), (None, "en-GB"), (None, "zh"), ("我很生气。", "en"), ("Fine.", None)]
    turns = [turn(shipped, text, language, vector=True) for text, language in spoken]
    doubts = [p.doubt for p in shipped.predict(turns)]
    assert doubts == [None, None, "language", "language", None]


def test_a_doubt_changes_nothing_else_of_the_answer(shipped: Predictor) -> None:
    (plain,) = shipped.predict([turn(shipped, "I am fine.", vector=False)])
    (doubted,) = shipped.predict([turn(shipped, "I am fine.", "zh", vector=False)])
    assert doubted.doubt == "language" and plain.doubt is None
    assert doubted.probabilities == plain.probabilities
    assert np.array_equal(doubted.applied.row, plain.applied.row)


def test_another_model_shares_the_judge_and_one_that_states_none_doubts_nothing(
    tmp_path: Path,
) -> None:
    encoder = write_tiny_encoder(tmp_path / "encoder")
    english = Languages.of(["en"])
    options = ServingOptions(device="cpu", encoder=encoder)
    stating = load_predictor(
        write_small_hrg_ssa(tmp_path / "en", encoder, languages=english), options
    )
    silent = load_predictor(write_small_hrg_ssa(tmp_path / "none", encoder), options)
    known, unknown = "hello so it is", "qq ww qq"  # the tiny encoder knows few words
    texts = [known, unknown, "我很生气。", "😀"]
    turns = [turn(stating, text, vector=False) for text in texts]
    turns.append(turn(stating, known, "de", vector=False))
    doubts = [None, "unknown_words", "language", "unknown_words", "language"]
    assert [p.doubt for p in stating.predict(turns)] == doubts
    quiet = silent.predict([structs.replace(t, window=Window.empty(silent.spec)) for t in turns])
    assert [p.doubt for p in quiet] == [None] * 5
    assert (stating.info.languages, silent.info.languages) == (("en",), ())
    stored = json.loads((tmp_path / "en" / "config.json").read_text("utf-8"))
    assert (stored["format"], stored["languages"]["known"]) == (4, ["en"])
    assert stored["languages"] == json.loads(json.dumps(asdict(english)))
    before = json.loads((tmp_path / "none" / "config.json").read_text("utf-8"))
    assert "languages" not in before and before["format"] == 3, "an older version reads it too"


class Pieces:
    """A SentencePiece tokenizer's numbers: 0 pad, 1 end, 2 unknown, 3 the mark of a space."""

    unk_token_id = 2
    all_special_ids = (0, 1, 2)

    def convert_tokens_to_ids(self, token: str) -> int:
        return {SPACE: 3}[token]


@pytest.mark.parametrize(
    ("tokens", "unknown"),
    [([3, 2, 1], True), ([5, 3, 2, 1], False), ([5, 3, 2, 3, 2, 1], True), ([3, 1], False)],
)
def test_the_mark_before_an_unknown_word_counts_for_nothing(
    tokens: list[int], unknown: bool
) -> None:
    assert mostly_unknown(Pieces(), tokens) == unknown
