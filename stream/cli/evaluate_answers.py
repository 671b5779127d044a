"""`emotrack evaluate --answers`: a table of one row an utterance, its label beside the answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from stream.client.answer_file import AnswerFile
from stream.events.answer_rows import PREDICTION_COLUMNS, PROBABILITY, Row, probability_columns

if TYPE_CHECKING:
    from model.checkpoint_files import LoadedCheckpoint
    from model.data.dataset import DataSet, Dialogue, Split

LABEL, RIGHT, TEXT = "label", "right", "text"
_IDS: Final = ("conversation_id", "utterance_id", "speaker_id")
_LEFT_OUT: Final = ("modalities_used", "flags")  # an evaluation has none


def labelled_columns(labels: Sequence[str], *, live: bool) -> dict[str, type]:
    """Return the columns of a table of answers beside labels; `live` ones come from a topic."""
    answers = {n: kind for n, kind in PREDICTION_COLUMNS.items() if live or n not in _LEFT_OUT}
    ids = {name: answers.pop(name) for name in _IDS}
    own = {TEXT: str, LABEL: str, RIGHT: bool}
    return {**ids, **own, **answers, **probability_columns(labels)}


def label_cells(dialogue: Dialogue, place: int, labels: Sequence[str], emotion: str) -> Row:
    """Return the cells of an utterance's text and label; `right` is None without a label."""
    from model.data.dataset import UNLABELLED

    known = dialogue.labels[place] != UNLABELLED
    label = labels[dialogue.labels[place]] if known else None
    text = dialogue.sentences[place] or None
    return {TEXT: text, LABEL: label, RIGHT: label == emotion if known else None}


def write_scored(
    path: Path, checkpoint: LoadedCheckpoint, data: DataSet, split: Split, **how: Any
) -> int:
    """Write every utterance of a split with its answer; return their number."""
    columns = labelled_columns(data.labels, live=False)
    with AnswerFile(path, columns, whole=True) as file:
        for row in scored_rows(checkpoint, data, split, **how):
            file.write(row, row)
        return file.written


def scored_rows(
    checkpoint: LoadedCheckpoint, data: DataSet, split: Split, **how: Any
) -> Iterator[Row]:
    """Yield the row of every utterance; abstaining is by confidence alone, as it is scored."""
    from model.evaluate import stated_answers
    from stream.answers.shift_rule import largest_move

    labels, sentiment = data.labels, checkpoint.config.sentiment
    for found in stated_answers(checkpoint, data, split, **how):
        dialogue, place = found.dialogue, found.place
        emotion = labels[int(found.probabilities.argmax())]
        confidence = float(found.probabilities.max())
        unsure = confidence < checkpoint.thresholds.abstain_below
        move = None if found.shift is None else largest_move(found.shift[0], labels)
        yield {
            "conversation_id": dialogue.dialogue_id,
            "utterance_id": dialogue.utterance_ids[place],
            "speaker_id": dialogue.speakers[place],
            **label_cells(dialogue, place, labels, emotion),
            "emotion": emotion,
            "confidence": round(confidence, 6),
            "sentiment": sentiment[emotion],
            "abstained": unsure,
            "reason": "low_confidence" if unsure else None,
            "shift_probability": None if found.shift is None else round(found.shift[1], 6),
            "shift_from": None if move is None else move[0],
            "shift_to": None if move is None else move[1],
            "model": f"{checkpoint.name} {checkpoint.version}",
            "model_digest": checkpoint.digest,
            **{
                PROBABILITY + label: round(float(p), 6)
                for label, p in zip(labels, found.probabilities, strict=True)
            },
        }
