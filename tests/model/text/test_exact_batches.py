"""Texts run together only where that changes no byte."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from model.errors import EncoderMissing
from model.text.exact_batches import SAMPLES, SIZES, ExactBatches
from model.text.sentence_encoder import (
    SentenceEncoder,
    TextRepeats,
    find_encoder,
    frozen_encoder,
)

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
    """Up to 20 rows: of 4 tokens four texts are together, of 7 none, and of 30 any number."""
    for length, sizes in ((4, (4,)), (7, ()), (30, SIZES)):
        run = Kernels(few_rows=20)
        batches = ExactBatches(run)
        for at in range(0, 80, 40):
            some = texts(length, 40, at)
            alone = {ids: Kernels(few_rows=20)([list(ids)])[0].tobytes() for ids in some}
            found = batches.vectors(some)
            assert {ids: v.tobytes() for ids, v in found.items()} == alone
            assert run.batches[:40] == [1] * 40, "nothing is known yet"
        assert batches.sizes[length] == sizes
        largest = max((1, *sizes))
        assert max(run.batches[-40 // largest :]) == largest


def test_a_length_that_is_rare_costs_no_trial() -> None:
    run = Kernels(few_rows=100)
    batches = ExactBatches(run)
    batches.vectors(texts(5, SAMPLES - 1))
    batches.vectors(texts(5, 1, 100))
    assert batches.sizes == {} and run.batches == [1] * SAMPLES


def test_a_batch_is_filled_up_to_a_size_that_is_proven() -> None:
    run = Kernels(few_rows=100)
    batches = ExactBatches(run)
    batches.vectors(texts(3, SAMPLES))
    run.batches.clear()
    batches.vectors(texts(3, 18, 100))
    assert batches.sizes[3] == (4, 16)
    assert run.batches[-2:] == [16, 4]
    run.batches.clear()
    batches.vectors(texts(3, 1, 700))
    assert run.batches == [1]


def test_the_encoders_vectors_have_the_bytes_of_each_text_alone() -> None:
    """On this machine: short texts and long ones, in threads, after sizes were tried.

    Of four layers, as the shipped checkpoint's: transformers collects them for each thread apart.
    """
    try:
        folder = find_encoder()
    except EncoderMissing as missing:
        pytest.skip(str(missing))
    four = frozen_encoder(folder, 4)
    alone = SentenceEncoder.load(folder, four)
    together = SentenceEncoder.load(folder, four, TextRepeats(1_000, at_once=2))
    for stem in (
        "No, {}.",
        "I have told you {} times that the bill of last month is not mine, sir.",
    ):
        said = [stem.format(i) for i in range(10, 42)]
        for at in (0, 16):
            some = said[at : at + 16]
            assert together.encode(some).tobytes() == alone.encode(some).tobytes()
    assert together._batches.sizes, "sizes of some length were tried"
