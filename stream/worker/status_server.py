"""The worker's HTTP server: /metrics, /healthz, /readyz and /version, on a daemon thread.

It reads metrics and `Health` and never calls Kafka, the store or the model, so that a slow scrape
cannot slow the worker and a broken broker cannot break liveness.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, Final, cast

from stream.errors import ConfigError
from stream.metrics.catalogue import CONTENT_TYPE
from stream.worker.observe import Health

REQUEST_S: Final = 10.0  # a client slower than this is dropped


class StatusServer(ThreadingHTTPServer):
    """Serves until `close`; port 0 takes a free one. Raises `ConfigError` for a port in use."""

    daemon_threads = True

    def __init__(
        self,
        host: str,
        port: int,
        *,
        health: Health,
        render: Callable[[], bytes],
        version: Mapping[str, str],
    ) -> None:
        self.health, self.render, self.version = health, render, dict(version)
        try:
            super().__init__((host, port), _Handler)
        except OSError as error:
            raise ConfigError(
                f"cannot listen on {host}:{port} for metrics ({error.strerror}): choose another "
                "EMOTRACK_METRICS_PORT (0: any free port)"
            ) from None
        self._thread = Thread(target=self.serve_forever, name="status", daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """The address it listens on, without a path."""
        host, port = self.server_address[:2]
        return f"http://{host!s}:{port}"

    def close(self) -> None:
        """Stop listening; idempotent."""
        self.shutdown()
        self.server_close()
        self._thread.join(REQUEST_S)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that disconnect."""

    def answer(self, path: str) -> tuple[int, str, bytes]:
        """Return status, content type and body of a path."""
        if path == "/metrics":
            return 200, CONTENT_TYPE, self.render()
        if path == "/healthz":
            return 200, "text/plain", b"ok\n"
        if path == "/readyz":
            status = 200 if self.health.ready else 503
            body: dict[str, bool | str] = {**self.health.parts()}
            if waiting := self.health.waiting:
                body["waiting"] = waiting
            return status, "application/json", json.dumps(body).encode()
        if path == "/version":
            return 200, "application/json", json.dumps(self.version).encode()
        return 404, "text/plain", b"try /metrics, /healthz, /readyz or /version\n"


class _Handler(BaseHTTPRequestHandler):
    timeout = REQUEST_S

    def do_GET(self) -> None:
        server = cast(StatusServer, self.server)
        status, content_type, body = server.answer(self.path.partition("?")[0])
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Log no requests."""
