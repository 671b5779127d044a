"""Records as other producers write them, on Apache Kafka with a worker: each has a true end.

The tables are those of `tests/stream/events/test_kinds.py`: what is refused is a dead letter with
its sentence; the sentence's cure, carried out, is an utterance.
"""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from stream.settings import Settings
from stream.verify.run import verify_topics
from tests.fakes.predictor import SmallPredictor
from tests.integration.workers import Site, ThreadWorker, wait_for
from tests.stream.events.test_kinds import READ, REFUSED, Wire

pytestmark = pytest.mark.integration


def send(site: Site, wire: Wire) -> None:
    headers: list[tuple[str, str | bytes | None]] = [*wire.headers]
    site.producer.produce(site.settings.topics.utterances, wire.value, wire.key, headers=headers)
    site.sent += 1


def settled(site: Site) -> None:
    site.flush()
    wait_for(lambda: site.committed() == site.sent, "the commit of every record")


def outcomes(worker: ThreadWorker) -> dict[str, float]:
    names = ("predicted", "abstained", "duplicate", "dead_lettered")
    return {name: worker.metric(f'outcomes_total{{outcome="{name}"}}') for name in names}


def test_every_kind_is_named_in_its_dead_letter_and_cured_by_its_sentence(
    site: Site, start: Callable[[Settings], ThreadWorker]
) -> None:
    worker = start(site.settings)
    for case in REFUSED.values():
        send(site, case.wire)
    settled(site)
    by_value = {
        (record.value, record.key, record.headers[: len(record.headers) - 7]): dict(record.headers)
        for record in site.log(site.settings.topics.dead_letters)
    }
    assert len(by_value) == len(REFUSED)
    for kind, case in REFUSED.items():
        headers = by_value[case.wire]
        sentence = (headers["emotrack_dlq_message"] or b"").decode()
        assert all(words in sentence for words in case.words), kind
    for case in REFUSED.values():
        send(site, case.cure(case.wire))
    for wire in READ.values():
        send(site, wire)
    settled(site)
    ended = outcomes(worker)
    assert ended["dead_lettered"] == len(REFUSED)
    # Most cures are utterance u of c: the first is answered, the others are known ids.
    answered = ended["predicted"] + ended["abstained"]
    assert answered + ended["duplicate"] == len(REFUSED) + len(READ)
    assert answered >= 1
    assert verify_topics(site.settings, SmallPredictor(), allow_truncation=False).violations == []


def test_misfits_are_answered_with_a_flag_and_verified(
    site: Site, start: Callable[[Settings], ThreadWorker]
) -> None:
    worker = start(site.settings)
    misfits: list[dict[str, object]] = [
        {"event_time": 1732879300.125},
        {"seq": "3"},
        {"seq": 3.0},
        {"end_ms": float("nan")},
        {"text": "so happy \ud83d"},
    ]
    for n, misfit in enumerate(misfits):
        site.say("call", n, **({"text": "hi"} | misfit))
    settled(site)
    records = site.log(site.settings.topics.predictions)
    assert [json.loads(record.value or b"")["flags"] for record in records] == [
        ["ignored_event_time"],
        ["ignored_seq"],
        [],
        ["ignored_end_ms"],
        ["repaired_text"],
    ]
    assert worker.metric("ignored_fields_total") == 4
    assert verify_topics(site.settings, SmallPredictor(), allow_truncation=False).violations == []
