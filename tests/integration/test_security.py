"""TLS, SCRAM and ACLs on a real Apache Kafka, TLS and an ACL user on a real redis-server.

What docs/security.md grants is what is granted here; no secret is in whatever is said or logged.
"""

from __future__ import annotations

import json
import re
import socket
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event, Thread
from typing import Any, Final

import pytest
import structlog
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # public, not re-exported
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourcePatternType,
    ResourceType,
)
from kafka.errors import (
    KafkaConnectionError,
    SaslAuthenticationFailedError,
    UnsupportedSaslMechanismError,
)

from stream import main
from stream.brokers.kafka_admin import refusal, sasl_fault
from stream.brokers.topic_rules import ROLES
from stream.brokers.topics import create, plan
from stream.cli import serve
from stream.client import AlertSubscriber, PredictionSubscriber, Publisher
from stream.errors import AccessRefused
from stream.events.messages import TopicNames, Utterance
from stream.local.servers import free_ports
from stream.security import KafkaSecurity
from stream.serve import find_topics
from stream.settings import Settings, load_settings
from stream.worker.process import configure_log
from tests.conftest import ROOT, enter
from tests.deploy.chart import SECURED, container, environment, plain_settings, render
from tests.integration import secured
from tests.integration.secured import Certificates, SecuredKafka, SecuredRedis
from tests.integration.workers import ThreadWorker

pytestmark = pytest.mark.integration
PAGE: Final = (ROOT / "docs/security.md").read_text("utf-8")
RIGHT: Final = re.compile(
    r"^\| (worker|inspector) \| ([A-Z_, ]+) \| (topic|group) `([^`]+)` \|$", re.MULTILINE
)
ACL_LINE: Final = re.compile(r"^ACL SETUSER ((?:emotrack|inspector) on .*)$", re.MULTILINE)
TEAMS_PAGE: Final = (ROOT / "docs/teams.md").read_text("utf-8")
TEAM_RIGHT: Final = re.compile(
    r"^kafka-acls\.sh .* User:care (?:--resource-pattern-type prefixed --topic (\S+)|--group (\S+))"
    r"((?: --operation \w+)+)$",
    re.MULTILINE,
)
Env = dict[str, str]


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return secured.make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def broker(
    tmp_path_factory: pytest.TempPathFactory, certificates: Certificates
) -> Iterator[SecuredKafka]:
    """A broker whose users have the rights of the page; its `guest` only sees the topics."""
    folder, jars = tmp_path_factory.mktemp("secured-kafka"), ROOT / ".servers/kafka/jars"
    server = secured.secured_kafka(folder, jars, certificates)
    running = enter(server)
    create(running.plain, plan(TopicNames(), partitions=2))
    rights = RIGHT.findall(PAGE)
    assert len(rights) == 5 + 5
    grants = [
        acl(kind, name, user, operation)
        for user, operations, kind, name in rights
        for operation in operations.split(", ")
    ]
    seen = {name for _, _, kind, name in rights if kind == "topic"}
    grants += [acl("topic", name, "guest", "DESCRIBE") for name in seen]
    grants += [acl("topic", "emotrack.utterances", "guest", "DESCRIBE_CONFIGS")]
    admin = AdminClient({"bootstrap.servers": running.plain})
    for future in admin.create_acls(grants).values():
        future.result(10)
    yield running
    server.__exit__(None, None, None)


def acl(
    kind: str,
    name: str,
    user: str,
    operation: str,
    pattern: ResourcePatternType = ResourcePatternType.LITERAL,
) -> AclBinding:
    return AclBinding(
        ResourceType[kind.upper()],
        name,
        pattern,
        f"User:{user}",
        "*",
        AclOperation[operation],
        AclPermissionType.ALLOW,
    )


@pytest.fixture(scope="module")
def store(
    tmp_path_factory: pytest.TempPathFactory, certificates: Certificates
) -> Iterator[SecuredRedis]:
    """A redis-server whose users `emotrack` and `inspector` are those of the page."""
    server = secured.secured_redis(tmp_path_factory.mktemp("secured-redis"), certificates)
    running = enter(server)
    lines = ACL_LINE.findall(PAGE)
    assert len(lines) == 2
    for line in lines:
        running.acl(*line.replace("PASSWORD", secured.REDIS_PASSWORD).split())
    running.acl("guest", "on", f">{secured.REDIS_GUEST_PASSWORD}", "~other:*", "+@all")
    yield running
    server.__exit__(None, None, None)


