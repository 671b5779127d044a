"""Liveness never depends on servers; readiness on all of them."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import fields

import pytest

from stream.errors import ConfigError
from stream.metrics.catalogue import CONTENT_TYPE
from stream.worker.observe import Health
from stream.worker.status_server import StatusServer

READY = {f.name: f.name != "draining" for f in fields(Health) if f.type == "bool"}


@pytest.fixture
def server() -> Iterator[StatusServer]:
    status = StatusServer(
        "127.0.0.1",
        0,
        health=Health(),
        render=lambda: b"emotrack_x 1\n",
        version={"emotrack": "1"},
    )
    yield status
    status.close()


def get(server: StatusServer, path: str) -> tuple[int, str, bytes]:
    try:
        with urllib.request.urlopen(server.url + path, timeout=5) as answer:
            return answer.status, answer.headers["Content-Type"], answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers["Content-Type"], error.read()


def test_liveness_needs_nothing_but_the_process(server: StatusServer) -> None:
    assert get(server, "/healthz")[0] == 200


@pytest.mark.parametrize("part", list(READY))
def test_readiness_needs_every_part(server: StatusServer, part: str) -> None:
    for name, good in READY.items():
        setattr(server.health, name, good)
    assert get(server, "/readyz")[0] == 200
    setattr(server.health, part, not READY[part])
    status, _, body = get(server, "/readyz")
    assert status == 503
    assert list(json.loads(body).values()).count(False) == 1


def test_a_start_that_waits_says_what_for(server: StatusServer) -> None:
    server.health.waiting = "Redis cannot be reached"
    status, _, body = get(server, "/readyz")
    assert (status, json.loads(body)["waiting"]) == (503, "Redis cannot be reached")


def test_metrics_and_version_are_shown(server: StatusServer) -> None:
    assert get(server, "/metrics?x=1") == (200, CONTENT_TYPE, b"emotrack_x 1\n")
    assert json.loads(get(server, "/version")[2]) == {"emotrack": "1"}


def test_another_path_lists_the_paths_there_are(server: StatusServer) -> None:
    status, _, body = get(server, "/")
    assert status == 404
    assert b"/readyz" in body


def test_a_port_in_use_names_the_setting_that_cures_it(server: StatusServer) -> None:
    port = int(server.url.rpartition(":")[2])
    with pytest.raises(ConfigError, match="EMOTRACK_METRICS_PORT"):
        StatusServer(
            "127.0.0.1",
            port,
            health=Health(),
            render=lambda: b"",
            version={},
        )
