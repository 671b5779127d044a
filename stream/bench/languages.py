"""`emotrack bench languages`: what the judge of languages abstains from, and what it costs.

Measured on the sentences of languages.toml, which were written for it, and on the utterances of a
data set where there is one. No figure comes from a test split.
"""

from __future__ import annotations

import time
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from model.data.dataset import DataSet
from model.text.encode_sentences import sentences_of
from model.text.languages import Judge
from stream.bench.rows import Row, figure

FILE: Final = Path(__file__).with_name("languages.toml")
RUNS: Final = 5
Groups = Mapping[str, Mapping[str, Sequence[str]]]


def written() -> Groups:
    """Return the sentences written for the judge, by group and by name."""
    groups: Groups = tomllib.loads(FILE.read_text("utf-8"))
    return groups


def run_bench_languages(judge: Judge, data: DataSet | None = None) -> dict[str, Row]:
    """Return the share of each kind of text that is doubted, and the time a text takes."""
    rows = {
        f"doubted: {group}, {name}": _share(judge, texts, "written for it")
        for group, names in written().items()
        for name, texts in names.items()
    }
    for split in ("train", "dev") if data is not None else ():
        texts = sentences_of(data.split(split)) if data is not None else []
        rows[f"doubted: {split}"] = _share(judge, texts, f"utterances of the {split} split")
    every = [text for names in written().values() for texts in names.values() for text in texts]
    known = [text for texts in written()["known"].values() for text in texts]
    rows["CPU a text, in the language"] = _time(judge, known)
    rows["CPU a text, all of the above"] = _time(judge, every)
    return rows


def _share(judge: Judge, texts: Sequence[str], reference: str) -> Row:
    doubted = sum(judge.doubt(text, None) is not None for text in texts)
    share = 100 * doubted / max(1, len(texts))
    return figure([share], "%", f"{doubted} of {len(texts)}, {reference}", digits=2)


def _time(judge: Judge, texts: Sequence[str]) -> Row:
    runs = []
    for _ in range(RUNS):
        began = time.thread_time()  # it only computes: the load of the machine is left out
        for text in texts:
            judge.doubt(text, None)
        runs.append(1e6 * (time.thread_time() - began) / len(texts))
    return figure(runs, "µs", f"mean over {len(texts)} texts", aim=100, digits=1)
