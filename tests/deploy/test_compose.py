"""`deploy/compose.yaml`: read as Compose reads it, and each server started as it says.

No container engine runs here: what the images bring (paths, users) is not tested.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from stream.local.servers import (
    KAFKA_JARS,
    ChildServer,
    RunningKafka,
    RunningRedis,
    answers,
    free_ports,
    says_ok,
)
from stream.local.worker_process import RunningWorker, wait_ready
from stream.settings import Settings
from tests.conftest import ROOT
from tests.deploy.programs import installed

FILE = ROOT / "deploy/compose.yaml"
COMPOSE: dict[str, Any] = yaml.safe_load(FILE.read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
LONG_LIVED = sorted(SERVICES.keys() - {"topics"})


def seconds(text: str) -> float:
    return float(text.removesuffix("s"))


# --- What the file says -----------------------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="the reader's wheel is for Linux")
def test_the_file_is_valid_by_the_compose_specification() -> None:
    import compose_spec

    options = compose_spec.PyOptions()
    options.apply_merge = True
    defaults = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", FILE.read_text())  # the reader fills in none
    read = options.from_yaml(defaults)
    read.validate()
    assert sorted(read.service_names()) == sorted(SERVICES)


def test_docker_compose_itself_accepts_the_file() -> None:
    """Runs where the client is installed; it needs no engine for this."""
    docker = shutil.which("docker")
    plugin = docker and subprocess.run([docker, "compose", "version"], capture_output=True).stdout
    argv = [docker, "compose"] if docker and plugin else [shutil.which("docker-compose")]
    if argv[0] is None:
        pytest.skip("no Compose client here; the specification's reader checked the same file")
    ran = subprocess.run(
        [*map(str, argv), "-f", FILE, "config", "-q"], capture_output=True, text=True
    )
    assert (ran.returncode, ran.stderr) == (0, "")


@pytest.mark.parametrize("name", LONG_LIVED)
def test_every_server_has_a_health_check_limits_and_no_privileges(name: str) -> None:
    service = SERVICES[name]
    assert service["healthcheck"]["test"][0] == "CMD"
    assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory"}
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["restart"] == "unless-stopped"


def test_every_image_is_pinned_and_every_port_is_on_loopback() -> None:
    for name, service in SERVICES.items():
        image = service["image"]
        assert re.search(r":v?\d+\.\d+|\$\{EMOTRACK_IMAGE:-emotrack:cpu\}$", image), name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))


def test_the_worker_writes_nowhere_but_to_a_small_tmpfs() -> None:
    for name in ("worker", "topics"):
        assert SERVICES[name]["read_only"] is True
        assert SERVICES[name]["tmpfs"] == ["/tmp:size=64m,mode=1777"]
        assert "volumes" not in SERVICES[name] and "user" not in SERVICES[name]


def test_workers_wait_for_the_topics_and_are_given_time_to_drain() -> None:
    worker = SERVICES["worker"]
    wanted = {"redis": "service_healthy", "topics": "service_completed_successfully"}
    assert {k: v["condition"] for k, v in worker["depends_on"].items()} == wanted
    assert worker["deploy"]["replicas"] == 2
    assert seconds(worker["stop_grace_period"]) > Settings().drain_budget_s


def test_every_mounted_file_is_there_and_read_only() -> None:
    mounts = [m for s in SERVICES.values() for m in s.get("volumes", ()) if m.startswith("./")]
    assert len(mounts) == 5 and all(mount.endswith(":ro") for mount in mounts)
    for source in (mount.split(":")[0] for mount in mounts):
        assert (FILE.parent / source).exists(), source


# --- Each server, run as the file says --------------------------------------------------------


def moved(text: str, *places: tuple[str, str]) -> str:
    """A configuration with a container's names and paths replaced by this machine's."""
    for container, here in places:
        assert container in text, f"{container} is not in:\n{text}"
        text = text.replace(container, here)
    return text


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """redis-server with the arguments of the file."""
    program = installed("redis-server")
    directory = tmp_path_factory.mktemp("redis")
    (port,) = free_ports(1)
    argv = [program, *SERVICES["redis"]["command"][1:], "--port", str(port)]
    server = ChildServer("redis", [*argv, "--bind", "127.0.0.1"], directory)
    server.start(lambda: answers(port))
    yield RunningRedis(f"redis://127.0.0.1:{port}/0", port, server)
    server.stop()


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Apache Kafka with the properties that its image makes of the file's environment."""
    java, jars = installed("java"), (ROOT / KAFKA_JARS).resolve()
    assert list(jars.glob("kafka_2.13-*.jar")), "run `make kafka`"
    directory = tmp_path_factory.mktemp("kafka")
    inside, outside, controller = free_ports(3)
    places = (
        ("INSIDE://:19092", f"INSIDE://127.0.0.1:{inside}"),
        ("OUTSIDE://:9092", f"OUTSIDE://127.0.0.1:{outside}"),
        ("CONTROLLER://:9093", f"CONTROLLER://127.0.0.1:{controller}"),
        ("INSIDE://kafka:19092", f"INSIDE://127.0.0.1:{inside}"),
        ("OUTSIDE://127.0.0.1:9092", f"OUTSIDE://127.0.0.1:{outside}"),
        ("1@localhost:9093", f"1@127.0.0.1:{controller}"),
        ("/var/lib/kafka/data", str(directory / "data")),
    )
    given = json.loads(moved(json.dumps(SERVICES["kafka"]["environment"]), *places))
    for folder in ("defaults", "mounted", "final"):
        (directory / folder).mkdir()
    for name in ("server.properties", "log4j2.yaml", "tools-log4j2.yaml"):
        (directory / "defaults" / name).touch()
    heap = given["KAFKA_HEAP_OPTS"].split()
    run = [java, *heap, "-cp", f"{jars}/*"]
    folders = [f"--{n}-configs-dir={directory / n}" for n in ("mounted", "final")]
    setup = ["kafka.docker.KafkaDockerWrapper", "setup", *folders]
    subprocess.run(
        [*run, *setup, f"--default-configs-dir={directory / 'defaults'}"],
        env={"PATH": os.environ["PATH"], **given},
        check=True,
        timeout=60,
        capture_output=True,
    )
    properties = directory / "final/server.properties"
    server = ChildServer("kafka", [*run, "kafka.Kafka", str(properties)], directory)
    server.start(lambda: answers(outside))
    yield RunningKafka(f"127.0.0.1:{outside}", server)
    server.stop()


