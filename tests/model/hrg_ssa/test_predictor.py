"""HRG-SSA served: the laws from words on, its state, and what is refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
import torch
from msgspec import structs

from model.checkpoint_files import default_checkpoint, find_checkpoint
from model.data.dataset import MELD_LABELS, DataSet, Dialogue
from model.errors import CheckpointError, EncoderMissing, NotFinite
from model.fault_points import FaultPoint, arm
from model.hrg_ssa.checkpoint import load_checkpoint
from model.hrg_ssa.config import HrgSsaConfig
from model.hrg_ssa.predictor import LENGTHS, HrgSsaPredictor, state_spec
from model.interface import Modality, Prediction, ServingOptions, Tensor, Turn
from model.registry import load_predictor
from model.serving.calibration import Calibration
from model.text.token_encoder import TokenEncoder
from model.whole_conversation import whole_answers
from state.memory_store import MemoryStore
from state.store import Save, StoredOutput
from state.window import FIELDS_BYTES, Conversation, Recurrence, StateKey, Window, apply, open_at
from tests.fakes.conversations import generated_conversations
from tests.fakes.device import DEVICE
from tests.fakes.encoder import write_tiny_encoder
from tests.fakes.hrg_ssa import write_small_hrg_ssa

pytestmark = pytest.mark.slow  # loading one proves which batch sizes are exact: seconds
STORED = 2e-3  # the model law under the stored precision (architecture §3a)
NAMES: tuple[Modality, ...] = ("audio", "video")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="module")
def folder(encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_hrg_ssa(tmp_path_factory.mktemp("checkpoint"), encoder)


@pytest.fixture(scope="module")
def data() -> DataSet:
    return generated_conversations(16, seed=4)


@pytest.fixture(scope="module")
def served(folder: Path, encoder: Path) -> HrgSsaPredictor:
    loaded = load_predictor(folder, ServingOptions(device=DEVICE, encoder=encoder))
    assert isinstance(loaded, HrgSsaPredictor)
    return loaded


def turn_of(dialogue: Dialogue, i: int, window: Window) -> Turn:
    features = {
        name: Tensor("float32", values.shape, values.tobytes())
        for column, name in enumerate(NAMES, start=1)
        if dialogue.present[i, column]
        for values in (dialogue.features[name][i],)
    }
    return Turn(window, dialogue.speakers[i], features, None, dialogue.sentences[i] or None)


def said(by: HrgSsaPredictor, dialogue: Dialogue) -> list[Prediction]:
    """Utterance by utterance, words in."""
    window, answers = Window.empty(by.spec), []
    for i in range(len(dialogue)):
        (answer,) = by.predict([turn_of(dialogue, i, window)])
        window, _ = window.push(
            by.spec.recurrence,
            answer.applied,
            utterance_id=str(i),
            speaker_id=dialogue.speakers[i],
        )
        answers.append(answer)
    return answers


def bytes_of(answers: Sequence[Prediction]) -> list[bytes]:
    return [
        np.array([*a.probabilities, *(a.shift or ())]).tobytes()
        + a.applied.row.tobytes()
        + a.applied.speaker.tobytes()
        for a in answers
    ]


def longest(data: DataSet) -> Dialogue:
    return max(data.split("dev"), key=len)


def test_step_by_step_from_words_is_the_whole_conversation_at_once(
    folder: Path, encoder: Path, data: DataSet, served: HrgSsaPredictor
) -> None:
    dialogues = data.split("dev")
    stepped = {d.dialogue_id: said(served, d) for d in dialogues}
    labels = {
        (d.dialogue_id, uid): int(np.argmax(answer.probabilities))
        for d in dialogues
        for uid, answer in zip(d.utterance_ids, stepped[d.dialogue_id], strict=True)
    }
    whole = whole_answers(folder, dialogues, encoder=encoder, labels=labels)
    for dialogue in dialogues:
        answers = stepped[dialogue.dialogue_id]
        for uid, answer in zip(dialogue.utterance_ids, answers, strict=True):
            expected = whole[dialogue.dialogue_id, uid]
            np.testing.assert_allclose(answer.probabilities, expected.emotion, atol=STORED)
            assert (answer.shift is None) == (expected.shift is None)
            if answer.shift is not None and expected.shift is not None:
                np.testing.assert_allclose(answer.shift, expected.shift.ravel(), atol=STORED)


def test_a_later_sentence_changes_no_earlier_byte(data: DataSet, served: HrgSsaPredictor) -> None:
    dialogue = longest(data)
    cut = len(dialogue) - 2
    other = (*dialogue.sentences[:cut], *("stop doing that",) * 2)
    before = bytes_of(said(served, dialogue))
    after = bytes_of(said(served, replace(dialogue, sentences=other)))
    assert before[:cut] == after[:cut]
    assert before[cut:] != after[cut:]


def test_a_turn_has_the_same_bytes_alone_and_in_any_company(
    data: DataSet, served: HrgSsaPredictor
) -> None:
    """Turns of different lengths and pasts; batches of every size up to all of them."""
    turns = []
    for dialogue in data.split("train"):
        window = Window.empty(served.spec)
        for i in range(min(3, len(dialogue))):
            turns.append(turn_of(dialogue, i, window))
            (answer,) = served.predict([turns[-1]])
            window, _ = window.push(
                served.spec.recurrence,
                answer.applied,
                utterance_id="",
                speaker_id=dialogue.speakers[i],
            )
    alone = [bytes_of(served.predict([turn]))[0] for turn in turns]
    draw = np.random.default_rng(0)
    for count in (2, 3, 5, 9, 17, len(turns)):
        chosen = draw.permutation(len(turns))[:count]
        together = served.predict([turns[i] for i in chosen])
        assert bytes_of(together) == [alone[i] for i in chosen]


def test_a_worker_that_died_goes_on_from_the_store_to_the_same_bytes(
    folder: Path, encoder: Path, data: DataSet, served: HrgSsaPredictor
) -> None:
    """Every utterance is answered by a process that knows only what the store kept."""
    dialogue = longest(data)
    unbroken = bytes_of(said(served, dialogue))
    store, key = MemoryStore(served.spec), StateKey("c", "t", 0)
    token = store.claim("t", 0)
    restored = []
    for i in range(len(dialogue)):
        stored = store.load_many([key])[0].conversation
        opening = open_at(stored, spec=served.spec, timestamp_ms=i, offset=i, truncated=False)
        fresh = (
            HrgSsaPredictor.load(folder, ServingOptions(device=DEVICE, encoder=encoder))
            if i == 3
            else served
        )
        (answer,) = fresh.predict([turn_of(dialogue, i, opening.before.window)])
        change = apply(
            opening, answer.applied, recurrence=served.spec.recurrence, utterance_id=str(i),
            fields=bytes(FIELDS_BYTES), speaker_id=dialogue.speakers[i], offset=i, timestamp_ms=i,
        )  # fmt: skip
        save = Save(key, token, _offset(stored), change, StoredOutput("predicted", b""), 0)
        store.save_many([save])
        restored.append(answer)
    assert bytes_of(restored) == unbroken


def _offset(stored: Conversation | None) -> int:
    return -1 if stored is None else stored.offset


def test_a_narrower_window_reads_less_and_a_wider_one_is_refused(
    folder: Path, encoder: Path, data: DataSet, served: HrgSsaPredictor
) -> None:
    narrow = HrgSsaPredictor.load(folder, ServingOptions(device=DEVICE, window=1, encoder=encoder))
    dialogue = longest(data)
    one, two = said(served, dialogue), said(narrow, dialogue)
    # not its bytes: sums over windows of other lengths are added up in another order
    assert two[0].probabilities == pytest.approx(one[0].probabilities, abs=1e-6), "no past yet"
    assert one[-1].probabilities != two[-1].probabilities
    with pytest.raises(CheckpointError, match="trained to hear 4 past utterances, not 5"):
        load_predictor(folder, ServingOptions(device=DEVICE, window=5, encoder=encoder))


def test_a_research_model_is_not_served(encoder: Path, tmp_path: Path) -> None:
    """Above all not one that is told the true labels of the past."""
    leaky = write_small_hrg_ssa(tmp_path / "gold", encoder, research=("gold-history",))
    with pytest.raises(CheckpointError, match="gold-history"):
        load_predictor(leaky, ServingOptions(device=DEVICE, encoder=encoder))


def test_a_checkpoint_of_the_format_before_is_read_and_has_no_maps(
    encoder: Path, tmp_path: Path
) -> None:
    folder = write_small_hrg_ssa(tmp_path, encoder)
    config = json.loads((folder / "config.json").read_text())
    config["format"] = 2
    for name in ("slope", "offsets", "shift_map"):
        del config["calibration"][name]
    (folder / "config.json").write_text(json.dumps(config))
    both = (folder / "model.safetensors").read_bytes() + (folder / "config.json").read_bytes()
    (folder / "digest").write_text(hashlib.sha256(both).hexdigest())
    assert load_checkpoint(folder).calibration == Calibration(1.3, 0.8)


def test_words_need_the_checkpoints_own_encoder(folder: Path, tmp_path: Path) -> None:
    other = write_tiny_encoder(tmp_path / "other", seed=1)
    by = HrgSsaPredictor.load(folder, ServingOptions(device=DEVICE, encoder=other))
    assert not by.can_encode_text()
    with pytest.raises(EncoderMissing, match="is not the tiny this checkpoint was trained with"):
        by.predict([Turn(Window.empty(by.spec), "ann", {}, text="hello")])


def test_a_voice_without_words_is_answered_and_named_as_the_input(served: HrgSsaPredictor) -> None:
    audio = Tensor("float32", (8,), np.ones(8, np.float32).tobytes())
    turn = Turn(Window.empty(served.spec), "ann", {"audio": audio})
    (answer,) = served.predict([turn])
    assert answer.modalities_used == ("audio",)
    assert sum(answer.probabilities) == pytest.approx(1, abs=1e-5)
    (silent,) = served.predict([structs.replace(turn, features={})])
    assert silent.modalities_used == ()
    assert silent.probabilities != answer.probabilities


def test_a_text_too_long_is_cut_and_counted(encoder: Path, tmp_path: Path) -> None:
    by = HrgSsaPredictor.load(
        write_small_hrg_ssa(tmp_path / "short", encoder, most_tokens=6),
        ServingOptions(device=DEVICE, encoder=encoder),
    )
    heard = "we wrote it down oh really"
    one, two = (
        by.predict([Turn(Window.empty(by.spec), "ann", {}, text=text)])
        for text in (heard, f"{heard} now it is so dark")
    )
    assert bytes_of(one) == bytes_of(two)
    read = TokenEncoder.load(encoder, by.checkpoint.text, most_tokens=6)
    for text in (heard, f"{heard} now it is so dark"):
        read.states(text)
    assert read.cut == 1


def test_a_text_longer_than_every_padded_length_has_its_own(served: HrgSsaPredictor) -> None:
    words = " ".join(["hello"] * (max(LENGTHS) + 3))
    turns = [Turn(Window.empty(served.spec), "ann", {}, text=text) for text in (words, "hello")]
    together = bytes_of(served.predict(turns))
    assert together == [bytes_of(served.predict([turn]))[0] for turn in turns]


def test_a_row_that_is_not_finite_is_named(served: HrgSsaPredictor, data: DataSet) -> None:
    wild = Tensor("float32", (8,), np.full(8, np.nan, np.float32).tobytes())
    window = Window.empty(served.spec)
    turns = [
        Turn(window, "ann", {}, text="hello"),
        Turn(window, "bob", {"audio": wild}, text="a lovely day"),
    ]
    with pytest.raises(NotFinite) as met:
        served.predict(turns)
    assert met.value.rows == (1,)


def test_the_state_of_a_conversation_is_within_64_kib() -> None:
    """W=8, k=4, float16, and as many speakers as are remembered."""
    spec = state_spec(HrgSsaConfig(MELD_LABELS), "d")
    r = spec.recurrence
    assert r.window == 8
    whole = r.window * spec.row_bytes + r.max_speakers * spec.speaker_bytes
    assert whole / 1024 <= 64
    assert {a.name for a in spec.utterance} == {"pooled", "nodes", "label_words"}


def test_the_state_holds_the_predicted_label_words(served: HrgSsaPredictor) -> None:
    (answer,) = served.predict([Turn(Window.empty(served.spec), "ann", {}, text="hello")])
    numbers = answer.applied.row.view(np.float16)
    label = int(np.argmax(answer.probabilities))
    assert numbers[-2] == label
    sentiments = ("positive", "neutral", "negative")
    assert sentiments[int(numbers[-1])] == served.info.sentiment[served.info.labels[label]]


def test_info_describes_the_checkpoint(served: HrgSsaPredictor, folder: Path) -> None:
    info = served.info
    assert (info.name, dict(info.inputs)) == ("hrg-ssa", {"audio": 8, "video": 17})
    assert info.digest == (folder / "digest").read_text().strip()
    assert info.own_extractors == {"text": "tiny"}
    assert served.device_memory_bytes() == 0
    assert isinstance(served.spec.recurrence, Recurrence)


def test_weights_and_settings_must_fit(folder: Path, encoder: Path) -> None:
    from model.hrg_ssa.checkpoint import load_checkpoint

    whole = load_checkpoint(folder)
    without = {name: w for name, w in whole.weights.items() if name != "node_tag"}
    with pytest.raises(RuntimeError, match="node_tag"):
        HrgSsaPredictor(replace(whole, weights=MappingProxyType(without)), torch.device("cpu"))


def test_the_shipped_checkpoint_is_found_by_its_name_and_describes_itself() -> None:
    folder = default_checkpoint("hrg-ssa")
    assert find_checkpoint(Path("hrg-ssa")) == folder
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 45e6
    info = load_predictor(Path("hrg-ssa"), ServingOptions(device=DEVICE)).info
    assert (info.name, info.labels) == ("hrg-ssa", MELD_LABELS)
    card = (folder / "README.md").read_text("utf-8")
    assert "never a label that a person gave" in card
    assert "inner state" in card


def test_a_folder_wins_over_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hrg-ssa").mkdir()
    assert find_checkpoint(Path("hrg-ssa")) == Path("hrg-ssa")


def test_a_batch_reaches_both_places_where_it_can_be_killed(
    served: HrgSsaPredictor, data: DataSet
) -> None:
    reached: list[FaultPoint] = []
    turn = turn_of(data.split("dev")[0], 0, Window.empty(served.spec))
    arm(reached.append)
    try:
        served.predict([turn])
    finally:
        arm(None)
    assert reached == ["F3", "F4"]
