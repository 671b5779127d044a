"""`emotrack bench real`: a data set's conversations through Apache Kafka, Redis and two workers.

Every utterance must have one prediction, byte-equal to the oracle's (serving law), within the model
law of the whole-conversation form, and the weighted F1 counted from the topic must be what
`emotrack evaluate` counts. What differs is an error, with the first differences named.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from model.data.dataset import UNLABELLED, DataSet, Dialogue
from model.interface import Predictor
from model.registry import load_predictor
from model.scoring.scores import confusion, weighted_f1
from model.whole_conversation import WholeAnswer, whole_answers
from stream.bench.load import collecting
from stream.bench.rows import Row, figure
from stream.bench.servers import Servers, started
from stream.brokers.topic_reader import LogReader
from stream.client import Publisher
from stream.client.sources import DataChoice, from_data_set, publish_all
from stream.errors import EmotrackError
from stream.events.messages import PredictionEvent
from stream.local.servers import KAFKA_JARS
from stream.local.worker_process import RunningWorker
from stream.ports import Record
from stream.settings import Settings
from stream.verify.oracle import Expected, Oracle
from stream.verify.run import verify_topics

MODEL_LAW: Final = 2e-3  # tolerance of stored float16 (architecture §3a)
ROUNDED: Final = 1e-6  # of a probability on the wire
ANSWERS_S: Final = 240.0
NAMED: Final = 3  # differences shown of each kind


class LawBroken(EmotrackError):
    """An answer that came through Kafka is not as it must be; names the first differences."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The figures of a run in which all laws hold."""

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
    with started(jars, say) as (servers, scratch):
        outcome = through_kafka(data, choice, replace(servers, model=model), scratch, say=say)
    return rows_of(outcome, f"{data.name} {choice.split}")


def rows_of(outcome: Outcome, what: str) -> dict[str, Row]:
    """The outcome as figures."""
    of = f"of {outcome.utterances} utterances, {outcome.conversations} conversations of {what}"
    law = f"whole-conversation form, law {MODEL_LAW:g}"
    differ = f"from the topic; {outcome.ties} labels differ"
    verified = "`emotrack verify` on these topics: no violation of I1-I8"
    rate = outcome.utterances / outcome.seconds
    return {
        "real_byte_equal": figure([outcome.byte_equal], "predictions", f"{of}, against the oracle"),
        "real_model_law": figure([outcome.largest_difference], "|dp|", law),
        "real_wf1": figure([100 * outcome.weighted_f1], "wF1 %", differ),
        "real_alerts": figure([outcome.alerts], "alerts", "equal to the oracle's"),
        "real_verified": figure([outcome.verified], "records", verified),
        "real_per_s": figure([rate], "1/s", "publish to last answer, two workers"),
    }


def through_kafka(
    data: DataSet,
    choice: DataChoice,
    servers: Servers,
    scratch: Path,
    *,
    say: Callable[[str], None] = lambda _line: None,
) -> Outcome:
    """Publish, answer with two workers, and check the answers by both laws. Raises `LawBroken`."""
    served = load_predictor(servers.model)
    if "text" in served.info.tuned:  # the set's vectors are of another encoder: send the words
        choice = replace(choice, raw_text=True)
    servers.create_topics(4)
    topics, dialogues = servers.topics, data.split(choice.split)[: choice.limit_conversations]
    total = sum(len(d) for d in dialogues)
    with (
        two_workers(servers, scratch) as workers,
        collecting(servers.bootstrap, topics.predictions) as answers,
    ):
        say(f"publishing {total} utterances of {len(dialogues)} conversations")
        began = time.monotonic()
        with Publisher(servers.bootstrap, topic=topics.utterances) as publisher:
            publish_all(publisher, from_data_set(data, choice).utterances)
        try:
            answers.wait_for(total, ANSWERS_S)
        except TimeoutError:
            raise LawBroken(
                f"{total - len(answers.arrived)} of {total} utterances have no prediction after "
                f"{ANSWERS_S:.0f} s; a worker's log ends:\n{workers[0].log_tail()}"
            ) from None
        seconds = time.monotonic() - began
    say("both workers have drained; comparing with the oracle and the whole-conversation form")
    settings = settings_of(servers)
    with LogReader(settings) as reader:
        utterances, predictions, alerts = (
            read_topic(reader, topic)
            for topic in (topics.utterances, topics.predictions, topics.shift_alerts)
        )
    expected = list(Oracle(served).answers(utterances))
    equal = compare_bytes(expected, predictions, alerts)
    say("verifying: emotrack verify")
    verified = verify(settings, served)
    events = [msgspec.json.decode(p.value or b"", type=PredictionEvent) for p in predictions]
    labels = {_named(event, data): data.labels.index(event.emotion) for event in events}
    whole = whole_answers(servers.model, dialogues, labels=labels)
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


def settings_of(servers: Servers) -> Settings:
    """The settings of a command that looks at the topics of a run."""
    return Settings(
        bootstrap=servers.bootstrap,
        redis_url=servers.redis_url,
        topic_prefix=servers.prefix,
        group=servers.group,
    )


def verify(settings: Settings, served: Predictor) -> int:
    """Run `emotrack verify`; the number of records without a violation. Raises `LawBroken`."""
    report = verify_topics(settings, served, allow_truncation=False)
    if not report.ok:
        first = "; ".join(f"{v.invariant} {v.says}" for v in report.violations[:NAMED])
        raise LawBroken(f"{report.totals.total()} violations: {first}")
    counts = report.counts
    if counts["committed"] < counts["records"]:
        raise LawBroken("drained workers left records that they had not committed")
    return counts["records"]


@contextlib.contextmanager
def two_workers(servers: Servers, scratch: Path) -> Iterator[list[RunningWorker]]:
    """Two `emotrack serve` in one group, ready; drained at the end."""
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(
                servers.worker(scratch / f"{name}.log", source=f"/{name}", log_format="json")
            )
            for name in ("worker-0", "worker-1")
        ]


def read_topic(reader: LogReader, topic: str) -> list[Record]:
    """All records of a topic, by partition and offset: the order that defines a conversation."""
    return [
        record
        for partition, bounds in reader.bounds(topic).items()
        for records in reader.read(topic, partition, bounds)
        for record in records
    ]


def compare_bytes(
    expected: Sequence[Expected], predictions: Sequence[Record], alerts: Sequence[Record]
) -> int:
    """Compare each answer with the oracle's bytes, once each; return the number of predictions."""
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
    """Check each answer by the model law.

    Return the largest difference of a probability, and how many labels differ (near ties only).
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
    """Number of answers of each worker, by the source they name."""
    by_source = Counter(dict(p.headers).get("ce_source") for p in predictions)
    return tuple(by_source.values())
