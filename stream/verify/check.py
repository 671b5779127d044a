"""The pure core of `emotrack verify`: the input log against the output topics and Redis.

Recomputes each answer from the log (`recompute`), in other company than the worker's, so that I5,
equal bytes, implies I6: nothing that shared a batch with an utterance changed its answer. Shares
with the worker what defines an answer (`stream.events.decode`, `stream.answers.apply`,
`state.window`, `state.codec`, the model's step) and nothing that moves records about: an import
contract.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from model.interface import Predictor
from state.redis_reader import States
from stream.answers.apply import as_moved
from stream.events.dead_letter import dead_letter
from stream.events.decode import Decoder
from stream.events.messages import Utterance, encode
from stream.events.poison import Poison, Reason
from stream.ports import Hole, Record
from stream.verify.compare import differences
from stream.verify.outputs import LoggedAnswers, LoggedDeadLetter, LoggedPrediction, Outputs, digest
from stream.verify.recompute import SIDE_BY_SIDE, Case, Recompute
from stream.verify.report import Invariant, Position, Report
from stream.verify.stored_states import StoredStates
from stream.verify.timelines import TRUSTED, Expected, session_of

LATE: Final = TRUSTED | {Reason.NOT_FINITE_RESULT}  # reasons met after decoding


class Verifier:
    """A check of the input log, partition by partition, each in log order; then `finish`."""

    def __init__(
        self,
        predictor: Predictor,
        outputs: Outputs,
        states: States | None,
        *,
        side_by_side: int = SIDE_BY_SIDE,
    ) -> None:
        """`states` None: there is no store to compare with. `side_by_side` is as in `Recompute`."""
        self._outputs, self._recompute = outputs, Recompute(predictor, outputs, side_by_side)
        self._expectations, self._report = outputs.expectations, outputs.report
        self._lost = outputs.lost
        self._stored = None if states is None else StoredStates(states, predictor.spec, outputs)
        self._info = predictor.info
        self._decoder = Decoder(self._info.inputs, self._info.own_extractors)
        # The partitions of the conversations of which an answer says that they are on several.
        self._moved: dict[str, set[int]] = {name: set() for name in outputs.moved}

    def lose(self, hole: Hole) -> None:
        """Note records that left the log before the next ones."""
        if self._expectations.selection.part == 0:
            self._report.count("lost", hole.end - hole.first)
        self._lost.add(hole)

    def check(self, records: Sequence[Record], *, broker_time: bool = False) -> None:
        """Check consecutive records of one partition; with `broker_time`, time never goes back.

        Raises `BatchesDiffer`.
        """
        if broker_time:
            self._recompute.begin(records[0])
        cases = [self._case(record) for record in records if self._is_looked_at(record)]
        spoken = {c.conversation: c.record for c in reversed(cases) if c.conversation is not None}
        new = self._recompute.meet(spoken)
        if new and self._stored is not None:
            self._stored.meet({name: spoken[name] for name in new})
        self._recompute.fill(cases)
        for case in cases:
            self._judge(case)
        if broker_time:
            self._recompute.forget(records[-1].timestamp_ms)

    def _is_looked_at(self, record: Record) -> bool:
        """Return whether a record is to be recomputed; count the others."""
        selection = self._expectations.selection
        if not selection.in_pass(record.key):
            if selection.part == 0 and not selection.in_sample(record.key):
                self._report.count("unsampled")
            return False
        if not self._expectations.stretch(record.partition).skips(record):
            return True
        self._recompute.skip(record)
        self._report.count("before_since")
        return False

    def _case(self, record: Record) -> Case:
        message = self._decoder.decode(record).message
        answered = self._outputs.at.pop(Position.of(record), None) or LoggedAnswers()
        who = message.conversation_id if isinstance(message, Utterance) else None
        return Case(record, message, answered, who)

    def _is_checked(self, record: Record) -> bool:
        """Return whether a record is more than context of what is checked."""
        return not self._expectations.stretch(record.partition).is_context(record)

    def _judge(self, case: Case) -> None:
        """Compare one record's answers with the expected ones, in log order."""
        record, message = case.record, case.message
        checked = self._is_checked(record)
        self._report.count("records" if checked else "context")
        if checked:
            self._report.count("committed", self._expectations.is_committed(record))
        if isinstance(message, Utterance):
            self._utterance(case, checked=checked)
        elif checked and isinstance(message, Poison):
            self._poison(case, message)
        elif checked:
            self._report.count("controls")
            self._no_outcome(case.answered.positions(), "answers a record without a value")

    def _utterance(self, case: Case, *, checked: bool) -> None:
        """Compare a valid record's answers and state with those that its timelines expect."""
        record, who = case.record, case.conversation
        assert who is not None
        if who in self._moved:
            self._moved[who].add(record.partition)
        if self._stored is not None:
            self._stored.compare(who, record, case.states, sure=case.decidable and not case.unsure)
        if not checked:
            return
        predictions, letter = self._recompute.ours(case), case.answered.dead_letter
        if letter is not None:
            self._late_dead_letter(case, letter)
        recomputed = {p.id: e for p in predictions if (e := self._prediction(case, p))}
        if not (predictions or letter):
            self._without_outcome(case)
        # Where an earlier utterance may lack, the state of the rule may, too.
        self._alerts(case, predictions, {} if case.unsure else recomputed)

    def _without_outcome(self, case: Case) -> None:
        """Check I1 for a record without an answer of this model."""
        if case.answered.predictions:
            self._report.count("other_model")
        elif case.expects("duplicate"):
            self._report.count("duplicates")
        else:
            text = f"committed without an outcome; it should be {case.expected[0].outcome}"
            knows = case.decidable and not self._lost.excuses(case.record)
            self._unanswered(case, text, decidable=knows)

    def _unanswered(self, case: Case, text: str, *, decidable: bool = True) -> None:
        """Report I1, unless the answer is still to come or may have been deleted by retention."""
        if not self._expectations.is_committed(case.record):
            self._report.count("open")
        elif not decidable or not self._must_be_logged(case.record):
            self._report.count("undecided")
        else:
            position = Position.of(case.record)
            self._report.violated(Invariant.I1, text, position, case.conversation)

    def _must_be_logged(self, record: Record) -> bool:
        """Return whether answers of this record were certainly sent, and retention deleted none.

        Answers are acknowledged before their offset is committed.
        """
        return (
            self._expectations.is_committed(record)
            and record.timestamp_ms >= self._outputs.since_ms
        )

    def _prediction(self, case: Case, found: LoggedPrediction) -> Expected | None:
        """Check I5; return the expected prediction, None where it is none or unknown."""
        position, who = found.position, case.conversation
        if found.truncated:
            self._report.count("truncated")
            if not self._expectations.allow_truncation:
                self._report.violated(Invariant.I5, "its context is truncated", position, who)
        if self._expectations.is_before_log(case.record.partition, found.first_position):
            self._report.count("before_log")
            return None
        # The prediction of the timeline that `found` names; else any one, to compare.
        predicting = [e for e in case.expected if e.prediction is not None]
        same = (e for e in predicting if session_of(e) == found.session)
        expected = next(same, predicting[0] if predicting else None)
        if expected is None:
            if self._excuses(case):
                return None
            invariant = Invariant.I2 if case.expects("duplicate") else Invariant.I1
            outcome = case.expected[0].outcome.replace("_", "-")
            self._report.violated(invariant, f"predicted, but it is to be {outcome}", position, who)
            return None
        assert expected.prediction is not None
        fault, largest = differences(
            found.value(),
            found.encoding,
            as_moved(expected.prediction) if found.moved else expected.prediction,
            tolerance=self._expectations.tolerance,
            info=self._info,
        )
        self._report.largest_difference = max(self._report.largest_difference, largest)
        if not fault:
            self._report.count("compared")
        elif self._excuses(case):
            return None
        else:
            self._report.violated(Invariant.I5, fault, position, who)
        return expected

    def _excuses(self, case: Case) -> bool:
        """Return whether a difference proves nothing here, and count it so."""
        if self._lost.excuses(case.record):
            self._report.count("holed")
            return True
        if case.unsure:
            self._report.count("undecided")
        return case.unsure

    def _alerts(
        self,
        case: Case,
        predictions: Sequence[LoggedPrediction],
        recomputed: Mapping[str, Expected],
    ) -> None:
        """Check I8: an alert is logged if and only if the rule fires, with equal bytes.

        `recomputed` has the expected answers by prediction id. Until the commit an alert may be
        missing, and may be acknowledged before its prediction.
        """
        who, must_be_logged = case.conversation, self._must_be_logged(case.record)
        position = Position.of(case.record)
        alerts = {alert.prediction_id: alert for alert in case.answered.alerts}
        exact = self._expectations.tolerance is None
        for id, expected in recomputed.items():
            wanted, found = expected.alert, alerts.get(id)
            if found is None:
                if wanted is not None and must_be_logged:
                    text = f"the alert of prediction {id} is missing"
                    self._report.violated(Invariant.I8, text, position, who)
            elif wanted is None:
                text = "an alert where the rule does not fire"
                self._report.violated(Invariant.I8, text, found.position, who)
            elif exact and found.value() != encode(wanted, found.encoding):
                text = "the alert's bytes are not the recomputed ones"
                self._report.violated(Invariant.I8, text, found.position, who)
        ids = {p.id for p in predictions}
        for id, alert in alerts.items():
            if id not in ids and alert.model == self._info.digest and must_be_logged:
                text = f"an alert of prediction {id}, which nobody sent"
                self._report.violated(Invariant.I8, text, alert.position, who)

    def _late_dead_letter(self, case: Case, letter: LoggedDeadLetter) -> None:
        """Check I1 and I5 for the dead letter of a valid record."""
        position, who, reason = letter.position, case.conversation, letter.poison.reason
        expected = case.expects("dead_lettered")
        if case.answered.predictions:
            text = "dead-lettered and predicted: two outcomes"
            self._report.violated(Invariant.I1, text, position, who)
        if reason not in LATE:
            text = f"dead-lettered as {reason}, but it can be read"
            self._report.violated(Invariant.I1, text, position, who)
        elif expected is None or expected.poison is None or expected.poison.reason != reason:
            if self._excuses(case):
                return
            outcome = "dead-lettered for another reason" if expected else case.expected[0].outcome
            text = f"dead-lettered as {reason}, but it is to be {outcome}"
            self._report.violated(Invariant.I1, text, position, who)
        else:
            self._original(case.record, letter.poison, letter)

    def _poison(self, case: Case, poison: Poison) -> None:
        """Check I1 and I5 for a record that the decoder refuses."""
        letter = case.answered.dead_letter
        if letter is None:
            self._unanswered(case, f"no dead letter of a {poison.reason} record")
        elif letter.poison.reason != poison.reason:
            text = f"dead-lettered as {letter.poison.reason}, not {poison.reason}"
            self._report.violated(Invariant.I5, text, letter.position, None)
        else:
            self._original(case.record, poison, letter)
        others = LoggedAnswers(case.answered.predictions, case.answered.alerts).positions()
        self._no_outcome(others, f"answers a {poison.reason} record")

    def _original(self, record: Record, poison: Poison, letter: LoggedDeadLetter) -> None:
        """Check I5 for a dead letter: it holds the whole record, to be requeued unchanged."""
        wanted = dead_letter(record, poison, topic=self._expectations.dead_letters)
        if digest(wanted.key, wanted.value, wanted.headers) != letter.digest:
            text = "the dead letter does not hold the record's own key, bytes and headers"
            self._report.violated(Invariant.I5, text, letter.position, None)

    def _no_outcome(self, positions: Iterable[Position], text: str) -> None:
        """Report answers where there must be none."""
        for position in positions:
            self._report.violated(Invariant.I1, text, position, None)

    def end_partition(self, topic: str, partition: int) -> None:
        """End a partition that is fully checked: answers left over belong to no record."""
        if self._stored is not None:
            self._stored.end_partition(topic, partition)
        self._recompute.end()
        for position in sorted(p for p in self._outputs.at if p.partition == partition):
            positions = self._outputs.at.pop(position).positions()
            if self._expectations.is_before_log(partition, position.offset):
                self._report.count("before_log", len(positions))
            elif self._lost.has(position.offset):
                self._report.count("holed", len(positions))
            else:
                of = "" if self._expectations.selection.is_whole else " of its conversation"
                self._no_outcome(positions, f"answers {position}, which is no record{of}")
        self._lost.clear()

    def finish(self) -> Report:
        """Return the report, once every partition has ended."""
        for position, answered in sorted(self._outputs.at.items()):
            text = f"answers partition {position.partition}, which the log does not have"
            self._no_outcome(answered.positions(), text)
        self._outputs.at.clear()
        for conversation, partitions in self._moved.items():
            self._on_several(conversation, partitions)
        return self._report

    def _on_several(self, conversation: str, partitions: set[int]) -> None:
        """Check I5 for the flag `moved`, which no partition's log shows alone.

        A missing flag is no fault: the store that counts partitions may have lost its data.
        """
        others = self._expectations.lows.keys() - partitions
        if len(partitions) > 1:
            return
        if any(self._expectations.is_cut(other) for other in others):
            self._report.count("undecided")
        else:
            text = f"says moved, but the log has its conversation on {sorted(partitions)} alone"
            position = self._outputs.moved[conversation]
            self._report.violated(Invariant.I5, text, position, conversation)
