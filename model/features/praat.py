"""Eight numbers of Praat on an utterance's sound (extra `audio`).

docs/data.md has the recipe. Units: seconds, dB, Hz, syllables a second.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import parselmouth
from numpy.typing import NDArray
from parselmouth.praat import call

from model.data.dataset import Floats
from model.data.extractors import PRAAT_COLUMNS
from model.errors import DataError

PITCH_FLOOR: Final = 75.0  # Hz; Praat's defaults, which fit the published ranges
PITCH_CEILING: Final = 600.0
AUDIBLE: Final = 0.0  # dB: quieter frames are digital silence (-300 in Praat), not a room
UNDEFINED_HNR: Final = -200.0  # Praat's value of a silent frame

# Syllable nuclei, after de Jong and Wempe (2009): peaks of intensity with dips round them, voiced.
NUCLEUS_FLOOR: Final = 50.0  # Hz, of the intensity curve
NUCLEUS_BELOW: Final = 25.0  # dB under the loudest (99 % quantile)
NUCLEUS_DIP: Final = 2.0  # dB
VOICE: Final = (0.02, 30.0, 4, False, 0.03, 0.25, 0.01, 0.35, 0.25, 450.0)  # To Pitch (ac)
SHORTEST_PAUSE: Final = 0.3  # s
SHORTEST_SOUND: Final = 0.1

NAN: Final = float("nan")


def measure(path: Path) -> Floats:
    """Return [8] in the order of `model.data.extractors.PRAAT_COLUMNS`; NaN: not measurable.

    No voice: no pitch, and a deviation and range of 0. No syllable found: no articulation rate.
    Silent, or shorter than 64 ms: all NaN, which is an absent vector. Channels are averaged.
    Raises `DataError` for a file Praat cannot read.
    """
    try:
        sound = parselmouth.Sound(str(path))
    except (parselmouth.PraatError, ValueError) as error:
        message = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path} is no sound Praat can read: {message}") from error
    sound = sound.convert_to_mono()
    intensity = _measured(_intensity, sound, 2)
    if np.isnan(intensity[0]):
        return np.full(len(PRAAT_COLUMNS), NAN, np.float32)
    numbers = [
        float(sound.duration),
        *intensity,
        *_measured(_pitch, sound, 3),
        *_measured(_articulation_rate, sound, 1),
        *_measured(_harmonics_to_noise, sound, 1),
    ]
    return np.array(numbers, np.float32)


def _measured(
    analysis: Callable[[Any], Sequence[float]], sound: Any, count: int
) -> Sequence[float]:
    """Return `count` numbers; NaN where the sound is too short for the analysis window."""
    try:
        return analysis(sound)
    except parselmouth.PraatError:
        return [NAN] * count


def _intensity(sound: Any) -> Sequence[float]:
    """Return the mean of the energy, and the deviation of its level over time, in dB."""
    intensity = sound.to_intensity()
    curve = intensity.values[0]
    audible = curve[curve > AUDIBLE]
    return [float(intensity.get_average()), float(audible.std())] if len(audible) else [NAN, NAN]


def _pitch(sound: Any) -> Sequence[float]:
    """Return mean, deviation and range over voiced frames, in Hz."""
    pitch = sound.to_pitch(pitch_floor=PITCH_FLOOR, pitch_ceiling=PITCH_CEILING)
    curve = pitch.selected_array["frequency"]
    voiced = curve[curve > 0]
    if not len(voiced):
        return [NAN, 0.0, 0.0]
    return [float(voiced.mean()), float(voiced.std()), float(np.ptp(voiced))]


def _harmonics_to_noise(sound: Any) -> Sequence[float]:
    """Return the mean over frames that are not silent, in dB."""
    curve = sound.to_harmonicity_cc(minimum_pitch=PITCH_FLOOR).values
    defined = curve[curve != UNDEFINED_HNR]
    return [float(defined.mean())] if len(defined) else [NAN]


def _articulation_rate(sound: Any) -> Sequence[float]:
    """Return syllable nuclei a second of sounding time."""
    intensity = sound.to_intensity(minimum_pitch=NUCLEUS_FLOOR)
    curve, times = intensity.values[0], intensity.xs()
    loudest = float(np.quantile(curve, 0.99))
    if loudest <= AUDIBLE or np.ptp(curve) <= NUCLEUS_DIP:
        return [NAN]  # silence, or a sound without a dip
    # `To TextGrid (silences)` takes its threshold relative to the maximum
    bar = loudest - NUCLEUS_BELOW
    sounding = _sounding(intensity, bar - float(curve.max()))
    voice = call(sound, "To Pitch (ac)", *VOICE)
    nuclei = [
        time
        for time in times[_peaks(curve, max(bar, float(curve.min())))]
        if np.isfinite(voice.get_value_at_time(time))
        and any(start <= time <= end for start, end in sounding)
    ]
    spoken = sum(end - start for start, end in sounding)
    return [len(nuclei) / spoken] if nuclei and spoken > 0 else [NAN]


def _peaks(curve: NDArray[np.float64], bar: float) -> list[int]:
    """Return local maxima above `bar` after which the curve falls by the dip before the next."""
    inner = (curve[1:-1] > curve[:-2]) & (curve[1:-1] >= curve[2:]) & (curve[1:-1] > bar)
    tops = [int(i) for i in np.flatnonzero(inner) + 1]
    after = [*tops[1:], len(curve) - 1]
    return [
        top
        for top, following in zip(tops, after, strict=True)
        if curve[top] - curve[top : following + 1].min() > NUCLEUS_DIP
    ]


def _sounding(intensity: Any, below_the_loudest: float) -> list[tuple[float, float]]:
    """Return (start, end) of each interval that is no pause, in seconds."""
    grid = call(
        intensity, "To TextGrid (silences)", below_the_loudest, SHORTEST_PAUSE, SHORTEST_SOUND,
        "silent", "sounding",
    )  # fmt: skip
    return [
        (
            call(grid, "Get start time of interval", 1, i),
            call(grid, "Get end time of interval", 1, i),
        )
        for i in range(1, call(grid, "Get number of intervals", 1) + 1)
        if call(grid, "Get label of interval", 1, i) == "sounding"
    ]
