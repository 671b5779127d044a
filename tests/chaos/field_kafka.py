"""Scenarios after what the field does to Kafka: settings that take records out of the log."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from typing import Final

import kafka
import redis
from kafka.admin import ConfigResource

from stream.brokers.partition_reader import KafkaReader
from tests.chaos.plant import PARTITIONS, Plant
from tests.chaos.scenarios import PATIENCE_S, Facts, Stage, wait_more
from tests.integration.workers import wait_for

WINDOW: Final = 3  # of the small model
COMPACTED: Final = {
    "cleanup.policy": "compact",
    "segment.ms": "1000",
    "min.cleanable.dirty.ratio": "0.01",
}


def compacted(stage: Stage) -> Facts:
    """R34: the utterances topic is compacted, Redis emptied: an answer that lacks turns says so."""
    client = redis.Redis(port=stage.servers.redis.port)
    with stage.plant() as (plant, _):
        plant.truncates = True
        for _ in range(2):
            plant.start()
        for _ in range(stage.times(1, 4)):
            wait_more(plant, 60)
            before = missing(plant)
            configure(plant, COMPACTED)
            wait_for(partial(more_missing, plant, before), "a compaction", PATIENCE_S)
            configure(plant, {"cleanup.policy": "delete"})
            client.flushall()
            wait_more(plant, 20)
        truncated, removed = plant.metric("context_truncated_total"), missing(plant)
    plant.settled()
    silent = [context for context in shortened(plant) if not context["truncated"]]
    assert truncated > 0, "the metric must have moved"
    assert not silent, f"{len(silent)} answers lack turns and do not say so: {silent[0]}"
    return {"records removed": removed, "answers truncated, and saying so": int(truncated)}


def configure(plant: Plant, settings: Mapping[str, str]) -> None:
    """Set settings of the utterances topic."""
    admin = kafka.KafkaAdminClient(bootstrap_servers=plant.kafka.bootstrap)
    topic = plant.settings.topics.utterances
    admin.alter_configs([ConfigResource("TOPIC", topic, dict(settings))])
    admin.close()


def more_missing(plant: Plant, than: int) -> bool:
    """Return whether further records have left the log."""
    return missing(plant) > than


def missing(plant: Plant) -> int:
    """Return how many offsets of the utterances' log hold no record."""
    reader, count = KafkaReader(plant.site.settings), 0
    for partition, end in reader.ends(range(PARTITIONS), 10).items():
        count += end - sum(len(portion) for portion in reader.read(partition, 0, end))
    reader.close()
    return count


def shortened(plant: Plant) -> list[dict[str, object]]:
    """Return the contexts that hold fewer utterances than were said before in the conversation."""
    found = []
    for record in plant.site.log(plant.settings.topics.predictions):
        event = json.loads(record.value or b"")
        turn = int(event["utterance_id"].rpartition("-")[2])
        if event["context"]["utterances"] < min(turn, WINDOW):
            found.append(event["context"])
    return found
