"""The page of a report: everything in one file, safe to open, in plain words."""

from __future__ import annotations

import base64
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from model.scoring.answers import Answers
from model.scoring.bootstrap import SCORES, Difference
from model.scoring.html_page import Subject, difference_sentence, report_page, summary
from model.scoring.pictures import Picture
from model.scoring.report import Report, score
from model.serving.calibration import Calibration, Thresholds

SUBJECT = Subject(
    "pcgnet 1", "d" * 64, "a <b>set</b>", "dev", "emotrack evaluate --set x", "Two looks so far."
)
PICTURES = (
    Picture("one", 'A "quoted" heading', "What it shows.", b"\x89PNG one"),
    Picture("two", "Another", "More.", b"\x89PNG two"),
)
GAPS = tuple(Difference(name, 0.6, 0.5, 0.1, 0.02, 0.2, 0.01) for name in SCORES)


class Tags(HTMLParser):
    """Collects tags and their attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def report() -> Report:
    rng = np.random.default_rng(0)
    answers = Answers(
        emotion=rng.normal(size=(40, 2)),
        labels=rng.integers(0, 2, 40),
        dialogue=np.repeat(np.arange(4), 10),
        shift=rng.normal(size=(20, 4)),
        shifts=rng.integers(0, 4, 20),
        pair_dialogue=np.repeat(np.arange(4), 5),
        dialogues=4,
    )
    return score(answers, Calibration(), Thresholds(), ("<calm>", "joy"), resamples=20)


def test_every_picture_is_inside_and_nothing_is_fetched(report: Report) -> None:
    page = report_page(SUBJECT, report, PICTURES, GAPS)
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    images = [attributes for tag, attributes in tags.found if tag == "img"]
    inside = [base64.b64decode(str(i["src"]).partition("base64,")[2]) for i in images]
    assert inside == [p.png for p in PICTURES]
    assert {tag for tag, _ in tags.found} & {"script", "link", "iframe", "a"} == set()
    assert not re.search(r"https?:|//|url\(|@import", re.sub(r"base64,[^\"]*", "", page))


def test_names_of_others_cannot_become_markup(report: Report) -> None:
    page = report_page(SUBJECT, report, PICTURES)
    assert "<b>" not in page
    assert "<calm>" not in page
    assert "a &lt;b&gt;set&lt;/b&gt;" in page
    assert "&lt;calm&gt;" in page


def test_the_page_names_its_subject_and_the_command(report: Report) -> None:
    page = report_page(SUBJECT, report, PICTURES)
    for part in ("pcgnet 1", SUBJECT.digest, SUBJECT.command, SUBJECT.ledger, "dev split"):
        assert part in page
    assert "Against another checkpoint" not in page
    other = replace(SUBJECT, other="e" * 64)
    assert "e" * 64 in report_page(other, report, PICTURES, GAPS)


def test_the_summary_has_the_base_rate_next_to_the_score(report: Report) -> None:
    first = summary(report)[0]
    assert f"{100 * report.accuracy.value:.0f} of 100 utterances" in first
    assert f"{100 * report.majority.accuracy:.0f}" in first


def test_a_difference_has_its_interval_and_verdict() -> None:
    gap = GAPS[1]
    assert difference_sentence(gap) == "weighted F1: +10.0 points (+2.0 to +20.0), better"
    assert difference_sentence(replace(gap, low=-0.1)).endswith("within noise")
    assert difference_sentence(replace(gap, value=float("nan"))).endswith("cannot be compared")
