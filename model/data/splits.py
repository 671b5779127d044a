"""Other cuts of a data set: a dev split held out, folds, long conversations, fewer modalities.

Pure: equal arguments give equal sets. Only `restaged` ever splits a dialogue.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from model.data.dataset import (
    SPLITS,
    UNLABELLED,
    DataSet,
    Dialogue,
    Split,
    label_counts,
)
from model.errors import DataError
from model.interface import INPUTS

DRAWS: Final = 200  # random held-out sets to choose from
RESTAGED_LENGTHS: Final = (30, 80)  # utterances of a restaged conversation
TURN_CHANGES: Final = 0.7  # chance that the other of two speakers continues
CONTAGION: Final = 0.3  # chance that a new emotion is the other speaker's


def with_dev(data: DataSet, *, share: float = 0.1, seed: int = 0) -> DataSet:
    """Return the set itself if it has a dev split, else with `share` of the train dialogues as dev.

    At least one dialogue is held out and at least one stays; `note` records it. Raises `DataError`
    when there is only one.
    """
    return data if data.split("dev") else held_out(data, "dev", share=share, seed=seed)


def held_out(data: DataSet, split: Split, *, share: float, seed: int = 0) -> DataSet:
    """Move `share` of the train dialogues to `split`, with every label on both sides if possible.

    Of 200 draws takes the one that leaves the fewest labels out of either side, then the one with
    the distribution of labels most like that of the rest.
    """
    train = data.split("train")
    if len(train) < 2:
        raise DataError(
            f"{data.name} has {len(train)} train dialogue: a {split} split needs one besides those "
            "that are learnt from; add a conversation"
        )
    count = min(max(1, round(share * len(train))), len(train) - 1)
    rng = np.random.default_rng(seed)
    table = np.stack([label_counts([d], len(data.labels)) for d in train])  # [dialogues, C]
    draws = [rng.permutation(len(train))[:count] for _ in range(DRAWS)]
    rest, chosen = _parted(train, min(draws, key=lambda draw: _unlikeness(table, draw)).tolist())
    note = f"{split}: {count} of {len(train)} train dialogues held out (seed {seed})"
    return replace(
        data,
        dialogues={**data.dialogues, "train": rest, split: data.split(split) + chosen},
        note=f"{data.note}; {note}" if data.note else note,
    )


def _parted(
    dialogues: Sequence[Dialogue], chosen: Collection[int]
) -> tuple[tuple[Dialogue, ...], tuple[Dialogue, ...]]:
    """Return the dialogues without and with a chosen index, in order."""
    return (
        tuple(d for i, d in enumerate(dialogues) if i not in chosen),
        tuple(d for i, d in enumerate(dialogues) if i in chosen),
    )


def _unlikeness(table: NDArray[np.int64], draw: NDArray[np.int64]) -> tuple[int, float]:
    """Return the labels missing on one side, then the distance of the distributions."""
    out = table[draw].sum(0)
    rest = table.sum(0) - out
    lacking = int(((out == 0) & (rest > 0)).sum() + ((rest == 0) & (out > 0)).sum())
    spread = np.abs(out / max(out.sum(), 1) - rest / max(rest.sum(), 1)).sum()
    return lacking, float(spread)


def k_folds(data: DataSet, k: int, *, seed: int = 0) -> tuple[DataSet, ...]:
    """Return `k` sets over the train and dev dialogues, each of which is dev exactly once.

    The test split is unchanged. Raises `DataError` unless 2 <= k <= dialogues.
    """
    dialogues = data.split("train") + data.split("dev")
    if not 2 <= k <= len(dialogues):
        raise DataError(
            f"{k} folds of {len(dialogues)} dialogues of {data.name}: choose 2 to {len(dialogues)}"
            if len(dialogues) > 1
            else f"{data.name} has {len(dialogues)} dialogue: folds need at least 2"
        )
    order = np.random.default_rng(seed).permutation(len(dialogues)).tolist()
    folds = []
    for fold in range(k):
        train, dev = _parted(dialogues, set(order[fold::k]))
        cut: dict[Split, tuple[Dialogue, ...]] = {**data.dialogues, "train": train, "dev": dev}
        note = f"fold {fold + 1} of {k}: {len(dev)} of {len(dialogues)} dialogues are dev"
        folds.append(replace(data, dialogues=cut, note=f"{note} (seed {seed})"))
    return tuple(folds)


def joined(data: DataSet, utterances: int) -> DataSet:
    """Join consecutive dialogues of a split into conversations of at least `utterances`.

    A shorter rest at the end of a split joins the last one. Speakers of the same name become one;
    utterance ids are prefixed with their dialogue's id.
    """
    cut: dict[Split, tuple[Dialogue, ...]] = {}
    for split in SPLITS:
        groups: list[list[Dialogue]] = []
        rest: list[Dialogue] = []
        for dialogue in data.split(split):
            rest.append(dialogue)
            if sum(map(len, rest)) >= utterances:
                groups.append(rest)
                rest = []
        if groups:
            groups[-1] += rest
        cut[split] = tuple(map(_joined, groups or ([rest] if rest else [])))
    return replace(data, dialogues=cut, note=f"dialogues joined to {utterances} utterances or more")


def _joined(group: Sequence[Dialogue]) -> Dialogue:
    return Dialogue(
        dialogue_id="+".join([group[0].dialogue_id, *([str(len(group) - 1)] * (len(group) > 1))]),
        utterance_ids=tuple(f"{d.dialogue_id}:{uid}" for d in group for uid in d.utterance_ids),
        speakers=tuple(speaker for d in group for speaker in d.speakers),
        sentences=tuple(sentence for d in group for sentence in d.sentences),
        labels=np.concatenate([d.labels for d in group]),
        features={m: np.concatenate([d.features[m] for d in group]) for m in group[0].features},
        present=np.concatenate([d.present for d in group]),
    )


def restaged(data: DataSet, stay: float, *, seed: int = 0) -> DataSet:
    """Arrange the labelled utterances of each split in long conversations of two speakers.

    Each speaker's emotion stays with chance `stay`; else it becomes the other speaker's or is drawn
    from the remaining utterances. Every utterance occurs once, with its own sentence, features and
    label: only their order is synthetic. Tests whether a model makes use of an informative past.
    """
    rng = np.random.default_rng(seed)
    cut: dict[Split, tuple[Dialogue, ...]] = {
        split: tuple(_restaged(data.split(split), stay, len(data.labels), rng)) for split in SPLITS
    }
    return replace(data, dialogues=cut, note=f"restaged: emotions stay with chance {stay:g}")


def _restaged(
    dialogues: Sequence[Dialogue], stay: float, classes: int, rng: np.random.Generator
) -> Iterator[Dialogue]:
    if not dialogues:
        return
    whole = _joined(dialogues)
    stock = [rng.permutation(np.flatnonzero(whole.labels == c)).tolist() for c in range(classes)]
    while left := sum(map(len, stock)):
        length = int(rng.integers(*RESTAGED_LENGTHS))
        if left < length + RESTAGED_LENGTHS[0]:
            length = left  # the rest goes into the last conversation
        rows, speakers, moods = [], [], [UNLABELLED, UNLABELLED]
        turn = 0  # 0 or 1: the speaker
        for _ in range(length):
            turn = 1 - turn if rng.random() < TURN_CHANGES else turn
            own, other = moods[turn], moods[1 - turn]
            stays, caught = rng.random() < stay, rng.random() < CONTAGION
            if own == UNLABELLED or not stays or not stock[own]:
                if other != UNLABELLED and caught and stock[other]:
                    moods[turn] = other
                else:
                    moods[turn] = int(rng.choice(classes, p=np.array([*map(len, stock)]) / left))
            left -= 1
            rows.append(stock[moods[turn]].pop())
            speakers.append("ab"[turn])
        yield Dialogue(
            dialogue_id=f"restaged {rows[0]}",
            utterance_ids=tuple(whole.utterance_ids[i] for i in rows),
            speakers=tuple(speakers),
            sentences=tuple(whole.sentences[i] for i in rows),
            labels=whole.labels[rows],
            features={m: values[rows] for m, values in whole.features.items()},
            present=whole.present[rows],
        )


def without(data: DataSet, modalities: Collection[str]) -> DataSet:
    """Return the set without some of text, audio, video, persona; text includes the sentences.

    Raises `DataError` for an unknown modality.
    """
    unknown = sorted(set(modalities) - set(INPUTS))
    if unknown:
        raise DataError(f"no modality {', '.join(unknown)}: there are {', '.join(INPUTS)}")
    cut: dict[Split, tuple[Dialogue, ...]] = {
        split: tuple(
            replace(
                d,
                sentences=("",) * len(d) if "text" in modalities else d.sentences,
                features={m: v for m, v in d.features.items() if m not in modalities},
                present=d.present & np.array([m not in modalities for m in INPUTS]),
            )
            for d in dialogues
        )
        for split, dialogues in data.dialogues.items()
    }
    return replace(
        data,
        widths={m: width for m, width in data.widths.items() if m not in modalities},
        extractors={m: recipe for m, recipe in data.extractors.items() if m not in modalities},
        dialogues=cut,
        note=f"without {', '.join(m for m in INPUTS if m in modalities)}",
    )
