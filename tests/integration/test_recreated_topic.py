"""A topic that is deleted, or made anew, under a running worker: one sentence and an exit code."""

from __future__ import annotations

from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient

from stream.brokers.topics import create, plan
from stream.errors import TopicMissing
from tests.integration.workers import ChildWorker, Site, wait_for

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("anew", [True, False])
@pytest.mark.parametrize("busy", [True, False])
def test_a_worker_whose_topic_is_deleted_ends_with_a_sentence(
    site: Site, tmp_path: Path, anew: bool, busy: bool
) -> None:
    worker = ChildWorker(site.settings, tmp_path)
    try:
        worker.wait_ready()
        for n in range(20):
            site.say(f"c{n % 4}", n)
        site.flush()
        wait_for(lambda: site.committed() == site.sent, "the commits")
        if busy:
            for n in range(20, 500):
                site.say(f"c{n % 4}", n)
        admin = AdminClient({"bootstrap.servers": site.settings.bootstrap})
        topic = site.settings.topics.utterances
        admin.delete_topics([topic])[topic].result(10)
        if anew:
            wait_for(lambda: topic not in admin.list_topics(timeout=5).topics, "the deletion")
            create(site.settings.bootstrap, plan(site.settings.topics, partitions=2))
        wait_for(lambda: worker.process.poll() is not None, "the worker's end", 25)
    finally:
        said = worker.log.read_text()
        worker.end()
    assert worker.process.returncode == TopicMissing.exit_code, said[-3000:]
    assert "Traceback" not in said
    (line,) = [line for line in said.splitlines() if line.startswith("error:")]
    assert site.settings.topics.utterances in line
