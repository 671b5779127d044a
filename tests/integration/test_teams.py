"""Two teams on one Kafka and one Redis database, as docs/teams.md says it."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from typer.testing import CliRunner

from stream import main
from stream.brokers.topics import create, plan
from stream.events.messages import TopicNames
from stream.settings import Settings
from tests.integration.workers import PARTITIONS, Site, ThreadWorker, wait_for

pytestmark = pytest.mark.integration

TURNS = {"care": 5, "sales": 3}


def of_team(team: str, shared: Site) -> Site:
    """Return a team's topics and group on the servers of `shared`."""
    prefix = f"{team}{uuid.uuid4().hex[:8]}."
    create(shared.settings.bootstrap, plan(TopicNames(prefix), partitions=PARTITIONS))
    settings = shared.settings.model_copy(update={"topic_prefix": prefix, "group": prefix})
    return Site(settings, shared.producer)


def test_teams_with_equal_conversation_ids_do_not_meet_in_one_redis_database(
    site: Site, start: Callable[[Settings], ThreadWorker]
) -> None:
    teams = {name: of_team(name, site) for name in TURNS}
    for team in teams.values():
        start(team.settings)
    for n in range(max(TURNS.values())):  # in turns, so that both states grow at once
        for name, team in teams.items():
            if n < TURNS[name]:
                team.say("call-1", n, speaker_id=name, features={"audio": {"tensor": [n, 1.0]}})
    for name, team in teams.items():
        team.flush()
        topics = team.settings.topics
        wait_for(lambda t=team: t.committed() == t.sent, f"all commits of {name}")  # type: ignore[misc]
        answers = [json.loads(r.value or b"") for r in team.log(topics.predictions)]
        assert [a["utterance_id"] for a in answers] == [f"call-1-{n}" for n in range(TURNS[name])]
        assert {a["speaker_id"] for a in answers} == {name}
        state = shown(team, "call-1")
        assert state["session"]["utterances"] == TURNS[name]
        assert [one["speaker_id"] for one in state["speakers"]] == [name]
    ids = {shown(team, "call-1")["topic_id"] for team in teams.values()}
    assert len(ids) == len(teams)


def shown(team: Site, conversation: str) -> dict[str, Any]:
    """Return what `conversations show` says."""
    s = team.settings
    argv = ["conversations", "show", conversation, "--json", "--ids"]
    argv += ["--bootstrap", s.bootstrap, "--topic-prefix", s.topic_prefix]
    ran = CliRunner().invoke(main.app, [*argv, "--redis-url", s.redis_url])
    assert ran.exception is None, ran.exception
    return json.loads(ran.stdout)  # type: ignore[no-any-return]
