"""Each kind of reply and failure: the class of our error, a sentence that names it, and its cure.

Those a real server can be brought to are met there too, and the cure of the sentence is carried
out; the others come from a fake that speaks the protocol.
"""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import redis
from redis._parsers.base import BaseParser
from redis.exceptions import RedisClusterException

from state.redis_faults import FAILURES, REPLIES, fault_of
from state.redis_link import RedisAccess
from state.redis_store import RedisStore, noted_key, splits_key
from state.store import StoreError, StoreRefused, StoreUnavailable
from state.window import StateKey, StateSpec
from stream.local import servers
from stream.local.servers import RunningRedis, ServerMissing, free_ports
from tests.conftest import ROOT, missing
from tests.fakes.resp import RespServer, info
from tests.integration import secured
from tests.servers import other_redis_servers

Make = Callable[..., StateSpec]
LATER, NEVER = StoreUnavailable, StoreRefused
POLICY: Final = "maxmemory-policy"
PAGE: Final = ROOT / "docs/reliability.md"

# As the servers of Redis 7 and 8 and of Valkey write them: reply, kind, class, what is said.
ANSWERS: Final[list[tuple[str, str, type[StoreError], str]]] = [
    ("READONLY You can't write against a read only replica.", "replica", LATER, "name the primary"),
    (
        "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
        "replica alone",
        LATER,
        "name the primary",
    ),
    ("LOADING Redis is loading the dataset in memory", "loading", LATER, "from disk: wait"),
    ("NOREPLICAS Not enough good replicas to write.", "too few replicas", LATER, "start them"),
    ("MISCONF Errors writing to the AOF file: No space left", "disk", LATER, "make room"),
    (
        "OOM command not allowed when used memory > 'maxmemory'.",
        "full",
        LATER,
        "raise its maxmemory",
    ),
    (
        "OOM allow-oom flag is not set on the script, can not run it when used memory >",
        "full",
        LATER,
        "raise its maxmemory",
    ),
    ("BUSY Redis is busy running a script.", "busy", LATER, "SCRIPT KILL"),
    ("UNKILLABLE Sorry the script already executed write commands", "busy", LATER, "KILL"),
    ("CLUSTERDOWN Hash slot not served", "cluster later", LATER, "--cluster check"),
    ("TRYAGAIN Multiple keys request during rehashing of slot", "cluster later", LATER, "slots"),
    ("ERR max number of clients reached", "clients", LATER, "raise its maxclients"),
    ("ERR Function not found", "function gone", LATER, "FUNCTION FLUSH"),
    ("EXECABORT Transaction discarded because of: LOADING Redis is", "loading", LATER, "disk"),
    ("EXECABORT Transaction discarded because of previous errors.", "", LATER, "a transaction"),
    ("MOVED 3999 127.0.0.1:6381", "", NEVER, "EMOTRACK_REDIS_CLUSTER=true"),
    ("ASK 3999 127.0.0.1:6381", "", NEVER, "EMOTRACK_REDIS_CLUSTER=true"),
    (
        "ERR This instance has cluster support disabled",
        "no cluster",
        NEVER,
        "leave EMOTRACK_RED",
    ),
    ("ERR unknown command `SENTINEL`, with args", "no sentinel", NEVER, "the sentinels' own ports"),
    (
        "NOPERM User x has no permissions to run the 'sentinel|masters' command",
        "sentinel right",
        NEVER,
        "EMOTRACK_REDIS_SENTINEL_USERNAME",
    ),
    ("NOPERM this user has no permissions to run 'get'", "right", NEVER, "ACL line of docs/sec"),
    (
        "ERR The user executing the script can't run this command or subcommand script: x",
        "right",
        NEVER,
        "ACL line",
    ),
    (
        "ERR ACL failure in script: User x has no permissions to run the 'time' command script: x",
        "right",
        NEVER,
        "ACL line",
    ),
    ("NOAUTH Authentication required.", "password wanted", NEVER, "set EMOTRACK_REDIS_USERNAME"),
    ("WRONGPASS invalid username-password pair", "password", NEVER, "correct user and password"),
    ("ERR invalid password", "password", NEVER, "correct user and password"),
    (
        "ERR AUTH <password> called without any password configured for the default user. "
        "Are you sure your configuration is correct?",
        "no password there",
        NEVER,
        "leave EMOTRACK_REDIS_PASSWORD out",
    ),
    ("ERR unknown command 'FCALL', with args", "no functions", NEVER, "Redis >= 7 or Valkey"),
    ("ERR unsupported command", "no functions", NEVER, "no proxy that lacks FCALL"),
    ("ERR DB index is out of range", "database", NEVER, "correct /DB"),
    ("NOPROTO unsupported protocol version", "protocol", NEVER, "RESP 2"),
    ("CROSSSLOT Keys in request don't hash to the same slot", "two slots", NEVER, "rewrites keys"),
    ("WRONGTYPE Operation against a key", "another type", NEVER, "a database of its own"),
    ("DENIED Redis is running in protected mode", "protected", NEVER, "EMOTRACK_REDIS_PASSWORD"),
    ("ERR problem with LDAP service", "directory", LATER, "see to that service"),
    ("NOSCRIPT No matching script.", "", NEVER, "refused a call: NOSCRIPT"),
    ("BUSYKEY Target key name already exists.", "", NEVER, "refused a call: BUSYKEY"),
    ("ERR something new", "", NEVER, "refused a call: ERR something new"),
]


