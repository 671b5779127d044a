"""docs/accuracy.md: a summary, every term, and cells whose mean is outside their interval."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from model.scoring.bootstrap import SCORES, ScoreName
from model.study.page import HERE, OUTSIDE, SHOWN, Scored, plainly
from model.study.rows import ADAPTED, BASELINES, FROZEN
from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "accuracy.md").read_text("utf-8")
CELL = re.compile(r"(\d+\.\d+)(?: ± \d+\.\d+)? \((\d+\.\d+) to (\d+\.\d+)\)( †)?")


def made(value: float, low: float, high: float) -> Scored:
    scores = np.concatenate(([value], np.linspace(low, high, 1001)))
    return Scored(FROZEN, {name: [value] for name in SCORES}, dict.fromkeys(SCORES, scores))


def test_a_mean_outside_its_interval_is_marked_and_no_other_is() -> None:
    assert made(0.023, 0.026, 0.042).cell("emotion_ece", 100).endswith(f") {OUTSIDE}")
    assert OUTSIDE not in made(0.030, 0.026, 0.042).cell("emotion_ece", 100)


def test_the_page_marks_each_cell_whose_mean_is_outside() -> None:
    cells = CELL.findall(PAGE)
    assert len(cells) > 250
    for value, low, high, mark in cells:
        assert bool(mark) == (not float(low) <= float(value) <= float(high)), (value, low, high)


def test_every_term_of_a_table_is_defined_before_it() -> None:
    tables = PAGE.index("## MELD, test split")
    defined = PAGE[:tables]
    for term in ("wF1", "C² wF1", "ECE", "AURC", "frozen", "adapted", "persona", "shift AUROC",
                 "seed", "dev, test", "markov", "twin", "look", "accuracy", "vectors"):  # fmt: skip
        assert re.search(rf"^\|[^|]*\b{term}\b[^|]*\|", defined, re.MULTILINE), term
    head = (HERE / "page.md").read_text("utf-8").split("## MELD, test split")[0]
    static = head[head.index("| term |") :]
    assert static in PAGE, "the page's terms are those of the generator's template"


def test_the_page_opens_with_what_its_tables_say() -> None:
    rows = {}
    for line in PAGE[PAGE.index("## MELD, test split") :].splitlines():
        name = re.match(r"\| \*\*([\w-]+)\*\*:", line)
        if name and name[1] not in rows:  # the test split comes first
            values = [float(cell[0]) for cell in CELL.findall(line)]
            seeds: dict[ScoreName, list[float]] = {
                key: [value / factor]
                for (key, _, factor), value in zip(SHOWN, values[: len(SHOWN)], strict=True)
            }
            rows[name[1]] = Scored(FROZEN, seeds, {})
    assert plainly(rows) in PAGE
    assert PAGE.index(plainly(rows)) < PAGE.index("| term |")


def test_a_page_without_the_main_rows_says_so() -> None:
    assert "have not been run" in plainly({})
    assert {row.name for row in (ADAPTED, FROZEN, *BASELINES)} >= {"majority", "logistic"}


def test_papers_are_cited_by_title_venue_and_doi() -> None:
    for file in (Path("docs/models.md"), Path("CITATION.cff")):
        text = (ROOT / file).read_text("utf-8")
        for doi in ("10.1145/3626772.3657944", "10.24963/ijcai.2025/331"):
            assert doi in text
        assert "A Persona-Infused Cross-Task Graph Network" in text
    assert "10.1109/CVPR52729.2023.01036" in (ROOT / "docs" / "models.md").read_text("utf-8")
