"""`emotrack evaluate --topic`: score what a topic answered against the labels of a set."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from rich.console import Console
from rich.table import Table

from stream.cli.evaluate_answers import label_cells, labelled_columns
from stream.client.answer_file import AnswerFile
from stream.errors import SourceError
from stream.events.answer_rows import Row, answer_row
from stream.events.messages import PredictionEvent

if TYPE_CHECKING:
    from model.data.dataset import DataSet, Dialogue, Split
    from model.scoring.answers import Answers
    from model.scoring.report import Report
    from stream.settings import Settings

SILENCE_S: Final = 5.0  # after which a topic is read to its end
_LEAST: Final = 1e-9  # of a probability: six decimals are sent, and its logarithm is taken
Found = dict[tuple[str, str], PredictionEvent]  # by dialogue and utterance id


@dataclass(frozen=True, slots=True)
class Answered:
    """The answers of one model to a split."""

    data: DataSet
    split: Split
    events: Found
    report: Report

    @property
    def model(self) -> str:
        first = next(iter(self.events.values())).model
        return f"{first.name} {first.version} {first.digest[:16]}"

    def rows(self) -> Iterator[tuple[PredictionEvent, Row]]:
        """Yield each answer and its row, in the order of the split."""
        for dialogue in self.data.split(self.split):
            for place, id in enumerate(dialogue.utterance_ids):
                if (event := self.events.get((dialogue.dialogue_id, id))) is not None:
                    own = label_cells(dialogue, place, self.data.labels, event.emotion)
                    yield event, answer_row(event) | own


def evaluate_topic(
    settings: Settings,
    topic: str,
    data: DataSet,
    split: Split,
    *,
    id_prefix: str = "",
    answers_file: Path | None = None,
    ledger: Path,
) -> None:
    """Read a topic to its end, print the scores of each model there, and write its answers."""
    from model.study.ledger import note_look
    from stream.client import PredictionSubscriber

    with PredictionSubscriber(
        settings.bootstrap,
        topic=topic,
        from_beginning=True,
        timeout_s=SILENCE_S,
        security=settings.security,
    ) as events:
        answered = joined(events, data, split, topic=topic, id_prefix=id_prefix)
    for one in answered:
        if split == "test":
            digest = next(iter(one.events.values())).model.digest
            note_look(ledger, digest, data.name, one.report, now=datetime.now(UTC))
    total = sum(map(len, data.split(split)))
    Console().print(score_table(answered, total, f"{data.name} {split}, as {topic} answered it"))
    if answers_file is not None:
        columns = labelled_columns(data.labels, live=True)
        with AnswerFile(answers_file, columns, whole=True) as file:
            for one in answered:
                for _, row in one.rows():
                    file.write(row, row)


def joined(
    events: Iterable[PredictionEvent],
    data: DataSet,
    split: Split,
    *,
    topic: str = "the topic",
    id_prefix: str = "",
) -> list[Answered]:
    """Return the answers to a split by model; the latest to an utterance counts.

    A conversation is known by its id in the set, as a table is published, or `<set>-<id>`, as a
    data-set folder is; `id_prefix` stands before either. Raises `SourceError` where none is there.
    """
    names = {d.dialogue_id: d.dialogue_id for d in data.split(split)}
    names |= {f"{data.name}-{id}": id for id in list(names)}
    ids = {(d.dialogue_id, u) for d in data.split(split) for u in d.utterance_ids}
    by_model: dict[str, Found] = {}
    other = ""
    for event in events:
        name = event.conversation_id
        known = names.get(name.removeprefix(id_prefix)) if name.startswith(id_prefix) else None
        if known is None or (known, event.utterance_id) not in ids:
            other = other or name
            continue
        _require_labels(event, data)
        by_model.setdefault(event.model.digest, {})[known, event.utterance_id] = event
    if not by_model:
        there = f" (it has those of {other!r} and others)" if other else " (it is empty)"
        raise SourceError(
            f"{topic} has no answer to a conversation of {data.name} {split}{there}: publish them "
            f"with `emotrack publish`, or name the --split, and the --id-prefix if there was one"
        )
    return [
        Answered(data, split, found, _report(found, data, split)) for found in by_model.values()
    ]


def _require_labels(event: PredictionEvent, data: DataSet) -> None:
    if set(event.probabilities) != set(data.labels):
        raise SourceError(
            f"{event.model.name} {event.model.digest[:16]} answers {', '.join(event.probabilities)}"
            f", the set {data.name} has {', '.join(data.labels)}: name the set it was trained on"
        )


def _report(found: Found, data: DataSet, split: Split) -> Report:
    """Score the answers as sent; what an event does not state of a pair is no number."""
    from model.scoring.bootstrap import Interval
    from model.scoring.report import Abstention, Alerts, score
    from model.serving.calibration import Calibration, Thresholds

    answers = _answers(found, data, split)
    report = score(answers, Calibration(), Thresholds(), data.labels)
    unknown, nan = Interval(math.nan, math.nan, math.nan), math.nan
    unsure = sum(event.abstained for event in found.values()) / len(found)
    return replace(
        report,
        shift_c2_weighted_f1=unknown,
        shift_c2_accuracy=unknown,
        alerts=Alerts(nan, nan, nan, nan, nan),
        abstention=Abstention(nan, unsure, nan, nan),
    )


def _answers(found: Found, data: DataSet, split: Split) -> Answers:
    from model.data.dataset import UNLABELLED, speaker_pairs
    from model.scoring.answers import Answers

    classes = len(data.labels)
    emotion, shift, dialogues = [], [], 0
    labels: list[int] = []
    owner, shifts, pair_owner = [], [], []
    for dialogue in data.split(split):
        before = len(labels)
        for place, event in _events_of(dialogue, found):
            if dialogue.labels[place] != UNLABELLED:
                emotion.append([math.log(max(p, _LEAST)) for p in _in_order(event, data)])
                labels.append(int(dialogue.labels[place]))
                owner.append(dialogues)
        events = dict(_events_of(dialogue, found))
        for was, now in speaker_pairs(dialogue).tolist():
            both = UNLABELLED not in (dialogue.labels[was], dialogue.labels[now])
            if both and now in events and (moved := events[now].shift) is not None:
                cells = np.full((classes, classes), _LEAST)
                cells[np.diag_indices(classes)] = max((1 - moved.probability) / classes, _LEAST)
                at = data.labels.index(moved.from_), data.labels.index(moved.to)
                cells[at] = max(moved.probability, _LEAST)
                shift.append(np.log(cells).ravel())
                shifts.append(int(dialogue.labels[was] * classes + dialogue.labels[now]))
                pair_owner.append(dialogues)
        dialogues += len(labels) > before
    if not labels:
        raise SourceError(
            f"none of the answered utterances of {data.name} {split} has a label: there is nothing "
            "to score"
        )
    return Answers(
        np.array(emotion),
        np.array(labels, np.int64),
        np.array(owner, np.int64),
        np.array(shift).reshape(-1, classes * classes),
        np.array(shifts, np.int64),
        np.array(pair_owner, np.int64),
        dialogues,
    )


def _events_of(dialogue: Dialogue, found: Found) -> Iterator[tuple[int, PredictionEvent]]:
    for place, id in enumerate(dialogue.utterance_ids):
        if (event := found.get((dialogue.dialogue_id, id))) is not None:
            yield place, event


def _in_order(event: PredictionEvent, data: DataSet) -> list[float]:
    return [event.probabilities[label] for label in data.labels]


def score_table(answered: Iterable[Answered], total: int, title: str) -> Table:
    """Return the scores of each model, with their 95 % intervals over dialogues."""
    one_each = list(answered)
    table = Table("", *(one.model for one in one_each), title=title)
    table.add_row("utterances answered", *(f"{len(one.events)} of {total}" for one in one_each))
    table.add_row("of them labelled", *(str(one.report.utterances) for one in one_each))
    for name, cells in _scores(one_each).items():
        table.add_row(name, *cells)
    return table


def _scores(one_each: list[Answered]) -> Mapping[str, list[str]]:
    reports = [one.report for one in one_each]
    return {
        "weighted F1, %": [_interval(r.weighted_f1, 100) for r in reports],
        "accuracy, %": [_interval(r.accuracy, 100) for r in reports],
        "macro F1, %": [_interval(r.macro_f1, 100) for r in reports],
        "shift AUROC": [_interval(r.shift_auroc, 1) for r in reports],
        "calibration error of the emotion, %": [
            f"{100 * r.emotion.after.ece:.1f}" for r in reports
        ],
        "abstained, %": [f"{100 * r.abstention.abstained:.1f}" for r in reports],
    }


def _interval(score: object, scale: float) -> str:
    value, low, high = (scale * getattr(score, name) for name in ("value", "low", "high"))
    digits = 1 if scale == 100 else 3
    if math.isnan(value):
        return "- (too few pairs)"
    interval = "" if math.isnan(low) else f" ({low:.{digits}f} to {high:.{digits}f})"
    return f"{value:.{digits}f}{interval}"
