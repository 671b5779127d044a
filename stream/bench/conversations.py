"""`emotrack bench real`: a data set's conversations through Apache Kafka, Redis and two workers.

Every utterance must have one prediction, byte-equal to the oracle's (serving law), within the model
law of the whole-conversation form, and the weighted F1 counted from the topic must be what
`emotrack evaluate` counts. What differs is an error, with the first differences named.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
from confluent_kafka import Consumer, Message, TopicPartition

from model.data.dataset import UNLABELLED, DataSet, Dialogue
from model.interface import Predictor
from model.registry import load_predictor
from model.scoring.scores import confusion, weighted_f1
from model.whole_conversation import WholeAnswer, whole_answers
from stream.bench.rows import Row
from stream.brokers.kafka_source import headers_of
from stream.brokers.topics import create, plan
from stream.client import Publisher
from stream.client.sources import DataChoice, from_data_set, publish_all
from stream.errors import EmotrackError
from stream.events.messages import PredictionEvent
from stream.events.topic_names import TopicNames
from stream.local.servers import KAFKA_JARS, Stack
from stream.local.worker_process import RunningWorker, local_worker
from stream.ports import Record
from stream.settings import Settings
from stream.verify.oracle import Expected, Oracle
from stream.verify.run import verify_topics

MODEL_LAW: Final = 2e-3  # tolerance of stored float16 (architecture §3a)
ROUNDED: Final = 1e-6  # of a probability on the wire
ANSWERS_S: Final = 240.0
NAMED: Final = 3  # differences shown of each kind


class LawBroken(EmotrackError):
    """What came through Kafka is not what it must be; names the first differences."""


@dataclass(frozen=True, slots=True)
class Servers:
    """Where a run takes place; topics of its own prefix keep runs apart."""

    bootstrap: str
    redis_url: str
    prefix: str
    model: Path | None = None  # checkpoint folder or name; none: the shipped PCGNet


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run came to, all laws holding."""

    utterances: int
    conversations: int
    alerts: int
    byte_equal: int
    largest_difference: float  # from the whole-conversation form, over all probabilities
    weighted_f1: float  # counted from the topic
    ties: int  # labels that differ from the whole form's, all within the law's tolerance
    seconds: float
    by_worker: tuple[float, ...]  # utterances each worker answered
    verified: int  # records in which `emotrack verify` found no violation


def run_bench_real(
    data: DataSet,
    choice: DataChoice,
    *,
    say: Callable[[str], None],
    jars: Path = KAFKA_JARS,
    model: Path | None = None,
) -> dict[str, Row]:
    """Run on servers of our own. Raises `LawBroken`."""
    with tempfile.TemporaryDirectory(prefix="emotrack-real-") as name:
        scratch = Path(name)
        say("starting Apache Kafka and Redis")
        with Stack(scratch, jars) as stack:
            servers = Servers(stack.kafka.bootstrap, stack.redis.url, "emotrack.", model)
            outcome = through_kafka(data, choice, servers, scratch, say=say)
    return rows_of(outcome, f"{data.name} {choice.split}")


def rows_of(outcome: Outcome, what: str) -> dict[str, Row]:
    """The outcome as figures."""

    def row(value: float, unit: str, reference: str) -> Row:
        return Row(value=value, unit=unit, first=None, aim=None, reference=reference, runs=[])

    share = f"of {outcome.utterances} utterances, {outcome.conversations} conversations of {what}"
    return {
        "real_byte_equal": row(outcome.byte_equal, "predictions", f"{share}, against the oracle"),
        "real_model_law": row(
            outcome.largest_difference, "|dp|", f"whole-conversation form, law {MODEL_LAW:g}"
        ),
        "real_wf1": row(
            100 * outcome.weighted_f1, "wF1 %", f"from the topic; {outcome.ties} labels differ"
        ),
        "real_alerts": row(outcome.alerts, "alerts", "equal to the oracle's"),
        "real_verified": row(
            outcome.verified, "records", "`emotrack verify` on these topics: no violation of I1-I8"
        ),
        "real_per_s": row(
            outcome.utterances / outcome.seconds, "1/s", "publish to last answer, two workers"
        ),
    }