@pytest.mark.integration
def test_a_worker_is_ready_on_the_kafka_redis_and_topics_of_the_file(
    kafka: RunningKafka, redis: RunningRedis, tmp_path: Path
) -> None:
    """Kafka's properties are made by the image's own program; `topics` and `worker` run as told."""
    (port,) = free_ports(1)
    said = json.dumps(SERVICES["worker"]["environment"])
    places = (("kafka:19092", kafka.bootstrap), ("redis://redis:6379/0", redis.url))
    given = json.loads(moved(said, *places, ("${EMOTRACK_LOG_LEVEL:-info}", "info")))
    environment = {"PATH": os.environ["PATH"], **given, "EMOTRACK_METRICS_PORT": str(port)}
    emotrack = [sys.executable, "-m", "stream.main"]
    command = json.loads(
        moved(json.dumps(SERVICES["topics"]["command"]), ("kafka:19092", kafka.bootstrap))
    )
    made = subprocess.run([*emotrack, *command], env=environment, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    log = tmp_path / "worker.log"
    with log.open("wb") as out:
        process = subprocess.Popen([*emotrack, "serve"], env=environment, stdout=out, stderr=out)
    worker = RunningWorker(process, f"http://127.0.0.1:{port}", log)
    try:
        wait_ready(worker)
    finally:
        assert worker.stop() == 0, worker.log_tail()


def laid_out(tmp_path: Path) -> Path:
    """Prometheus' configuration with the rules where this machine has them."""
    config = tmp_path / "prometheus.yml"
    said = (FILE.parent / "compose/prometheus.yml").read_text()
    config.write_text(moved(said, ("/etc/prometheus/rules", str(FILE.parent / "prometheus/rules"))))
    return config


@pytest.mark.integration
def test_prometheus_starts_with_the_arguments_and_the_configuration_of_the_file(
    tmp_path: Path,
) -> None:
    program = installed("prometheus")
    (port,) = free_ports(1)
    argv = moved(
        json.dumps(SERVICES["prometheus"]["command"]),
        ("/etc/prometheus/prometheus.yml", str(laid_out(tmp_path))),
        ("=/prometheus", f"={tmp_path / 'tsdb'}"),
    )
    listen = f"--web.listen-address=127.0.0.1:{port}"
    server = ChildServer("prometheus", [program, *json.loads(argv), listen], tmp_path)
    try:
        server.start(lambda: says_ok(f"http://127.0.0.1:{port}/-/ready"))
    finally:
        server.stop()


@pytest.mark.integration
def test_promtool_accepts_the_configuration_and_every_rule_it_loads(tmp_path: Path) -> None:
    checked(["promtool", "check", "config", str(laid_out(tmp_path))])


@pytest.mark.integration
def test_amtool_accepts_alertmanagers_configuration() -> None:
    checked(["amtool", "check-config", str(FILE.parent / "compose/alertmanager.yml")])


@pytest.mark.integration
def test_alertmanager_starts_with_the_arguments_of_the_file(tmp_path: Path) -> None:
    program = installed("prometheus-alertmanager", "alertmanager")
    (port,) = free_ports(1)
    argv = moved(
        json.dumps(SERVICES["alertmanager"]["command"]),
        ("/etc/alertmanager/", f"{FILE.parent / 'compose'}/"),
        ("=/alertmanager", f"={tmp_path}"),
    )
    listen = f"--web.listen-address=127.0.0.1:{port}"
    server = ChildServer("alertmanager", [program, *json.loads(argv), listen], tmp_path)
    try:
        server.start(lambda: says_ok(f"http://127.0.0.1:{port}/-/ready"))
    finally:
        server.stop()


def checked(argv: list[str]) -> None:
    """Run a checker that must say yes."""
    ran = subprocess.run(
        [installed(argv[0]), *argv[1:]], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_grafana_finds_its_prometheus_and_the_folder_that_is_mounted() -> None:
    provisioning = FILE.parent / "compose/grafana"
    (source,) = yaml.safe_load((provisioning / "datasources/prometheus.yaml").read_text())[
        "datasources"
    ]
    (provider,) = yaml.safe_load((provisioning / "dashboards/emotrack.yaml").read_text())[
        "providers"
    ]
    assert (source["uid"], source["url"]) == ("prometheus", "http://prometheus:9090")
    mounts = {m.split(":")[1]: m.split(":")[0] for m in SERVICES["grafana"]["volumes"]}
    assert mounts[provider["options"]["path"]] == "./grafana"
    assert mounts["/etc/grafana/provisioning"] == "./compose/grafana"