@pytest.fixture
def env(
    broker: SecuredKafka, store: SecuredRedis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Env:
    """The settings of a worker that may do its work, passwords in files."""
    (tmp_path / "kafka").write_text(secured.WORKER_PASSWORD + "\n")
    (tmp_path / "redis").write_text(secured.REDIS_PASSWORD)
    return {
        "BOOTSTRAP": broker.bootstrap,
        "KAFKA_SECURITY": "sasl_ssl",
        "KAFKA_USERNAME": "worker",
        "KAFKA_PASSWORD_FILE": str(tmp_path / "kafka"),
        "KAFKA_CA_FILE": str(broker.certificates.ca),
        "REDIS_URL": store.url,
        "REDIS_USERNAME": "emotrack",
        "REDIS_PASSWORD_FILE": str(tmp_path / "redis"),
        "REDIS_CA_FILE": str(store.certificates.ca),
        "METRICS_PORT": "0",
    }


class Console:
    """The console entry in this process; whatever it says is looked through for secrets."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capfd = monkeypatch, capfd
        self.code: object = None

    def settle(self, env: Env) -> None:
        """Make this the environment."""
        for name, value in env.items():
            self._monkeypatch.setenv(f"EMOTRACK_{name}", value)

    def __call__(self, *argv: str) -> str:
        self._monkeypatch.setattr(sys, "argv", ["emotrack", *argv])
        with pytest.raises(SystemExit) as end:
            main.main()
        self.code = end.value.code
        return self.said()

    def said(self) -> str:
        """All that came out since it was last asked, without a secret in it."""
        out, err = self._capfd.readouterr()
        assert not [secret for secret in secured.SECRETS if secret in out + err]
        return out + err


@pytest.fixture
def console(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[Console]:
    monkeypatch.setattr(serve, "stop_on_signals", Event)
    yield Console(monkeypatch, capfd)
    structlog.reset_defaults()


def test_a_worker_with_the_rights_of_the_page_answers_over_tls(
    env: Env, console: Console, start: Callable[[Settings], ThreadWorker]
) -> None:
    """Publish, serve and watch, all as one user with a password, on encrypted connections."""
    console.settle(env)
    settings = load_settings({"log_level": "debug"})
    lines = configure_log(settings)
    admin = KafkaSecurity(
        "sasl_ssl",
        username="admin",
        password=secured.ADMIN_PASSWORD,
        ca_file=settings.kafka_ca_file,
    )
    worker = start(settings)
    with Publisher(settings.bootstrap, security=admin) as publisher:
        publisher.publish(Utterance("c", "u1", "s", text="hello"))
    with PredictionSubscriber(
        settings.bootstrap, from_beginning=True, timeout_s=10, security=admin
    ) as predictions:
        assert next(iter(predictions)).utterance_id == "u1"
    shown = b"".join(
        urllib.request.urlopen(f"{worker.url}/{page}", timeout=5).read()
        for page in ("metrics", "version", "readyz")
    ).decode()
    assert worker.end() == 0
    lines.close()
    assert not [s for s in secured.SECRETS if s in shown + repr(settings)]
    assert "partitions assigned" in console.said()


def test_every_command_obeys_the_same_settings(
    env: Env, console: Console, small_model: None
) -> None:
    as_admin = {"KAFKA_USERNAME": "admin", "KAFKA_PASSWORD": secured.ADMIN_PASSWORD}
    console.settle(env | as_admin | {"KAFKA_PASSWORD_FILE": ""})
    assert "emotrack.utterances: already there" in console("topics", "create", "--partitions", "2")
    assert "LogAppendTime" in console("topics", "describe", "--partitions", "2")
    said = console("doctor")
    assert console.code == 0, said
    assert re.search("OK +broker: .* over sasl_ssl as admin", said)
    source = ROOT / "stream/local/demo_conversations/kitchen.jsonl"
    assert "all acknowledged" in console("publish", str(source))
    assert "0 alerts" in console("watch", "alerts", "--timeout", "0.3")


def test_the_doctor_finds_a_worker_of_the_page_healthy(
    env: Env, console: Console, small_model: None
) -> None:
    console.settle(env)
    said = console("doctor")
    assert console.code == 0, said
    assert re.search("OK +rights: ", said)
    assert re.search("OK +redis: Redis 7", said)


def test_an_inspector_of_the_page_may_look_and_change_nothing(
    env: Env, console: Console, start: Callable[[Settings], ThreadWorker]
) -> None:
    console.settle(env)
    settings = load_settings()
    admin = KafkaSecurity(
        "sasl_ssl",
        username="admin",
        password=secured.ADMIN_PASSWORD,
        ca_file=settings.kafka_ca_file,
    )
    worker = start(settings)
    with Publisher(settings.bootstrap, security=admin) as publisher:
        publisher.publish(Utterance("looked-at", "u1", "s", text="hello"))
    with PredictionSubscriber(
        settings.bootstrap, from_beginning=True, timeout_s=10, security=admin
    ) as predictions:
        assert any(p.conversation_id == "looked-at" for p in predictions)
    assert worker.end() == 0
    console.said()
    console.settle(
        {
            "KAFKA_USERNAME": "inspector",
            "KAFKA_PASSWORD": secured.INSPECTOR_PASSWORD,
            "KAFKA_PASSWORD_FILE": "",
            "REDIS_USERNAME": "inspector",
        }
    )
    said = console("verify")
    assert console.code == 0, said
    assert "I8  ok" in said
    assert "looked-at" in console("conversations", "show", "looked-at")
    assert "dead letters" in console("dlq", "list")
    console.settle({"ALLOW_CREATE_TIME": "true"})  # may not be asked for: DESCRIBE_CONFIGS
    refused(console("serve"), "inspector lacks WRITE on topic emotrack.predictions")


def test_a_team_with_the_rights_of_its_page_works_and_reads_nothing_of_another(
    broker: SecuredKafka, env: Env, console: Console, small_model: None
) -> None:
    """The two commands of docs/teams.md, carried out for another user."""
    create(broker.plain, plan(TopicNames("care."), partitions=2))
    grants = []
    for prefix, group, operations in TEAM_RIGHT.findall(TEAMS_PAGE):
        kind, name = ("topic", prefix) if prefix else ("group", group)
        pattern = ResourcePatternType.PREFIXED if prefix else ResourcePatternType.LITERAL
        grants += [
            acl(kind, name, "guest", operation, pattern)
            for operation in re.findall(r"--operation (\w+)", operations)
        ]
    assert len(grants) == 4 + 3
    admin = AdminClient({"bootstrap.servers": broker.plain})
    for future in admin.create_acls(grants).values():
        future.result(10)
    as_guest = {"KAFKA_USERNAME": "guest", "KAFKA_PASSWORD": secured.GUEST_PASSWORD}
    team = {"KAFKA_PASSWORD_FILE": "", "TOPIC_PREFIX": "care.", "GROUP": "care"}
    console.settle(env | as_guest | team)
    said = console("doctor")
    assert console.code == 0, said
    console.settle({"TOPIC_PREFIX": "emotrack."})
    refused(console("serve"), "guest lacks READ on topic emotrack.utterances")


def test_rights_that_are_missing_are_named_as_rights(
    broker: SecuredKafka, env: Env, console: Console, small_model: None
) -> None:
    """Each command names what it lacks, and works with it."""
    prefix, group = "rights.", "rights"
    topics = [getattr(TopicNames(prefix), role) for role in ROLES]
    as_guest = {
        "KAFKA_USERNAME": "guest",
        "KAFKA_PASSWORD": secured.GUEST_PASSWORD,
        "KAFKA_PASSWORD_FILE": "",
        "TOPIC_PREFIX": prefix,
        "GROUP": group,
    }
    console.settle(env | as_guest)
    admin = AdminClient({"bootstrap.servers": broker.plain})

    def allow(kind: str, names: list[str], *operations: str) -> None:
        grants = [acl(kind, name, "guest", each) for name in names for each in operations]
        for future in admin.create_acls(grants).values():
            future.result(10)

    def lacks(check: str, right: str) -> None:
        said = console("doctor")
        (line,) = re.findall(rf"^FAIL +{check}: (.*)$", said, re.M)
        assert f"guest lacks {right}" in line and "docs/security.md" in line, line
        assert "no Kafka broker answers" not in said and "start one" not in said

    refused(console("topics", "create"), f"guest lacks DESCRIBE on topic {topics[0]}, topic")
    allow("topic", topics, "DESCRIBE")
    refused(console("topics", "create"), f"guest lacks CREATE on topic {topics[0]}")
    allow("topic", topics, "CREATE")
    said = console("topics", "create", "--partitions", "2")
    assert console.code == 0, said
    assert f"guest lacks DESCRIBE_CONFIGS on topic {topics[3]}" in said
    assert "None" not in said
    assert f"guest lacks DESCRIBE_CONFIGS on group {group}" in said
    lacks("topics", f"DESCRIBE_CONFIGS on topic {topics[0]}")
    lacks("rights", f"READ on topic {topics[0]}, WRITE on topic {topics[1]}")
    allow("topic", topics[:1], "DESCRIBE_CONFIGS", "READ")
    allow("topic", topics[1:], "WRITE")
    allow("group", [group], "READ", "DESCRIBE")
    said = console("doctor")
    assert console.code == 0, said
    assert f"since guest lacks DESCRIBE_CONFIGS on topic {topics[1]}, topic {topics[2]}" in said
    assert "classic protocol, since guest lacks DESCRIBE_CONFIGS on group rights" in said
    allow("group", [group], "DESCRIBE_CONFIGS")
    assert "Kafka 4's protocol" in console("doctor")
    console.settle({"SESSION_TIMEOUT_MS": "5000"})
    said = console("topics", "create", "--partitions", "2")
    assert "since guest lacks ALTER_CONFIGS on group rights" in said
    allow("group", [group], "ALTER_CONFIGS")
    said = console("topics", "create", "--partitions", "2")
    assert "group rights: consumer.session.timeout.ms=5000 is set" in said
    allow("topic", topics, "DESCRIBE_CONFIGS")
    as_admin = AdminClient({"bootstrap.servers": broker.plain})
    wrong = ConfigResource(ConfigResource.Type.TOPIC, topics[1])
    wrong.add_incremental_config(
        ConfigEntry("cleanup.policy", "compact", incremental_operation=AlterConfigOpType.SET)
    )
    for future in as_admin.incremental_alter_configs([wrong]).values():
        future.result(10)
    refused(console("topics", "fix"), f"guest lacks ALTER_CONFIGS on topic {topics[1]}")
    allow("topic", topics, "ALTER_CONFIGS")
    assert f"{topics[1]}: cleanup.policy=delete is set" in console("topics", "fix")


def test_a_user_who_may_see_nothing_is_told_which_right_is_missing(
    env: Env, console: Console, small_model: None
) -> None:
    """Brokers hide topics from who may not describe them: they are not missing."""
    hidden = {"KAFKA_USERNAME": "inspector", "KAFKA_PASSWORD": secured.INSPECTOR_PASSWORD}
    console.settle(env | hidden | {"KAFKA_PASSWORD_FILE": "", "TOPIC_PREFIX": "hidden."})
    said = console("doctor")
    for check in ("topics", "rights"):
        (line,) = re.findall(rf"^FAIL +{check}: (.*)$", said, re.M)
        assert re.search(r"inspector lacks DESCRIBE( and READ)? on topic hidden\.utterances", line)
    refused(console("serve"), "inspector lacks DESCRIBE on topic hidden.utterances")


def test_our_own_certificate_is_enough_for_a_broker_that_asks_for_one(
    env: Env, broker: SecuredKafka, console: Console
) -> None:
    """Both client libraries show it: `find_topics` asks with one and then with the other."""
    certificates = broker.certificates
    mutual = {
        "BOOTSTRAP": broker.mutual,
        "KAFKA_SECURITY": "ssl",
        "KAFKA_USERNAME": "",
        "KAFKA_PASSWORD_FILE": "",
        "KAFKA_CERT_FILE": str(certificates.client_cert),
        "KAFKA_KEY_FILE": str(certificates.client_key),
    }
    console.settle(env | mutual)
    assert re.fullmatch(r"[\w+/-]{22}", find_topics(load_settings()))
    console.settle({"KAFKA_CERT_FILE": "", "KAFKA_KEY_FILE": ""})
    with pytest.raises(AccessRefused, match="EMOTRACK_KAFKA_CERT_FILE"):
        find_topics(load_settings())


KAFKA_FAULTS: Final[list[tuple[str, Env, str, int]]] = [
    ("a wrong password", {"KAFKA_PASSWORD": secured.WRONG_PASSWORD}, "not take user worker", 11),
    ("an unknown user", {"KAFKA_USERNAME": "stranger"}, "does not take user stranger", 11),
    ("a mechanism not offered", {"KAFKA_SASL_MECHANISM": "PLAIN"}, "does not offer PLAIN", 11),
    ("an expired certificate", {"BOOTSTRAP": "expired"}, "certificate has expired: renew", 11),
    ("a strange authority", {"KAFKA_CA_FILE": "other"}, "EMOTRACK_KAFKA_CA_FILE", 11),
    ("a port without TLS", {"BOOTSTRAP": "plain"}, "check the port, and EMOTRACK_KAFKA_SEC", 11),
    (
        "TLS where we want none",
        {"KAFKA_SECURITY": "plaintext"},
        "speaks TLS: set EMOTRACK_KAFKA_SEC",
        11,
    ),
    ("a user without rights", {"KAFKA_USERNAME": "guest"}, "guest lacks READ on topic emo", 11),
    ("a password file that is missing", {"KAFKA_PASSWORD_FILE": "/none"}, "/none cannot be", 2),
    ("an authority file that is none", {"KAFKA_CA_FILE": "key"}, "no PEM file of ours", 2),
]


@pytest.mark.parametrize(("fault", "changes", "says", "code"), KAFKA_FAULTS)
def test_what_kafka_does_not_accept_is_one_sentence(
    fault: str, changes: Env, says: str, code: int, env: Env, console: Console, broker: SecuredKafka
) -> None:
    places = {
        "expired": broker.expired,
        "plain": broker.plain,
        "other": str(broker.certificates.other_ca),
        "key": str(broker.certificates.client_key),
    }
    changes = {name: places.get(value, value) for name, value in changes.items()}
    if "KAFKA_PASSWORD" in changes:
        changes["KAFKA_PASSWORD_FILE"] = ""
    if changes.get("KAFKA_USERNAME") == "guest":
        changes |= {"KAFKA_PASSWORD": secured.GUEST_PASSWORD, "KAFKA_PASSWORD_FILE": ""}
    if changes.get("KAFKA_SECURITY") == "plaintext":
        changes |= {"KAFKA_USERNAME": "", "KAFKA_PASSWORD_FILE": "", "KAFKA_CA_FILE": ""}
    console.settle(env | changes)
    refused(console("serve"), says)
    assert console.code == code, fault


REDIS_FAULTS: Final[list[tuple[str, Env, str]]] = [
    ("a wrong password", {"REDIS_PASSWORD": secured.WRONG_PASSWORD}, "correct user and password"),
    ("a user without rights", {"REDIS_USERNAME": "guest"}, "the ACL line of docs/security.md"),
    ("an expired certificate", {"REDIS_URL": "expired"}, "certificate has expired: renew"),
    ("a strange authority", {"REDIS_CA_FILE": "other"}, "EMOTRACK_REDIS_CA_FILE"),
    ("TLS where we want none", {"REDIS_URL": "plain"}, "use rediss:// in EMOTRACK_REDIS_URL"),
]


@pytest.mark.parametrize(("fault", "changes", "says"), REDIS_FAULTS)
def test_what_redis_does_not_accept_is_one_sentence(
    fault: str,
    changes: Env,
    says: str,
    env: Env,
    console: Console,
    store: SecuredRedis,
    small_model: None,
    tmp_path: Path,
) -> None:
    if "REDIS_PASSWORD" in changes:
        changes = changes | {"REDIS_PASSWORD_FILE": ""}
    if changes.get("REDIS_USERNAME") == "guest":
        changes = changes | {
            "REDIS_PASSWORD": secured.REDIS_GUEST_PASSWORD,
            "REDIS_PASSWORD_FILE": "",
        }
    if changes.get("REDIS_URL") == "plain":
        changes = {"REDIS_URL": store.url.replace("rediss", "redis"), "REDIS_CA_FILE": ""}
    if changes.get("REDIS_CA_FILE"):
        changes = {"REDIS_CA_FILE": str(store.certificates.other_ca)}
    if changes.get("REDIS_URL") != "expired":
        console.settle(env | changes)
        refused(console("serve"), says)
    else:
        with secured.secured_redis(tmp_path, store.certificates, expired=True) as old:
            console.settle(env | {"REDIS_URL": old.url})
            refused(console("serve"), says)
    assert console.code == 5, fault


def refused(said: str, says: str) -> None:
    """One error line, with this in it, and no traceback."""
    assert "Traceback" not in said
    errors = [line for line in said.splitlines() if line.startswith("error:")]
    assert len(errors) == 1, said
    assert says in errors[0], errors


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"username": "stranger"}, SaslAuthenticationFailedError),
        ({"password": "wrong"}, SaslAuthenticationFailedError),
        ({"mechanism": "PLAIN"}, UnsupportedSaslMechanismError),
        ({}, None),
    ],
)
def test_a_broker_that_answers_and_hangs_up_at_once_is_heard(
    changes: dict[str, str], fault: type[Exception] | None, broker: SecuredKafka
) -> None:
    """kafka-python loses such an answer when it is late in reading; the probe never does."""
    given: dict[str, Any] = {"username": "guest", "password": secured.GUEST_PASSWORD} | changes
    who = KafkaSecurity("sasl_ssl", ca_file=broker.certificates.ca, **given)
    found = sasl_fault(broker.bootstrap, who, 20.0)
    assert (None if found is None else type(found)) is fault
    told = refusal(broker.bootstrap, who, [KafkaConnectionError("socket disconnected")])
    assert isinstance(told, AccessRefused) == (fault is not None)


def test_nobody_there_is_no_answer() -> None:
    assert (
        sasl_fault("127.0.0.1:1", KafkaSecurity("sasl_plaintext", username="a", password="b"), 1.0)
        is None
    )


def test_an_answer_that_is_not_kafkas_is_none() -> None:
    who = KafkaSecurity("sasl_plaintext", username="ann", password="secret")
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def greet() -> None:
            with listening.accept()[0] as guest:
                guest.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                guest.recv(4096)

        greeter = Thread(target=greet)
        greeter.start()
        try:
            assert sasl_fault(f"127.0.0.1:{listening.getsockname()[1]}", who, 5.0) is None
        finally:
            greeter.join(10)


def test_a_client_without_rights_is_told_so(broker: SecuredKafka, console: Console) -> None:
    guest = KafkaSecurity(
        "sasl_ssl",
        username="guest",
        password=secured.GUEST_PASSWORD,
        ca_file=broker.certificates.ca,
    )
    with pytest.raises(AccessRefused, match="does not allow guest"):  # noqa: SIM117
        with Publisher(broker.bootstrap, security=guest) as publisher:
            publisher.publish(Utterance("c", "u", "s", text="hello"))
    with pytest.raises(AccessRefused, match=r"docs/security\.md"):  # noqa: SIM117
        with AlertSubscriber(
            broker.bootstrap, from_beginning=True, timeout_s=5, security=guest
        ) as alerts:
            next(iter(alerts))
    assert not console.said()


def test_a_log_in_json_names_no_secret(env: Env, console: Console) -> None:
    console.settle(env | {"LOG_FORMAT": "json"})
    lines = configure_log(load_settings())
    structlog.get_logger().info("settings", settings=str(load_settings()))
    lines.close()
    assert json.loads(console.said())["event"] == "settings"


def test_the_chart_s_secured_example_is_healthy_on_these_servers(
    broker: SecuredKafka,
    store: SecuredRedis,
    console: Console,
    small_model: None,
    tmp_path: Path,
) -> None:
    """The rendered environment with its Secrets filled in and their files where it looks."""
    objects = render(SECURED, f"kafka.bootstrap={broker.bootstrap}")
    secrets = {
        ("kafka-login", "password"): secured.WORKER_PASSWORD,
        ("redis-login", "password"): secured.REDIS_PASSWORD,
        ("redis-login", "url"): store.url,
    }
    env = plain_settings(objects)
    for name, entry in environment(objects).items():
        if source := entry.get("valueFrom"):
            of = source["secretKeyRef"]
            env[name.removeprefix("EMOTRACK_").lower()] = secrets[of["name"], of["key"]]
    for mount in container(objects)["volumeMounts"]:
        if mount["name"] in ("kafka-ca", "redis-ca"):
            place = tmp_path / mount["name"]
            place.mkdir()
            (place / "ca.crt").write_bytes(broker.certificates.ca.read_bytes())
            env = {n: v.replace(mount["mountPath"], str(place)) for n, v in env.items()}
    env["metrics_port"] = str(free_ports(1)[0])  # the pod's own is one for all here
    console.settle({name.upper(): value for name, value in env.items()})
    said = console("doctor")
    assert console.code == 0, said
    assert re.search("OK +broker: .* over sasl_ssl as worker", said)
    assert re.search("OK +rights: ", said) and re.search("OK +redis: Redis 7", said)