def through_kafka(
    data: DataSet,
    choice: DataChoice,
    servers: Servers,
    scratch: Path,
    *,
    say: Callable[[str], None] = lambda _line: None,
) -> Outcome:
    """Publish, answer with two workers, and hold the answers to both laws. Raises `LawBroken`."""
    names = TopicNames(servers.prefix)
    served = load_predictor(servers.model)
    if "text" in served.info.tuned:  # the set's vectors are of another encoder: send the words
        choice = replace(choice, raw_text=True)
    create(servers.bootstrap, list(plan(names, partitions=4)))
    dialogues = data.split(choice.split)[: choice.limit_conversations]
    total = sum(len(d) for d in dialogues)
    with two_workers(servers, scratch) as workers:
        say(f"publishing {total} utterances of {len(dialogues)} conversations")
        began = time.monotonic()
        with Publisher(servers.bootstrap, topic=names.utterances) as publisher:
            publish_all(publisher, from_data_set(data, choice).utterances)
        predictions = read_topic(servers.bootstrap, names.predictions, total, ANSWERS_S)
        seconds = time.monotonic() - began
        if len(predictions) < total:
            raise LawBroken(
                f"{total - len(predictions)} of {total} utterances have no prediction after "
                f"{ANSWERS_S:.0f} s; a worker's log ends:\n{workers[0].log_tail()}"
            )
    say("both workers have drained; comparing with the oracle and the whole-conversation form")
    utterances = read_topic(servers.bootstrap, names.utterances, total, 30)
    predictions = read_topic(servers.bootstrap, names.predictions, total, 30)
    alerts = read_topic(servers.bootstrap, names.shift_alerts, 0, 30)
    expected = list(Oracle(served).answers(in_log_order(utterances)))
    equal = compare_bytes(expected, predictions, alerts)
    say("verifying: emotrack verify")
    verified = verify(servers, served)
    events = [msgspec.json.decode(p.value or b"", type=PredictionEvent) for p in predictions]
    told = {_named(event, data): data.labels.index(event.emotion) for event in events}
    whole = whole_answers(servers.model, dialogues, told=told)
    largest, ties = compare_whole(events, whole, data)
    return Outcome(
        utterances=total,
        conversations=len(dialogues),
        alerts=len(alerts),
        byte_equal=equal,
        largest_difference=largest,
        weighted_f1=score_of(events, dialogues, data),
        ties=ties,
        seconds=seconds,
        by_worker=shares(predictions),
        verified=verified,
    )


def verify(servers: Servers, served: Predictor) -> int:
    """Run `emotrack verify`; the number of records without a violation. Raises `LawBroken`."""
    settings = Settings(
        bootstrap=servers.bootstrap,
        redis_url=servers.redis_url,
        topic_prefix=servers.prefix,
        group=group_of(servers),
    )
    report = verify_topics(settings, served, allow_truncation=False)
    if not report.ok:
        first = "; ".join(f"{v.invariant} {v.says}" for v in report.violations[:NAMED])
        raise LawBroken(f"{report.totals.total()} violations: {first}")
    counts = report.counts
    if counts["committed"] < counts["records"]:
        raise LawBroken("drained workers left records that they had not committed")
    return counts["records"]


def group_of(servers: Servers) -> str:
    """The workers' group of a run."""
    return f"{servers.prefix}workers"


@contextlib.contextmanager
def two_workers(servers: Servers, scratch: Path) -> Iterator[list[RunningWorker]]:
    """Two `emotrack serve` in one group, ready; drained at the end."""
    settings = {
        "bootstrap": servers.bootstrap,
        "redis_url": servers.redis_url,
        "topic_prefix": servers.prefix,
        "group": group_of(servers),
        "log_format": "json",
    } | ({} if servers.model is None else {"model": str(servers.model)})
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(
                local_worker({**settings, "source": f"/worker-{n}"}, scratch / f"worker-{n}.log")
            )
            for n in range(2)
        ]