def answering(reply: str) -> Callable[[list[bytes]], bytes]:
    """A server that is fit by its INFO and gives this reply to every command of ours."""

    def answer(words: list[bytes]) -> bytes:
        if words[0].upper() == b"INFO":
            return info()
        if words[0].upper() == b"CLIENT":
            return b"+OK\r\n"
        return f"-{reply}\r\n".encode()

    return answer


@pytest.mark.parametrize(("reply", "kind", "error", "says"), ANSWERS)
def test_each_reply_is_of_its_class_and_named_with_its_cure(
    reply: str, kind: str, error: type[StoreError], says: str, make_spec: Make
) -> None:
    with RespServer(answering(reply)) as server:
        store = RedisStore(make_spec(), server.url, timeout_s=0.5)
        with pytest.raises(error, match=re.escape(says)) as met:
            store.check()
        store.close()
    text = str(met.value)
    assert text.startswith(f"Redis at 127.0.0.1:{server.port} ")
    assert reply.removeprefix("EXECABORT Transaction discarded because of: ").split(" ")[0] in text
    assert not kind or kind in {one.name for one in REPLIES if one.says in text}


@pytest.mark.parametrize("reply", [reply for reply, _, error, _ in ANSWERS if error is LATER])
def test_what_may_pass_is_tried_again_over_a_new_connection(reply: str, make_spec: Make) -> None:
    with RespServer(answering(reply)) as server:
        store = RedisStore(make_spec(), server.url, timeout_s=0.5)
        met = []
        for _ in range(3):
            with pytest.raises(StoreUnavailable):
                store.check()
            met.append(server.connections)
        store.close()
    assert met[0] < met[1] < met[2]


def test_every_kind_is_tried_and_on_the_page() -> None:
    """So is every reply that redis-py has a class for."""
    assert {one.name for one in REPLIES} == {kind for _, kind, _, _ in ANSWERS if kind}
    codes = {reply.split(" ")[0] for reply, _, _, _ in ANSWERS}
    assert set(BaseParser.EXCEPTION_CLASSES) <= codes
    _, _, table = PAGE.read_text("utf-8").partition("## What a Redis may answer")
    for code in codes - {"ERR"}:
        assert f"`{code}" in table, f"{code} is not on the page"


def test_each_error_of_the_client_library_is_one_of_ours() -> None:
    """No traceback reaches a person, whichever of them redis-py raises."""
    replies: Any = BaseParser.EXCEPTION_CLASSES["ERR"]
    texts = [*replies, "x", ""]
    named = [one for one in vars(redis.exceptions).values() if isinstance(one, type)]
    classes = [one for one in named if issubclass(one, redis.RedisError | RedisClusterException)]
    assert len(classes) > 30
    for raised in (one(text) for one in classes for text in texts if not_a_redirection(one)):
        for running in (False, True):
            fault = fault_of(raised, "Redis at h:1", running=running)
            assert isinstance(fault, StoreRefused | StoreUnavailable)
            assert str(fault).startswith("Redis at h:1")
            assert "\n" not in str(fault)


def not_a_redirection(error: type[Exception]) -> bool:
    """MOVED and ASK are parsed when they are made; `ANSWERS` has them."""
    return not issubclass(error, redis.exceptions.AskError)


def test_a_server_that_says_no_before_it_is_asked_is_heard(make_spec: Make) -> None:
    """Protected mode: it hangs up at once, which alone would be taken for TLS."""
    denied = b"-DENIED Redis is running in protected mode because protected mode is enabled\r\n"
    with RespServer(answering("x"), denied) as server:
        store = RedisStore(make_spec(), server.url, timeout_s=0.5)
        with pytest.raises(StoreRefused, match=r"requirepass or an ACL user.*DENIED"):
            store.check()
        store.close()


