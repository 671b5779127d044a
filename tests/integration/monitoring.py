"""A worker under load, watched by Prometheus and Alertmanager with what is in `deploy/`."""

from __future__ import annotations

import json
import math
import shutil
import threading
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import redis

from stream.local import servers
from stream.local.servers import RunningRedis, answers, free_ports
from tests.conftest import ROOT, enter
from tests.deploy.short_windows import faster
from tests.fakes.predictor import SmallPredictor
from tests.integration.workers import Site, ThreadWorker, wait_for
from tests.servers import configured_alertmanager, configured_prometheus

TIMES_FASTER: Final = 120  # five minutes are 2.5 s
SCRAPE_MS: Final = 250
PER_S: Final = 50
CONVERSATIONS: Final = 8
FIRES_S: Final = 180.0  # seconds where the machine is free
NEWER: Final = 9 * 10**15  # a fence token of somebody else


class Load:
    """Utterances at a steady pace, on a thread of their own, until it is closed."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._end = threading.Event()
        self.paused = False
        self.poison = False  # every second record cannot be read
        self.audio = [3.0, 0.0]  # what makes the small model say calm
        self.sent = 0
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._end.wait(1 / PER_S):
            if not self.paused:
                self.say()
            if self.poison:
                self._site.send(b"{", b"k")

    def say(self) -> None:
        """One utterance."""
        self.sent += 1
        features = {"audio": {"tensor": self.audio}}
        self._site.say(f"c{self.sent % CONVERSATIONS}", self.sent, features=features)

    def close(self) -> None:
        self._end.set()
        self._thread.join(10)
        self._site.flush()


@dataclass
class Pager:
    """A receiver for Alertmanager that records the alerts of each path."""

    told: set[tuple[str, str]] = field(default_factory=set)

    def __post_init__(self) -> None:
        told = self.told

        class Hook(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                told.update((self.path, alert["labels"]["alertname"]) for alert in body["alerts"])
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                """Nobody reads it."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Hook)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@dataclass
class Watched:
    """Everything that runs, and what Prometheus says of it."""

    site: Site
    worker: ThreadWorker
    predictor: SmallPredictor
    redis: RunningRedis
    load: Load
    pager: Pager
    prometheus: str  # address

    def ask(self, query: str) -> list[float]:
        """The values of an instant query."""
        asked = f"{self.prometheus}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
        answer = json.load(urllib.request.urlopen(asked, timeout=10))
        return [float(sample["value"][1]) for sample in answer["data"]["result"]]

    def finite(self, query: str) -> bool:
        """Return whether a query has a number to show."""
        return any(math.isfinite(value) for value in self.ask(query))

    def fires(self, alert: str) -> bool:
        return bool(self.ask(f'ALERTS{{alertname="{alert}", alertstate="firing"}}'))

    def wait_fired(self, alert: str) -> None:
        wait_for(lambda: self.fires(alert), alert, FIRES_S)

    def wait_over(self, alert: str) -> None:
        wait_for(lambda: not self.fires(alert), f"the end of {alert}", FIRES_S)

    def start_redis(self) -> None:
        """Start Redis again, empty, at the same address."""
        self.redis.server.start(lambda: answers(self.redis.port))

    def outdo_the_worker(self) -> None:
        """Write a newer fence token into every state, as a newer owner of its partition would."""
        client = redis.Redis(port=self.redis.port)
        for key in client.scan_iter("et:{*}:h"):
            client.hset(key, "t", str(NEWER))
        client.close()


@contextmanager
def watched(site: Site, predictor: SmallPredictor, directory: Path) -> Iterator[Watched]:
    """Start it all; end it all."""
    with ExitStack() as stack:
        (directory / "redis").mkdir()
        server = servers.redis_server(directory / "redis")
        redis_server = enter(server)
        stack.callback(server.__exit__, None, None, None)
        settings = site.settings.model_copy(
            update={"redis_url": redis_server.url, "batch_max": CONVERSATIONS, "retry_ms": 100.0}
        )
        worker = ThreadWorker(settings).start()
        stack.callback(worker.end)
        pager = Pager()
        stack.callback(pager.close)
        address = stack.enter_context(shipped_monitoring(directory, worker.url, pager.port))
        load = Load(site)
        stack.callback(load.close)
        yield Watched(site, worker, predictor, redis_server, load, pager, address)


@contextmanager
def shipped_monitoring(directory: Path, worker: str, pager_port: int) -> Iterator[str]:
    """Prometheus and Alertmanager as `deploy/prometheus` configures them, on a faster clock."""
    here = directory / "monitoring"
    shutil.copytree(ROOT / "deploy/prometheus", here)
    (port,) = free_ports(1)
    for path in here.rglob("*.yml"):
        text = faster(path.read_text(), TIMES_FASTER)
        text = text.replace("_interval: 15s", f"_interval: {SCRAPE_MS}ms")
        text = text.replace("127.0.0.1:9464", worker.removeprefix("http://"))
        text = text.replace("127.0.0.1:9093", f"127.0.0.1:{port}")
        path.write_text(text.replace("127.0.0.1:9095", f"127.0.0.1:{pager_port}"))
    with ExitStack() as stack:
        alertmanager = configured_alertmanager(here / "alertmanager.yml", port)
        enter(alertmanager)
        stack.callback(alertmanager.__exit__, None, None, None)
        server = configured_prometheus(here / "prometheus.yml")
        running = enter(server)
        stack.callback(server.__exit__, None, None, None)
        yield running.url
