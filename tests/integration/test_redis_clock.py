"""A worker whose Redis host's clock jumps ahead: no context is lost without a word."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from stream.local import servers
from stream.local.servers import RunningRedis
from stream.settings import Settings
from tests.integration.workers import Site, ThreadWorker, wait_for

pytestmark = pytest.mark.integration

Start = Callable[[Settings], ThreadWorker]


@pytest.fixture
def own(tmp_path: Path) -> Iterator[RunningRedis]:
    with servers.redis_server(tmp_path) as running:
        yield running


def jump(running: RunningRedis, seconds: float) -> None:
    """Take so much off every key's life, as a clock that jumps ahead does."""
    client = redis.Redis(port=running.port)
    for key in client.scan_iter("*"):
        left = client.pttl(key)
        if left > 0:
            client.pexpire(key, left - int(1000 * seconds))
    client.close()


@pytest.mark.parametrize("running", [True, False])
def test_the_context_of_an_open_session_survives_a_jump_of_the_store_s_clock(
    running: bool, site: Site, own: RunningRedis, start: Start
) -> None:
    """All keys expire at once. A worker that started later took each next turn for a first one."""
    settings = site.settings.model_copy(update={"redis_url": own.url})
    worker = start(settings)
    for turn in range(3):
        site.say("c", turn)
    site.flush()
    wait_for(lambda: site.committed() == 3, "three answers")
    if not running:
        worker.end()
    jump(own, 1801)  # two silences of 900 s, which states live for
    if not running:
        start(settings)
    site.say("c", 3)
    site.flush()
    wait_for(lambda: site.committed() == 4, "the fourth answer")
    (last,) = [answer for answer in answers(site) if answer["utterance_id"] == "c-3"]
    assert last["context"]["utterances"] == 3, "as many as it would have had: all that came before"
    assert not last["context"]["truncated"]


def answers(site: Site) -> list[dict[str, Any]]:
    log = site.log(site.settings.topics.predictions)
    return [json.loads(record.value or b"{}") for record in log]
