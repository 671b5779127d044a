"""The eight numbers of a sound, on sounds whose numbers are known or plausible."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from model.data.extractors import PRAAT_COLUMNS
from model.errors import DataError
from model.features.praat import measure
from tests.fakes.speech import made, spoken

SENTENCE = "Well, I do not know what you want me to tell them about the party tonight."
SYLLABLES = 18

Numbers = dict[str, float]


def numbers(path: Path) -> Numbers:
    return dict(zip(PRAAT_COLUMNS, measure(path).tolist(), strict=True))


@pytest.fixture
def speak(tmp_path: Path) -> Callable[..., Numbers]:
    def say(text: str = SENTENCE, voice: str = "en", words_a_minute: int = 160) -> Numbers:
        path = tmp_path / "said.wav"
        return numbers(spoken(path, text, voice=voice, words_a_minute=words_a_minute))

    return say


def test_speech_is_in_the_ranges_of_the_published_numbers(speak: Callable[..., Numbers]) -> None:
    """Between the 1st and 99th percentile of MELD's published columns, a synthetic voice too."""
    result = speak()
    published = {
        "duration": (0.19, 11.8), "avg_intensity": (48, 78), "intensity_variation": (1.8, 14.3),
        "avg_pitch": (77, 450), "pitch_std": (0.6, 156), "pitch_range": (1.5, 519),
        "articulation_rate": (1.1, 6.1), "mean_hnr": (-1.4, 13.8),
    }  # fmt: skip
    for column, (low, high) in published.items():
        assert low < result[column] < high, column


def test_syllables_are_counted_about_right(speak: Callable[..., Numbers]) -> None:
    result = speak(words_a_minute=120)
    assert result["articulation_rate"] * result["duration"] == pytest.approx(SYLLABLES, abs=4)


def test_faster_speech_has_a_higher_rate_and_a_higher_voice_a_higher_pitch(
    speak: Callable[..., Numbers],
) -> None:
    slow, fast = speak(words_a_minute=110), speak(words_a_minute=220)
    assert fast["articulation_rate"] > 1.3 * slow["articulation_rate"]
    assert fast["duration"] < slow["duration"]
    assert speak(voice="en+f3")["avg_pitch"] > 1.5 * speak(voice="en+m1")["avg_pitch"]


def test_a_pause_does_not_slow_the_articulation(tmp_path: Path) -> None:
    whole = spoken(tmp_path / "said.wav", SENTENCE)
    padded = made(tmp_path / "padded.wav", "pad", "0", "2", from_=whole)
    before, after = numbers(whole), numbers(padded)
    assert after["duration"] == pytest.approx(before["duration"] + 2, abs=0.01)
    assert after["articulation_rate"] == pytest.approx(before["articulation_rate"], rel=0.15)
    assert after["intensity_variation"] < 20  # digital silence, -300 dB, is no quiet room


def test_a_tone_has_the_pitch_and_loudness_it_was_made_with(tmp_path: Path) -> None:
    loud = numbers(made(tmp_path / "a.wav", "synth", "1", "sine", "220", "vol", "0.5"))
    soft = numbers(made(tmp_path / "b.wav", "synth", "1", "sine", "330", "vol", "0.05"))
    assert loud["duration"] == 1
    assert loud["avg_pitch"] == pytest.approx(220, abs=0.5)
    assert soft["avg_pitch"] == pytest.approx(330, abs=0.5)
    assert loud["pitch_range"] < 1
    assert loud["avg_intensity"] - soft["avg_intensity"] == pytest.approx(20, abs=0.1)
    # a sine of amplitude a has a / sqrt(2) root mean square; the reference is 20 uPa
    assert loud["avg_intensity"] == pytest.approx(20 * np.log10(0.5 / 2**0.5 / 2e-5), abs=0.3)
    assert np.isnan(loud["articulation_rate"])  # one long sound without a dip is no speech


def test_a_whisper_has_no_pitch_but_all_else(speak: Callable[..., Numbers]) -> None:
    result = speak(voice="en+whisper")
    assert np.isnan(result["avg_pitch"])
    assert (result["pitch_std"], result["pitch_range"]) == (0, 0)
    for column in ("duration", "avg_intensity", "intensity_variation", "mean_hnr"):
        assert np.isfinite(result[column])


@pytest.mark.parametrize("effects", [("trim", "0", "1"), ("synth", "0.02", "sine", "220")])
def test_silence_and_a_click_are_absent_vectors(tmp_path: Path, effects: tuple[str, ...]) -> None:
    assert np.isnan(measure(made(tmp_path / "a.wav", *effects))).all()


def test_channels_are_averaged(tmp_path: Path) -> None:
    one = spoken(tmp_path / "one.wav", SENTENCE)
    two = made(tmp_path / "two.wav", from_=one, channels=2)
    np.testing.assert_allclose(measure(one), measure(two), rtol=1e-3)


def test_a_file_that_is_no_sound_is_named(tmp_path: Path) -> None:
    for name, content in (("a.wav", b""), ("b.wav", b"RIFF"), ("c.wav", b"no sound at all")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=f"{name} is no sound Praat can read"):
            measure(tmp_path / name)
    with pytest.raises(DataError, match=r"missing\.wav"):
        measure(tmp_path / "missing.wav")
