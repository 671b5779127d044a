"""Passwords change while conversations are live, as docs/security.md says, on real servers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import pytest
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # public, not re-exported
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialAlteration,
    UserScramCredentialDeletion,
    UserScramCredentialUpsertion,
)

from stream.client import PredictionSubscriber, Publisher
from stream.errors import AccessRefused, StoreUnfit
from stream.events.messages import Utterance
from stream.security import KafkaSecurity
from stream.settings import Settings, load_settings
from tests.integration import secured
from tests.integration.secured import SecuredKafka, SecuredRedis
from tests.integration.test_security import (  # noqa: F401 -- fixtures
    PAGE,
    RIGHT,
    Console,
    Env,
    acl,
    broker,
    certificates,
    console,
    env,
    store,
)
from tests.integration.workers import ThreadWorker, wait_for

pytestmark = pytest.mark.integration
Start = Callable[[Settings], ThreadWorker]


@dataclass
class Talk:
    """Conversations that go on; every utterance must be answered once."""

    settings: Settings
    said: list[str] = field(default_factory=list)

    @property
    def admin(self) -> KafkaSecurity:
        ca = self.settings.kafka_ca_file
        password = secured.ADMIN_PASSWORD
        return KafkaSecurity("sasl_ssl", username="admin", password=password, ca_file=ca)

    def goes_on(self) -> None:
        """Say something in some conversations; return when all of it is answered, once."""
        with Publisher(self.settings.bootstrap, security=self.admin) as publisher:
            for conversation in range(6):
                self.said.append(f"rotation-{len(self.said)}")
                publisher.publish(
                    Utterance(f"rotation-{conversation}", self.said[-1], "s", text="hello")
                )
        answered = Counter[str]()
        with PredictionSubscriber(
            self.settings.bootstrap, from_beginning=True, timeout_s=15, security=self.admin
        ) as predictions:
            for prediction in predictions:
                answered[prediction.utterance_id] += 1
                if all(answered[each] for each in self.said):
                    break
        assert {each: answered[each] for each in self.said} == dict.fromkeys(self.said, 1)


@pytest.fixture
def talk(env: Env, console: Console) -> Talk:  # noqa: F811
    console.settle(env)
    return Talk(load_settings())


def changed(settings: Settings, **new: str) -> Settings:
    return settings.model_copy(update=new)


def test_redis_takes_two_passwords_while_workers_are_replaced(
    talk: Talk,
    store: SecuredRedis,  # noqa: F811
    start: Start,
) -> None:
    before = start(talk.settings)
    talk.goes_on()
    store.acl("emotrack", f">{secured.NEW_PASSWORD}")
    try:
        replacing = changed(talk.settings, redis_password=secured.NEW_PASSWORD)
        after = start(replacing)
        talk.goes_on()
        store.acl("emotrack", f"<{secured.REDIS_PASSWORD}")
        talk.goes_on()  # a worker that was forgotten goes on with the connections it has
        assert before.end() == 0
        talk.goes_on()
        with pytest.raises(StoreUnfit, match="refused us"):
            start(talk.settings)
        assert after.end() == 0
    finally:
        store.acl("emotrack", f">{secured.REDIS_PASSWORD}", f"<{secured.NEW_PASSWORD}")


class Credentials:
    """SCRAM users of a broker, changed by its administrator."""

    def __init__(self, plain: str) -> None:
        self._admin = AdminClient({"bootstrap.servers": plain, "log_level": 0})

    def give(self, user: str, password: str) -> None:
        info = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
        self._alter(UserScramCredentialUpsertion(user, info, password.encode()))

    def take(self, user: str) -> None:
        self._alter(UserScramCredentialDeletion(user, ScramMechanism.SCRAM_SHA_512))

    def allow_as_worker(self, user: str) -> None:
        rights: Sequence[tuple[str, str, str, str]] = RIGHT.findall(PAGE)
        grants = [
            acl(kind, name, user, operation)
            for who, operations, kind, name in rights
            if who == "worker"
            for operation in operations.split(", ")
        ]
        for granted in self._admin.create_acls(grants).values():
            granted.result(10)

    def forbid_worker(self, kind: ResourceType, name: str, operation: AclOperation) -> None:
        """Take one right of the worker away."""
        which = AclBindingFilter(
            kind,
            name,
            ResourcePatternType.ANY,
            "User:worker",
            None,  # type: ignore[arg-type]  # any host
            operation,
            AclPermissionType.ANY,
        )
        (gone,) = self._admin.delete_acls([which]).values()
        assert len(gone.result(10)) == 1

    def _alter(self, change: UserScramCredentialAlteration) -> None:
        for done in self._admin.alter_user_scram_credentials([change]).values():
            done.result(10)


@pytest.fixture
def credentials(broker: SecuredKafka) -> Iterator[Credentials]:  # noqa: F811
    users = Credentials(broker.plain)
    yield users
    users.give("worker", secured.WORKER_PASSWORD)
    users.allow_as_worker("worker")


@pytest.mark.parametrize(
    ("kind", "name"),
    [(ResourceType.TOPIC, "emotrack.utterances"), (ResourceType.GROUP, "emotrack")],
)
def test_a_right_to_read_that_is_taken_away_ends_the_worker_by_name(
    talk: Talk, credentials: Credentials, start: Start, kind: ResourceType, name: str
) -> None:
    """zio/zio-kafka#1713, thomhurst/Dekaf#1347: it reads nothing any more and says nothing."""
    worker = start(talk.settings)
    talk.goes_on()
    wait_for(lambda: worker.metric("records_committed_total") >= 6, "the commits")
    credentials.forbid_worker(kind, name, AclOperation.READ)
    wait_for(lambda: worker.error is not None, "the end of the worker")
    with pytest.raises(AccessRefused, match=r"authorization failed: this user .* docs/security"):
        worker.end()
    worker.error = None
    credentials.allow_as_worker("worker")
    start(talk.settings)
    talk.goes_on()


def test_a_second_kafka_user_takes_over_in_the_same_group(
    talk: Talk, credentials: Credentials, start: Start
) -> None:
    before = start(talk.settings)
    talk.goes_on()
    credentials.give("worker-b", secured.NEW_PASSWORD)
    credentials.allow_as_worker("worker-b")
    after = start(
        changed(talk.settings, kafka_username="worker-b", kafka_password=secured.NEW_PASSWORD)
    )
    talk.goes_on()
    assert before.end() == 0
    credentials.take("worker")
    talk.goes_on()
    with pytest.raises(AccessRefused):
        start(talk.settings)
    assert after.end() == 0


def test_a_changed_kafka_password_leaves_connections_and_refuses_new_ones(
    talk: Talk, credentials: Credentials, start: Start
) -> None:
    before = start(talk.settings)
    talk.goes_on()
    credentials.give("worker", secured.NEW_PASSWORD)
    talk.goes_on()
    with pytest.raises(AccessRefused):
        start(talk.settings)
    after = start(changed(talk.settings, kafka_password=secured.NEW_PASSWORD))
    assert before.end() == 0
    talk.goes_on()
    assert after.end() == 0
