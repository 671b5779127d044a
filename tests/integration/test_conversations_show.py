"""`emotrack conversations show` on what a real worker left in redis-server."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from typer.testing import CliRunner, Result

from stream import main, serve
from stream.errors import ConfigError, StateMissing
from stream.settings import Settings
from tests.fakes.predictor import SmallPredictor
from tests.integration.workers import Site, ThreadWorker, wait_for

pytestmark = pytest.mark.integration

Start = Callable[[Settings], ThreadWorker]


def show(site: Site, *arguments: str) -> Result:
    """Run the command; what a person can cure is raised."""
    where = [
        f"--bootstrap={site.settings.bootstrap}",
        f"--topic-prefix={site.settings.topic_prefix}",
        f"--redis-url={site.settings.redis_url}",
    ]
    ran = CliRunner().invoke(main.app, ["conversations", "show", *where, *arguments])
    if ran.exception is not None:
        raise ran.exception
    return ran


def test_a_state_is_told_to_people_and_no_word_with_it(
    site: Site, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = start(site.settings)
    for n in range(5):
        site.say("call {7}", n, text="a secret sentence", seq=n)
    site.flush()
    wait_for(lambda: site.committed() == site.sent, "all commits")
    (last,) = [
        r for r in site.log(site.settings.topics.utterances) if b'"seq": 4' in (r.value or b"")
    ]
    said = show(site, "call {7}", "--json", "--ids").stdout
    assert "secret" not in said
    told = json.loads(said)
    assert told["partition"] == told["keyed_to"] == last.partition
    assert told["noted_on"] == [last.partition] and not told["session"]["id_reused"]
    assert told["position"] == last.offset and told["also_on"] == []
    assert told["session"]["utterances"] == 5 and told["session"]["last_seq"] == 4
    assert not told["session"]["truncated"] and not told["session"]["ended"]
    assert [row["utterance_id"] for row in told["window"]] == [f"call {{7}}-{n}" for n in (2, 3, 4)]
    assert [row["index"] for row in told["window"]] == [2, 3, 4]
    assert [one["speaker_id"] for one in told["speakers"]] == ["s1", "s0"]
    assert told["rows"] == told["rows_at_most"] == 3 and told["utterance_ids"] == 5
    assert told["digest"] == SmallPredictor().spec.digest
    assert told["outputs"][-1]["position"] == last.offset
    assert told["outputs"][-1]["sends"][0].startswith("prediction ")
    assert 0 < told["expires_in_s"] <= 2 * SmallPredictor().recurrence.idle_s
    assert told["fence_token"] > 0 and told["clock"].endswith(" UTC")

    table = show(site, "call {7}", "--ids").stdout
    assert "--ids shows them" not in table
    for fact in ("call {7}", "3 of 3 rows", "5 utterances since", told["digest"], "call {7}-4"):
        assert fact in table

    other = SmallPredictor(digest="e" * 64)
    monkeypatch.setattr(serve, "load_predictor", lambda *args, **kwargs: other)
    assert "another model" in json.loads(show(site, "call {7}", "--json").stdout)["problem"]
    assert worker.end() == 0


def test_ids_of_speakers_and_utterances_are_shown_only_when_asked_for(
    site: Site, start: Start
) -> None:
    worker = start(site.settings)
    for n in range(4):
        speaker = f"ann{n % 2}@example.com"
        site.say("gdpr-1", n, speaker_id=speaker, features={"audio": {"tensor": [n, 1.0]}})
    site.flush()
    wait_for(lambda: site.committed() == site.sent, "all commits")
    data = show(site, "gdpr-1", "--json").stdout
    told = json.loads(data)
    assert (
        told["ids_masked"]
        and not json.loads(show(site, "gdpr-1", "--json", "--ids").stdout)["ids_masked"]
    )
    window = [(row["utterance_id"], row["speaker_id"]) for row in told["window"]]
    assert window == [
        ("utterance 1", "speaker 1"),
        ("utterance 2", "speaker 2"),
        ("utterance 3", "speaker 1"),
    ]
    # The same people and utterances have the same numbers in both lists.
    last = {one["speaker_id"]: one["last_utterance_id"] for one in told["speakers"]}
    assert last == {"speaker 1": "utterance 3", "speaker 2": "utterance 2"}
    table = show(site, "gdpr-1").stdout
    assert "--ids shows them" in table and "speaker 2" in table
    for shown in (data, table):
        assert "example.com" not in shown and "gdpr-1-" not in shown
    assert "ann1@example.com" in show(site, "gdpr-1", "--ids").stdout
    assert worker.end() == 0


def test_what_cannot_be_shown_says_where_was_looked(site: Site, small_model: None) -> None:
    with pytest.raises(StateMissing, match="no state of conversation 'nobody' on any partition"):
        show(site, "nobody")
    with pytest.raises(StateMissing, match="on partition 1"):
        show(site, "nobody", "--partition=1")
    with pytest.raises(ConfigError, match="partitions 0 to 1"):
        show(site, "nobody", "--partition=2")
    with pytest.raises(ConfigError, match="memory of a worker"):
        show(site, "nobody", "--redis-url=memory://")
