"""`emotrack dlq requeue`: send dead letters back to the utterances topic, after a fix.

Each record goes back with its own bytes, key and headers to the partition it came from, so that a
conversation stays with its state, and in the order in which its partition had them. It gets a new
position: it is answered after what has been answered since.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from stream.brokers.kafka_config import create_client, producer_config, text_of
from stream.brokers.topic_reader import Bounds, TopicReader
from stream.errors import NotDelivered
from stream.events.dead_letter import REQUEUED, Letter, letter_of, requeued
from stream.settings import Settings

FLUSH_S: Final = 60.0
AT_ONCE: Final = 500  # sent before the broker's answers are waited for


def read_letters(
    reader: TopicReader,
    settings: Settings,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Iterator[Letter]:
    """Yield the letters in the topic, partition by partition.

    `progress` takes the records read, and of how many. Raises what `TopicReader` does.
    """
    bounds = reader.bounds(settings.topics.dead_letters)
    total, done = sum(b.end - b.low for b in bounds.values()), 0
    for partition, found in bounds.items():
        for records in reader.read(settings.topics.dead_letters, partition, found):
            yield from filter(None, map(letter_of, records))
            progress(done + records[-1].offset + 1 - found.low, total)
        done += found.end - found.low


def already_requeued(reader: TopicReader, letters: Iterable[Letter]) -> set[str]:
    """Return the ids of the letters whose records are in the log again.

    Reads each partition from the earliest of their records on. Raises what `TopicReader` does.
    """
    earliest: dict[tuple[str, int], int] = {}
    wanted = set()
    for letter in letters:
        at = (letter.topic, letter.partition)
        earliest[at] = min(earliest.get(at, letter.offset), letter.offset)
        wanted.add(letter.id)
    marked: set[str] = set()
    for (topic, partition), offset in earliest.items():
        bounds = reader.bounds(topic).get(partition)
        if bounds is None:
            continue
        after = Bounds(min(max(bounds.low, offset), bounds.end), bounds.end)
        for records in reader.read(topic, partition, after):
            # The last mark only: earlier ones are of earlier rounds.
            marks = ([v for n, v in r.headers if n == REQUEUED] for r in records)
            marked |= {(m[-1] or b"").decode(errors="replace") for m in marks if m}
    return marked & wanted


def send_again(
    settings: Settings,
    letters: Sequence[Letter],
    sent: Callable[[int], None] = lambda _count: None,
) -> None:
    """Send letters' records in this order, all acknowledged on return.

    `sent` takes the number acknowledged so far. Raises `NotDelivered` with that number: running the
    command again sends only the others.
    """
    failures: list[KafkaError] = []
    acknowledged = 0

    def delivered(error: KafkaError | None, _message: Message) -> None:
        nonlocal acknowledged
        if error is not None:
            failures.append(error)
        else:
            acknowledged += 1

    def refuse(why: str) -> NotDelivered:
        return NotDelivered(
            f"{acknowledged} of {len(letters)} dead letters are requeued, then: {why}. Run it "
            "again: it sends only the others"
        )

    producer = create_client(Producer, producer_config(settings))
    for start in range(0, len(letters), AT_ONCE):
        for letter in letters[start : start + AT_ONCE]:
            record = requeued(letter)
            headers: Any = list(record.headers)
            try:
                producer.produce(
                    record.topic,
                    record.value,
                    record.key,
                    partition=letter.partition,
                    headers=headers,
                    on_delivery=delivered,
                )
            except KafkaException as error:
                raise refuse(text_of(error)) from None
        unacknowledged = producer.flush(FLUSH_S)
        if failures:
            raise refuse(failures[0].str())
        if unacknowledged:
            raise refuse(f"no answer from {settings.bootstrap} for {FLUSH_S:.0f} s")
        sent(acknowledged)
