"""A model in this process: whole conversations, or one utterance after the other.

The same functions as in a worker (`stream.answers`), so the same numbers and labels, abstaining and
alerts included. A row's bytes do not depend on its batch (docs/architecture.md §3a).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from model.errors import ModelError
from model.interface import Device, ModelInfo, Predictor, ServingOptions
from model.registry import load_predictor
from state.window import NO_CLOCK, NO_OFFSET, Conversation
from stream.answers.apply import Model, Question, answer, ask, drop
from stream.answers.predict import predict
from stream.errors import InvalidUtterance, ModelUnfit
from stream.events.messages import Utterance
from stream.events.poison import Poison, Reason
from stream.offline.answered import Answered
from stream.offline.spoken import Ids, Spoken, utterance_of
from stream.ports import Record

State = Conversation | None
"""All that is remembered of a conversation; None before its first utterance."""

BATCH = 32  # conversations that are answered side by side
REPEATED = "repeated_id"
Key = TypeVar("Key")


def load(
    model: str | Path = "pcgnet",
    *,
    device: Device = "auto",
    threads: int = 1,
    encoder: str | Path | None = None,
) -> LoadedModel:
    """Load a model by the name of a shipped one, or the folder of a checkpoint.

    `encoder` is a folder with the sentence encoder (None: the installed one). Sets the number of
    torch's threads for the process. Raises `ModelUnfit` naming file, reason and cure.
    """
    folder = None if encoder is None else Path(encoder)
    options = ServingOptions(device=device, threads=threads, encoder=folder)
    try:
        return LoadedModel(load_predictor(Path(model), options))
    except ModelError as error:
        raise ModelUnfit(str(error)) from error
    except ModuleNotFoundError as error:
        raise ModelUnfit(
            f"a model needs {error.name}, which this install does not bring: "
            "pip install 'emotrack[worker]'"
        ) from error


class LoadedModel:
    """A model that answers in this process; called by one thread.

    Every method raises `InvalidUtterance` for an utterance that a worker would not answer, and
    `ModelUnfit` where raw text needs an encoder that is not installed. A conversation is one
    session, unless `end_of_conversation` or `at_ms` says otherwise.
    """

    def __init__(self, predictor: Predictor) -> None:
        self._predictor, self._model = predictor, Model.of(predictor)

    @property
    def info(self) -> ModelInfo:
        """The checkpoint's description: labels, inputs and their widths, thresholds, languages."""
        return self._model.info

    def __repr__(self) -> str:
        info = self.info
        return f"<{info.name} {info.version} {info.digest[:16]}: {', '.join(info.labels)}>"

    def predict(self, utterances: Iterable[Spoken]) -> list[Answered]:
        """Answer the utterances of one conversation, in spoken order."""
        return self.predict_many([utterances])[0]

    def predict_many(
        self, conversations: Mapping[str, Iterable[Spoken]] | Iterable[Iterable[Spoken]]
    ) -> list[list[Answered]]:
        """Answer many conversations, side by side in batches, to the numbers of `predict`.

        A mapping gives their ids.
        """
        named = (
            list(conversations.items())
            if isinstance(conversations, Mapping)
            else [("conversation", c) for c in conversations]
        )
        read = [
            [utterance_of(u, Ids(name, str(n)), self.info) for n, u in enumerate(utterances)]
            for name, utterances in named
        ]
        answers: list[list[Answered]] = []
        for start in range(0, len(read), BATCH):
            answers += self._side_by_side(read[start : start + BATCH])
        return answers

    def step(
        self, state: State, utterance: Spoken, *, at_ms: int | None = None
    ) -> tuple[State, Answered]:
        """Answer the next utterance of a conversation; return its state afterwards, and the answer.

        The state is None at first, and is never changed: keep as many as there are conversations.
        `at_ms`, milliseconds since 1970, ends a session as the broker's time does in a worker.
        """
        number = 0 if state is None else state.offset + 1
        read = utterance_of(utterance, Ids(utterance=str(number)), self.info)
        ((after, found),) = self.answer_each([(state, read)], at_ms=at_ms)
        if found is None:
            raise _repeated(read)
        return after, found

    def answer_each(
        self, asked: Sequence[tuple[State, Utterance]], *, at_ms: int | None = None
    ) -> list[tuple[State, Answered | None]]:
        """Answer one utterance of each of several conversations, as `step` does, in one batch.

        The utterances are events, as `stream.client.Publisher` takes them. None for an utterance
        whose id the conversation has had lately: a worker does not answer it either.
        """
        questions = [self._question(state, utterance, at_ms) for state, utterance in asked]
        new = [q for q in questions if q.repeats is None]
        turns = [q.turn(self.info) for q in new]
        predictions = iter(predict(self._predictor, turns))
        found: list[tuple[State, Answered | None]] = []
        for question in questions:
            if question.repeats is not None:
                change = drop(question)
                found.append((question.stored if change is None else change.after, None))
                continue
            prediction = next(predictions)
            if isinstance(prediction, Poison):
                raise _unanswerable(prediction, question.utterance)
            outcome = answer(question, prediction, self._model)
            found.append((outcome.change.after, Answered.of(outcome)))
        return found

    def _question(self, state: State, utterance: Utterance, at_ms: int | None) -> Question:
        """Open a conversation at its next utterance, under the position that is its number."""
        clock = NO_CLOCK if state is None else state.clock_ms
        number = 1 + (NO_OFFSET if state is None else state.offset)
        record = Record("", 0, number, clock if at_ms is None else at_ms, None, None)
        return ask(record, utterance, state, self._model.spec, truncated=False)

    def _side_by_side(self, conversations: Sequence[Sequence[Utterance]]) -> list[list[Answered]]:
        states: list[State] = [None] * len(conversations)
        answers: list[list[Answered]] = [[] for _ in conversations]
        for turn in range(max(map(len, conversations), default=0)):
            live = [i for i, c in enumerate(conversations) if turn < len(c)]
            met = self.answer_each([(states[i], conversations[i][turn]) for i in live])
            for i, (state, found) in zip(live, met, strict=True):
                if found is None:
                    raise _repeated(conversations[i][turn])
                states[i] = state
                answers[i].append(found)
        return answers


def _repeated(utterance: Utterance) -> InvalidUtterance:
    return InvalidUtterance(
        REPEATED,
        f"the utterance id {utterance.utterance_id!r} was in {utterance.conversation_id!r} before, "
        "and a worker answers only the first of each: give each utterance an id of its own, or "
        "leave out the ids",
    )


def _unanswerable(poison: Poison, utterance: Utterance) -> InvalidUtterance | ModelUnfit:
    sentence = f"{utterance.utterance_id!r} of {utterance.conversation_id!r}: {poison.sentence}"
    if poison.reason in (Reason.NO_TEXT_ENCODER, Reason.DEVICE_EXHAUSTED):
        return ModelUnfit(sentence)
    return InvalidUtterance(poison.reason.value, sentence)
