"""Text vectors of the sentence encoder, and missing numbers filled with the train mean."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.checkpoint_files import default_checkpoint
from model.data.dataset import Floats
from model.data.extractors import SENTENCES
from model.errors import DataError
from model.registry import load_any
from model.text.sentence_encoder import SentenceEncoder, find_encoder


def encoder_of(folder: Path | None, checkpoint: Path | None) -> tuple[SentenceEncoder, str]:
    """Return the text encoder of a checkpoint (None: the shipped one), and its recipe's name.

    `folder` has the base encoder (None: the installed one). Raises `EncoderMissing`,
    `CheckpointError`.
    """
    loaded = load_any(checkpoint or default_checkpoint())
    encoder = SentenceEncoder.load(find_encoder(folder), loaded.text)
    if loaded.text is None:
        return encoder, loaded.extractors.get("text", SENTENCES)
    return encoder, loaded.text.extractor


def sentence_vectors(
    sentences: Sequence[str],
    encoder: SentenceEncoder,
    done: Callable[[int], object] = lambda _count: None,
) -> NDArray[np.float16]:
    """Return [n, width]; an empty sentence has a row of NaN, which is an absent vector."""
    vectors = np.full((len(sentences), encoder.width), np.nan, np.float16)
    for row, sentence in enumerate(sentences):
        if sentence.strip():
            vectors[row] = encoder.encode([sentence])[0]
        done(row + 1)
    return vectors


def filled_as_trained(vectors: Floats, modality: str, checkpoint: Path | None) -> Floats:
    """Fill NaN in present rows with the train mean of the checkpoint (None: the shipped one).

    Rows of only NaN stay: they are absent. Raises `CheckpointError`, `DataError`.
    """
    loaded = load_any(checkpoint or default_checkpoint())
    width = loaded.config.widths[modality]
    if width != vectors.shape[1]:
        raise DataError(
            f"the checkpoint {loaded.digest[:12]} takes {width} {modality} numbers, the recipe "
            f"gives {vectors.shape[1]}: leave out --fill-from, or name another checkpoint"
        )
    mean = loaded.weights[f"{modality}_mean"].numpy()
    present = ~np.isnan(vectors).all(axis=1, keepdims=True)
    return np.where(np.isnan(vectors) & present, mean, vectors).astype(np.float32)
