"""The rows of docs/personal-data.md, on real Kafka and Redis."""

from __future__ import annotations

import io
import json
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator

import pytest
import redis
import structlog

from stream.local import servers
from stream.local.servers import RunningRedis
from stream.settings import Settings
from stream.worker.process import configure_log
from tests.conftest import enter
from tests.fakes.predictor import SmallPredictor
from tests.integration.workers import Site, ThreadWorker, wait_for

pytestmark = pytest.mark.integration

CALL, ANN, TURN, SPOKEN = "ann-call", "ann@example.org", "ann-said", "zanzibar"
IDS = (CALL, ANN, TURN)
CHECKED = "states checked against the log"


@pytest.fixture
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningRedis]:
    """A Redis of its own: it is emptied, and all of its keys are looked at."""
    server = servers.redis_server(tmp_path_factory.mktemp("redis"))
    yield enter(server)
    server.__exit__(None, None, None)


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """The lines that the worker logs."""
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert isinstance(sys.stderr, io.StringIO)
    return sys.stderr


@pytest.fixture
def held(
    site: Site,
    store: RunningRedis,
    start: Callable[[Settings], ThreadWorker],
    log: io.StringIO,
) -> Iterator[tuple[Site, ThreadWorker, redis.Redis]]:
    """A worker that answered Ann's call, a duplicate, a tombstone and what cannot be read."""
    site.settings = site.settings.model_copy(
        update={"redis_url": store.url, "log_level": "debug", "log_format": "json"}
    )
    lines = configure_log(site.settings)
    worker = start(site.settings)
    for n in (0, 1, 2, 1):
        said = {"utterance_id": f"{TURN}-{n}", "speaker_id": ANN, "text": f"{SPOKEN} {n}"}
        site.say(CALL, n, features={"audio": {"tensor": [n, 1.0]}}, **said)
    site.send(json.dumps({"conversation_id": CALL, "text": SPOKEN}).encode(), CALL.encode())
    site.flush()
    with redis.Redis.from_url(store.url) as client:
        yield site, worker, client
    lines.close()
    structlog.reset_defaults()


def answer_all(site: Site) -> None:
    site.flush()
    wait_for(lambda: site.committed() == site.sent, "all commits")


def page_of(worker: ThreadWorker, page: str) -> str:
    """Return a page, also one that says that the worker is not ready."""
    try:
        with urllib.request.urlopen(f"{worker.url}/{page}", timeout=5) as answer:
            return str(answer.read().decode())
    except urllib.error.HTTPError as error:
        return error.read().decode()


def test_log_metrics_and_names_of_keys_have_no_id_and_no_text(
    held: tuple[Site, ThreadWorker, redis.Redis], log: io.StringIO
) -> None:
    """Also not while states are lost and computed again."""
    site, worker, client = held
    answer_all(site)
    client.flushall()
    site.say(CALL, 3, utterance_id=f"{TURN}-3", speaker_id=ANN, text=SPOKEN)
    answer_all(site)
    shown = [page_of(worker, page) for page in ("metrics", "version", "readyz")]
    shown += [key.decode() for key in client.scan_iter()]
    assert worker.end() == 0
    wait_for(lambda: '"drained"' in log.getvalue(), "the last line of the log")
    shown.append(log.getvalue())
    everything = "".join(shown)
    assert CHECKED in everything and "record refused" in everything
    assert not [word for word in (*IDS, SPOKEN) if word in everything]


def test_text_is_in_utterances_and_dead_letters_and_ids_are_in_what_comes_out(
    held: tuple[Site, ThreadWorker, redis.Redis],
) -> None:
    site, _, client = held
    answer_all(site)
    topics = site.settings.topics
    predictions = b"".join(r.value or b"" for r in site.log(topics.predictions))
    assert ANN.encode() in predictions and TURN.encode() in predictions
    assert SPOKEN.encode() not in predictions
    (letter,) = site.log(topics.dead_letters)
    assert SPOKEN.encode() in (letter.value or b"")
    stored = b"".join(client.dump(key) or b"" for key in client.scan_iter("et:{*"))
    assert ANN.encode() in stored and SPOKEN.encode() not in stored


def test_every_key_of_a_conversation_expires_after_twice_idle_s(
    held: tuple[Site, ThreadWorker, redis.Redis],
) -> None:
    site, _, client = held
    answer_all(site)
    most_ms = 2_000 * SmallPredictor().recurrence.idle_s
    left = {key: client.pttl(key) for key in client.scan_iter("et:*")}
    lasting = [key for key, ttl in left.items() if ttl == -1]
    assert all(key.startswith(b"et:fence:") for key in lasting), "a partition's number, no one's"
    assert all(0 < ttl <= most_ms for key, ttl in left.items() if key not in lasting)
    assert len(left) - len(lasting) >= 4


def test_a_tombstone_is_counted_and_deletes_nothing(
    held: tuple[Site, ThreadWorker, redis.Redis],
) -> None:
    site, worker, client = held
    answer_all(site)
    before = {key: client.dump(key) for key in client.scan_iter("et:{*")}
    site.send(None, CALL.encode())
    answer_all(site)
    assert worker.metric('outcomes_total{outcome="control"}') == 1
    after = {key: client.dump(key) for key in client.scan_iter("et:{*")}
    assert before and before == after
    assert (
        b"".join(r.value or b"" for r in site.log(site.settings.topics.utterances)).count(
            SPOKEN.encode()
        )
        == 5
    ), "all that was said is still in the log"
