"""How a logged prediction differs from the recomputed one: in bytes, or beyond a tolerance."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from model.interface import ModelInfo
from stream.events.cloudevents import Encoding
from stream.events.messages import PredictionEvent, encode

TOLD: Final = 3  # fields named in a sentence
# What a tolerance excuses: numbers, and what an argmax or a threshold makes of equal ones.
NUMBERS: Final = frozenset({"emotion", "probabilities", "confidence", "sentiment", "shift"})
THRESHOLDS: Final = frozenset({"abstained", "reason"})


def differences(
    value: bytes,
    encoding: Encoding,
    expected: PredictionEvent,
    *,
    tolerance: float | None,
    info: ModelInfo,
) -> tuple[str, float]:
    """What differs, in a sentence ("" for nothing that counts), and by how much at most."""
    if value == encode(expected, encoding):
        return "", 0.0
    said, wanted = plain(value, encoding), plain(encode(expected, encoding), encoding)
    if tolerance is None:
        told = list(unequal(said, wanted))
        return "differs from the recomputed one: " + ("; ".join(told[:TOLD]) or "bytes"), 0.0
    excused = NUMBERS | THRESHOLDS
    strict_said = {k: v for k, v in said.items() if k not in excused}
    told = list(unequal(strict_said, {k: v for k, v in wanted.items() if k not in excused}))
    largest, faults = _in_numbers(said, wanted, tolerance, info)
    told += faults
    return "; ".join(told[:TOLD]) and f"beyond {tolerance:g}: {'; '.join(told[:TOLD])}", largest


def _in_numbers(
    said: dict[str, Any], wanted: dict[str, Any], tolerance: float, info: ModelInfo
) -> tuple[float, list[str]]:
    """The largest difference of a probability, and what is more than a tolerance can make."""
    one, other = said["probabilities"], wanted["probabilities"]
    faults = [] if list(one) == list(other) else ["labels"]
    deltas = [abs(one[label] - other[label]) for label in one if label in other]
    if (said["shift"] is None) != (wanted["shift"] is None):
        faults.append("only one has a shift")
    elif said["shift"] is not None:
        deltas.append(abs(said["shift"]["probability"] - wanted["shift"]["probability"]))
        if said["shift"]["previous_utterance_id"] != wanted["shift"]["previous_utterance_id"]:
            faults.append("shift.previous_utterance_id")
    largest = max(deltas, default=0.0)
    if largest > tolerance:
        faults.append(f"a probability by {largest:.2e}")
    best = other.get(wanted["emotion"], 0.0)
    if other.get(said["emotion"], 0.0) < best - 2 * tolerance:
        faults.append(f"emotion {said['emotion']} is not {wanted['emotion']}")
    near = abs(wanted["confidence"] - info.abstain_below) <= tolerance
    if said["abstained"] != wanted["abstained"] and not near:
        faults.append("abstained")
    return largest, faults


def unequal(said: Any, wanted: Any, name: str = "") -> list[str]:
    """`field is a, not b` for each field that differs."""
    if isinstance(said, dict) and isinstance(wanted, dict):
        found = [] if list(said) == list(wanted) else [f"fields of {name or 'the event'}"]
        for key in said.keys() & wanted.keys():
            found += unequal(said[key], wanted[key], f"{name}.{key}" if name else str(key))
        return sorted(found)
    return [] if said == wanted else [f"{name} is {said!r}, not {wanted!r}"]


def shift_of(value: bytes, encoding: Encoding) -> float | None:
    """The shift probability of a logged prediction."""
    shift = plain(value, encoding).get("shift")
    return None if shift is None else float(shift["probability"])


def plain(value: bytes, encoding: Encoding) -> dict[str, Any]:
    """An event as plain data."""
    decoded: dict[str, Any] = (
        msgspec.json.decode(value) if encoding == "json" else msgspec.msgpack.decode(value)
    )
    return decoded
