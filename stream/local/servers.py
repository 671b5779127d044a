"""Real servers on loopback for tests and benchmarks: Kafka (KRaft) and redis-server.

Each is a child process on free ports with its own directory. A missing program raises
`ServerMissing` with the command that installs it. Not for production: see `deploy/`.
"""

from __future__ import annotations

import base64
import contextlib
import shutil
import socket
import subprocess
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Final

KAFKA_JARS: Final = Path(".servers/kafka/jars")  # where `make kafka` puts them
# A broker's own defaults are 45 s and 5 s, and it allows a group no less (docs/deploy.md).
QUICK_GROUPS: Final[Mapping[str, str]] = {
    "group.initial.rebalance.delay.ms": "0",
    "group.consumer.heartbeat.interval.ms": "1000",
    "group.consumer.min.heartbeat.interval.ms": "500",
    "group.consumer.session.timeout.ms": "6000",
    "group.consumer.min.session.timeout.ms": "2000",
    "group.min.session.timeout.ms": "2000",
}
START_S: Final = 60.0
STOP_S: Final = 20.0


class ServerMissing(Exception):
    """The server's program is not on this machine; the message has its installation."""


class ServerFailed(Exception):
    """The server did not start or ended; the message has the end of its log."""


def free_ports(count: int) -> list[int]:
    """Return `count` distinct loopback ports that were free a moment ago."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return [int(s.getsockname()[1]) for s in sockets]


def answers(port: int) -> bool:
    """Return true if something accepts connections on this loopback port."""
    with socket.socket() as s:
        s.settimeout(0.5)
        return s.connect_ex(("127.0.0.1", port)) == 0


def says_ok(url: str) -> bool:
    """Return true if a GET is answered with success."""
    try:
        with urllib.request.urlopen(url, timeout=1):
            return True
    except OSError:
        return False


def end(process: subprocess.Popen[bytes], within_s: float, *, hard: bool = False) -> int:
    """End a child: SIGTERM, SIGKILL after `within_s` or, if `hard`, at once. Return its code."""
    (process.kill if hard else process.terminate)()
    try:
        return process.wait(within_s)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait(within_s)


class ChildServer:
    """One child process with a log file; its owner calls `stop`."""

    def __init__(self, name: str, argv: list[str], directory: Path) -> None:
        self.name, self.argv, self.directory = name, argv, directory
        self.log = directory / f"{name}.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, ready: Callable[[], bool], start_s: float = START_S) -> None:
        """Start the child and wait until `ready`. Raises `ServerFailed` with the end of its log."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.argv, cwd=self.directory, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + start_s
        while not ready():
            if self.ended() or time.monotonic() > deadline:
                self.stop()
                raise ServerFailed(
                    f"{self.name} did not start within {start_s:.0f} s:\n{self.tail()}"
                )
            time.sleep(0.05)

    def ended(self) -> bool:
        """Return true if the child ended by itself."""
        return self.process is not None and self.process.poll() is not None

    def tail(self) -> str:
        """Return the end of the child's log."""
        return self.log.read_text(errors="replace")[-2000:]

    def stop(self, *, hard: bool = False) -> None:
        """End the child: SIGTERM, then SIGKILL after `STOP_S`; if `hard`, SIGKILL at once."""
        if self.process is not None:
            end(self.process, STOP_S, hard=hard)
            self.process = None


@dataclass(frozen=True, slots=True)
class RunningKafka:
    """A broker that answers on `bootstrap`, and on the addresses of `listeners` by name."""

    bootstrap: str
    server: ChildServer
    listeners: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Listeners:
    """Listeners of a broker besides plain TCP (name -> security protocol), and their settings.

    `properties` win over ours; `format_with` are arguments of the storage tool; `advertised` are
    ports (on loopback) or whole addresses that a listener advertises instead of its own.
    """

    protocols: Mapping[str, str]
    properties: Mapping[str, str]
    format_with: Sequence[str] = ()
    advertised: Mapping[str, int | str] = field(default_factory=dict)


PLAIN: Final = Listeners({}, {})


@dataclass(frozen=True, slots=True)
class RunningRedis:
    """A redis-server that answers on `url` and `port`."""

    url: str
    port: int
    server: ChildServer


def need(program: str, cure: str) -> str:
    """Return the program's path. Raises `ServerMissing` with the cure."""
    path = shutil.which(program)
    if path is None:
        raise ServerMissing(f"{program} is not on PATH: {cure}")
    return path


