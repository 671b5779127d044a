"""Encode the sentences of a data set with a checkpoint's text encoder."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.atomic_files import write_whole
from model.data.dataset import SPLITS, DataSet, Dialogue, Split
from model.errors import CheckpointError
from model.interface import INPUTS
from model.text.sentence_encoder import (
    SentenceEncoder,
    TextEncoder,
    content_key,
    find_encoder,
)

TEXT = INPUTS.index("text")


def has_sentences(dialogues: Sequence[Dialogue]) -> bool:
    """Return true if most utterances have words."""
    spoken = [bool(sentence.strip()) for d in dialogues for sentence in d.sentences]
    return sum(spoken) * 2 > len(spoken)


def sentences_of(dialogues: Sequence[Dialogue]) -> list[str]:
    """Return all sentences that have words."""
    return [sentence for d in dialogues for sentence in d.sentences if sentence.strip()]


def with_text(dialogue: Dialogue, vectors: NDArray[np.float32]) -> Dialogue:
    """Return the dialogue with these text vectors [T, width]; an empty sentence has none."""
    present = dialogue.present.copy()
    present[:, TEXT] = [bool(sentence.strip()) for sentence in dialogue.sentences]
    return replace(dialogue, features={**dialogue.features, "text": vectors}, present=present)


def encoded(
    dialogues: Sequence[Dialogue],
    encoder: SentenceEncoder,
    on_share: Callable[[float], None] | None = None,
    file: Path | None = None,
) -> tuple[Dialogue, ...]:
    """Return the dialogues with the encoder's vectors; `on_share` receives (0..1].

    `file` caches the vectors: read where it exists and is whole, else written.
    """
    sentences = [sentence for d in dialogues for sentence in d.sentences]
    vectors = None if file is None else _cached(file, (len(sentences), encoder.width))
    if vectors is None:
        vectors = encoder.encode_many(sentences, on_share)
        if file is not None and sentences:
            content = BytesIO()
            np.save(content, vectors, allow_pickle=False)
            try:
                write_whole(file.parent, {file.name: content.getvalue()})
            except OSError as error:
                message = (
                    f"{file} cannot be written ({error.strerror}): make room, or name another "
                    "folder with --runs"
                )
                raise CheckpointError(message) from error
    ends = np.cumsum([len(d) for d in dialogues])
    parts = np.split(vectors.astype(np.float32), ends[:-1])
    return tuple(map(with_text, dialogues, parts))


def _cached(file: Path, shape: tuple[int, int]) -> NDArray[np.float16] | None:
    """Return the vectors of a cache file, None where there are none of this shape."""
    try:
        vectors: NDArray[np.float16] = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError):  # not there, or damaged
        return None
    return vectors if vectors.shape == shape else None


def with_encoded_text(
    data: DataSet,
    text: TextEncoder,
    folder: Path,
    *,
    splits: Collection[Split] = SPLITS[:2],
    cache: Path | None = None,
    on_share: Callable[[float], None] | None = None,
) -> DataSet:
    """Return the set with a frozen encoder's vectors of `splits`; the others are not read.

    A `cache` folder stores the vectors under a digest of the encoder and the sentences. Raises
    `EncoderMissing`.
    """
    encoder = SentenceEncoder.load(folder, text)
    dialogues = dict(data.dialogues)
    for split in splits:
        sentences = [sentence for d in dialogues[split] for sentence in d.sentences]
        file = None if cache is None else cache / f"{content_key(text, sentences)}.npy"
        dialogues[split] = encoded(dialogues[split], encoder, on_share, file)
    return replace(
        data,
        widths={**data.widths, "text": encoder.width},
        extractors={**data.extractors, "text": text.extractor},
        dialogues=dialogues,
    )


def prepared(
    text: TextEncoder | None, dialogues: Sequence[Dialogue], folder: Path | None = None
) -> tuple[Dialogue, ...]:
    """Return dialogues as input of a checkpoint, with its own encoder's vectors of the sentences.

    A checkpoint without a text encoder takes the set's own vectors, and so does any for a set
    without sentences. Raises `EncoderMissing`.
    """
    if text is None or not has_sentences(dialogues):
        return tuple(dialogues)
    return encoded(dialogues, SentenceEncoder.load(find_encoder(folder), text))
