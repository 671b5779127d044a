"""`emotrack bench real`: a data set's conversations through Apache Kafka, Redis and two workers.

Every utterance must have one prediction, byte-equal to the one that `emotrack verify` recomputes
(serving law), within the model law of the whole-conversation form, and the weighted F1 counted from
the topic must be what `emotrack evaluate` counts. A difference is an error that names the first.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from model.data.dataset import UNLABELLED, DataSet, Dialogue
from model.interface import Predictor
from model.registry import load_predictor
from model.scoring.scores import tally, weighted_f1
from model.whole_conversation import WholeAnswer, whole_answers
from stream.bench.load import collecting
from stream.bench.rows import Row, figure
from stream.bench.servers import Servers, started
from stream.brokers.topic_reader import TopicReader
from stream.client import Publisher
from stream.client.data_source import DataChoice, from_data_set
from stream.client.sources import publish_all
from stream.errors import EmotrackError
from stream.events.messages import PredictionEvent
from stream.local.servers import KAFKA_JARS
from stream.settings import Settings
from stream.verify.run import verify_topics

MODEL_LAW: Final = 2e-3  # tolerance of stored float16 (docs/architecture.md §3a)
ROUNDED: Final = 1e-6  # of a probability on the wire
ANSWERS_S: Final = 240.0
NAMED: Final = 3  # violations named


class LawBroken(EmotrackError):
    """An answer that came through Kafka breaks a law; the text names the first violations."""


@dataclass(frozen=True, slots=True)
class KafkaRun:
    """The figures of a run in which all laws hold."""

    utterances: int
    conversations: int
    alerts: int
    byte_equal: int
    verified: int  # records in which `emotrack verify` found no violation
    largest_difference: float  # from the whole-conversation form, over all probabilities
    ties: int  # labels that differ from the whole form's, all within the law's tolerance
    weighted_f1: float  # counted from the topic
    seconds: float
    by_worker: tuple[float, ...]  # number of utterances answered by each worker


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
        run = through_kafka(data, choice, replace(servers, model=model), scratch, say=say)
    of = (
        f"of {run.utterances} utterances, {run.conversations} conversations of {data.name} "
        f"{choice.split}, against the oracle"
    )
    verified = "`emotrack verify` on these topics: no violation of I1-I8"
    rate = run.utterances / run.seconds
    return {
        "real_byte_equal": figure([run.byte_equal], "predictions", of),
        "real_model_law": figure(
            [run.largest_difference], "|dp|", f"whole-conversation form, law {MODEL_LAW:g}"
        ),
        "real_wf1": figure(
            [100 * run.weighted_f1], "wF1 %", f"from the topic; {run.ties} labels differ"
        ),
        "real_alerts": figure([run.alerts], "alerts", "equal to the oracle's"),
        "real_verified": figure([run.verified], "records", verified),
        "real_per_s": figure([rate], "1/s", "publish to last answer, two workers"),
    }


def through_kafka(
    data: DataSet,
    choice: DataChoice,
    servers: Servers,
    scratch: Path,
    *,
    say: Callable[[str], None] = lambda _line: None,
) -> KafkaRun:
    """Publish, answer with two workers, and check the answers by both laws. Raises `LawBroken`."""
    predictor = load_predictor(servers.model)
    if "text" in predictor.info.tuned:  # the set's vectors are of another encoder: send the words
        choice = replace(choice, raw_text=True)
    servers.create_topics(4)
    topics, dialogues = servers.topics, data.split(choice.split)[: choice.limit_conversations]
    total = sum(len(d) for d in dialogues)
    with contextlib.ExitStack() as stack:
        workers = [
            stack.enter_context(
                servers.worker(scratch / f"{name}.log", source=f"/{name}", log_format="json")
            )
            for name in ("worker-0", "worker-1")
        ]
        answers = stack.enter_context(collecting(servers.bootstrap, topics.predictions))
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
    settings = Settings(
        bootstrap=servers.bootstrap,
        redis_url=servers.redis_url,
        topic_prefix=servers.prefix,
        group=servers.group,
    )
    counts = verified_counts(settings, predictor)
    with TopicReader(settings) as reader:
        predictions = [
            record
            for partition, bounds in reader.bounds(topics.predictions).items()
            for records in reader.read(topics.predictions, partition, bounds)
            for record in records
        ]
    events = [msgspec.json.decode(p.value or b"", type=PredictionEvent) for p in predictions]
    labels = {_names(event, data): data.labels.index(event.emotion) for event in events}
    whole = whole_answers(servers.model, dialogues, labels=labels)
    largest, ties = compare_whole(events, whole, data)
    sources = Counter(dict(p.headers).get("ce_source") for p in predictions)
    return KafkaRun(
        utterances=total,
        conversations=len(dialogues),
        alerts=counts["alerts"],
        byte_equal=counts["compared"],
        verified=counts["records"],
        largest_difference=largest,
        ties=ties,
        weighted_f1=score_of(labels, dialogues, len(data.labels)),
        seconds=seconds,
        by_worker=tuple(sources.values()),
    )


def verified_counts(settings: Settings, predictor: Predictor) -> Counter[str]:
    """Run `emotrack verify` and return its counts. Raises `LawBroken` for any violation."""
    report = verify_topics(settings, predictor, allow_truncation=False)
    if not report.ok:
        first = "; ".join(f"{v.invariant} {v.says}" for v in report.violations[:NAMED])
        raise LawBroken(f"{report.totals.total()} violations: {first}")
    counts = report.counts
    if counts["committed"] < counts["records"]:
        raise LawBroken("drained workers left records that they had not committed")
    if counts["compared"] != counts["predictions"] or counts["alert_repeats"]:
        raise LawBroken("an answer stands more than once in its topic, though nothing failed")
    return counts


def compare_whole(
    events: Sequence[PredictionEvent],
    whole: Mapping[tuple[str, str], WholeAnswer],
    data: DataSet,
) -> tuple[float, int]:
    """Check each answer by the model law.

    Return the largest difference of a probability, and the number of labels that differ (near ties
    only).
    """
    largest, ties = 0.0, 0
    for event in events:
        answer = whole[_names(event, data)]
        emotion = np.array([event.probabilities[label] for label in data.labels])
        difference = float(np.abs(emotion - answer.emotion).max())
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


def _names(event: PredictionEvent, data: DataSet) -> tuple[str, str]:
    """Return the data set's ids of the dialogue and the utterance that are answered."""
    return event.conversation_id.removeprefix(f"{data.name}-"), event.utterance_id


def score_of(
    answers: Mapping[tuple[str, str], int], dialogues: Sequence[Dialogue], classes: int
) -> float:
    """Return weighted F1 of the topic's labels, by dialogue and utterance id."""
    pairs = [
        (int(label), answers[dialogue.dialogue_id, utterance_id])
        for dialogue in dialogues
        for utterance_id, label in zip(dialogue.utterance_ids, dialogue.labels, strict=True)
        if label != UNLABELLED
    ]
    truth, guess = np.array(pairs).T
    return float(weighted_f1(tally(truth, guess, classes)))
