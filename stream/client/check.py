"""Follow published utterances to their end: `emotrack publish --check`, on kafka-python alone.

An utterance whose offset the workers' group has committed has a prediction, a dead letter, or is a
duplicate: its id was applied before, and it got neither.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import chain
from typing import Any, Final, Self

import kafka
import kafka.errors
import msgspec

from stream.brokers.kafka_admin import client_arguments, not_allowed, require_topic
from stream.client.found import Found, Id, Letter
from stream.errors import AccessRefused, BrokerUnreachable
from stream.events.cloudevents import PREDICTION_TYPE, Encoding, open_record
from stream.events.dead_letter import Dlq
from stream.events.messages import TopicNames, Utterance
from stream.events.poison import Rejected
from stream.security import PLAINTEXT, KafkaSecurity

_POLL_MS: Final = 200
_ASK_S: Final = 0.5  # between two questions for the group's offsets


class _Input(msgspec.Struct, frozen=True):
    topic: str
    partition: int
    offset: int


class _Answer(msgspec.Struct, frozen=True):
    """The parts of a prediction that are counted."""

    input: _Input
    abstained: bool = False
    reason: str | None = None
    flags: tuple[str, ...] = ()


class Check:
    """Follows the utterances of one `Publisher`: create it before, `note` each, then `wait`.

    It needs the rights to read predictions and dead letters, and to describe the workers' group.
    """

    def __init__(
        self,
        bootstrap: str,
        *,
        topics: TopicNames,
        group: str,
        security: KafkaSecurity = PLAINTEXT,
        timeout_s: float = 10.0,
    ) -> None:
        """Connect, and remember where predictions and dead letters end now.

        Raises `BrokerUnreachable`, `AccessRefused` or `TopicMissing`.
        """
        self._outputs = (topics.predictions, topics.dead_letters)
        for topic in self._outputs:
            require_topic(bootstrap, topic, timeout_s, security)
        self._bootstrap, self._security, self._topics = bootstrap, security, topics
        self._group = group
        self._sent: dict[tuple[int, int], Id] = {}
        self._answers: dict[tuple[int, int], _Answer] = {}
        self._letters: dict[tuple[int, int], Letter] = {}
        self._decoders: dict[Encoding, Callable[[bytes], _Answer]] = {
            "json": msgspec.json.Decoder(_Answer).decode,
            "msgpack": msgspec.msgpack.Decoder(_Answer).decode,
        }
        arguments = client_arguments(bootstrap, security)
        self._offsets: Any = kafka.KafkaConsumer(
            **arguments, group_id=group, enable_auto_commit=False, allow_auto_create_topics=False
        )  # asks what the workers have committed, and never joins them
        self._reader: Any = kafka.KafkaConsumer(
            **arguments,
            group_id=None,
            enable_auto_commit=False,
            allow_auto_create_topics=False,
            fetch_max_wait_ms=50,
        )
        parts = [
            kafka.TopicPartition(topic, number)
            for topic in self._outputs
            for number in sorted(self._reader.partitions_for_topic(topic) or ())
        ]
        self._reader.assign(parts)
        self._reader.seek_to_end(*parts)
        for part in parts:
            self._reader.position(part)  # seeking is lazy: make "the end" mean now

    def note(self, utterance: Utterance, partition: int, offset: int) -> None:
        """Remember where an utterance is; called by the publisher's thread."""
        self._sent[partition, offset] = Id(utterance.conversation_id, utterance.utterance_id)

    def wait(
        self,
        limit_s: float,
        progress: Callable[[int], None] = lambda _count: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> Found:
        """Return what became of each utterance, when all are committed.

        Ends too after `limit_s` in which nothing came and nothing was committed. `progress`
        receives the number of utterances with a known end. Raises `AccessRefused` or
        `BrokerUnreachable`.
        """
        last = asked = clock()
        committed = self._committed()
        while open_ends := self._open(committed):
            if clock() - last > limit_s:
                break
            if self._poll():
                last = clock()
            if clock() - asked > _ASK_S:
                asked, before = clock(), committed
                committed = self._committed()
                last = clock() if committed != before else last
            progress(len(self._sent) - open_ends)
        self._read_to_end()  # what was committed is in the topics by now
        return self._found(committed)

    def _open(self, committed: dict[int, int]) -> int:
        """Return the number of utterances that may still get an answer."""
        return sum(
            at not in self._answers and at not in self._letters and at[1] >= committed[at[0]]
            for at in self._sent
        )

    def _committed(self) -> dict[int, int]:
        """Return the offset below which the workers have answered, of each partition sent to."""
        try:
            return {
                partition: self._offsets.committed(
                    kafka.TopicPartition(self._topics.utterances, partition)
                )
                or 0
                for partition in {partition for partition, _ in self._sent}
            }
        except kafka.errors.KafkaError as error:
            raise self._refusal(error) from error

    def _read_to_end(self) -> None:
        try:
            parts = list(self._reader.assignment())
            ends = self._reader.end_offsets(parts)
            while any(self._reader.position(part) < ends[part] for part in parts):
                self._poll()
        except kafka.errors.KafkaError as error:
            raise self._refusal(error) from error

    def _poll(self) -> bool:
        """Take what is there, waiting a fifth of a second at most; return whether it was ours."""
        known = len(self._answers) + len(self._letters)
        try:
            polled = self._reader.poll(timeout_ms=_POLL_MS, max_records=2_000)
        except kafka.errors.KafkaError as error:
            raise self._refusal(error) from error
        for record in chain.from_iterable(polled.values()):
            self._take(record)
        return len(self._answers) + len(self._letters) > known

    def _take(self, record: Any) -> None:
        """Keep a record's answer or dead letter where it is of an utterance that was sent."""
        if record.topic == self._topics.dead_letters:
            headers = {name: (value or b"").decode(errors="replace")
                       for name, value in record.headers}  # fmt: skip
            partition, offset = headers.get(Dlq.PARTITION, ""), headers.get(Dlq.OFFSET, "")
            ours = headers.get(Dlq.TOPIC) == self._topics.utterances
            if ours and partition.isdecimal() and offset.isdecimal():
                at = int(partition), int(offset)
                if at in self._sent:
                    sentence = headers.get(Dlq.MESSAGE, "")
                    self._letters[at] = Letter(headers.get(Dlq.REASON, ""), sentence)
            return
        try:
            envelope, data = open_record(record.headers, record.value or b"")
            if envelope.type != PREDICTION_TYPE:
                return
            answer = self._decoders[envelope.encoding](data)
        except (Rejected, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return  # somebody else's record
        at = answer.input.partition, answer.input.offset
        if answer.input.topic == self._topics.utterances and at in self._sent:
            self._answers[at] = answer

    def _found(self, committed: dict[int, int]) -> Found:
        found = Found(len(self._sent), self._group)
        for at, id in sorted(self._sent.items()):
            if (answer := self._answers.get(at)) is not None:
                found.flags.update(answer.flags)
                if answer.abstained:
                    found.abstained[answer.reason or "abstained"] += 1
                else:
                    found.predicted += 1
            elif (letter := self._letters.get(at)) is not None:
                letters = found.dead_letters.setdefault(letter.reason, [])
                letters.append((id, letter.sentence))
            elif at[1] < committed[at[0]]:
                found.duplicates.append(id)
            else:
                found.waiting.append(id)
        return found

    def _refusal(self, error: BaseException) -> AccessRefused | BrokerUnreachable:
        if sentence := not_allowed(error, self._bootstrap, self._security):
            return AccessRefused(f"the utterances are sent; --check cannot read on: {sentence}")
        return BrokerUnreachable(
            f"the utterances are sent, and {self._bootstrap} stopped answering --check: {error}. "
            f"Their answers are in {self._topics.predictions}: emotrack watch --from-beginning"
        )

    def close(self) -> None:
        """Disconnect. Idempotent."""
        self._reader.close()
        self._offsets.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
