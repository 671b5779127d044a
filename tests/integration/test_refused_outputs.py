"""Answers that a broker will not take: held, said with the cure, and sent after the cure."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, MutableMapping
from pathlib import Path
from typing import Any

import kafka
import pytest
from confluent_kafka.admin import AdminClient
from kafka.admin import ConfigResource
from structlog.testing import capture_logs
from typer.testing import CliRunner

from stream import main
from stream.brokers.topics import create, plan
from stream.serve import NOT_DRAINED
from stream.settings import Settings
from stream.verify.run import verify_topics
from tests.fakes.predictor import SmallPredictor
from tests.integration.workers import Site, ThreadWorker, wait_for

pytestmark = pytest.mark.integration


def configure(site: Site, topic: str, **settings: str) -> None:
    admin = kafka.KafkaAdminClient(bootstrap_servers=site.settings.bootstrap)
    named = {name.replace("_", "."): value for name, value in settings.items()}
    admin.alter_configs([ConfigResource("TOPIC", topic, named)])
    admin.close()


def too_large(site: Site) -> str:
    configure(site, site.settings.topics.predictions, max_message_bytes="300")
    return "max.message.bytes"


def without_key(site: Site) -> str:
    configure(site, site.settings.topics.dead_letters, cleanup_policy="compact")
    site.send(b"{", None)
    return "cleanup.policy"


def deleted(site: Site) -> str:
    admin, topic = AdminClient({"bootstrap.servers": site.settings.bootstrap}), "predictions"
    name = getattr(site.settings.topics, topic)
    admin.delete_topics([name])[name].result(10)
    return "emotrack topics create"


def parts(worker: ThreadWorker) -> dict[str, bool]:
    """The conditions of /readyz."""
    try:
        with urllib.request.urlopen(f"{worker.url}/readyz", timeout=5) as answer:
            body = answer.read()
    except urllib.error.HTTPError as error:
        body = error.read()
    return dict(json.loads(body))


@pytest.fixture
def logged() -> Iterator[list[MutableMapping[str, Any]]]:
    """The log's lines, whatever an earlier test told it to write to."""
    with capture_logs() as lines:
        yield lines


@pytest.mark.parametrize(
    ("fault", "delivery"),
    [
        (too_large, "at_least_once"),
        (too_large, "transactional"),
        (without_key, "at_least_once"),
        (without_key, "transactional"),
        (deleted, "at_least_once"),
        (deleted, "transactional"),
    ],
)
def test_it_is_held_and_goes_out_after_the_cure(
    site: Site,
    start: Callable[[Settings], ThreadWorker],
    logged: list[MutableMapping[str, Any]],
    fault: Callable[[Site], str],
    delivery: str,
    tmp_path: Path,
) -> None:
    changes = {"delivery": delivery, "delivery_timeout_ms": 5_000}
    worker = start(site.settings.model_copy(update=changes))
    site.say("c", 0)
    site.flush()
    wait_for(lambda: site.committed() == 1, "the first answer")
    cure = fault(site)
    for n in range(1, 8):
        site.say("c", n)
    site.flush()

    def held() -> bool:
        return any(line["log_level"] == "error" and cure in str(line) for line in logged)

    wait_for(held, "the sentence", 60)
    assert not parts(worker)["outputs_taken"]
    assert site.committed() < site.sent
    at = [f"--bootstrap={site.settings.bootstrap}", f"--topic-prefix={site.settings.topic_prefix}"]
    if fault is deleted:
        create(site.settings.bootstrap, plan(site.settings.topics, partitions=2))
    else:
        assert CliRunner().invoke(main.app, ["topics", "fix", *at]).exit_code == 0
    wait_for(lambda: site.committed() == site.sent, "the commit of all", 60)
    wait_for(lambda: all(parts(worker).values()), "readiness")
    if fault is not deleted:
        report = verify_topics(site.settings, SmallPredictor(), allow_truncation=False)
        assert report.violations == []
        assert report.counts["predictions"] >= 8
    assert worker.end() == 0


def test_a_worker_that_may_not_answer_ends_at_once(
    site: Site, start: Callable[[Settings], ThreadWorker], logged: list[MutableMapping[str, Any]]
) -> None:
    """Its drain would only repeat the refusal, for the whole of the budget and longer."""
    changes = {"delivery": "transactional", "delivery_timeout_ms": 5_000, "drain_budget_s": 600.0}
    worker = start(site.settings.model_copy(update=changes))
    site.say("c", 0)
    site.flush()
    wait_for(lambda: site.committed() == 1, "the first answer")
    cure = deleted(site)
    site.say("c", 1)
    site.flush()
    wait_for(lambda: cure in str([line for line in logged if line["log_level"] == "error"]), cure)
    assert worker.end() == NOT_DRAINED
    assert site.committed() == 1
