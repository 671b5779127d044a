"""Ids that begin anew, and producers that partition differently: counted, logged, said in answers.

Two files in the manner of MELD's splits: dialogues and utterances are numbered from 0 in each.
"""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import pytest
import redis
from confluent_kafka import Producer
from structlog.testing import capture_logs

from stream.client.data_source import DataChoice
from stream.client.publisher import Publisher
from stream.client.sources import open_sources
from stream.settings import Settings
from stream.verify.run import verify_topics
from tests.fakes.predictor import SmallPredictor
from tests.integration.workers import Site, ThreadWorker, wait_for

pytestmark = pytest.mark.integration

Start = Callable[[Settings], ThreadWorker]
Rows = Mapping[tuple[str, str], tuple[str, str]]  # dialogue, utterance -> speaker, words
SPEAKERS: Final = ("Ida", "Tom", "Eve")
FIRST: Final = (5, 9, 3)  # utterances of each dialogue
SECOND: Final = (7, 4, 3, 2)
ALIKE: Final = ("1", "0")  # the one utterance that both files have, word for word
OTHER_PARTITIONER: Final = "fnv1a_random"


def rows(lengths: tuple[int, ...], season: str) -> Rows:
    made = {
        (str(d), str(u)): (SPEAKERS[(d + u) % 3], f"In {season} I tell you {d} times {u}, I do!")
        for d, length in enumerate(lengths)
        for u in range(length)
    }
    return made | {ALIKE: ("Ida", "Hello there!")}


def publish(site: Site, path: Path, said: Rows) -> None:
    """Write a table with MELD's columns and send it as `emotrack publish` does."""
    with path.open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out)
        writer.writerow(["Dialogue_ID", "Utterance_ID", "Speaker", "Utterance"])
        writer.writerows([d, u, *of] for (d, u), of in said.items())
    source = open_sources([str(path)], DataChoice())
    with Publisher(site.settings.bootstrap, topic=site.settings.topics.utterances) as publisher:
        for utterance in source.utterances:
            publisher.publish(utterance)
            site.sent += 1
    wait_for(lambda: site.committed() == site.sent, "the commit of every record")


def told(site: Site) -> dict[str, list[dict[str, Any]]]:
    """Every prediction by conversation, in the order of the log."""
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for record in site.log(site.settings.topics.predictions):
        event = json.loads(record.value or b"")
        found[event["conversation_id"]].append(event)
    return found


def test_of_a_second_file_whose_ids_begin_anew_nothing_is_dropped_in_silence(
    site: Site, start: Start, tmp_path: Path
) -> None:
    first, second = rows(FIRST, "spring"), rows(SECOND, "autumn")
    both = first.keys() & second.keys()
    reused = {at for at in both if first[at] != second[at]}
    assert len(reused) == len(both) - 1 > 10
    with capture_logs() as logs:
        worker = start(site.settings)
        publish(site, tmp_path / "dev.csv", first)
        publish(site, tmp_path / "test.csv", second)
        for kind, count in (("other_utterance", len(reused)), ("utterance_id", 1)):
            assert worker.metric(f'duplicates_total{{kind="{kind}"}}') == count, kind
        # The state that says so is lost before the next answer of the second dialogue.
        redis.Redis.from_url(site.settings.redis_url).flushall()
        third = {at: of for at, of in rows((0, 12), "winter").items() if at not in first}
        publish(site, tmp_path / "train.csv", third)
    answers = told(site)
    flagged = {
        who: [e["utterance_id"] for e in events if e["flags"] == ["id_reused"]]
        for who, events in answers.items()
    }
    assert flagged == {"0": ["5"], "1": ["9"], "2": [], "3": []}, "the first answer after a drop"
    said = {
        (who, e["utterance_id"]): e["speaker_id"] for who, events in answers.items() for e in events
    }
    assert said == {at: of[0] for at, of in {**second, **first, **third}.items()}
    lines = [line for line in logs if "utterance dropped" in line["event"]]
    assert lines and not [line for line in lines if "tell you" in str(line)]
    report = verify_topics(site.settings, SmallPredictor(), allow_truncation=False)
    assert report.violations == []
    assert report.counts["duplicates"] == len(both) and report.counts["states"] == 4


def test_answers_of_a_conversation_that_two_producers_split_say_moved(
    site: Site, start: Start
) -> None:
    """One owner of both partitions, then another one that knows it from the store alone."""
    another = Producer(
        {
            "bootstrap.servers": site.settings.bootstrap,
            "partitioner": OTHER_PARTITIONER,
            "log_level": 0,
        }
    )
    elsewhere = Site(site.settings, another)
    workers = [start(site.settings)]

    def talk(turns: range) -> None:
        for n in turns:
            for c in range(12):
                (site, elsewhere)[n % 2].say(f"c{c}", n)
            site.flush()
            elsewhere.flush()
        sent = site.sent + elsewhere.sent
        wait_for(lambda: site.committed() == sent, "the commit of every record")

    with capture_logs() as logs:
        talk(range(4))
        split_at = workers[0].metric("partition_moves_total")
        # Set when the splits have been read.
        looked = workers[0].metric("last_turn_timestamp")
        wait_for(lambda: workers[0].metric("last_turn_timestamp") > looked + 1, "another look")
        talk(range(4, 6))
        assert workers[0].end() == 0
        workers.append(start(site.settings))
        talk(range(6, 8))
    on = {who: {e["input"]["partition"] for e in events} for who, events in told(site).items()}
    split = sorted(who for who, partitions in on.items() if len(partitions) == 2)
    assert 0 < len(split) == split_at < len(on)
    for who, events in told(site).items():
        late = [e["flags"] for e in events if int(e["utterance_id"].split("-")[1]) >= 4]
        assert late == [["moved"] if who in split else []] * 4
    lines = [line for line in logs if "several partitions" in line["event"]]
    assert sorted(line["conversation_id"] for line in lines) == split, "one line of each"
    assert workers[1].metric("partition_moves_total") == 0, "counted once"
    report = verify_topics(site.settings, SmallPredictor(), allow_truncation=False)
    assert report.violations == [] and report.counts["moved"] >= 4 * len(split)
