"""Brokers that are somewhere else, or something else, than a client was told: true sentences."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from stream import main
from stream.brokers.kafka_admin import connected_admin
from stream.brokers.topics import create, plan
from stream.errors import AccessRefused
from stream.events.messages import TopicNames
from stream.local.servers import Listeners, RunningKafka, apache_kafka, free_ports
from stream.security import KafkaSecurity
from tests.conftest import ROOT
from tests.integration import secured
from tests.integration.secured import Certificates

pytestmark = pytest.mark.integration

NOWHERE = "kafka-internal.invalid:9092"
LISTENERS = {
    "LOST": "PLAINTEXT",  # advertised under a name that nobody can resolve
    "DEAD": "PLAINTEXT",  # advertised where nothing listens
    "TLS": "SSL",
    "USERS": "SASL_PLAINTEXT",
    "BOTH": "SASL_SSL",
}
KITCHEN = "stream/local/demo_conversations/kitchen.jsonl"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return secured.make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def dead() -> int:
    (port,) = free_ports(1)
    return port


@pytest.fixture(scope="module")
def broker(
    tmp_path_factory: pytest.TempPathFactory, certificates: Certificates, dead: int
) -> Iterator[RunningKafka]:
    told = {}
    for name in ("tls", "both"):
        told[f"listener.name.{name}.ssl.keystore.type"] = "PEM"
        told[f"listener.name.{name}.ssl.keystore.location"] = str(certificates.server)
    for name in ("users", "both"):
        told[f"listener.name.{name}.sasl.enabled.mechanisms"] = "SCRAM-SHA-512"
        told[f"listener.name.{name}.scram-sha-512.sasl.jaas.config"] = (
            "org.apache.kafka.common.security.scram.ScramLoginModule required;"
        )
    formatting = ["--add-scram", "SCRAM-SHA-512=[name=ann,password=secret]"]
    listeners = Listeners(LISTENERS, told, formatting, {"LOST": NOWHERE, "DEAD": dead})
    folder = tmp_path_factory.mktemp("kafka")
    with apache_kafka(folder, ROOT / ".servers/kafka/jars", listeners) as running:
        create(running.bootstrap, plan(TopicNames(), partitions=1))
        yield running


@pytest.mark.parametrize(
    "command",
    ["serve", f"publish {KITCHEN}", "watch", "topics create", "topics fix", "doctor"],
)
@pytest.mark.parametrize("listener", ["LOST", "DEAD"])
def test_the_host_that_a_broker_sends_clients_to_is_named(
    broker: RunningKafka,
    dead: int,
    listener: str,
    command: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    bootstrap = broker.listeners[listener]
    argv = ["emotrack", *command.split(), "--bootstrap", bootstrap]
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("EMOTRACK_REDIS_URL", "memory://")
    monkeypatch.setattr(sys, "argv", argv)
    with pytest.raises(SystemExit) as end:
        main.main()
    said = "".join(capfd.readouterr())
    assert end.value.code == (1 if command == "doctor" else 3)
    assert "Traceback" not in said
    (line,) = [line for line in said.splitlines() if "advertised.listeners" in line]
    assert bootstrap in line
    assert (NOWHERE if listener == "LOST" else f"127.0.0.1:{dead}") in line
    assert "PLAINTEXT" not in line, "the protocol is right"
    if command == "doctor":
        assert line.startswith("FAIL   broker")


SAYS = {
    # What the client was told, and the listener: the sentence's sign. None: it works.
    ("plaintext", "PLAINTEXT"): None,
    ("plaintext", "TLS"): "speaks TLS: set EMOTRACK_KAFKA_SECURITY to ssl or sasl_ssl",
    ("plaintext", "USERS"): "wants a user: set EMOTRACK_KAFKA_SECURITY to sasl_plaintext",
    ("plaintext", "BOTH"): "speaks TLS: set EMOTRACK_KAFKA_SECURITY to ssl or sasl_ssl",
    ("ssl", "PLAINTEXT"): "a port without TLS does: check the port, and EMOTRACK_KAFKA_SECURITY",
    ("ssl", "TLS"): None,
    ("ssl", "USERS"): "a port without TLS does: check the port, and EMOTRACK_KAFKA_SECURITY",
    ("ssl", "BOTH"): "wants a user: set EMOTRACK_KAFKA_SECURITY to sasl_ssl",
    ("sasl_plaintext", "PLAINTEXT"): "takes no user there: set EMOTRACK_KAFKA_SECURITY to plain",
    ("sasl_plaintext", "TLS"): "speaks TLS: set EMOTRACK_KAFKA_SECURITY to ssl or sasl_ssl",
    ("sasl_plaintext", "USERS"): None,
    ("sasl_plaintext", "BOTH"): "speaks TLS: set EMOTRACK_KAFKA_SECURITY to ssl or sasl_ssl",
    ("sasl_ssl", "PLAINTEXT"): "a port without TLS does: check the port",
    ("sasl_ssl", "TLS"): "takes no user there: set EMOTRACK_KAFKA_SECURITY to ssl",
    ("sasl_ssl", "USERS"): "a port without TLS does: check the port",
    ("sasl_ssl", "BOTH"): None,
}


@pytest.mark.parametrize(("protocol", "listener"), SAYS)
def test_a_protocol_that_is_not_the_listeners_is_named(
    broker: RunningKafka, certificates: Certificates, protocol: str, listener: str
) -> None:
    address = {"PLAINTEXT": broker.bootstrap, **broker.listeners}[listener]
    told: dict[str, object] = {"ca_file": certificates.ca} if "ssl" in protocol else {}
    if protocol.startswith("sasl"):
        told |= {"username": "ann", "password": "secret"}
    security = KafkaSecurity(protocol, **told)  # type: ignore[arg-type]
    says = SAYS[protocol, listener]
    if says is None:
        with connected_admin(address, 3.0, security) as admin:
            assert admin.list_topics()
        return
    with pytest.raises(AccessRefused) as refused, connected_admin(address, 3.0, security):
        pass
    assert says in str(refused.value)
    assert "does not answer as a Kafka broker" not in str(refused.value)
