"""`make audit` fails on an advisory, passes without one, and says so where nobody can be asked."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final

import pytest

from stream.local.servers import free_ports
from tests.conftest import ROOT

pytestmark = pytest.mark.skipif(
    not (ROOT / ".venv/bin/pip-audit").exists(), reason="pip-audit is not in .venv: make install"
)
LOCK: Final = f"six==1.16.0 --hash=sha256:{'0' * 64}\n"
ADVISORY: Final = {
    "id": "OSV-TEST-1",
    "modified": "2026-01-01T00:00:00Z",
    "affected": [
        {
            "package": {"name": "six", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "1.17.0"}]}],
        }
    ],
}


class _Advisories(BaseHTTPRequestHandler):
    answer: dict[str, object]

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        body = json.dumps(self.answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing to say."""


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    path = tmp_path / "six.lock"
    path.write_text(LOCK)
    return path


@pytest.fixture
def service() -> Iterator[ThreadingHTTPServer]:
    """An advisory service of our own."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Advisories) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def audit(lock: Path, port: int) -> tuple[int, str]:
    found = subprocess.run(
        ["bash", "deploy/dev/audit.sh"],
        cwd=ROOT,
        env=os.environ | {"LOCK": str(lock), "OSV_URL": f"http://127.0.0.1:{port}/v1/query"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return found.returncode, found.stdout + found.stderr


@pytest.mark.parametrize(
    ("answer", "code", "says"),
    [
        ({}, 0, "no known advisory applies"),
        ({"vulns": [ADVISORY]}, 1, "six 1.16.0: OSV-TEST-1 (fixed in: 1.17.0)"),
    ],
)
def test_an_advisory_fails_and_none_passes(
    answer: dict[str, object],
    code: int,
    says: str,
    lock: Path,
    service: ThreadingHTTPServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_Advisories, "answer", answer, raising=False)
    assert audit(lock, service.server_port)[0] == code
    assert says in audit(lock, service.server_port)[1]


def test_a_service_that_cannot_be_reached_is_said_and_fails_nothing(lock: Path) -> None:
    code, said = audit(lock, free_ports(1)[0])
    assert code == 0, said
    assert "not audited: the advisory service cannot be reached" in said


def test_a_lock_that_cannot_be_read_is_no_green_audit(tmp_path: Path) -> None:
    assert audit(tmp_path / "none.lock", free_ports(1)[0])[0] == 1
