"""A model in this process answers what a worker answers on real Kafka and Redis, byte for byte."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from model.errors import EncoderMissing
from model.text.sentence_encoder import find_encoder
from stream.offline import Answered, LoadedModel, load
from stream.settings import Settings
from tests.fakes.predictor import SmallPredictor
from tests.integration.workers import Site, ThreadWorker, wait_for

pytestmark = pytest.mark.integration
Said = dict[str, Any]

SPOKEN: list[Said] = [
    {"speaker": "ann", "text": "You are so kind, thank you!", "seq": 0},
    {"speaker": "ben", "text": "What? No! You did what?", "audio": [0.5] * 8},
    {"speaker": "ann", "text": "I hate you, leave me alone!", "persona": [0.1, 0.5, 1, 0, 0.25]},
    {"speaker": "ben", "text": "Estoy muy enojado, no me vuelvas a llamar."},
    {"speaker": "ben", "text": "I am very angry, never call again!", "language": "zh"},
    {"speaker": "ann", "text": "😡😡😡"},
    {"speaker": "ann", "audio": [0.0] * 8},
    {"speaker": "ben", "text": "Oh.", "video": [0.25] * 17},
    {"speaker": "ann", "text": "How lovely to see you!", "seq": 9},
    {"speaker": "ben", "text": "Nothing is ever good here.", "seq": "x"},
]


def compare(site: Site, model: LoadedModel, talks: dict[str, list[Said]]) -> list[Answered]:
    """Say the conversations in turns; what the topics have is what the model says here."""
    for n in range(max(map(len, talks.values()))):
        for name, talk in talks.items():
            if n < len(talk):
                site.send(json.dumps(event(name, n, talk[n])).encode(), name.encode())
    site.flush()
    wait_for(lambda: site.committed() == site.sent, "the commit of every record", within_s=240)
    predictions = [json.loads(r.value or b"") for r in site.log(site.settings.topics.predictions)]
    alerts = [json.loads(r.value or b"") for r in site.log(site.settings.topics.shift_alerts)]
    here = [answer for part in model.predict_many(talks) for answer in part]
    assert {of_id(p): numbers(p) for p in predictions} == {
        of_id(p): numbers(p) for p in map(plain, here)
    }
    assert {of_id(a): numbers(a) for a in alerts} == {
        of_id(a): numbers(a) for a in (plain(h.alert) for h in here if h.alert is not None)
    }
    assert len(predictions) == len(here) == site.sent
    return here


def event(conversation: str, n: int, said: Said) -> Said:
    """The record of an utterance, as any producer writes it."""
    ids = {"conversation_id": conversation, "utterance_id": str(n), "speaker_id": said["speaker"]}
    vectors = {m: {"tensor": list(said[m])} for m in ("audio", "video") if m in said}
    words = {k: v for k, v in said.items() if k not in ("speaker", "audio", "video")}
    return ids | words | ({"features": vectors} if vectors else {})


def plain(event: object) -> Said:
    found: Said = json.loads(msgspec.json.encode(event))
    found.pop("alert", None)
    return found


def of_id(event: Said) -> tuple[str, str]:
    return event["conversation_id"], event["utterance_id"]


def numbers(event: Said) -> bytes:
    """Return the bytes of an event without what names its record of Kafka."""
    left = {k: v for k, v in event.items() if k not in ("prediction_id", "alert_id", "input")}
    if "context" in left:
        left["context"] = {k: v for k, v in left["context"].items() if k != "first_position"}
    return json.dumps(left).encode()


def test_the_answers_of_a_worker_are_those_of_this_process(
    site: Site, start: Callable[[Settings], ThreadWorker]
) -> None:
    start(site.settings)
    draw = np.random.default_rng(1)
    talks: dict[str, list[Said]] = {}
    for n in range(12):
        talks[f"c{n}"] = [
            {"speaker": f"s{draw.integers(3)}"}
            | ({"text": f"words {i}"} if draw.random() < 0.4 else {})
            | {"audio": (draw.normal(size=2) * 4).tolist()}
            | ({"language": "zh"} if draw.random() < 0.1 else {})
            | ({"end_of_conversation": True} if draw.random() < 0.05 else {})
            for i in range(int(draw.integers(1, 20)))
        ]
    here = compare(site, LoadedModel(SmallPredictor()), talks)
    assert {a.reason for a in here} >= {None, "language"}
    assert any(a.alert for a in here)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pcgnet", "hrg-ssa"])
def test_the_answers_of_a_shipped_model_are_those_of_this_process(site: Site, name: str) -> None:
    try:
        find_encoder()
    except EncoderMissing as why:
        pytest.skip(str(why))
    worker = ThreadWorker(site.settings.model_copy(update={"model": Path(name)}))
    worker.start()
    try:
        turned = SPOKEN[3:] + SPOKEN[:3]
        here = compare(site, load(name), {"c": SPOKEN, "d": turned, "e": SPOKEN[:2]})
    finally:
        worker.end()
    assert {a.reason for a in here} >= {None, "language", "unknown_words"}
    assert any(a.shift for a in here) and len({a.sentiment for a in here}) > 1
    assert any("ignored_seq" in a.flags for a in here) and any("seq_gap" in a.flags for a in here)
