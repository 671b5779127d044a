"""Sentences on what looks like an oversight in a set's labels; none of it is an error."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from typing import Final

from model.data.dataset import DataSet, known_sentiment, label_counts

MOST_LISTED: Final = 8


def label_warnings(data: DataSet) -> list[str]:
    """Return a sentence for each kind of oversight that is found."""
    return list(filter(None, (_sentiments(data), _spellings(data), _unseen(data))))


def _sentiments(data: DataSet) -> str:
    unknown = [n for n in data.labels if n not in data.sentiment and not known_sentiment(n)]
    if not unknown:
        return ""
    named = json.dumps(unknown[0], ensure_ascii=False)
    return (
        f"no sentiment is known of {_listed(unknown)}: answers will call that neutral. State it in "
        f'{data.name}_meta.json, "sentiment": {{{named}: "negative"}}, or with `emotrack data '
        f"convert … --sentiment {shlex.quote(f'{unknown[0]}=negative')}` (positive, neutral or "
        "negative)"
    )


def _spellings(data: DataSet) -> str:
    spelled: dict[str, list[str]] = {}
    for label in data.labels:
        spelled.setdefault(label.casefold(), []).append(label)
    alike = ["/".join(labels) for labels in spelled.values() if len(labels) > 1]
    if not alike:
        return ""
    return (
        f"labels that differ in case only are different labels: {_listed(alike)}; spell them alike "
        "if they are one"
    )


def _unseen(data: DataSet) -> str:
    learnt = label_counts(data.split("train"), len(data.labels))
    met = sum(label_counts(part, len(data.labels)) for part in data.dialogues.values() if part)
    unseen = [data.labels[i] for i in ((met > 0) & (learnt == 0)).nonzero()[0]]
    if not unseen:
        return ""
    return (
        f"no utterance of the train split is {_listed(unseen)}: a model cannot learn to answer that"
    )


def _listed(labels: Sequence[str]) -> str:
    more = f" and {len(labels) - MOST_LISTED} more" if len(labels) > MOST_LISTED else ""
    return ", ".join(labels[:MOST_LISTED]) + more
