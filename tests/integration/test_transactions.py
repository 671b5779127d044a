"""Answers and offsets in one transaction, on Apache Kafka: what a read_committed reader sees."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import pytest

from stream.brokers.kafka_config import find_topic_id
from stream.brokers.kafka_sink import KafkaTransactions
from stream.brokers.kafka_source import KafkaSource
from stream.brokers.topic_reader import TopicReader
from stream.ports import CommitRefused, Outgoing, OutputRefused, Start
from tests.integration.workers import Site, wait_for

pytestmark = pytest.mark.integration


class Member:
    """Owns what it is given."""

    def __init__(self) -> None:
        self.owned: set[int] = set()

    def assigned(self, starts: Mapping[int, Start]) -> None:
        self.owned |= set(starts)

    def revoked(self, partitions: Sequence[int]) -> None:
        self.owned -= set(partitions)

    def lost(self, partitions: Sequence[int]) -> None:
        self.owned -= set(partitions)


@contextmanager
def member(site: Site) -> Iterator[KafkaSource]:
    """A member of the group, once it owns something."""
    made, told = KafkaSource(site.settings, find_topic_id(site.settings)), Member()
    made.subscribe(told)

    def owns() -> bool:
        made.poll(1, 0.1)
        return bool(told.owned)

    wait_for(owns, "an assignment")
    yield made
    made.close()


@pytest.fixture
def source(site: Site) -> Iterator[KafkaSource]:
    with member(site) as made:
        yield made


def seen(site: Site) -> list[str]:
    """Return the committed records of the topic of predictions, in order."""
    topic = site.settings.topics.predictions
    with TopicReader(site.settings) as reader:
        chunks = [
            chunk
            for p, bounds in reader.bounds(topic).items()
            for chunk in reader.read(topic, p, bounds)
        ]
    return [(record.value or b"").decode() for chunk in chunks for record in chunk]


def test_what_an_abort_purged_is_not_held_against_the_next_transaction(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The producer reports it when it is polled the next time: in the midst of another one."""
    with member(site) as gone:
        left = gone.membership
    with member(site) as source:
        transactions = KafkaTransactions(site.settings, source)

        def commit(number: int) -> None:
            answer = Outgoing(
                site.settings.topics.predictions, b"c", f"answer {number}".encode(), ()
            )
            transactions.commit([answer], {0: number + 1}, {0: ""})

        commit(0)
        for number in range(1, 20):
            with monkeypatch.context() as patch, pytest.raises(CommitRefused):
                patch.setattr(KafkaSource, "membership", left)
                commit(number)
            commit(number)
        transactions.close()
    assert seen(site) == [f"answer {n}" for n in range(20)]


def test_an_answer_that_cannot_be_queued_aborts_all_of_its_transaction(
    site: Site, source: KafkaSource
) -> None:
    transactions = KafkaTransactions(site.settings, source)
    sizes = (10, 8 << 20, 10)
    answers = [Outgoing(site.settings.topics.predictions, b"c", b"a" * size, ()) for size in sizes]
    with pytest.raises(OutputRefused, match="aborted"):
        transactions.commit(answers, {0: 3}, {0: ""})
    transactions.commit(answers[:1], {0: 1}, {0: ""})
    transactions.close()
    assert [len(answer) for answer in seen(site)] == [10]