def _kafka_properties(
    directory: Path,
    ports: Mapping[str, int],
    controller_port: int,
    listeners: Listeners,
    groups: Mapping[str, str],
) -> str:
    """Return settings of a one-node KRaft broker that starts fast and creates no topics itself."""

    def addresses(ports: Mapping[str, int | str]) -> str:
        at = {n: p if isinstance(p, str) else f"127.0.0.1:{p}" for n, p in ports.items()}
        return ",".join(f"{name}://{address}" for name, address in at.items())

    protocols = {"CONTROLLER": "PLAINTEXT", "PLAINTEXT": "PLAINTEXT", **listeners.protocols}
    lines = {
        "controller.quorum.voters": f"1@127.0.0.1:{controller_port}",
        "listeners": addresses({**ports, "CONTROLLER": controller_port}),
        "advertised.listeners": addresses({**ports, **listeners.advertised}),
        "controller.listener.names": "CONTROLLER",
        "listener.security.protocol.map": ",".join(map(":".join, protocols.items())),
        "log.dirs": str(directory / "data"),
        **groups,
        **listeners.properties,
    }
    fixed = (files("stream.local") / "kafka.properties").read_text()
    return fixed + "".join(f"{key}={value}\n" for key, value in lines.items())


def new_cluster_id() -> str:
    """Return an id that all brokers of one cluster are formatted with."""
    # Without the "k", one id in 64 would begin with "-", which the tool takes for an option.
    return "k" + base64.urlsafe_b64encode(uuid.uuid4().bytes).decode()[1:22]


def formatted_broker(properties: Path, jars: Path, cluster: str, *more: str) -> ChildServer:
    """Return a broker that can be started, beside its properties; its storage is formatted.

    `more` are arguments of the storage tool. Raises `ServerMissing` or `ServerFailed`.
    """
    java = need("java", "install a JRE, version 17 or newer (Debian: openjdk-17-jre-headless)")
    if not list(jars.glob("kafka_2.13-*.jar")):
        raise ServerMissing(f"no Kafka jars under {jars}: run `make kafka` (Maven) once")
    java_argv = [java, "-Xmx1G", "-Xms256M", "-XX:+UseG1GC", "-cp", f"{jars.resolve()}/*"]
    tool = [*java_argv, "kafka.tools.StorageTool", "format", "-t", cluster, "-c", str(properties)]
    tool += more
    try:
        formatted = subprocess.run(
            tool, capture_output=True, text=True, timeout=START_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise ServerFailed(
            f"Kafka's storage was not formatted within {START_S:.0f} s: the machine is busy, try "
            "again when it is not"
        ) from None
    if formatted.returncode:
        raise ServerFailed(f"Kafka's storage could not be formatted:\n{formatted.stderr[-2000:]}")
    return ChildServer("kafka", [*java_argv, "kafka.Kafka", str(properties)], properties.parent)


@contextlib.contextmanager
def apache_kafka(
    directory: Path,
    jars: Path = KAFKA_JARS,
    listeners: Listeners = PLAIN,
    port: int | None = None,
    groups: Mapping[str, str] = QUICK_GROUPS,
) -> Iterator[RunningKafka]:
    """Run Apache Kafka in KRaft mode until the block ends, by default on a free port.

    `groups` are its settings of consumer groups; an empty mapping leaves them at its own defaults.
    """
    controller_port, *free = free_ports(2 + len(listeners.protocols))
    ports = dict(zip(("PLAINTEXT", *listeners.protocols), free, strict=True))
    if port is not None:
        ports["PLAINTEXT"] = port
    properties = directory / "server.properties"
    properties.write_text(_kafka_properties(directory, ports, controller_port, listeners, groups))
    server = formatted_broker(properties, jars, new_cluster_id(), *listeners.format_with)
    try:
        server.start(lambda: all(answers(port) for port in ports.values()))
        addresses = {name: f"127.0.0.1:{port}" for name, port in ports.items()}
        yield RunningKafka(addresses.pop("PLAINTEXT"), server, addresses)
    finally:
        server.stop()


@contextlib.contextmanager
def redis_server(
    directory: Path, *extra: str, port: int | None = None, program: str = "redis-server"
) -> Iterator[RunningRedis]:
    """Run redis-server, or `program` (a Valkey), under `directory` until the block ends.

    `extra` are its own arguments.
    """
    program = need(program, "install Redis 7 or newer (Debian: apt-get install redis-server)")
    port = port or min(free_ports(16))  # in cluster mode its bus takes the port 10,000 higher
    argv = [program, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(directory)]
    argv += ["--save", "", "--appendonly", "no", "--maxmemory-policy", "noeviction", *extra]
    server = ChildServer("redis", argv, directory)
    try:
        server.start(lambda: answers(port))
        yield RunningRedis(f"redis://127.0.0.1:{port}/0", port, server)
    finally:
        server.stop()


@contextlib.contextmanager
def kafka_and_redis(
    directory: Path,
    jars: Path = KAFKA_JARS,
    *,
    kafka_port: int | None = None,
    redis_port: int | None = None,
) -> Iterator[tuple[RunningKafka, RunningRedis]]:
    """Run Kafka and Redis until the block ends, by default on free ports."""
    for name in ("kafka", "redis"):
        (directory / name).mkdir(parents=True, exist_ok=True)
    with (
        redis_server(directory / "redis", port=redis_port) as redis,
        apache_kafka(directory / "kafka", jars, port=kafka_port) as kafka,
    ):
        yield kafka, redis
