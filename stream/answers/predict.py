"""Predict a batch, and single out the turns that the model cannot answer.

A row's bytes do not depend on what shares its batch, so a batch may be cut at will: an offender is
taken out and the rest runs again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

from msgspec.structs import replace

from model.errors import DeviceExhausted, EncoderMissing, NotFinite
from model.interface import Prediction, Predictor, Turn
from stream.events.poison import Poison, Reason


def predict(predictor: Predictor, turns: Sequence[Turn]) -> list[Prediction | Poison]:
    """Predict all turns; a poison for each that the model cannot answer, the rest are unaffected.

    Out of device memory, a batch is halved down to the offender. Raises `DeviceLost`.
    """
    if not turns:
        return []
    try:
        return list(predictor.predict(turns))
    except NotFinite as met:
        poison = Poison(
            Reason.NOT_FINITE_RESULT,
            "the model's result for this utterance is NaN or infinite: its vectors hold values "
            "far outside of what the model was trained on",
        )
        return predict_without(predictor, turns, dict.fromkeys(met.rows, poison))
    except EncoderMissing as met:
        if not any(is_raw(t) for t in turns):
            raise
        return predict_unencoded(predictor, turns, str(met))
    except DeviceExhausted as met:
        if len(turns) == 1:
            return [Poison(Reason.DEVICE_EXHAUSTED, f"too large for the device alone: {met}")]
        half = len(turns) // 2
        return predict(predictor, turns[:half]) + predict(predictor, turns[half:])


def begin(predictor: Predictor, turns: Sequence[Turn]) -> Callable[[], list[Prediction | Poison]]:
    """Begin to predict all turns; the returned function waits and returns what `predict` does.

    Raises `DeviceLost`, now or then.
    """
    if not turns:
        return list
    try:
        end = predictor.begin(turns)
    except (EncoderMissing, DeviceExhausted):
        return partial(predict, predictor, turns)

    def answers() -> list[Prediction | Poison]:
        try:
            return list(end())
        except (NotFinite, EncoderMissing, DeviceExhausted):
            return predict(predictor, turns)  # again, to single out the offenders

    return answers


def predict_without(
    predictor: Predictor, turns: Sequence[Turn], poisons: Mapping[int, Poison]
) -> list[Prediction | Poison]:
    """Predict all turns but those at the indices of `poisons`."""
    assert poisons, "an offender must be named, or this would not end"
    rest: Iterator[Prediction | Poison] = iter(
        predict(predictor, [t for i, t in enumerate(turns) if i not in poisons])
    )
    return [poisons[i] if i in poisons else next(rest) for i in range(len(turns))]


def predict_unencoded(
    predictor: Predictor, turns: Sequence[Turn], cure: str
) -> list[Prediction | Poison]:
    """Predict without an encoder: from the other vectors, where an utterance has some."""
    stripped = [replace(t, text=None) if is_raw(t) else t for t in turns]
    unanswerable = [i for i, t in enumerate(turns) if is_raw(t) and not t.features]
    if not unanswerable:
        return predict(predictor, stripped)
    poison = Poison(Reason.NO_TEXT_ENCODER, cure)
    return predict_without(predictor, stripped, dict.fromkeys(unanswerable, poison))


def is_raw(turn: Turn) -> bool:
    """Return whether answering needs the sentence encoder."""
    return turn.text is not None and "text" not in turn.features
