"""Logs are facts about records, never what somebody said."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Iterator
from threading import Event
from typing import Literal

import pytest
import structlog

from model.interface import Predictor
from stream.settings import Settings
from stream.worker.process import LogPipe, configure_log
from tests.stream.worker.test_loop import Plant

SPOKEN = "zanzibar"  # a word of the conversation that nothing else says


@pytest.fixture(autouse=True)
def _reset() -> Iterator[None]:
    yield
    structlog.reset_defaults()


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_no_text_of_a_conversation_is_ever_logged(
    log_format: Literal["console", "json"],
    predictor: Predictor,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Answered, repeated, refused for each kind of fault, held back: whatever happens to it."""
    pipe = configure_log(Settings(log_format=log_format, log_level="debug"))
    plant = Plant(predictor)
    plant.say(text=f"{SPOKEN} one", n=3)
    plant.say(utterance_id="u0", text=SPOKEN)
    plant.say(text=SPOKEN, features={"text": {"tensor": [1.0]}}, speaker_role=SPOKEN)
    plant.say(text=SPOKEN, is_partial=True)
    plant.say(text=[SPOKEN])
    plant.say(conversation="d", conversation_id="c", text=SPOKEN)
    plant.say(text=SPOKEN, speaker_id="")
    for value in (f'{{"text": "{SPOKEN}', f'{{"{SPOKEN}": 1}}', f'"{SPOKEN}"'):
        plant.log.append("utterances", b"c", value.encode())
    running = plant.worker()
    running.turns(3)
    running.store.away = True
    plant.say(conversation="e", text=SPOKEN)
    running.turns(3)
    running.store.away = False
    running.turns(100)
    running.worker.drain()
    pipe.close()
    out, err = capfd.readouterr()
    assert SPOKEN not in out + err
    assert err.count("record refused") >= 6 and "batch held" in err
    if log_format == "json":
        assert all(json.loads(line)["event"] for line in err.splitlines())
    assert len(plant.predictions()) >= 4


class Stuck(io.StringIO):
    """A pipe that nobody reads until it is `freed`."""

    def __init__(self) -> None:
        super().__init__()
        self.freed = Event()

    def write(self, text: str) -> int:
        self.freed.wait(30)
        return super().write(text)


def test_a_log_that_no_one_reads_blocks_nothing_and_reports_what_was_dropped() -> None:
    out, told = Stuck(), list[int]()
    pipe = LogPipe(out, told.append, most=5)
    for n in range(100):
        pipe.write(f"{n}\n")  # would wait for ever
    out.freed.set()
    pipe.close(30)
    written = [int(line) for line in out.getvalue().splitlines()]
    assert written == list(range(len(written)))  # the first, in order
    assert 5 <= len(written) <= 6  # the one that the thread had in its hands
    assert sum(told) == 100 - len(written)


class Broken(io.StringIO):
    """A pipe whose reader has gone, until it is `mended`."""

    mended = False

    def write(self, text: str) -> int:
        if not self.mended:
            raise BrokenPipeError
        return super().write(text)


def test_a_log_whose_reader_has_gone_is_no_failure() -> None:
    out = Broken()
    pipe = LogPipe(out, lambda lines: None)
    pipe.write("nobody is there\n")
    while pipe._lines.unfinished_tasks:
        time.sleep(0.01)
    out.mended = True
    pipe.write("somebody is\n")
    pipe.close(30)
    assert out.getvalue() == "somebody is\n"
