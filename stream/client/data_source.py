"""A data-set folder as a source of utterances (`model.data.dataset` has the format)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from model.data.dataset import DataSet, Dialogue, Split
from model.interface import INPUTS, MODALITIES, Modality
from stream.client.repeats import Repeats
from stream.client.table_source import pack_exactly
from stream.errors import ConfigError, SourceError
from stream.events.messages import Features, FeatureVector, Utterance

PERSONA: Final = "persona"


@dataclass(frozen=True, slots=True)
class Source:
    """Utterances in the order to publish; `total` is None if unknown before the end."""

    name: str
    utterances: Iterator[Utterance]
    total: int | None = None
    repeats: Repeats = field(default_factory=Repeats)  # of standard input: while it is published
    warnings: tuple[str, ...] = ()  # on features that may belong to other utterances


@dataclass(frozen=True, slots=True)
class DataChoice:
    """The part of a data-set folder to send, and its form."""

    split: Split = "test"
    set_name: str | None = None
    limit_conversations: int | None = None
    at_once: int = 32
    modalities: frozenset[str] = frozenset(INPUTS)
    raw_text: bool = False  # the sentence instead of its vector

    def __post_init__(self) -> None:
        unknown = self.modalities - set(INPUTS)
        if unknown:
            raise ConfigError(
                f"unknown feature {', '.join(sorted(unknown))}: choose from {', '.join(INPUTS)}"
            )


def from_data_set(data: DataSet, choice: DataChoice) -> Source:
    """Return the utterances of one split, `at_once` conversations in turns, as live ones are."""
    dialogues = data.split(choice.split)[: choice.limit_conversations]
    if not dialogues:
        raise SourceError(f"{data.name} has no conversations in its {choice.split} split")
    conversations = (conversation_of(data, dialogue, choice) for dialogue in dialogues)
    return Source(
        name=f"{data.name} {choice.split}",
        utterances=side_by_side(conversations, choice.at_once),
        total=sum(len(dialogue) for dialogue in dialogues),
    )


def conversation_of(data: DataSet, dialogue: Dialogue, choice: DataChoice) -> list[Utterance]:
    """Return a dialogue as events, each vector exactly as the data set has it.

    The conversation id is `<set>-<dialogue id>`; the last utterance ends the conversation.
    """
    last = len(dialogue) - 1
    return [
        Utterance(
            conversation_id=f"{data.name}-{dialogue.dialogue_id}",
            utterance_id=dialogue.utterance_ids[i],
            speaker_id=dialogue.speakers[i],
            seq=i,
            text=dialogue.sentences[i] if choice.raw_text else None,
            features=_features(data, dialogue, i, choice),
            persona=_persona(dialogue, i, choice),
            end_of_conversation=i == last,
        )
        for i in range(len(dialogue))
    ]


def side_by_side(conversations: Iterable[Sequence[Utterance]], at_once: int) -> Iterator[Utterance]:
    """Take turns among `at_once` conversations; one that ends is replaced by the next."""
    waiting = map(iter, conversations)
    live = list(islice(waiting, at_once))
    while live:
        for conversation in tuple(live):
            utterance = next(conversation, None)
            if utterance is None:
                live.remove(conversation)
            else:
                yield utterance
        live += islice(waiting, at_once - len(live))


def _features(data: DataSet, dialogue: Dialogue, i: int, choice: DataChoice) -> Features | None:
    wanted: Set[str] = choice.modalities - ({"text"} if choice.raw_text else set())
    vectors: dict[Modality, FeatureVector] = {}
    for column, modality in enumerate(MODALITIES):
        if modality in wanted and modality in dialogue.features and dialogue.present[i, column]:
            values = dialogue.features[modality][i]
            vectors[modality] = FeatureVector(pack_exactly(values), data.extractors[modality])
    return Features(**vectors) if vectors else None


def _persona(dialogue: Dialogue, i: int, choice: DataChoice) -> list[float] | None:
    wanted = PERSONA in choice.modalities and PERSONA in dialogue.features
    if wanted and dialogue.present[i, INPUTS.index(PERSONA)]:
        return [float(value) for value in dialogue.features[PERSONA][i]]
    return None
