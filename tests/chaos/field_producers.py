"""Producers as they are met in the field: each partitions in its own way, and ids begin anew."""

from __future__ import annotations

import json
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Final

from confluent_kafka import Producer

from tests.chaos.plant import Plant
from tests.chaos.scenarios import PATIENCE_S, Facts, Stage, wait_more
from tests.integration.workers import wait_for

# Java's default, librdkafka's and Sarama's: for one key they choose three partitions.
PARTITIONERS: Final = ("murmur2_random", "consistent_random", "fnv1a_random")
SPLIT_TURNS: Final = 12  # utterances of a split conversation, in turn by the three producers
LEARNED_AFTER: Final = 6  # from here on every owner has had time to learn of the split
FILE_TURNS: Final = 8  # utterances of a dialogue in the first file; the second goes on further
MORE_TURNS: Final = 3
LEARN_S: Final = 5.0  # owners look once a second


def three_partitioners(stage: Stage) -> Facts:
    """R33: three producers with three partitioners; ids used again in a second file"""
    conversations = stage.times(24, 200)
    with stage.plant(rate=stage.times(20, 50)) as (plant, load):
        for _ in range(2):
            plant.start()
        wait_more(plant)
        producers = [producer(plant, name) for name in PARTITIONERS]
        tell_split(producers, plant, conversations, range(LEARNED_AFTER))
        wait_for(lambda: plant.site.committed() >= plant.site.sent - 50, "answers", PATIENCE_S)
        time.sleep(LEARN_S)
        tell_split(producers, plant, conversations, range(LEARNED_AFTER, SPLIT_TURNS))
        tell_file(plant, conversations, "first", FILE_TURNS)
        tell_file(plant, conversations, "second", FILE_TURNS + MORE_TURNS)
        load.end()
        plant.settled()
        counted = {
            kind: int(plant.metric("duplicates_total", kind=kind))
            for kind in ("utterance_id", "late_fields", "other_utterance")
        }
        moves = int(plant.metric("partition_moves_total"))
        # The counters are whole: now a successor must know all of it from the store.
        plant.kill(plant.workers[0])
        plant.start()
        tell_split(producers, plant, conversations, range(SPLIT_TURNS, SPLIT_TURNS + 3))
        tell_file(plant, conversations, "third", FILE_TURNS + MORE_TURNS + 1)
        plant.settled()
        answers = said(plant)
    facts = judge_split(answers, conversations) | judge_files(answers, conversations)
    dropped = conversations * FILE_TURNS
    assert counted == {"utterance_id": 0, "late_fields": 0, "other_utterance": dropped}, counted
    assert moves == facts.pop("further partitions"), f"counted {moves}"
    named = Counter(logged(plant, "several partitions", "conversation_id"))
    split = facts.pop("split ids")
    assert set(named) == set(split), "a line of each split conversation"
    workers = len(list(plant.directory.glob("worker-*.log")))
    assert max(named.values()) <= workers, "one of each worker at most"
    assert logged(plant, "utterance dropped", "utterance_id"), "a line about the reused ids"
    return facts


def producer(plant: Plant, partitioner: str) -> Producer:
    """A client that chooses partitions in its own way."""
    return Producer(
        {
            "bootstrap.servers": plant.kafka.bootstrap,
            "log_level": 0,
            "partitioner": partitioner,
            "linger.ms": 5,
        }
    )


def tell_split(
    producers: Sequence[Producer], plant: Plant, conversations: int, turns: range
) -> None:
    """Each turn of every split conversation, by the next producer."""
    for turn in turns:
        for c in range(conversations):
            who = f"split{c}"
            body = {"conversation_id": who, "utterance_id": f"{who}-{turn}", "seq": turn}
            body |= {"speaker_id": f"s{turn % 2}", "text": f"{who} says turn {turn}"}
            value = json.dumps(body).encode()
            chosen = producers[turn % len(producers)]
            chosen.produce(plant.settings.topics.utterances, value, who.encode())
            plant.site.sent += 1
        for client in producers:
            assert client.flush(30) == 0


def tell_file(plant: Plant, conversations: int, name: str, turns: int) -> None:
    """A file of dialogues, whose numbers of dialogues and utterances begin anew in each file."""
    for turn in range(turns):
        for c in range(conversations):
            plant.site.say(f"dialogue{c}", turn, text=f"the {name} file's turn {turn} of {c}")
    plant.site.flush()


def said(plant: Plant) -> Mapping[str, list[dict[str, Any]]]:
    """Each distinct answer by conversation, in the order of the input log of each partition."""
    distinct: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
    for record in plant.site.log(plant.settings.topics.predictions):
        told = json.loads(record.value or b"")
        distinct[told["conversation_id"]][told["prediction_id"]] = told
    return {
        who: sorted(ones.values(), key=lambda p: (p["input"]["partition"], p["input"]["offset"]))
        for who, ones in distinct.items()
    }


def judge_split(answers: Mapping[str, list[dict[str, Any]]], conversations: int) -> Facts:
    """Every answer that lacks context says moved once its owner could know."""
    split: list[str] = []
    flagged = lacking = further = 0
    for c in range(conversations):
        ones = answers[f"split{c}"]
        assert len(ones) == SPLIT_TURNS + 3
        partitions = {p["input"]["partition"] for p in ones}
        further += len(partitions) - 1
        if len(partitions) == 1:
            assert not any("moved" in p["flags"] for p in ones), f"split{c} is on one partition"
            continue
        split.append(f"split{c}")
        for p in ones:
            turn = int(p["utterance_id"].rpartition("-")[2])
            is_flagged = "moved" in p["flags"]
            lacks = p["context"]["utterances"] < min(turn, 10)
            lacking += lacks
            flagged += is_flagged
            assert is_flagged or turn < LEARNED_AFTER, f"{p['utterance_id']} does not say moved"
    assert split and flagged
    return {
        "split conversations": len(split),
        "answers that lack context": lacking,
        "that say moved": flagged,
        "further partitions": further,
        "split ids": split,
    }


def judge_files(answers: Mapping[str, list[dict[str, Any]]], conversations: int) -> Facts:
    """The first answer after utterances that were dropped says so, and no other one does."""
    reused = 0
    for c in range(conversations):
        ones = answers[f"dialogue{c}"]
        turns = [int(p["utterance_id"].rpartition("-")[2]) for p in ones]
        assert turns == list(range(FILE_TURNS + MORE_TURNS + 1))
        at = [turn for turn, p in zip(turns, ones, strict=True) if "id_reused" in p["flags"]]
        assert at == [FILE_TURNS, FILE_TURNS + MORE_TURNS], f"dialogue{c} says id_reused at {at}"
        reused += len(at)
    return {"dropped": conversations * (2 * FILE_TURNS + MORE_TURNS), "answers that say so": reused}


def logged(plant: Plant, words: str, field: str) -> list[Any]:
    """The values of a field in the workers' log lines with these words."""
    lines = [
        line
        for path in plant.directory.glob("worker-*.log")
        for line in path.read_text("utf-8", "replace").splitlines()
        if words in line
    ]
    return [json.loads(line)[field] for line in lines]
