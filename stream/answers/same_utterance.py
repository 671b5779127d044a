"""Tell a repeat of an utterance from another utterance under the same id, by 8 bytes. Pure.

Two records of one id are compared by a digest of their decoded fields, which is stored next to the
hash of the id (`state.window.Conversation.recent`). Its bytes, all hashes BLAKE2b:

    speaker  2   hash of `speaker_id`
    words    3   hash of `text`, its lowest bit 0; without text of the numbers of `features.text`,
                 its lowest bit 1; zero where there is neither
    others   3   hash of all that is left: the other fields of the utterance, its vectors and the
                 names of their extractors

What enters is the value that was decoded, not its bytes on the wire: JSON and MessagePack, any
order of fields, and a vector as a list of numbers, float32, float16 or bfloat16 give one digest
where the numbers are equal as float32. A field that is absent, null or at its default
(`end_of_conversation: false`), an empty `features`, and text of spaces alone are all absent.
Not in it: `conversation_id` and `utterance_id`, which chose what is compared, fields that the
utterance type does not have, and headers.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from hashlib import blake2b
from typing import Any, Final, Literal

import msgspec
import numpy as np

from state.window import read_numbers
from stream.events.decode import pack, vectors_of
from stream.events.messages import FeatureVector, PackedTensor, Utterance, words_of

Repeats = Literal["utterance_id", "late_fields", "other_utterance"]
"""Relation of a record to the utterance that was applied under its id.

The same again in all fields; the same speaker, and the same words or none to compare; another
speaker or other words.
"""

SPEAKER: Final = slice(0, 2)
WORDS: Final = slice(2, 5)
NO_WORDS: Final = bytes(3)
_OF_VECTOR: Final = 1  # lowest bit of the words: text and a vector cannot be compared
_APART: Final = ("conversation_id", "utterance_id", "speaker_id", "text", "features")
_OTHERS: Final[Mapping[str, Any]] = {
    field.name: field.default
    for field in msgspec.structs.fields(Utterance)
    if field.name not in _APART
}
_PACKED: Final = msgspec.msgpack.Encoder()


def fields_digest(utterance: Utterance) -> bytes:
    """Return the 8 bytes of an utterance's fields; the module's docstring has what enters."""
    vectors = vectors_of(utterance)
    read = {modality: numbers(vector) for modality, vector in vectors.items()}
    if (text := words_of(utterance)) is not None:
        words = _words(text.encode(errors="surrogatepass"), of_vector=False)
    elif "text" in read:
        words = _words(read["text"], of_vector=True)
    else:
        words = NO_WORDS
    named = [
        (name, value)
        for name, absent in _OTHERS.items()
        if (value := getattr(utterance, name)) != absent
    ]
    shapes: list[tuple[str, str | None, int]] = []
    others = blake2b(digest_size=3)
    for modality, vector in vectors.items():
        values = read[modality]
        shapes.append((modality, vector.extractor, len(values)))  # length: where one ends
        others.update(values)
    others.update(_PACKED.encode((named, shapes)))
    return _speaker(utterance.speaker_id) + words + others.digest()


def repeats(applied: bytes, digest: bytes) -> Repeats:
    """Return how a record relates to the one that was applied under its id, by their digests."""
    if applied == digest:
        return "utterance_id"
    if applied[SPEAKER] != digest[SPEAKER]:
        return "other_utterance"
    before, now = applied[WORDS], digest[WORDS]
    comparable = NO_WORDS not in (before, now) and (before[-1] ^ now[-1]) & _OF_VECTOR == 0
    return "other_utterance" if comparable and before != now else "late_fields"


def numbers(vector: FeatureVector) -> bytes:
    """Return a vector's numbers as bytes that depend on the numbers alone, not on their form.

    Little-endian float16 where it holds each of them exactly, else float32. The recommended form,
    packed float16, is returned unchanged: this is on the path of every utterance.
    """
    wire = vector.tensor if isinstance(vector.tensor, PackedTensor) else pack(vector.tensor)
    if wire.dtype == "float16":
        return wire.data
    wide = read_numbers(wire.dtype, wire.data)
    with np.errstate(over="ignore"):
        narrow = wide.astype("<f2")
    return narrow.tobytes() if np.array_equal(narrow, wide) else wide.tobytes()


def _words(value: bytes, *, of_vector: bool) -> bytes:
    first, middle, last = blake2b(value, digest_size=3).digest()
    words = bytes((first, middle, last & ~_OF_VECTOR | of_vector))
    return words if words != NO_WORDS else b"\0\0\2"


@lru_cache(maxsize=4096)
def _speaker(speaker_id: str) -> bytes:
    return blake2b(speaker_id.encode(), digest_size=2).digest()
