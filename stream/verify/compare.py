"""Compare a logged prediction with the recomputed one: in bytes, or within a tolerance."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from model.interface import ModelInfo, Prediction
from stream.events.cloudevents import Encoding
from stream.events.messages import PredictionEvent, encode
from stream.events.poison import Poison

NAMED: Final = 3  # fields named in a sentence
# Fields that a tolerance excuses: numbers, and results of an argmax or a threshold on them.
EXCUSED: Final = frozenset(
    {"emotion", "probabilities", "confidence", "sentiment", "shift", "abstained", "reason"}
)


def differences(
    value: bytes,
    encoding: Encoding,
    expected: PredictionEvent,
    *,
    tolerance: float | None,
    info: ModelInfo,
) -> tuple[str, float]:
    """Return a sentence on the differences that count ("" for none), and the largest one.

    The largest difference is of a probability, and 0 without a tolerance.
    """
    if value == encode(expected, encoding):
        return "", 0.0
    logged, wanted = plain(value, encoding), plain(encode(expected, encoding), encoding)
    if tolerance is None:
        faults = unequal(logged, wanted)
        return "differs from the recomputed one: " + ("; ".join(faults[:NAMED]) or "bytes"), 0.0
    ours, theirs = (
        {n: v for n, v in event.items() if n not in EXCUSED} for event in (logged, wanted)
    )
    faults = unequal(ours, theirs)
    largest, of_numbers = _in_numbers(logged, wanted, tolerance, info)
    named = "; ".join((faults + of_numbers)[:NAMED])
    return named and f"beyond {tolerance:g}: {named}", largest


def _in_numbers(
    logged: dict[str, Any], wanted: dict[str, Any], tolerance: float, info: ModelInfo
) -> tuple[float, list[str]]:
    """Return the largest difference of a probability, and the faults no tolerance excuses."""
    found, expected = logged["probabilities"], wanted["probabilities"]
    faults = [] if list(found) == list(expected) else ["labels"]
    deltas = [abs(p - expected[label]) for label, p in found.items() if label in expected]
    if (logged["shift"] is None) != (wanted["shift"] is None):
        faults.append("only one has a shift")
    elif logged["shift"] is not None:
        deltas.append(abs(logged["shift"]["probability"] - wanted["shift"]["probability"]))
        if logged["shift"]["previous_utterance_id"] != wanted["shift"]["previous_utterance_id"]:
            faults.append("shift.previous_utterance_id")
    largest = max(deltas, default=0.0)
    if largest > tolerance:
        faults.append(f"a probability by {largest:.2e}")
    # Two probabilities that are each off by a tolerance may change places.
    best = expected.get(wanted["emotion"], 0.0)
    if expected.get(logged["emotion"], 0.0) < best - 2 * tolerance:
        faults.append(f"emotion {logged['emotion']} is not {wanted['emotion']}")
    near = abs(wanted["confidence"] - info.abstain_below) <= tolerance
    if logged["abstained"] != wanted["abstained"] and not near:
        faults.append("abstained")
    return largest, faults


def unequal(logged: Any, wanted: Any, name: str = "") -> list[str]:
    """Return `field is a, not b` for each field that differs."""
    if isinstance(logged, dict) and isinstance(wanted, dict):
        found = [] if list(logged) == list(wanted) else [f"fields of {name or 'the event'}"]
        for key in logged.keys() & wanted.keys():
            found += unequal(logged[key], wanted[key], f"{name}.{key}" if name else str(key))
        return sorted(found)
    return [] if logged == wanted else [f"{name} is {logged!r}, not {wanted!r}"]


def same_prediction(one: Prediction | Poison, other: Prediction | Poison) -> bool:
    """Return whether two results of the model are equal in every byte."""
    if isinstance(one, Poison) or isinstance(other, Poison):
        return isinstance(one, Poison) and isinstance(other, Poison) and one.reason == other.reason
    arrays = [
        (p.applied.row.tobytes(), p.applied.arrays.tobytes(), p.applied.speaker.tobytes())
        for p in (one, other)
    ]
    numbers = [(p.probabilities, p.shift, p.shift_probability, p.doubt) for p in (one, other)]
    return arrays[0] == arrays[1] and numbers[0] == numbers[1]


def shift_of(value: bytes, encoding: Encoding) -> float | None:
    """Return the shift probability of a logged prediction, None where it has none."""
    shift = plain(value, encoding).get("shift")
    return None if shift is None else float(shift["probability"])


def plain(value: bytes, encoding: Encoding) -> dict[str, Any]:
    """Decode an event as plain data."""
    decode = msgspec.json.decode if encoding == "json" else msgspec.msgpack.decode
    decoded: dict[str, Any] = decode(value)
    return decoded
