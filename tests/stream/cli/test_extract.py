"""`emotrack extract` as a user types it: files in, row-aligned vectors and a table out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from model.checkpoint_files import default_checkpoint
from model.data.extractors import ACTION_UNITS
from model.errors import EncoderMissing
from model.pcgnet.checkpoint import load_checkpoint
from model.text.sentence_encoder import SentenceEncoder, find_encoder
from tests.fakes.console import emotrack, run
from tests.fakes.speech import made, spoken


def refused(*arguments: str) -> str:
    done = emotrack(*arguments)
    assert done.returncode != 0
    assert b"Traceback" not in done.stderr
    return done.stderr.decode()


def test_sounds_become_rows_in_the_order_given_with_the_models_recipe(tmp_path: Path) -> None:
    whisper = spoken(tmp_path / "2.wav", "this is a secret", voice="en+whisper")
    loud = spoken(tmp_path / "1.wav", "What a lovely surprise!")
    silent = made(tmp_path / "3.wav", "trim", "0", "1")
    out = tmp_path / "audio.npz"
    output = run("extract", "audio", *map(str, (whisper, loud, silent)), "--out", str(out))
    assert "avg_pitch" in output
    assert f"{silent}: nothing to measure" in output.replace("\n", "")
    with np.load(out) as arrays:
        assert arrays["name"].tolist() == ["2", "1", "3"]
        assert arrays["audio"].shape == (3, 8)
        assert np.isnan(arrays["audio"][0, 3])
        assert np.isfinite(arrays["audio"][1]).all()
        assert np.isnan(arrays["audio"][2]).all()
        shipped = load_checkpoint(default_checkpoint())
        assert str(arrays["audio_extractor"]) == shipped.extractors["audio"]


def test_missing_measurements_become_the_checkpoints_train_mean(tmp_path: Path) -> None:
    whisper = spoken(tmp_path / "w.wav", "this is a secret", voice="en+whisper")
    silent = made(tmp_path / "s.wav", "trim", "0", "1")
    out = tmp_path / "audio.npz"
    files = (str(whisper), str(silent))
    run("extract", "audio", *files, "--out", str(out), "--fill-from", "shipped")
    mean = load_checkpoint(default_checkpoint()).weights["audio_mean"].numpy()
    with np.load(out) as arrays:
        assert arrays["audio"][0, 3] == mean[3]
        assert np.isfinite(arrays["audio"][0]).all()
        assert np.isnan(arrays["audio"][1]).all()  # absent, not average


def test_openface_files_become_rows(tmp_path: Path) -> None:
    columns = ["success", "confidence", *(f" {unit}_r" for unit in ACTION_UNITS)]
    for name, value in (("a", 1), ("b", 2)):
        rows = [",".join(columns), ",".join(["1", "0.9", *[str(value)] * 17])]
        (tmp_path / f"{name}.csv").write_text("\n".join(rows) + "\n", "utf-8")
    out = tmp_path / "video.npz"
    run("extract", "video", str(tmp_path / "a.csv"), str(tmp_path / "b.csv"), "--out", str(out))
    with np.load(out) as arrays:
        assert arrays["video"].tolist() == [[1] * 17, [2] * 17]
        shipped = load_checkpoint(default_checkpoint())
        assert str(arrays["video_extractor"]) == shipped.extractors["video"]


@pytest.mark.slow
def test_sentences_of_lines_and_tables_become_the_encoders_vectors(tmp_path: Path) -> None:
    try:
        shipped = load_checkpoint(default_checkpoint())
        encoder = SentenceEncoder.load(find_encoder(), shipped.text)
    except EncoderMissing as missing:
        pytest.skip(str(missing))
    (tmp_path / "a.txt").write_text("so what\n\nhello there\n", "utf-8")
    lines = [
        {"utterance_id": f"u{i}", "text": t} for i, t in enumerate(("so what", "", "hello there"))
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    for name in ("a.txt", "a.jsonl"):
        out = tmp_path / f"{name}.npz"
        assert "3 rows of 384" in run("extract", "text", str(tmp_path / name), "--out", str(out))
        with np.load(out) as arrays:
            np.testing.assert_array_equal(
                arrays["text"][[0, 2]], encoder.encode(["so what", "hello there"])
            )
            assert np.isnan(arrays["text"][1]).all()
            assert str(arrays["text_extractor"]) == shipped.extractors["text"]


@pytest.mark.slow
def test_what_cannot_be_read_is_one_sentence_and_nothing_is_written(tmp_path: Path) -> None:
    bad = tmp_path / "a.wav"
    bad.write_bytes(b"no sound")
    out = tmp_path / "out.npz"
    assert "a.wav is no sound" in refused("extract", "audio", str(bad), "--out", str(out))
    assert "lacks the columns" in refused("extract", "video", str(bad), "--out", str(out))
    assert "a.jsonl" in refused("extract", "text", str(tmp_path / "a.jsonl"), "--out", str(out))
    assert not out.exists()
