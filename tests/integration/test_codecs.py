"""Topics that a broker compresses: every reader of ours reads every codec of Kafka."""

from __future__ import annotations

from collections.abc import Callable

import kafka
import pytest
from kafka.admin import ConfigResource
from typer.testing import CliRunner

from stream import main
from stream.brokers.topic_reader import TopicReader
from stream.client import AlertSubscriber, PredictionSubscriber
from stream.errors import TopicUnfit
from stream.settings import Settings
from stream.verify.run import verify_topics
from tests.fakes.predictor import SmallPredictor
from tests.integration.workers import Site, ThreadWorker, wait_for

pytestmark = pytest.mark.integration

CODECS = ("uncompressed", "gzip", "snappy", "lz4", "zstd")


def compress(site: Site, codec: str) -> None:
    topics = site.settings.topics
    names = (topics.utterances, topics.predictions, topics.shift_alerts, topics.dead_letters)
    admin = kafka.KafkaAdminClient(bootstrap_servers=site.settings.bootstrap)
    admin.alter_configs([ConfigResource("TOPIC", n, {"compression.type": codec}) for n in names])
    admin.close()


@pytest.mark.parametrize("codec", CODECS)
def test_every_reader_reads_it(
    site: Site, start: Callable[[Settings], ThreadWorker], codec: str
) -> None:
    compress(site, codec)
    start(site.settings)
    for n in range(20):
        site.say("swinging", n, features={"audio": {"tensor": [4.0 * (n // 2 % 2), 1.0]}})
    site.send(b"{", b"swinging")
    site.flush()
    wait_for(lambda: site.committed() == site.sent, "the commits")
    at = [f"--bootstrap={site.settings.bootstrap}", f"--topic-prefix={site.settings.topic_prefix}"]
    watched = ["watch", "predictions", *at, "--from-beginning", "--limit=20", "--timeout=10"]
    told = CliRunner().invoke(main.app, [*watched, "--jsonl"])
    assert told.exit_code == 0, told.output
    assert told.output.count('"utterance_id":"swinging-') == 20
    topics = site.settings.topics
    with PredictionSubscriber(
        site.settings.bootstrap, topic=topics.predictions, from_beginning=True, timeout_s=2
    ) as predictions:
        assert len(list(predictions)) == 20
    with AlertSubscriber(
        site.settings.bootstrap, topic=topics.shift_alerts, from_beginning=True, timeout_s=2
    ) as alerts:
        assert len(list(alerts)) == site.ends(topics.shift_alerts)
    listed = CliRunner().invoke(main.app, ["dlq", "list", *at])
    assert listed.exit_code == 0 and "bad_json" in listed.output, listed.output
    with TopicReader(site.settings) as reader:
        bounds = reader.bounds(topics.utterances)
        chunks = [c for p, b in bounds.items() for c in reader.read(topics.utterances, p, b)]
    assert sum(map(len, chunks)) == 21
    assert verify_topics(site.settings, SmallPredictor()).violations == []


def test_a_codec_that_is_not_installed_is_named(
    site: Site, start: Callable[[Settings], ThreadWorker], monkeypatch: pytest.MonkeyPatch
) -> None:
    compress(site, "zstd")
    start(site.settings)
    site.say("c", 0)
    site.flush()
    wait_for(lambda: site.committed() == site.sent, "the commit")
    monkeypatch.setattr("kafka.codec.zstd", None)
    with (
        PredictionSubscriber(
            site.settings.bootstrap,
            topic=site.settings.topics.predictions,
            from_beginning=True,
            timeout_s=10,
        ) as predictions,
        pytest.raises(TopicUnfit, match=r"zstd.*pip install 'kafka-python\[lz4,snappy,zstd\]'"),
    ):
        list(predictions)