def read_topic(bootstrap: str, topic: str, at_least: int, timeout_s: float) -> list[Record]:
    """Read a topic from its start to its present end, waiting for `at_least` records."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "bench-reader",
            "enable.auto.commit": False,
            "enable.partition.eof": False,
        }
    )
    try:
        partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
        consumer.assign([TopicPartition(topic, p, 0) for p in partitions])
        wanted = max(at_least, sum(_high(consumer, topic, p) for p in partitions))
        records: list[Record] = []
        deadline = time.monotonic() + timeout_s
        while len(records) < wanted and time.monotonic() < deadline:
            batch = consumer.consume(1000, 0.2)
            records += [_record(m) for m in batch if m.error() is None]
        return records
    finally:
        consumer.close()


def _high(consumer: Consumer, topic: str, partition: int) -> int:
    return int(consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=10)[1])


def _record(message: Message) -> Record:
    partition, offset = message.partition(), message.offset()
    assert partition is not None and offset is not None, "only records are read"
    return Record(
        topic=message.topic() or "",
        partition=partition,
        offset=offset,
        timestamp_ms=message.timestamp()[1],
        key=message.key(),
        value=message.value(),
        headers=headers_of(message),
    )


def in_log_order(records: Sequence[Record]) -> list[Record]:
    """By partition and offset: the order that defines each conversation."""
    return sorted(records, key=lambda r: (r.partition, r.offset))


def compare_bytes(
    expected: Sequence[Expected], predictions: Sequence[Record], alerts: Sequence[Record]
) -> int:
    """Hold each answer to the oracle's bytes, once each; returns how many predictions there are."""
    wanted = Counter(e.prediction_bytes() for e in expected if e.prediction is not None)
    found = Counter(p.value or b"" for p in predictions)
    wanted_alerts = Counter(e.alert_bytes() for e in expected if e.alert is not None)
    found_alerts = Counter(a.value or b"" for a in alerts)
    for what, want, have in (
        ("prediction", wanted, found),
        ("alert", wanted_alerts, found_alerts),
    ):
        if want != have:
            missing, extra = list((want - have).elements()), list((have - want).elements())
            raise LawBroken(
                f"{len(missing)} {what}s of the oracle are missing and {len(extra)} are not the "
                f"oracle's: {missing[:NAMED]} against {extra[:NAMED]}"
            )
    return sum(found.values())


def compare_whole(
    events: Sequence[PredictionEvent],
    whole: Mapping[tuple[str, str], WholeAnswer],
    data: DataSet,
) -> tuple[float, int]:
    """Hold each answer to the model law.

    Returns the largest difference of a probability, and how many labels differ (near ties only).
    """
    largest, ties = 0.0, 0
    for event in events:
        answer = whole[_named(event, data)]
        said = np.array([event.probabilities[label] for label in data.labels])
        difference = float(np.abs(said - answer.emotion).max())
        if (event.shift is None) != (answer.shift is None):
            raise LawBroken(f"{event.utterance_id}: only one of the two forms sees a shift pair")
        if event.shift is not None and answer.shift is not None:
            moved = 1.0 - float(np.trace(answer.shift))
            difference = max(difference, abs(event.shift.probability - moved))
        top = np.sort(answer.emotion)
        clear = top[-1] - top[-2] > MODEL_LAW
        differs = event.emotion != data.labels[int(answer.emotion.argmax())]
        ties += differs
        if clear and differs:
            raise LawBroken(f"{event.utterance_id}: {event.emotion} is not the whole form's label")
        largest = max(largest, difference)
    if largest > MODEL_LAW + ROUNDED:
        raise LawBroken(f"the whole-conversation form differs by {largest:.2e} > {MODEL_LAW:g}")
    return largest, ties


def _named(event: PredictionEvent, data: DataSet) -> tuple[str, str]:
    """Dialogue and utterance of the set that were answered."""
    return event.conversation_id.removeprefix(f"{data.name}-"), event.utterance_id


def score_of(
    events: Sequence[PredictionEvent], dialogues: Sequence[Dialogue], data: DataSet
) -> float:
    """Count weighted F1 from the topic's answers and the data set's labels."""
    said = {(e.conversation_id, e.utterance_id): data.labels.index(e.emotion) for e in events}
    truth, guess = [], []
    for dialogue in dialogues:
        for utterance_id, label in zip(dialogue.utterance_ids, dialogue.labels, strict=True):
            if label != UNLABELLED:
                truth.append(int(label))
                guess.append(said[f"{data.name}-{dialogue.dialogue_id}", utterance_id])
    counts = confusion(np.array(truth), np.array(guess), len(data.labels))
    return float(weighted_f1(counts))


def shares(predictions: Sequence[Record]) -> tuple[float, ...]:
    """How many answers came from each worker, by the source they name."""
    by_source = Counter(dict(p.headers).get("ce_source") for p in predictions)
    return tuple(by_source.values())
