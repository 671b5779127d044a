"""The label sentence: a generative model's answer to an utterance, and its tokens.

HRG-SSA answers with a sentence that names emotion and sentiment between markers (docs/models.md
B1). An emotion is scored at its slot by its one token, so every label word must be exactly one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from model.data.dataset import SENTIMENTS
from model.errors import ModelError

MARKERS: Final = ("<emotion>", "</emotion>", "<sentiment>", "</sentiment>")
TEMPLATE: Final = "<emotion> {emotion} </emotion> <sentiment> {sentiment} </sentiment>"
START, END, UNKNOWN = "<pad>", "</s>", "<unk>"


class LabelWordsError(ModelError):
    """A template or vocabulary of which no label sentence can be made; names the word."""


@dataclass(frozen=True, slots=True)
class LabelWords:
    """Token numbers of the label sentence: prefix, emotion, middle, sentiment, ending."""

    size: int  # of the vocabulary
    start: int  # the decoder's first input
    prefix: tuple[int, ...]  # ends with the marker before the emotion
    emotions: tuple[int, ...]  # [C], in the order of the labels
    middle: tuple[int, ...]  # ends with the marker before the sentiment
    sentiments: tuple[int, ...]  # in the order of `SENTIMENTS`
    ending: tuple[int, ...]  # ends with the end-of-sentence token

    @property
    def emotion_slot(self) -> int:
        """Place in the decoder's input whose output names the emotion."""
        return len(self.prefix)

    def sentence(self, emotion: int, sentiment: int) -> tuple[int, ...]:
        """Return the target sentence of two class numbers."""
        words = (*self.prefix, self.emotions[emotion], *self.middle)
        return (*words, self.sentiments[sentiment], *self.ending)


def own_label_words(labels: Sequence[str], template: str = TEMPLATE) -> LabelWords:
    """Make a vocabulary of the template's words, the labels and the sentiments, one token each.

    For a decoder that is trained from scratch. Raises `LabelWordsError`.
    """
    before, between, after = _parts(template)
    known = [START, END, *before, *between, *after, *SENTIMENTS]
    numbers = {word: i for i, word in enumerate(dict.fromkeys(known))}
    emotions = tuple(range(len(numbers), len(numbers) + len(labels)))  # "neutral" is both
    return LabelWords(
        size=len(numbers) + len(labels),
        start=numbers[START],
        prefix=tuple(numbers[word] for word in before),
        emotions=emotions,
        middle=tuple(numbers[word] for word in between),
        sentiments=tuple(numbers[word] for word in SENTIMENTS),
        ending=(*(numbers[word] for word in after), numbers[END]),
    )


def tokenizer_label_words(
    tokenizer: Any, labels: Sequence[str], template: str = TEMPLATE
) -> LabelWords:
    """Write the label sentence in the tokens of a pretrained encoder-decoder's tokenizer.

    Markers are added to the tokenizer where it lacks them. Raises `LabelWordsError` where a label
    or sentiment is not one token, or where two labels are the same one.
    """
    before, between, after = _parts(template)
    tokenizer.add_special_tokens({"additional_special_tokens": list(MARKERS)})

    def tokens(words: Sequence[str]) -> tuple[int, ...]:
        parts = [tokenizer(word, add_special_tokens=False)["input_ids"] for word in words]
        return tuple(int(token) for part in parts for token in part)

    emotions = tuple(_one_token(tokenizer, word) for word in labels)
    if len(set(emotions)) < len(emotions):
        raise LabelWordsError(f"two of the labels {', '.join(labels)} are the same token")
    return LabelWords(
        size=len(tokenizer),
        start=int(tokenizer.pad_token_id),
        prefix=tokens(before),
        emotions=emotions,
        middle=tokens(between),
        sentiments=tuple(_one_token(tokenizer, word) for word in SENTIMENTS),
        ending=(*tokens(after), int(tokenizer.eos_token_id)),
    )


def label_words_from(stored: Mapping[str, Any]) -> LabelWords:
    """Read label words from a checkpoint's settings."""
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in stored.items()}
    return LabelWords(**values)


def _one_token(tokenizer: Any, word: str) -> int:
    tokens = tokenizer(word, add_special_tokens=False)["input_ids"]
    if len(tokens) != 1 or tokens[0] == tokenizer.unk_token_id:
        pieces = tokenizer.convert_ids_to_tokens(tokens)
        raise LabelWordsError(
            f"the label word `{word}` is not one token of this vocabulary ({' '.join(pieces)}): "
            "rename the label, or use a backbone whose vocabulary has it"
        )
    return int(tokens[0])


def _parts(template: str) -> tuple[list[str], list[str], list[str]]:
    """Split into the words before the emotion, between emotion and sentiment, and after."""
    words = template.split()
    for needed in (*MARKERS, "{emotion}", "{sentiment}"):
        if words.count(needed) != 1:
            raise LabelWordsError(f"the template must hold `{needed}` once: {template!r}")
    emotion, sentiment = words.index("{emotion}"), words.index("{sentiment}")
    wrapped = [words[i + d] for i in (emotion, sentiment) for d in (-1, 1) if i + d >= 0]
    if sentiment < emotion or wrapped != list(MARKERS):
        raise LabelWordsError(
            f"the template must wrap each slot in its markers, emotion first: {template!r}"
        )
    return words[:emotion], words[emotion + 1 : sentiment], words[sentiment + 1 :]