def hanging_up(words: list[bytes]) -> bytes:
    return b""


def html(words: list[bytes]) -> bytes:
    return b"<html>\r\n"


@contextlib.contextmanager
def silent() -> Iterator[str]:
    """An address that accepts and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"redis://127.0.0.1:{listener.getsockname()[1]}/0"


@contextlib.contextmanager
def answered_by(answer: Callable[[list[bytes]], bytes]) -> Iterator[str]:
    with RespServer(answer) as server:
        yield server.url


@contextlib.contextmanager
def nobody() -> Iterator[str]:
    (port,) = free_ports(1)
    yield f"redis://127.0.0.1:{port}/0"


CONNECTIONS: Final = [
    ("name", lambda: contextlib.nullcontext("redis://nowhere.invalid/0"), "correct its name"),
    ("refused", nobody, "start it, or correct the address"),
    ("no socket", lambda: contextlib.nullcontext("unix:///nowhere/socket"), "correct the path"),
    ("silence", silent, "it does not answer in time"),
    ("closed", lambda: answered_by(hanging_up), "if it wants TLS, use rediss://"),
    ("", lambda: answered_by(html), "does not answer as a Redis"),
]


@pytest.mark.parametrize(("kind", "address", "says"), CONNECTIONS)
def test_each_failure_of_the_connection_is_named_with_its_cure(
    kind: str,
    address: Callable[[], contextlib.AbstractContextManager[str]],
    says: str,
    make_spec: Make,
) -> None:
    with address() as url:
        store = RedisStore(make_spec(), url, timeout_s=0.2)
        with pytest.raises(StoreUnavailable, match=re.escape(says)):
            store.check()
        store.close()


def test_every_failure_is_tried() -> None:
    tried = {kind for kind, _, _ in CONNECTIONS if kind} | {"certificate"}  # of `test_security.py`
    assert {one.name for one in FAILURES} == tried


def test_a_server_that_served_us_and_hangs_up_is_not_taken_for_one_that_wants_tls(
    make_spec: Make,
) -> None:
    gone = False

    def answer(words: list[bytes]) -> bytes:
        if gone:
            return b""
        if words[0] == b"INFO":
            return info()
        return b"+OK\r\n" if words[0] in (b"CLIENT", b"SET") else b":1\r\n"

    with RespServer(answer) as server:
        store = RedisStore(make_spec(), server.url, timeout_s=0.5)
        store.identify()
        gone = True
        with pytest.raises(StoreUnavailable, match="client-output-buffer-limit") as met:
            store.verify()
        assert "TLS" not in str(met.value)
        store.close()


PROGRAMS = {"redis": "redis-server"} | {n: str(p) for n, p in other_redis_servers().items()}


@pytest.fixture(params=PROGRAMS)
def own(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[tuple[RunningRedis, redis.Redis]]:
    """A server of each kind that is on this machine: their words differ."""
    server = servers.redis_server(tmp_path, program=PROGRAMS[request.param])
    with contextlib.ExitStack() as stack:
        try:
            running = stack.enter_context(server)
        except ServerMissing as why:
            missing(why)
        client = redis.Redis(port=running.port)
        yield running, client
        client.close()


def tried(spec: StateSpec, url: str, access: RedisAccess | None = None) -> None:
    """Check a store there, as `serve` does; write with it."""
    store = RedisStore(spec, url, access=access or RedisAccess(), timeout_s=0.5)
    try:
        store.check()
        store.claim("topic", 0)
    finally:
        store.close()


@pytest.mark.integration
@pytest.mark.parametrize(
    ("breaks", "error", "says", "cures"),
    [
        (("maxmemory", "1"), LATER, "raise its maxmemory", ("maxmemory", "0")),
        (("maxclients", "1"), LATER, "raise its maxclients", ("maxclients", "100")),
        (("min-replicas-to-write", "1"), LATER, "NOREPLICAS", ("min-replicas-to-write", "0")),
        (
            ("maxmemory-policy", "allkeys-lfu"),
            NEVER,
            "noeviction",
            ("maxmemory-policy", "noeviction"),
        ),
    ],
)
def test_the_cure_of_a_server_s_setting_works(
    breaks: tuple[str, str],
    error: type[StoreError],
    says: str,
    cures: tuple[str, str],
    own: tuple[RunningRedis, redis.Redis],
    make_spec: Make,
) -> None:
    running, client = own
    client.config_set(*breaks)
    with pytest.raises(error, match=says):
        tried(make_spec(), running.url)
    client.config_set(*cures)
    tried(make_spec(), running.url)


@pytest.mark.integration
def test_the_cures_of_credentials_work(
    own: tuple[RunningRedis, redis.Redis], make_spec: Make
) -> None:
    running, client = own
    spec, url = make_spec(), running.url
    with pytest.raises(StoreRefused, match="leave EMOTRACK_REDIS_PASSWORD out"):
        tried(spec, url, RedisAccess(password="hush"))
    tried(spec, url)
    client.config_set("requirepass", "hush")
    with pytest.raises(StoreRefused, match=r"set EMOTRACK_REDIS_USERNAME.*NOAUTH"):
        tried(spec, url)
    with pytest.raises(StoreRefused, match=r"correct user and password.*WRONGPASS"):
        tried(spec, url, RedisAccess(password="other"))
    tried(spec, url, RedisAccess(password="hush"))
    with pytest.raises(StoreRefused, match="correct /DB in EMOTRACK_REDIS_URL"):
        tried(spec, url.replace("/0", "/77"), RedisAccess(password="hush"))
    rights = ["+info", "+fcall", "+function|list", "+function|load"]
    client.acl_setuser("guest", enabled=True, passwords="+hush", keys=["et:*"], commands=rights)
    guest = RedisAccess("guest", "hush")
    with pytest.raises(StoreRefused, match=r"the ACL line of docs/security\.md"):
        tried(spec, url, guest)
    page = (ROOT / "docs/security.md").read_text("utf-8")
    (line,) = re.findall(r"^ACL SETUSER emotrack on >PASSWORD (.*)$", page, re.MULTILINE)
    client.execute_command(f"ACL SETUSER guest {line}")  # type: ignore[no-untyped-call]
    tried(spec, url, guest)


@pytest.mark.integration
def test_the_cures_of_tls_against_plain_work(
    own: tuple[RunningRedis, redis.Redis], tmp_path: Path, make_spec: Make
) -> None:
    spec, plain = make_spec(), own[0].url
    certificates = secured.make_certificates(tmp_path)
    trusting = RedisAccess(ca_file=certificates.ca)
    with secured.secured_redis(tmp_path, certificates) as running:
        with pytest.raises(StoreUnavailable, match="if it wants TLS, use rediss://"):
            tried(spec, running.url.replace("rediss", "redis"))
        tried(spec, running.url, trusting)
    with pytest.raises(StoreUnavailable, match="if it does not speak TLS, use redis://"):
        tried(spec, plain.replace("redis", "rediss"), trusting)
    tried(spec, plain)


@pytest.mark.integration
def test_the_cure_of_a_script_that_does_not_end_works(
    own: tuple[RunningRedis, redis.Redis], make_spec: Make
) -> None:
    running, client = own
    client.config_set("busy-reply-threshold", 20)

    def loop() -> None:
        with contextlib.suppress(redis.RedisError):
            other = redis.Redis(port=running.port, socket_timeout=30)
            other.eval("while true do end", 0)

    thread = threading.Thread(target=loop)
    thread.start()
    until = time.monotonic() + 10
    said = ""
    while "BUSY" not in said and time.monotonic() < until:
        try:
            tried(make_spec(), running.url)
        except StoreUnavailable as error:
            said = str(error)
    assert "`redis-cli SCRIPT KILL`" in said
    client.script_kill()
    thread.join(10)
    tried(make_spec(), running.url)


@pytest.mark.integration
def test_a_hint_of_another_program_costs_nothing(
    own: tuple[RunningRedis, redis.Redis], make_spec: Make
) -> None:
    """It is only a hint; a worker stood still over it: each start ended in the same refusal."""
    running, client = own
    key, other = StateKey("c", "topic", 0), StateKey("d", "topic", 0)
    client.rpush(noted_key(key), "intruder")
    client.rpush(splits_key("topic", 1), "intruder")
    store = RedisStore(make_spec(), running.url)
    store.check()
    assert [len(noted.partitions) for noted in store.note_many([key, other])] == [0, 1]
    (elsewhere,) = store.note_many([StateKey("d", "topic", 1)])
    assert elsewhere.partitions == {0, 1}
    assert store.splits("topic", {0: "", 1: ""})[0].conversation_ids == ("d",)
    store.close()
