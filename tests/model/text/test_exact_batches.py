"""Texts run together only where that changes no byte."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from model.errors import EncoderMissing
from model.text.exact_batches import SAMPLES, SIZES, WORTH, ExactBatches
from model.text.sentence_encoder import SentenceEncoder, TextRepeats, find_encoder

Tokens = tuple[int, ...]


class Kernels:
    """A product with another kernel from some number of rows on, as on a CPU."""

    def __init__(self, few_rows: int) -> None:
        self._few, self.batches = few_rows, list[int]()

    def __call__(self, tokens: list[list[int]]) -> NDArray[np.float16]:
        self.batches.append(len(tokens))
        rows = len(tokens) * len(tokens[0])
        last_bits = 0.0 if rows <= self._few else 1e-3
        return np.array([[sum(ids), last_bits] for ids in tokens], np.float16)


def texts(length: int, count: int, first: int = 0) -> list[Tokens]:
    return [tuple([first + i] * length) for i in range(count)]


def test_batches_are_as_large_as_the_kernel_of_one_allows() -> None:
    """Of 4 tokens three are together up to 12 rows, of 7 none, and of 16 any number."""
    for length, few_rows, largest in ((4, 12, 3), (7, 12, 1), (16, 12, max(SIZES))):
        run = Kernels(few_rows)
        batches = ExactBatches(run)
        for at in range(0, 5 * WORTH, WORTH):
            some = texts(length, WORTH, at)
            alone = {ids: Kernels(few_rows)([list(ids)])[0].tobytes() for ids in some}
            found = batches.vectors(some)
            assert {ids: v.tobytes() for ids, v in found.items()} == alone
        assert max((1, *batches.sizes[length])) == largest
        assert run.batches[:WORTH] == [1] * WORTH, "nothing is known yet"
        assert max(run.batches[-WORTH:]) == largest


def test_a_length_that_is_rare_costs_no_trial() -> None:
    run = Kernels(100)
    batches = ExactBatches(run)
    for at in range(0, WORTH, SAMPLES):
        batches.vectors(texts(5, SAMPLES, at))
    assert batches.sizes == {} and run.batches == [1] * WORTH


def test_a_size_is_proven_before_a_smaller_batch_is_filled_up_to_it() -> None:
    run = Kernels(9)
    batches = ExactBatches(run)
    batches.vectors(texts(3, WORTH))
    batches.vectors(texts(3, 1, 500))
    assert batches.sizes[3] == (2, 3)
    run.batches.clear()
    batches.vectors(texts(3, 5, 600))
    assert run.batches == [3, 2]
    del run.batches[:]
    batches.vectors(texts(3, 1, 700))
    assert run.batches == [1]


def test_the_encoders_vectors_have_the_bytes_of_each_text_alone() -> None:
    """On this machine: short texts and long ones, in threads, after sizes were tried."""
    try:
        alone = SentenceEncoder.load(find_encoder())
    except EncoderMissing:
        return
    together = SentenceEncoder.load(find_encoder(), repeats=TextRepeats(1_000, at_once=2))
    for stem in (
        "No, {}.",
        "I have told you {} times that the bill of last month is not mine, sir.",
    ):
        said = [stem.format(i) for i in range(10, 90)]
        for at in range(0, len(said), 40):
            some = said[at : at + 40]
            assert together.encode(some).tobytes() == alone.encode(some).tobytes()
    assert together._batches.sizes, "sizes of some length were tried"
