"""Sentences of a data set to text vectors: what a checkpoint's text encoder says of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.atomic_files import write_whole
from model.data.dataset import SPLITS, DataSet, Dialogue
from model.errors import CheckpointError
from model.interface import INPUTS
from model.text.sentence_encoder import (
    SentenceEncoder,
    TextEncoder,
    content_key,
    encoder_digest,
    encoder_name,
    find_encoder,
)

TEXT = INPUTS.index("text")


def has_sentences(dialogues: Sequence[Dialogue]) -> bool:
    """Return true if most utterances have words."""
    spoken = [bool(sentence.strip()) for d in dialogues for sentence in d.sentences]
    return sum(spoken) * 2 > len(spoken)


def frozen_encoder(folder: Path, layers: int) -> TextEncoder:
    """Describe the encoder of a folder unchanged, the last `layers` layers averaged."""
    return TextEncoder(encoder_digest(folder), encoder_name(folder), layers)


def with_text(dialogue: Dialogue, vectors: NDArray[np.float32]) -> Dialogue:
    """The dialogue with these text vectors [T, width]; an empty sentence has none."""
    present = dialogue.present.copy()
    present[:, TEXT] = [bool(sentence.strip()) for sentence in dialogue.sentences]
    return replace(dialogue, features={**dialogue.features, "text": vectors}, present=present)


def encoded(
    dialogues: Sequence[Dialogue],
    encoder: SentenceEncoder,
    on_share: Callable[[float], None] | None = None,
) -> tuple[Dialogue, ...]:
    """The dialogues with the encoder's vectors of their sentences; `on_share` hears (0..1]."""
    sentences = [sentence for d in dialogues for sentence in d.sentences]
    vectors = np.zeros((len(sentences), encoder.width), np.float16)
    done = 0
    for batch, found in encoder.encode_many(sentences):
        vectors[batch] = found
        done += len(batch)
        if on_share:
            on_share(done / len(sentences))
    ends = np.cumsum([len(d) for d in dialogues])
    parts = np.split(vectors.astype(np.float32), ends[:-1])
    return tuple(map(with_text, dialogues, parts))


def with_encoded_text(
    data: DataSet,
    text: TextEncoder,
    folder: Path,
    *,
    cache: Path | None = None,
    on_share: Callable[[float], None] | None = None,
) -> DataSet:
    """The set with a frozen encoder's vectors of train and dev; test is not read.

    With a `cache` folder vectors are kept there under a digest of the encoder and the sentences.
    Raises `EncoderMissing`.
    """
    encoder = SentenceEncoder.load(folder, text)
    dialogues = dict(data.dialogues)
    for split in SPLITS[:2]:
        sentences = [sentence for d in dialogues[split] for sentence in d.sentences]
        kept = None if cache is None else cache / f"{content_key(text, sentences)}.npy"
        dialogues[split] = _kept(dialogues[split], encoder, kept, on_share)
    return replace(
        data,
        widths={**data.widths, "text": encoder.width},
        extractors={**data.extractors, "text": text.extractor},
        dialogues=dialogues,
    )


def prepared(
    text: TextEncoder | None, dialogues: Sequence[Dialogue], folder: Path | None = None
) -> tuple[Dialogue, ...]:
    """Dialogues as a checkpoint hears them: their sentences in its own encoder's vectors.

    A checkpoint without a text encoder takes the vectors that the set came with, and so does one
    whose encoder finds no sentence. Raises `EncoderMissing`.
    """
    if text is None or not has_sentences(dialogues):
        return tuple(dialogues)
    return encoded(dialogues, SentenceEncoder.load(find_encoder(folder), text))


def _kept(
    dialogues: Sequence[Dialogue],
    encoder: SentenceEncoder,
    file: Path | None,
    on_share: Callable[[float], None] | None,
) -> tuple[Dialogue, ...]:
    if file is not None and file.is_file():
        vectors = np.load(file, allow_pickle=False).astype(np.float32)
        parts = np.split(vectors, np.cumsum([len(d) for d in dialogues])[:-1])
        return tuple(map(with_text, dialogues, parts))
    found = encoded(dialogues, encoder, on_share)
    if file is not None and found:
        vectors = np.concatenate([d.features["text"] for d in found]).astype(np.float16)
        _write_array(file, vectors)
    return found


def _write_array(file: Path, vectors: NDArray[np.float16]) -> None:
    content = BytesIO()
    np.save(content, vectors, allow_pickle=False)
    try:
        write_whole(file.parent, {file.name: content.getvalue()})
    except OSError as error:
        raise CheckpointError(f"{file} cannot be written ({error.strerror}): make room") from error
