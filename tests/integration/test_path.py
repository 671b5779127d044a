"""The files that one utterance crosses, counted: raw text, PCGNet, Redis, native runtime."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import pytest

from tests.conftest import ROOT
from tests.integration.workers import Site, ThreadWorker, wait_for

pytestmark = pytest.mark.integration

MOST = 34  # 33 before languages, known ids and repeated names were judged
PACKAGES = tuple(str(ROOT / package) for package in ("stream", "model", "state"))


class Trace:
    """Files of the product whose functions ran, in the order they were entered first."""

    def __init__(self) -> None:
        self.on = False
        self.files: dict[str, None] = {}

    def __call__(self, frame: FrameType, event: str, _argument: object) -> None:
        if threading.current_thread().name == "kafka-watch":
            return  # it looks at the cluster by itself, and has no part in an utterance
        if self.on and event == "call" and frame.f_code.co_filename.startswith(PACKAGES):
            self.files[str(Path(frame.f_code.co_filename).relative_to(ROOT))] = None

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Trace threads that start within."""
        threading.setprofile(self)
        try:
            yield
        finally:
            threading.setprofile(None)


def test_an_utterance_crosses_few_files(site: Site) -> None:
    """From the broker's bytes to the commit of a speaker's second utterance, all of it."""
    trace = Trace()
    with trace.installed():
        worker = ThreadWorker(site.settings).start()
    try:
        speak(site, 1)
        answered(site, 1)
        trace.on = True
        speak(site, 2)
        answered(site, 2)
    finally:
        trace.on = False
        worker.end()
    print("\n".join(trace.files), file=sys.stderr)
    assert 15 < len(trace.files) <= MOST, "\n".join(trace.files)
    walk = (ROOT / "docs/architecture.md").read_text("utf-8")
    missing = [file for file in trace.files if Path(file).name not in walk]
    assert not missing, "docs/architecture.md walks an utterance without them"


def speak(site: Site, n: int) -> None:
    body = {"conversation_id": "c", "utterance_id": f"u{n}", "speaker_id": "ann"}
    texts = ["How lovely to see you!", "Leave me alone, I hate you!"]
    site.send(json.dumps(body | {"text": texts[n % 2]}).encode(), b"c")
    site.flush()


def answered(site: Site, n: int) -> None:
    wait_for(lambda: site.committed() == n, f"commit {n}")
    assert site.ends(site.settings.topics.predictions) == n
