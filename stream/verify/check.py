"""The pure core of `emotrack verify`: the input log against what the output topics and Redis say.

Recomputes each answer from the log, one record at a time, alone in its batch (so that I5, equal
bytes, brings I6: nothing that shared a batch with an utterance changed its answer). Shares with the
worker what defines an answer (`stream.events.decode`, `stream.answers.apply`, `state.window`,
`state.codec`, the model's step) and nothing that moves records about; an import contract says so.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

import msgspec

from model.interface import Predictor
from state.redis_reader import States
from stream.answers.shift_rule import rule_of
from stream.events.dead_letter import dead_letter
from stream.events.decode import Decoder, vectors_of
from stream.events.messages import Utterance, encode
from stream.events.poison import Control, Poison, Reason
from stream.ports import Record
from stream.verify.compare import differences, shift_of
from stream.verify.oracle import Expected
from stream.verify.outputs import Answers, Outputs, Place, Predicted, original_digest
from stream.verify.report import Invariant, Report, Terms, Violation
from stream.verify.stored_states import StoredStates
from stream.verify.timelines import TRUSTED, Lines

LATE: Final = TRUSTED | {Reason.NOT_FINITE_RESULT}  # reasons met after decoding


class Verifier:
    """Takes the input log, partition by partition, each in log order; then `finish`.

    Keeps the windows of one partition's conversations at a time; where time is the broker's, only
    of those heard within twice the idle gap.
    """

    def __init__(
        self,
        predictor: Predictor,
        outputs: Outputs,
        terms: Terms,
        report: Report,
        states: States | None = None,
    ) -> None:
        self._predictor, self._outputs, self._terms = predictor, outputs, terms
        self._report = report
        self._stored = (
            None if states is None else StoredStates(states, predictor.spec, outputs, terms, report)
        )
        self._info, self._rule = predictor.info, rule_of(predictor.info)
        self._known: OrderedDict[str, tuple[int, Lines]] = OrderedDict()  # with when last heard
        self._asleep: set[str] = set()  # heard so long ago that nothing of it counts any more

    @property
    def remembered(self) -> int:
        """How many conversations' windows are kept now."""
        return len(self._known)

    def check(self, records: Sequence[Record], *, broker_time: bool = False) -> None:
        """Check records that follow each other in one partition.

        `broker_time` says that time never goes back in it.
        """
        decoder = Decoder(self._info.inputs, self._info.own_extractors)
        messages = [decoder.decode(record).message for record in records]
        heard = {m.conversation_id for m in messages if isinstance(m, Utterance)}
        self._known |= {one: (0, Lines(log_is_whole=True)) for one in heard & self._asleep}
        self._asleep -= heard
        if new := sorted(heard - self._known.keys()):
            self._meet(new, records[0])
        for record, message in zip(records, messages, strict=True):
            self._report.count("records")
            self._report.count("committed", self._is_committed(record))
            position = (record.partition, record.offset)
            said = self._outputs.at.pop(position, None) or Answers()
            if isinstance(message, Utterance):
                self._utterance(record, message, said)
            elif isinstance(message, Poison):
                self._poison(record, message, said)
            else:
                assert isinstance(message, Control)
                self._report.count("controls")
                self._nothing_else(record, said, "a record without a value", None)
        if broker_time:
            self._forget(records[-1].timestamp_ms)

    def _forget(self, now_ms: int) -> None:
        """Drop conversations whose next utterance will begin anew anyway."""
        long_ago = now_ms - 2 * self._predictor.spec.recurrence.idle_s * 1000
        while self._known and next(iter(self._known.values()))[0] < long_ago:
            self._asleep.add(self._known.popitem(last=False)[0])

    def _meet(self, conversations: Sequence[str], record: Record) -> None:
        """Conversations that are new here: what the store holds of them is looked up at once."""
        whole = self._terms.lows.get(record.partition, 0) == 0
        self._known |= {one: (0, Lines(log_is_whole=whole)) for one in conversations}
        if self._stored is not None:
            self._stored.meet(conversations, record)

    def _is_committed(self, record: Record) -> bool:
        return record.offset < self._terms.committed.get(record.partition, 0)

    # One record.

    def _utterance(self, record: Record, utterance: Utterance, said: Answers) -> None:
        _, known = self._known.pop(utterance.conversation_id)
        self._known[utterance.conversation_id] = record.timestamp_ms, known
        ours = [p for p in said.predictions if p.model == self._info.digest]
        letter = said.letters[0] if said.letters else None
        if ours and not any(p.heard_text for p in ours) and has_raw_text_and_vectors(utterance):
            self._report.count("unencoded")
            utterance = msgspec.structs.replace(utterance, text=None)
        steps = known.step(
            self._predictor,
            self._rule,
            record,
            utterance,
            starts=self._outputs.starts.get((record.partition, record.offset)),
            buried=None if letter is None else letter.poison,
            shift_as_logged=self._logged(ours),
        )
        if self._stored is not None:
            self._stored.compare(utterance.conversation_id, record, known.known())
        if letter is not None:
            self._buried(record, utterance, said, steps)
        for prediction in ours:
            self._prediction(record, utterance, prediction, steps, said)
        if not (ours or letter):
            self._silent(record, utterance, said, steps, known)
        self._stray_alerts(record, utterance, said, ours)

    def _logged(self, ours: Sequence[Predicted]) -> dict[int, float] | None:
        """With a tolerance, the alert rule is held to the probabilities that were said."""
        if self._terms.tolerance is None:
            return None
        logged = {p.first_position: shift_of(p.value(), p.encoding) for p in ours}
        return {first: shift for first, shift in logged.items() if shift is not None}

    def _silent(
        self,
        record: Record,
        utterance: Utterance,
        said: Answers,
        steps: Sequence[Expected],
        known: Lines,
    ) -> None:
        """No answer of this model: fine for a duplicate, for another model's record, for later."""
        if said.predictions:
            self._report.count("other_model")
        elif any(step.outcome == "duplicate" for step in steps):
            self._report.count("duplicates")
        elif not self._is_committed(record):
            self._report.count("open")
        elif not known.hears_all or record.timestamp_ms < self._outputs.since_ms:
            self._report.count("undecided")
        else:
            says = f"committed without an outcome; it should be {steps[0].outcome}"
            self._violated("I1", says, at(record), utterance.conversation_id)

    def _prediction(
        self,
        record: Record,
        utterance: Utterance,
        found: Predicted,
        steps: Sequence[Expected],
        said: Answers,
    ) -> None:
        """I5, and I8 for the alert that hangs on it."""
        place, who = placed(found.place), utterance.conversation_id
        if found.truncated:
            self._report.count("truncated")
            if not self._terms.allow_truncation:
                self._violated("I5", "its context is truncated", place, who)
        if found.first_position < self._terms.lows.get(record.partition, 0):
            self._report.count("before_log")
            return
        step = matching(found, steps)
        if step is None:
            duplicate = any(one.outcome == "duplicate" for one in steps)
            invariant: Invariant = "I2" if duplicate else "I1"
            says = f"predicted, but it is to be {steps[0].outcome.replace('_', '-')}"
            self._violated(invariant, says, place, who)
            return
        assert step.prediction is not None
        fault, largest = differences(
            found.value(),
            found.encoding,
            step.prediction,
            tolerance=self._terms.tolerance,
            info=self._info,
        )
        self._report.largest_difference = max(self._report.largest_difference, largest)
        if fault:
            self._violated("I5", fault, place, who)
        else:
            self._report.count("compared")
        self._alert(record, found, step, said)

    def _alert(self, record: Record, found: Predicted, step: Expected, said: Answers) -> None:
        """I8: the alert of a prediction is there if and only if the rule fires, and says that."""
        alerts = [a for a in said.alerts if a.prediction_id == found.id]
        who = None if step.prediction is None else step.prediction.conversation_id
        if step.alert is None:
            for alert in alerts:
                self._violated(
                    "I8", "an alert where the rule does not fire", placed(alert.place), who
                )
        elif not alerts:
            if self._is_committed(record) and record.timestamp_ms >= self._outputs.since_ms:
                says = f"the alert of prediction {found.id} is missing"
                self._violated("I8", says, at(record), who)
        elif self._terms.tolerance is None and alerts[0].value() != encode(
            step.alert, alerts[0].encoding
        ):
            says = "the alert's bytes are not the recomputed ones"
            self._violated("I8", says, placed(alerts[0].place), who)

    def _stray_alerts(
        self, record: Record, utterance: Utterance, said: Answers, ours: Sequence[Predicted]
    ) -> None:
        """Alerts of no prediction; one may be sent before its prediction is acknowledged."""
        known = {p.id for p in ours}
        if not self._is_committed(record) or record.timestamp_ms < self._outputs.since_ms:
            return
        for alert in said.alerts:
            if alert.model == self._info.digest and alert.prediction_id not in known:
                says = f"an alert of prediction {alert.prediction_id}, which nobody sent"
                self._violated("I8", says, placed(alert.place), utterance.conversation_id)

    def _buried(
        self, record: Record, utterance: Utterance, said: Answers, steps: Sequence[Expected]
    ) -> None:
        """A dead letter of a record that can be read."""
        letter, who = said.letters[0], utterance.conversation_id
        place, reason = placed(letter.place), letter.poison.reason
        if said.predictions:
            self._violated("I1", "dead-lettered and predicted: two outcomes", place, who)
        step = next((s for s in steps if s.outcome == "dead_lettered"), None)
        if reason not in LATE:
            self._violated("I1", f"dead-lettered as {reason}, but it can be read", place, who)
        elif step is None or step.poison is None or step.poison.reason != reason:
            outcome = steps[0].outcome if step is None else "dead-lettered for another reason"
            says = f"dead-lettered as {reason}, but it is to be {outcome}"
            self._violated("I1", says, place, who)
        else:
            self._same_letter(record, letter.poison, said)

    def _poison(self, record: Record, poison: Poison, said: Answers) -> None:
        """A record that the decoder refuses."""
        if said.letters:
            if said.letters[0].poison.reason != poison.reason:
                says = f"dead-lettered as {said.letters[0].poison.reason}, not {poison.reason}"
                self._violated("I5", says, placed(said.letters[0].place), None)
            else:
                self._same_letter(record, poison, said)
        elif not self._is_committed(record):
            self._report.count("open")
        elif record.timestamp_ms < self._outputs.since_ms:
            self._report.count("undecided")
        else:
            self._violated("I1", f"no dead letter of a {poison.reason} record", at(record), None)
        unburied = Answers(said.predictions, said.alerts)
        self._nothing_else(record, unburied, f"a {poison.reason} record", None)

    def _same_letter(self, record: Record, poison: Poison, said: Answers) -> None:
        letter = dead_letter(record, poison, topic=self._terms.dead_letters)
        if original_digest(letter.key, letter.value, letter.headers) != said.letters[0].original:
            says = "the dead letter does not hold the record's own key, bytes and headers"
            self._violated("I5", says, placed(said.letters[0].place), None)

    def _nothing_else(
        self, record: Record, said: Answers, what: str, conversation: str | None
    ) -> None:
        for one in said.all():
            self._violated("I1", f"answers {what}", placed(one.place), conversation)

    # Ends.

    def end_partition(self, topic: str, partition: int) -> None:
        """All of a partition was checked: what is left over answers nothing."""
        if self._stored is not None:
            self._stored.end_partition(topic, partition)
        self._known.clear()
        self._asleep.clear()
        left = sorted(p for p in self._outputs.at if p[0] == partition)
        for position in left:
            said = self._outputs.at.pop(position)
            for one in said.all():
                if position[1] < self._terms.lows.get(partition, 0):
                    self._report.count("before_log")
                else:
                    says = f"answers {topic}-{partition}@{position[1]}, which is no record"
                    self._violated("I1", says, placed(one.place), None)

    def finish(self) -> Report:
        """The report, once every partition has ended."""
        for position, said in sorted(self._outputs.at.items()):
            for one in said.all():
                says = f"answers partition {position[0]}, which the log does not have"
                self._violated("I1", says, placed(one.place), None)
        self._outputs.at.clear()
        return self._report

    def _violated(
        self, invariant: Invariant, says: str, place: tuple[str, int, int], who: str | None
    ) -> None:
        self._report.violated(Violation(invariant, says, *place, who))


def has_raw_text_and_vectors(utterance: Utterance) -> bool:
    """Whether a worker without an encoder answers it all the same, from its vectors."""
    vectors = vectors_of(utterance)
    return bool(utterance.text and vectors and "text" not in vectors)


def matching(found: Predicted, steps: Sequence[Expected]) -> Expected | None:
    """The step whose context a prediction names; else any that predicts, to say what differs."""
    predicting = [step for step in steps if step.prediction is not None]
    for step in predicting:
        assert step.prediction is not None
        context = step.prediction.context
        if (context.first_position, context.truncated) == (found.first_position, found.truncated):
            return step
    return predicting[0] if predicting else None


def at(record: Record) -> tuple[str, int, int]:
    """Where a record stands."""
    return record.topic, record.partition, record.offset


def placed(place: Place) -> tuple[str, int, int]:
    """Where an output stands."""
    return place.topic, place.partition, place.offset
