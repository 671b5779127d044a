"""Label sentences: their tokens, and the vocabularies and templates that are refused."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from model.data.dataset import SENTIMENTS
from model.hrg_ssa.label_words import (
    MARKERS,
    TEMPLATE,
    LabelWordsError,
    label_words_from,
    own_label_words,
    tokenizer_label_words,
)
from tests.fakes.conversations import GENERATED_LABELS
from tests.fakes.t5 import write_tiny_t5


def test_a_sentence_names_emotion_and_sentiment_in_their_slots() -> None:
    words = own_label_words(("calm", "cross"))
    said = (words.start, *words.sentence(1, 2))
    assert said[words.emotion_slot + 1] == words.emotions[1]
    assert said[-1 - len(words.ending)] == words.sentiments[2]
    assert len(set(words.emotions) | set(words.sentiments)) == 5, "neutral twice would be ambiguous"
    assert max(said) < words.size


def test_an_emotion_called_like_a_sentiment_has_a_token_of_its_own() -> None:
    words = own_label_words(("neutral", "joy"))
    assert words.emotions[0] not in words.sentiments


def test_a_checkpoint_brings_the_numbers_back() -> None:
    words = own_label_words(GENERATED_LABELS)
    stored = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(words).items()}
    assert label_words_from(stored) == words


@pytest.mark.parametrize("marker", [*MARKERS, "{emotion}", "{sentiment}"])
def test_a_template_without_a_marker_is_refused(marker: str) -> None:
    with pytest.raises(LabelWordsError, match="must hold"):
        own_label_words(("calm", "cross"), TEMPLATE.replace(marker, ""))


def test_a_template_with_the_sentiment_first_is_refused() -> None:
    """The published IEMOCAP format without the emotion first has no emotion clause at all."""
    emotion, sentiment = TEMPLATE.split("</emotion>")
    with pytest.raises(LabelWordsError, match="emotion first"):
        own_label_words(("calm", "cross"), f"{sentiment} {emotion} </emotion>")


def test_a_pretrained_vocabulary_gets_the_markers_and_keeps_its_words(tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(write_tiny_t5(tmp_path))
    before = len(tokenizer)
    words = tokenizer_label_words(tokenizer, GENERATED_LABELS)
    assert words.size == before + len(MARKERS)
    assert words.start == tokenizer.pad_token_id
    said = tokenizer.convert_ids_to_tokens(list(words.sentence(4, 0)))
    assert said == [
        "<emotion>", "joy", "</emotion>", "<sentiment>", "positive", "</sentiment>", "</s>",
    ]  # fmt: skip


def test_a_label_that_is_not_one_token_is_named(tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(write_tiny_t5(tmp_path, known=("joy", *SENTIMENTS)))
    with pytest.raises(LabelWordsError, match="`stage fright` is not one token"):
        tokenizer_label_words(tokenizer, ("joy", "stage fright"))
    with pytest.raises(LabelWordsError, match="`anger` is not one token"):
        tokenizer_label_words(tokenizer, ("joy", "anger"))
