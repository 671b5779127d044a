"""`emotrack data` as a user types it: own conversations in, a folder that trains out."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from model.data.dataset import SPLITS
from model.data.reader import read_data_set
from model.data.writer import write_data_set
from tests.fakes.console import emotrack, run
from tests.fakes.conversations import generated_conversations

TALKS, TURNS = 10, 6


def refused(*arguments: str) -> str:
    """Return the error message of a command run in its own process."""
    done = emotrack(*arguments)
    assert done.returncode == 7, done.stderr
    assert b"Traceback" not in done.stderr
    return done.stderr.decode()


@pytest.fixture
def talk(tmp_path: Path) -> Path:
    """A CSV of ten conversations."""
    path = tmp_path / "calls.csv"
    lines = ["dialogue_id,speaker,utterance,label"]
    lines += [
        f'{c},{"ab"[t % 2]},"Well, turn {t}!",{("calm", "mad", "glad")[c * t % 3]}'
        for c in range(TALKS)
        for t in range(TURNS)
    ]
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


def test_a_csv_of_ten_conversations_becomes_a_set_that_reads(talk: Path, tmp_path: Path) -> None:
    output = run("data", "convert", str(talk), "--out", str(tmp_path / "set"))
    assert "emotrack train --data" in output
    assert "held out (seed 0)" in output
    data = read_data_set(tmp_path / "set")
    assert (data.name, data.labels, data.widths) == ("calls", ("calm", "glad", "mad"), {})
    assert sum(len(d) for d in data.split("train")) == 6 * TURNS
    assert "longest dialogue" in run("data", "check", str(tmp_path / "set"))


@pytest.mark.slow
def test_a_csv_with_text_vectors_trains(talk: Path, tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).normal(size=(TALKS * TURNS, 12)).astype(np.float32)
    np.savez(tmp_path / "t.npz", text=vectors)
    out = ("--out", str(tmp_path / "set"), "--features", str(tmp_path / "t.npz"))
    run("data", "convert", str(talk), *out)
    runs = ("--runs", str(tmp_path / "runs"), "--name", "one", "--epochs", "1", "--hidden", "8")
    run("train", "--data", str(tmp_path / "set"), *runs)
    assert (tmp_path / "runs" / "one" / "model.safetensors").exists()


def test_sounds_listed_as_text_find_their_utterances_or_are_refused(tmp_path: Path) -> None:
    """30 clips, 0.wav to 29.wav, as `extract audio clips/*.wav` names them."""
    names = sorted(map(str, range(30)))
    np.savez(tmp_path / "a.npz", audio=np.arange(30.0)[:, None], name=np.array(names))
    head = "call_id,speaker,text,label,split"
    lines = [f"c{i % 3},ann,hi,{'ab'[i % 2]},{SPLITS[i % 3]}" for i in range(30)]
    plain, clips = tmp_path / "plain.csv", tmp_path / "clips.csv"
    plain.write_text("\n".join([head, *lines]))
    wavs = [f"{line},clips/{i}.wav" for i, line in enumerate(lines)]
    clips.write_text("\n".join([head + ",clip", *wavs]))
    out = ("--out", str(tmp_path / "set"), "--features", str(tmp_path / "a.npz"))
    assert "sorted as text (row 2 is '10', by number it would be '2')" in refused(
        "data", "convert", str(plain), *out
    )
    assert not (tmp_path / "set").exists()
    run("data", "convert", str(clips), *out)
    data = read_data_set(tmp_path / "set")
    for number, part in enumerate(SPLITS):
        (dialogue,) = data.split(part)
        sounds = [names[int(value)] for value in dialogue.features["audio"][:, 0]]
        assert sounds == [str(i) for i in range(number, 30, 3)]


def test_the_json_of_published_code_becomes_a_set_that_reads(tmp_path: Path) -> None:
    row = {
        str(n): {
            "utterance": f"Anna: turn {n}",
            "speaker": "Anna",
            "emotion": "joy",
            "feature_key": f"dia0_utt{n}",
        }
        for n in range(2)
    }
    content = json.dumps({"2": {"0": row, "1": row}})
    (tmp_path / "train_data.json").write_text(content, "utf-8")
    out = tmp_path / "set"
    run("data", "import-json", "meld", str(tmp_path), "--out", str(out))
    assert read_data_set(out).split("dev")[0].sentences == ("turn 0", "turn 1")


def test_a_check_counts_what_is_there(tmp_path: Path) -> None:
    data = generated_conversations(20, seed=1)
    write_data_set(tmp_path, data)
    output = run("data", "check", str(tmp_path))
    total = sum(len(d) for d in data.split("train"))
    assert str(total) in output
    assert "audio, 8 numbers" in output
    assert "100.0 %" in output


@pytest.mark.slow
def test_what_does_not_fit_is_one_sentence_and_nothing_is_written(
    talk: Path, tmp_path: Path
) -> None:
    np.savez(tmp_path / "t.npz", audio=np.ones((7, 3)))
    output = refused(
        *("data", "convert", str(talk), "--out", str(tmp_path / "set")),
        *("--features", str(tmp_path / "t.npz")),
    )
    assert f"has 7 rows, the conversations have {TALKS * TURNS} utterances" in output
    assert not (tmp_path / "set").exists()
    assert "no column 'mood'" in refused(
        *("data", "convert", str(talk), "--out", str(tmp_path / "set"), "--label-column", "mood")
    )
    assert "no data set in" in refused("data", "check", str(tmp_path))


def test_a_hostile_pickle_is_refused_by_what_it_asks_for(tmp_path: Path) -> None:
    bad = tmp_path / "bad.pkl"
    bad.write_bytes(b"cos\nsystem\n(S'touch ran'\ntR.")
    good = tmp_path / "good.pkl"
    good.write_bytes(pickle.dumps((None,) * 11, 2))
    output = refused(
        *("data", "import", "meld", "--features", str(bad), "--roberta", str(good)),
        *("--out", str(tmp_path / "set")),
    )
    assert "asks for os.system: nothing of it was run or read" in output
    assert not (tmp_path / "set").exists()
