"""The answers that each conversation's timelines expect, recomputed side by side.

The utterances of one stretch of the log are taken in turns: the first of each conversation
together, then the second of each, so that the model predicts batches and every conversation is in
its order. A row's bytes do not depend on its batch (docs/architecture.md §3a); one of each stretch
is predicted alone as well, to see it.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from model.interface import Prediction, Predictor, Turn
from state.window import Conversation
from stream.answers.apply import Model
from stream.answers.predict import predict
from stream.answers.same_utterance import fields_digest
from stream.errors import EmotrackError
from stream.events.decode import vectors_of
from stream.events.messages import Utterance
from stream.events.poison import Control, Poison
from stream.ports import Record
from stream.verify.compare import same_prediction, shift_of
from stream.verify.outputs import LoggedAnswers, LoggedPrediction, Outputs
from stream.verify.report import Position
from stream.verify.timelines import Expected, Step, Timelines

SIDE_BY_SIDE: Final = 256  # turns that are predicted together; the model cuts them into its batches


class BatchesDiffer(EmotrackError):
    """An answer depends on what shares its batch on this machine, so batches prove nothing here."""


@dataclass(slots=True)
class Case:
    """One record of the input log, its logged answers, and the answer each timeline expects."""

    record: Record
    message: Utterance | Poison | Control
    answered: LoggedAnswers
    conversation: str | None = None
    expected: Sequence[Expected] = ()
    states: Sequence[Conversation] = ()  # of each timeline, after the record
    decidable: bool = True  # it is known if its id is a repeat
    unsure: bool = False  # what it is compared with may lack an utterance that had no outcome

    def expects(self, outcome: str) -> Expected | None:
        """Return the first answer of this outcome that a timeline expects."""
        return next((e for e in self.expected if e.outcome == outcome), None)


class Recompute:
    """The timelines of one partition's conversations.

    Keeps their windows; where time is the broker's, only of those with an utterance within twice
    the idle gap.
    """

    def __init__(self, predictor: Predictor, outputs: Outputs, side_by_side: int) -> None:
        """`side_by_side` is the number of turns that are predicted together; 1: each alone."""
        self._predictor, self._outputs, self._side_by_side = predictor, outputs, side_by_side
        self._expectations, self._report = outputs.expectations, outputs.report
        self._info, self._model = predictor.info, Model.of(predictor)
        self._timelines: OrderedDict[str, Timelines] = OrderedDict()  # longest silent first
        self._asleep: set[str] = set()  # silent for longer: their next utterance opens a session
        self._passed: dict[bytes, int] = {}  # key -> time, of what was skipped before `since`
        self._since_ms: int | None = None  # all records of the partition since then were read

    def begin(self, record: Record) -> None:
        """Note that all records from this one on are read; its time is the broker's."""
        if self._since_ms is None:
            stretch = self._expectations.stretch(record.partition)
            first_ms = stretch.first_ms
            self._since_ms = record.timestamp_ms if first_ms is None else first_ms

    def end(self) -> None:
        """Forget the partition."""
        self._timelines.clear()
        self._asleep.clear()
        self._passed.clear()
        self._since_ms = None

    def skip(self, record: Record) -> None:
        """Note a record that is not recomputed."""
        self._passed[record.key or b""] = record.timestamp_ms

    def meet(self, first: Mapping[str, Record]) -> list[str]:
        """Create the timelines of conversations that are new here, and return these.

        `first` has the first record of each conversation.
        """
        absent = sorted(first.keys() - self._timelines.keys())
        new = [name for name in absent if name not in self._asleep]
        for name in absent:
            knows = name in self._asleep or self._begins(name, first[name])
            self._timelines[name] = Timelines(self._model, knows_all_ids=knows)
        self._asleep -= first.keys()
        return new

    def _begins(self, conversation: str, record: Record) -> bool:
        """Return whether no utterance before this one can count: nothing was left out, or a pause.

        Where records before the first one that is read are gone or left out, a conversation that
        was silent there for `idle_s` begins a session with an empty duplicate horizon all the same.
        """
        if not self._expectations.is_cut(record.partition):
            return True
        if self._since_ms is None:
            return False
        since_ms = max(self._since_ms, self._passed.get(conversation.encode(), self._since_ms))
        return record.timestamp_ms - since_ms > self._model.spec.recurrence.idle_s * 1000

    def forget(self, now_ms: int) -> None:
        """Drop conversations whose next utterance opens a session in any case.

        After twice the idle gap, the lifetime of a stored state. Only for broker time: where
        producers set it, an utterance with an earlier time may still belong to a session.
        """
        long_ago = now_ms - 2 * self._predictor.spec.recurrence.idle_s * 1000
        while self._timelines and next(iter(self._timelines.values())).last_ms < long_ago:
            self._asleep.add(self._timelines.popitem(last=False)[0])

    def fill(self, cases: Sequence[Case]) -> None:
        """Fill in what each utterance's timelines expect: conversations side by side, in turns.

        Raises `BatchesDiffer`.
        """
        waiting: dict[str, deque[Case]] = {}
        for case in cases:
            if case.conversation is not None:
                waiting.setdefault(case.conversation, deque()).append(case)
        alone = self._expectations.tolerance is None  # one turn of these is predicted again, alone
        while waiting:
            turn = [of.popleft() for of in waiting.values()]
            waiting = {who: of for who, of in waiting.items() if of}
            opened = [self._open(case) for case in turn]
            asked = [s.question for steps in opened for s in steps if s.predicts]
            answers = iter(self._predicted([q.turn(self._info) for q in asked], check=alone))
            alone = False
            for case, steps in zip(turn, opened, strict=True):
                self._close(case, steps, answers)

    def _open(self, case: Case) -> list[Step]:
        """Put the utterance of a case to the timelines of its conversation."""
        record, utterance, letter = case.record, case.message, case.answered.dead_letter
        assert isinstance(utterance, Utterance) and case.conversation is not None
        vectors, fields = vectors_of(utterance), fields_digest(utterance)
        # A worker without a sentence encoder answers raw text from the other vectors.
        encodes = utterance.text and vectors and "text" not in vectors
        predictions = self.ours(case)
        if predictions and encodes and not any(p.used_text for p in predictions):
            checked = not self._expectations.stretch(record.partition).is_context(record)
            self._report.count("unencoded", checked)
            utterance = msgspec.structs.replace(utterance, text=None)
        return self._timelines[case.conversation].open(
            record,
            utterance,
            fields=fields,
            starts=self._outputs.starts.get(Position.of(record)),
            dead_letter=None if letter is None else letter.poison,
        )

    def _close(self, case: Case, steps: list[Step], answers: Iterator[Prediction | Poison]) -> None:
        """Continue the timelines of a case with what the model answered."""
        assert case.conversation is not None
        timelines = self._timelines[case.conversation]
        self._timelines.move_to_end(case.conversation)
        predictions = self.ours(case)
        case.expected = timelines.close(steps, answers, self._logged_shifts(predictions))
        case.states = timelines.conversations()
        case.decidable = timelines.knows_all_ids
        case.unsure = timelines.unsure
        answered = case.answered.predictions or case.answered.dead_letter
        if not (answered or case.decidable or case.expects("duplicate")):
            timelines.unsure = True

    def _predicted(self, turns: Sequence[Turn], *, check: bool) -> list[Prediction | Poison]:
        """Return the model's answers; with `check`, raise where one differs from itself alone."""
        size = self._side_by_side
        answers = [
            answer
            for at in range(0, len(turns), size)
            for answer in predict(self._predictor, turns[at : at + size])
        ]
        if check and min(len(turns), size) > 1:
            place = len(turns) // 2
            (alone,) = predict(self._predictor, [turns[place]])
            if not same_prediction(alone, answers[place]):
                raise BatchesDiffer(
                    "the model's answer to an utterance differs between a batch and the utterance "
                    "alone on this machine: verify with --alone"
                )
        return answers

    def ours(self, case: Case) -> list[LoggedPrediction]:
        """Return the logged predictions of the model that is recomputed."""
        return [p for p in case.answered.predictions if p.model == self._info.digest]

    def _logged_shifts(self, predictions: Sequence[LoggedPrediction]) -> dict[int, float] | None:
        """Return the logged shift probabilities, which the rule may use under a tolerance.

        The rule is a threshold: a probability's last digits may decide whether it fires.
        """
        if self._expectations.tolerance is None:
            return None
        logged = {p.first_position: shift_of(p.value(), p.encoding) for p in predictions}
        return {first: shift for first, shift in logged.items() if shift is not None}
