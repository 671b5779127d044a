"""Changes of a broker under a running worker that cost nothing: a quota, and more partitions."""

from __future__ import annotations

import subprocess
import uuid
from collections.abc import Callable
from dataclasses import replace

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewPartitions  # type: ignore[attr-defined]  # public

from stream.local.servers import need
from stream.settings import Settings
from stream.verify.run import verify_topics
from tests.conftest import ROOT
from tests.fakes.predictor import SmallPredictor
from tests.integration.workers import Site, ThreadWorker, wait_for

pytestmark = [pytest.mark.integration, pytest.mark.slow]

Start = Callable[[Settings], ThreadWorker]


def throttle(site: Site, client: str) -> None:
    """Give a client some kilobytes a second."""
    argv = [need("java", "install a JRE"), "-Xmx128M", "-cp", f"{ROOT}/.servers/kafka/jars/*"]
    argv += ["kafka.admin.ConfigCommand", "--bootstrap-server", site.settings.bootstrap]
    argv += ["--alter", "--entity-type", "clients", "--entity-name", client, "--add-config"]
    rates = "consumer_byte_rate=4000,producer_byte_rate=4000,request_percentage=20"
    subprocess.run([*argv, rates], check=True, capture_output=True, timeout=60)


def test_a_quota_makes_a_worker_slow_and_costs_it_nothing(site: Site, start: Start) -> None:
    client = f"c{uuid.uuid4().hex[:8]}"
    worker = start(site.settings.model_copy(update={"kafka_options": {"client.id": client}}))
    site.say("c", 0)
    site.flush()
    wait_for(lambda: site.committed() == 1, "the first answer")
    throttle(site, client)
    for n in range(1, 61):
        site.say(f"c{n % 5}", n)
    site.flush()
    wait_for(lambda: worker.metric("consumer_lag_records") > 0, "some lag")
    wait_for(lambda: site.committed() == site.sent, "the commit of all", 120)
    assert worker.metric('rebalances_total{kind="lost"}') == 0
    report = verify_topics(site.settings, SmallPredictor(), allow_truncation=False)
    assert report.violations == []
    assert report.counts["predictions"] >= site.sent
    assert worker.end() == 0


def test_partitions_that_are_added_are_read(site: Site, start: Start) -> None:
    worker = start(site.settings)
    for n in range(20):
        site.say(f"c{n}", 0)
    site.flush()
    wait_for(lambda: site.committed() == site.sent, "the first commits")
    admin = AdminClient({"bootstrap.servers": site.settings.bootstrap})
    topic = site.settings.topics.utterances
    admin.create_partitions([NewPartitions(topic, 4)])[topic].result(10)
    wider = replace(
        site,
        partitions=4,
        producer=Producer(  # it knows of them at once
            {"bootstrap.servers": site.settings.bootstrap, "partitioner": "murmur2_random"}
        ),
    )
    for n in range(20):
        wider.say(f"c{n}", 1)
    wider.flush()
    assert all(wider.ends_of(topic)), "each has some"
    wait_for(lambda: wider.committed() == wider.sent, "the commits of all four", 60)
    assert worker.metric("partition_moves_total") > 0
    assert verify_topics(site.settings, SmallPredictor()).violations == []
    assert worker.end() == 0
