"""Utterance ids that come twice in what is published: a worker answers only the first of each."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from stream.errors import InvalidUtterance
from stream.events.messages import Utterance

Placed = tuple[str, Utterance]  # "talk.csv, line 5", and what is there
REPEATED: Final = "repeated_id"  # code of the `InvalidUtterance`
OF_PUBLISH: Final = (
    "Give each an id of its own, or publish the second of two files with --id-prefix, or send them "
    "all the same with --repeats send. Nothing was sent"
)
_ENCODER: Final = msgspec.msgpack.Encoder()


class Repeats:
    """Counts utterances under an id that their conversation has had; about 130 bytes an id."""

    def __init__(self) -> None:
        self._contents: dict[int, int] = {}
        self.utterances = 0
        self.equal = 0  # with the same speaker, words and vectors
        self.other = 0  # with others: they would be lost
        self.first = ""  # the first of `other`, else of `equal`

    def counted(self, utterances: Iterable[Placed]) -> Iterator[Placed]:
        """Yield the same utterances, counted."""
        for place, utterance in utterances:
            self._count(place, utterance)
            yield place, utterance

    def _count(self, place: str, utterance: Utterance) -> None:
        self.utterances += 1
        content = _digest(
            utterance.speaker_id, utterance.text, utterance.features, utterance.persona
        )
        key = _digest(utterance.conversation_id, utterance.utterance_id)
        known = self._contents.get(key)
        if known is None:
            self._contents[key] = content
            return
        name = f"{place}: {utterance.utterance_id!r} of {utterance.conversation_id!r}"
        if known == content:
            self.first = self.first or name
            self.equal += 1
        else:
            self.first = name if self.other == 0 else self.first
            self.other += 1

    def refuse(self, cure: str = OF_PUBLISH) -> None:
        """Raise `InvalidUtterance` with the `cure` where utterances would be lost."""
        if self.other:
            raise InvalidUtterance(
                REPEATED,
                f"{self.other} of {self.utterances} utterances have an id that their conversation "
                f"has had, with other words or another speaker (first: {self.first}): a worker "
                f"would take them for repeats and not answer them. {cure}",
            )

    @property
    def sentence(self) -> str | None:
        """The warning; None without repeats."""
        if not self.equal + self.other:
            return None
        other = f", {self.other} of them with other words or another speaker" if self.other else ""
        return (
            f"{self.equal + self.other} of {self.utterances} utterances repeat an id of their "
            f"conversation{other} (first: {self.first}): a worker answers only the first of each"
        )


def _digest(*parts: object) -> int:
    packed = _ENCODER.encode(parts)
    return int.from_bytes(hashlib.blake2b(packed, digest_size=8).digest(), "little")
