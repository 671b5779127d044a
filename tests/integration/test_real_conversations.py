"""Real conversations through Apache Kafka, Redis and two workers, held to both laws."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from model.checkpoint_files import default_checkpoint
from model.data.dataset import DataSet, Split
from model.data.reader import read_data_set
from model.pcgnet.checkpoint import load_checkpoint
from model.pcgnet.whole import answer
from model.scoring.answers import emotion_weighted_f1
from model.text.encode_sentences import prepared
from stream.bench.conversations import through_kafka
from stream.bench.servers import Servers
from stream.client.data_source import DataChoice
from stream.local.servers import RunningKafka, RunningRedis
from tests.fakes.conversations import generated_conversations

CONVERSATIONS = 40


def conversations(folder: Path | None) -> DataSet:
    """MELD where it is, else generated conversations of the same layout."""
    return generated_conversations(CONVERSATIONS) if folder is None else read_data_set(folder)


@pytest.mark.integration
@pytest.mark.slow
def test_every_utterance_of_40_conversations_is_answered_once_and_exactly(
    kafka: RunningKafka,
    redis_server: RunningRedis,
    data_folder: Path | None,
    tmp_path: Path,
) -> None:
    """`through_kafka` raises where a byte differs from the oracle or the model law is broken."""
    data = conversations(data_folder)
    split: Split = "dev" if data_folder is not None else "train"
    choice = DataChoice(split, None, CONVERSATIONS)
    servers = Servers(kafka.bootstrap, redis_server.url, f"real{uuid.uuid4().hex[:8]}.")
    outcome = through_kafka(data, choice, servers, tmp_path)
    dialogues = data.split(split)[:CONVERSATIONS]
    assert (
        outcome.utterances
        == outcome.byte_equal
        == outcome.verified
        == sum(len(d) for d in dialogues)
    )
    assert len(outcome.by_worker) == 2, "both workers took part"
    shipped = load_checkpoint(default_checkpoint())
    offline = answer(shipped.model(), prepared(shipped.text, dialogues))
    # `emotrack evaluate`'s score, but for labels whose two best probabilities are nearly equal.
    slack = outcome.ties / outcome.utterances
    assert outcome.ties <= 1
    assert outcome.weighted_f1 == pytest.approx(emotion_weighted_f1(offline), abs=1e-12 + 2 * slack)
