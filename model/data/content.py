"""A digest of what a training run reads of a data set."""

from __future__ import annotations

import hashlib
import json

import numpy as np

from model.data.dataset import SPLITS, DataSet


def content_digest(data: DataSet) -> str:
    """Return the sha256 of name, labels and all of train and dev; the test split is not read."""
    sums = hashlib.sha256(json.dumps([data.name, data.labels]).encode())
    for split in SPLITS[:2]:
        for d in data.split(split):
            words = [split, d.dialogue_id, d.utterance_ids, d.speakers, d.sentences]
            sums.update(json.dumps(words).encode())
            sums.update(d.labels.tobytes() + d.present.tobytes())
            for name in sorted(d.features):
                sums.update(name.encode() + np.ascontiguousarray(d.features[name]).tobytes())
    return sums.hexdigest()
