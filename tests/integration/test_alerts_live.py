"""Real faults of a real worker fire the shipped alerts in a real Prometheus, and dashboards fill.

The rules are those of `deploy/prometheus`, 120 times faster and otherwise untouched. Tests run from
top to bottom on one worker; the last ones break it for good.
"""

from __future__ import annotations

import itertools
import json
import threading
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer

from stream import serve
from stream.brokers.topics import create, plan
from stream.events.messages import TopicNames
from stream.local.servers import RunningKafka
from stream.settings import Settings
from stream.worker.observe import Observer
from tests.conftest import ROOT
from tests.fakes.predictor import SmallPredictor
from tests.integration.monitoring import Watched, watched
from tests.integration.workers import PARTITIONS, Site, wait_for

pytestmark = [pytest.mark.integration, pytest.mark.slow]

BURST = 1_500
SLOW_BATCH_S = 0.5
HANG_S = 10.0


@pytest.fixture(scope="module")
def plant(kafka: RunningKafka, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    prefix = f"a{uuid.uuid4().hex[:8]}."
    create(kafka.bootstrap, plan(TopicNames(prefix), partitions=PARTITIONS))
    settings = Settings(
        bootstrap=kafka.bootstrap, topic_prefix=prefix, group=f"{prefix}workers", metrics_port=0
    )
    producer = Producer({"bootstrap.servers": kafka.bootstrap, "log_level": 0})
    predictor = SmallPredictor()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(serve, "load_predictor", lambda *_, **__: predictor)
        directory = tmp_path_factory.mktemp("watched")
        with watched(Site(settings, producer), predictor, directory) as running:
            yield running


def test_nothing_fires_while_all_is_well_and_quantiles_come_out(plant: Watched) -> None:
    wait_for(lambda: plant.finite('emotrack:stage_seconds:p99{stage="end_to_end"}'), "a p99")
    for name in ("p50", "p95", "p99"):
        (value,) = plant.ask(f'emotrack:stage_seconds:{name}{{stage="end_to_end"}}')
        assert 0 < value < 10
    assert len(plant.ask("emotrack:stage_seconds:p99")) == 9
    assert plant.ask('ALERTS{alertstate="firing"}') == []


def test_dead_letters(plant: Watched) -> None:
    plant.load.poison = True
    plant.wait_fired("EmotrackDeadLetters")


def panels() -> list[Any]:
    return [
        pytest.param(target["expr"], id=f"{path.stem}: {panel['title']} {target['refId']}")
        for path in sorted((ROOT / "deploy/grafana").glob("*.json"))
        for panel in json.loads(path.read_text("utf-8"))["panels"]
        for target in panel["targets"]
    ]


@pytest.mark.parametrize("expression", panels())
def test_every_panel_shows_data(plant: Watched, expression: str) -> None:
    """While an alert fires, so that the list of alerts has something to show, too."""
    query = expression.replace("$__rate_interval", "5s").replace("$job", ".*emotrack.*")
    query = query.replace("$namespace", ".*").replace("$instance", ".*")
    wait_for(lambda: plant.finite(query), f"data for {query}")


def test_ids_that_begin_anew(plant: Watched) -> None:
    plant.site.say("reused", 0, text="the first file's words")
    for n in range(3):
        plant.site.say("reused", 0, text=f"another file's words {n}")
    plant.wait_fired("EmotrackIdsReused")
    plant.wait_over("EmotrackIdsReused")


def test_a_conversation_on_two_partitions(plant: Watched) -> None:
    """A counter that is new and whole at once shows no increase: the answers take a while."""
    topic = plant.site.settings.topics.utterances

    def say(n: int) -> None:
        said = {"conversation_id": "split", "utterance_id": str(n), "speaker_id": "ann"}
        value = json.dumps(said | {"text": "no"}).encode()
        plant.site.producer.produce(topic, value, b"split", partition=n % PARTITIONS)
        plant.site.flush()

    for n in itertools.count():
        say(n)
        if plant.fires("EmotrackConversationsSplit"):
            break
        assert n < 1_000, "it does not fire"
        threading.Event().wait(0.1)
    plant.wait_over("EmotrackConversationsSplit")


def test_records_read_and_none_answered(plant: Watched) -> None:
    plant.load.paused = True  # the poison goes on
    plant.wait_fired("EmotrackNoPredictions")
    plant.load.paused = plant.load.poison = False
    plant.wait_over("EmotrackNoPredictions")


def test_a_slow_model_burns_the_budget_and_lets_the_lag_grow(plant: Watched) -> None:
    plant.predictor.batch_s = SLOW_BATCH_S
    for _ in range(BURST):
        plant.load.say()
    for alert in ("LagGrowing", "LatencyBudgetFast", "LatencyBudgetSlow"):
        plant.wait_fired(f"Emotrack{alert}")
    plant.predictor.batch_s = 0.0
    plant.wait_over("EmotrackLagGrowing")


def test_a_loop_that_hangs(plant: Watched) -> None:
    plant.predictor.batch_s = HANG_S
    plant.wait_fired("EmotrackWorkerHung")
    plant.predictor.batch_s = 0.0
    plant.wait_over("EmotrackWorkerHung")


def test_redis_away_pages_until_it_is_back(plant: Watched) -> None:
    plant.pager.told.clear()
    plant.redis.server.stop(hard=True)
    try:
        for alert in ("RedisDown", "PartitionStuck", "WorkerNotReady", "NoWorkerReady"):
            plant.wait_fired(f"Emotrack{alert}")
        wait_for(lambda: ("/page", "EmotrackRedisDown") in plant.pager.told, "the page")
    finally:
        plant.start_redis()  # what follows needs it
    plant.wait_over("EmotrackRedisDown")
    plant.wait_over("EmotrackPartitionStuck")


def test_a_redis_that_came_back_empty_is_rebuilt(plant: Watched) -> None:
    plant.wait_fired("EmotrackRebuildStorm")


def test_a_newer_owner_s_token_is_respected(plant: Watched) -> None:
    plant.outdo_the_worker()
    plant.wait_fired("EmotrackFencing")
    wait_for(lambda: ("/ticket", "EmotrackFencing") in plant.pager.told, "the ticket")


def test_another_mix_of_labels(plant: Watched) -> None:
    plant.load.audio = [0.0, 3.0]
    plant.wait_fired("EmotrackLabelDrift")


def test_a_worker_that_loses_outcomes(plant: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = Observer.final

    def forgetful(self: Observer, records: int, outcomes: Sequence[str]) -> None:
        honest(self, records, outcomes[1:])

    monkeypatch.setattr(Observer, "final", forgetful)
    plant.wait_fired("EmotrackOutcomeMismatch")


def test_a_worker_that_ended(plant: Watched) -> None:
    assert plant.worker.end() == 0
    plant.wait_fired("EmotrackWorkerDown")


def test_every_shipped_alert_has_fired_here() -> None:
    """A list that the runbook's word "live" is held to."""
    source = Path(__file__).read_text("utf-8")
    rules = (ROOT / "deploy/prometheus/rules/alerts.yml").read_text("utf-8")
    names = {line.split(": Emotrack")[1] for line in rules.splitlines() if "- alert:" in line}
    unfired = {name for name in names if name not in source}
    runbook = (ROOT / "docs/runbook.md").read_text("utf-8")
    for name in names:
        section = runbook.split(f"### Emotrack{name}\n")[1].split("\n#")[0]
        assert ("live" in section.split(".")[0]) == (name not in unfired), name
