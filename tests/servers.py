"""Servers that only tests start: a Redis Cluster, Redis sentinels, Prometheus, Alertmanager."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from stream.local.servers import (
    QUICK_GROUPS,
    START_S,
    ChildServer,
    RunningRedis,
    ServerFailed,
    answers,
    formatted_broker,
    free_ports,
    need,
    new_cluster_id,
    redis_server,
    says_ok,
)


@dataclass(frozen=True, slots=True)
class KafkaCluster:
    """Brokers of one cluster by their ids, all of which answer on `bootstrap`."""

    bootstrap: str
    brokers: dict[int, ChildServer]


@contextlib.contextmanager
def kafka_cluster(directory: Path, jars: Path, count: int = 3) -> Iterator[KafkaCluster]:
    """Run Kafka brokers 1 to `count` under `directory` until the block ends; 1 also controls."""
    controller, *ports = free_ports(1 + count)
    cluster = new_cluster_id()
    with contextlib.ExitStack() as stack:
        brokers: dict[int, ChildServer] = {}
        for number, port in enumerate(ports, 1):
            place = directory / f"broker-{number}"
            place.mkdir(parents=True)
            properties = place / "server.properties"
            properties.write_text(_broker_properties(place, number, port, controller))
            brokers[number] = formatted_broker(properties, jars, cluster)
            stack.callback(brokers[number].stop)
            brokers[number].start(partial(answers, port))
        yield KafkaCluster(",".join(f"127.0.0.1:{port}" for port in ports), brokers)


def _broker_properties(place: Path, number: int, port: int, controller: int) -> str:
    """Return settings of one broker of `kafka_cluster`."""
    listeners = f"PLAINTEXT://127.0.0.1:{port}"
    roles = "broker"
    if number == 1:
        listeners += f",CONTROLLER://127.0.0.1:{controller}"
        roles += ",controller"
    told = {
        "process.roles": roles,
        "node.id": str(number),
        "controller.quorum.voters": f"1@127.0.0.1:{controller}",
        "controller.listener.names": "CONTROLLER",
        "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
        "listeners": listeners,
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
        "log.dirs": str(place / "data"),
        "auto.create.topics.enable": "false",
        "offsets.topic.num.partitions": "4",
        "transaction.state.log.num.partitions": "4",
        **QUICK_GROUPS,
    }
    return "".join(f"{name}={value}\n" for name, value in told.items())


def other_redis_servers() -> dict[str, Path]:
    """Return programs that answer as a Redis, besides redis-server on PATH, by a name.

    `valkey-server` on PATH, and each `redis-server` or `valkey-server` in a folder of
    `.servers/redis` or of the folder that the environment names as REDIS_SERVERS.
    """
    on_path = shutil.which("valkey-server")
    found = {} if on_path is None else {"valkey": Path(on_path)}
    places = [Path(__file__).parent.parent / ".servers/redis"]
    if named := os.environ.get("REDIS_SERVERS"):
        places.append(Path(named))
    for place in places:
        for program in sorted(place.glob("*/*-server")):
            if program.name in ("redis-server", "valkey-server"):
                found[program.parent.name] = program.resolve()
    return found


@dataclass(frozen=True, slots=True)
class RunningPrometheus:
    """A Prometheus that scrapes the targets it was started with."""

    url: str
    server: ChildServer


@contextlib.contextmanager
def redis_cluster(
    directory: Path, nodes: int = 3, *, replicas: int = 0
) -> Iterator[list[RunningRedis]]:
    """Run a Redis Cluster under `directory` until the block ends: primaries, `replicas` of each."""
    program = need("redis-cli", "it comes with redis-server (Debian: redis-tools)")
    with contextlib.ExitStack() as stack:
        running: list[RunningRedis] = []
        for number in range(nodes):
            place = directory / f"node-{number}"
            place.mkdir(parents=True)
            server = redis_server(
                place, "--cluster-enabled", "yes", "--cluster-node-timeout", "2000"
            )
            running.append(stack.enter_context(server))
        at = [f"127.0.0.1:{one.port}" for one in running]
        copies = ["--cluster-replicas", f"{replicas}"]
        made = subprocess.run(
            [program, "--cluster", "create", *at, "--cluster-yes", *copies],
            capture_output=True,
            text=True,
            timeout=START_S,
            check=False,
        )
        if made.returncode:
            raise ServerFailed(f"the cluster could not be made:\n{made.stdout[-2000:]}")
        until = time.monotonic() + START_S
        while not all(_in_cluster(program, one.port) for one in running):
            if time.monotonic() > until:
                raise ServerFailed(f"the cluster was not up within {START_S:.0f} s")
            time.sleep(0.1)
        yield running


def _in_cluster(program: str, port: int) -> bool:
    """Return whether this node knows that all slots are served."""
    asked = [program, "-p", str(port), "cluster", "info"]
    said = subprocess.run(asked, capture_output=True, text=True, timeout=START_S, check=False)
    return "cluster_state:ok" in said.stdout


@contextlib.contextmanager
def redis_sentinels(
    directory: Path, service: str, primary: int, *lines: str, count: int = 3
) -> Iterator[list[int]]:
    """Run sentinels that watch the server at port `primary`; give their ports.

    They agree by majority that it is down after a second. `lines` are added to their configuration;
    `PORT` in one is the sentinel's own.
    """
    program = need("redis-server", "install Redis 7 or newer (Debian: redis-server)")
    ports = free_ports(count)
    told = [
        f"sentinel monitor {service} 127.0.0.1 {primary} {count // 2 + 1}",
        f"sentinel down-after-milliseconds {service} 1000",
        f"sentinel failover-timeout {service} 4000",
    ]
    with contextlib.ExitStack() as stack:
        for port in ports:
            place = directory / f"sentinel-{port}"
            place.mkdir(parents=True)
            own = ["port PORT", "bind 127.0.0.1", f"dir {place}", *told, *lines]
            config = place / "sentinel.conf"  # a sentinel writes what it learns into it
            config.write_text("\n".join(own).replace("PORT", str(port)) + "\n")
            server = ChildServer("sentinel", [program, str(config), "--sentinel"], place)
            stack.callback(server.stop)
            server.start(partial(answers, port))
        yield ports


@contextlib.contextmanager
def prometheus(directory: Path, *targets: str, scrape_s: int = 1) -> Iterator[RunningPrometheus]:
    """Run Prometheus under `directory`, scraping `targets` ("127.0.0.1:port") every `scrape_s`."""
    quoted = ", ".join(f'"{t}"' for t in targets)
    config = directory / "prometheus.yml"
    config.write_text(
        f"global: {{scrape_interval: {scrape_s}s}}\n"
        f"scrape_configs: [{{job_name: emotrack, static_configs: [{{targets: [{quoted}]}}]}}]\n"
    )
    with configured_prometheus(config) as running:
        yield running


@contextlib.contextmanager
def configured_prometheus(config: Path) -> Iterator[RunningPrometheus]:
    """Run Prometheus with this configuration; its data goes beside it."""
    program = need("prometheus", "install it (Debian: apt-get install prometheus)")
    (port,) = free_ports(1)
    directory = config.parent
    argv = [program, f"--config.file={config}", f"--storage.tsdb.path={directory / 'tsdb'}"]
    server = ChildServer("prometheus", [*argv, f"--web.listen-address=127.0.0.1:{port}"], directory)
    try:
        server.start(lambda: says_ok(f"http://127.0.0.1:{port}/-/ready"))
        yield RunningPrometheus(f"http://127.0.0.1:{port}", server)
    finally:
        server.stop()


@contextlib.contextmanager
def configured_alertmanager(config: Path, port: int) -> Iterator[ChildServer]:
    """Run one Alertmanager with this configuration; its data goes beside it."""
    cure = "install it (Debian: apt-get install prometheus-alertmanager)"
    debian = shutil.which("prometheus-alertmanager")  # Debian's name for it
    program = debian or need("alertmanager", cure)
    argv = [program, f"--config.file={config}", f"--storage.path={config.parent / 'silences'}"]
    argv += [f"--web.listen-address=127.0.0.1:{port}", "--cluster.listen-address="]
    server = ChildServer("alertmanager", argv, config.parent)
    try:
        server.start(lambda: says_ok(f"http://127.0.0.1:{port}/-/ready"))
        yield server
    finally:
        server.stop()
