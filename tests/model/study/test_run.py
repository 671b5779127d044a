"""The accuracy study: trains once, looks once, and its tables are made of what runs answered."""

from __future__ import annotations

import csv
import itertools
import os
import subprocess
import sys
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.data.writer import write_data_set
from model.pcgnet.checkpoint import load_checkpoint
from model.study.page import gap, scored, table, whole_page
from model.study.rows import ADAPTED, FROZEN, HRG_HONESTY, ROWS, Row
from model.study.run import Job, chosen_on_dev, data_of, hours, jobs_of, load_answers, run_all
from tests.fakes.conversations import generated_conversations

TINY = Row(
    "tiny",
    "a model as small as can be",
    set_name="generated",
    text="vectors",
    seeds=2,
    recipe={"epochs": 1, "steps_at_least": 1},
    model={"hidden": 8},
    on_test=True,
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_data_set(folder, generated_conversations(30, seed=1))
    return folder


@pytest.fixture(scope="module")
def runs(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seeds, trained in processes of their own, as the command does it."""
    folder = tmp_path_factory.mktemp("runs")
    done = list(run_all(jobs_of([TINY], data, folder), 1, folder / "ledger.csv"))
    assert len(done) == 2
    return folder


@pytest.mark.timeout(60)  # the worker would sleep for longer
def test_no_training_outlives_a_command_that_was_killed() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HELD], stdout=subprocess.PIPE, text=True
    ) as command:
        assert command.stdout is not None
        worker = int(command.stdout.readline())
        os.kill(worker, 0)  # it is there
        command.kill()
        assert command.stdout.read() == ""  # the end of what it wrote: the worker has ended too


HELD = """
import os, time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from model.study.run import end_with_parent

if __name__ == "__main__":
    with ProcessPoolExecutor(1, get_context("spawn"), initializer=end_with_parent) as pool:
        print(pool.submit(os.getpid).result(), flush=True)
        pool.submit(time.sleep, 250).result()
"""


@pytest.mark.slow
def test_a_second_run_trains_nothing_and_looks_at_test_no_more(data: Path, runs: Path) -> None:
    jobs = jobs_of([TINY], data, runs)
    assert hours(jobs, 1) == 0
    before = [(job.folder / "model.safetensors").stat().st_mtime_ns for job in jobs]
    assert [job.seed for job in run_all(jobs, 1, runs / "ledger.csv")] == [0, 1]
    assert [(job.folder / "model.safetensors").stat().st_mtime_ns for job in jobs] == before
    with (runs / "ledger.csv").open(encoding="utf-8", newline="") as file:
        looks = list(csv.DictReader(file))
    digests = {(job.folder / "digest").read_text("utf-8").strip() for job in jobs}
    assert len(looks) == 2
    assert {look["checkpoint"] for look in looks} == digests


def test_a_runs_name_follows_from_everything_that_decides_it() -> None:
    names = {
        TINY.run_name(0),
        TINY.run_name(1),
        replace(TINY, recipe={"epochs": 2}).run_name(0),
        replace(TINY, model={"hidden": 16}).run_name(0),
        replace(TINY, without=("audio",)).run_name(0),
        replace(TINY, joined=60).run_name(0),
        replace(TINY, stay=0.7).run_name(0),
        replace(TINY, text="frozen").run_name(0),
        replace(TINY, baseline="gru").run_name(0),
    }
    assert len(names) == 9
    assert replace(TINY, says="in other words", minutes=9.0).run_name(0) == TINY.run_name(0)


@pytest.mark.slow
def test_a_cell_is_the_mean_over_seeds_and_a_row_less_itself_is_zero(runs: Path) -> None:
    found = scored(TINY, "dev", runs)
    assert found is not None
    values = found.seeds["weighted_f1"]
    assert found.mean["weighted_f1"][0] == pytest.approx(np.mean(values))
    assert f"{100 * np.mean(values):.1f} ± {100 * np.std(values, ddof=1):.1f}" in table([found])
    nothing = gap(found, found, "weighted_f1")
    assert (nothing.value, nothing.low, nothing.high) == (0.0, 0.0, 0.0)
    assert nothing.verdict == "within noise"


@pytest.mark.slow
def test_a_row_with_a_run_missing_says_so_and_one_without_any_is_no_row(runs: Path) -> None:
    found = scored(replace(TINY, seeds=3), "dev", runs)
    assert found is not None
    assert "| 2 of 3 |" in table([found])
    assert scored(replace(TINY, model={"hidden": 9}), "dev", runs) is None


@pytest.mark.slow
def test_the_shipped_model_is_the_one_dev_prefers(runs: Path) -> None:
    found = scored(TINY, "dev", runs)
    assert found is not None
    seed, folder = chosen_on_dev(TINY, runs)
    assert seed == int(np.argmax(found.seeds["weighted_f1"]))
    assert folder.name == TINY.run_name(seed)


@pytest.mark.slow
def test_kept_answers_come_back(data: Path, runs: Path) -> None:
    job = Job(TINY, 0, data, runs)
    answers, calibration = load_answers(job.folder / "dev.npz")
    assert answers.dialogues == len(data_of(TINY, data).split("dev"))
    assert answers.emotion.shape[1] == answers.classes == 7
    assert calibration == load_checkpoint(job.folder).calibration
    assert len(calibration.offsets) == 7


@pytest.mark.slow
def test_a_baseline_is_fitted_scored_and_noted_like_a_model(data: Path, tmp_path: Path) -> None:
    row = replace(TINY, name="majority", baseline="majority", seeds=1)
    list(run_all(jobs_of([row], data, tmp_path), 1, tmp_path / "ledger.csv"))
    assert row.run_name(0) in (tmp_path / "ledger.csv").read_text("utf-8")
    found = scored(row, "test", tmp_path)
    assert found is not None
    assert "always neutral" not in table([found])


@pytest.mark.slow
def test_the_page_is_written_from_what_there_is(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("model.study.rows.MAIN", (TINY,))
    monkeypatch.setattr("model.study.rows.FROZEN", TINY)
    page = whole_page(runs, looks=[{"set": "meld"}, {"set": "x"}], today=date(2026, 1, 2))
    assert "(2026-01-02)" in page
    assert "**tiny**: a model as small as can be" in page
    assert "2 lines, of MELD 1" in page


def test_every_row_of_the_study_has_a_name_of_its_own_and_the_main_ones_five_seeds() -> None:
    assert len({row.name for row in ROWS}) == len(ROWS)
    assert FROZEN.seeds == ADAPTED.seeds == 5
    assert {row.seeds for row in HRG_HONESTY} == {5}
    pcgnets = [row for row in ROWS if row.kind == "pcgnet"]
    drawn = [row for row in pcgnets if row.set_name == "meld" and not (row.joined or row.stay)]
    assert all(row.seeds >= 3 for row in drawn if row.baseline in (None, "gru"))


def test_a_set_is_cut_as_the_row_says(data: Path) -> None:
    cut = data_of(replace(TINY, without=("video", "persona"), joined=40), data)
    assert set(cut.widths) == {"text", "audio"}
    assert min(len(dialogue) for dialogue in cut.split("train")) >= 40
    staged = data_of(replace(TINY, stay=0.7), data)
    assert {speaker for d in staged.split("train") for speaker in d.speakers} == {"a", "b"}


@pytest.mark.slow
def test_a_row_of_the_other_model_is_trained_and_has_a_table_of_its_own(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The leak is named as one; PCGNet's rows keep their runs' names."""
    small = {"width": 16, "heads": 2, "head_width": 8, "graph_heads": 2, "feed_forward": 16}
    common: dict[str, Any] = {
        "kind": "hrg-ssa", "set_name": "generated", "seeds": 1,
        "recipe": {"epochs": 1, "steps_at_least": 1},
    }  # fmt: skip
    own = Row("hrg-own", "its own answers", model=small, **common)
    gold = Row("hrg-gold", "a leak", model={"research": ["gold-history"]}, weights=own, **common)
    none = replace(gold, name="hrg-none", model={"research": ["no-labels"]})
    explicit = replace(gold, name="hrg-explicit", model={"research": ["no-implicit"]})
    rows = [gold, none, explicit]  # the row whose weights they ask comes along
    assert len(list(run_all(jobs_of(rows, data, tmp_path), 2, tmp_path / "l.csv"))) == 4
    trained = [job.row for job in jobs_of(rows, data, tmp_path) if (job.folder / "digest").exists()]
    assert trained == [own], "the others ask its weights"
    said = [load_answers(job.folder / "dev.npz")[0] for job in jobs_of(rows, data, tmp_path)]
    for one, other in itertools.combinations(said, 2):
        assert np.array_equal(one.labels, other.labels)
        assert not np.array_equal(one.emotion, other.emotion), "each is told something else"
    monkeypatch.setattr("model.study.rows.HRG_HONESTY", (gold, own))
    monkeypatch.setattr("model.study.rows.HRG_OWN", own)
    monkeypatch.setattr("model.study.rows.HRG_PARTS", ())
    page = whole_page(tmp_path, looks=(), today=date(2026, 1, 2))
    section = page[page.index("## HRG-SSA") :]
    assert "**a\nleak**" in section
    assert "| **hrg-gold**: a leak | 1 |" in section
    assert "**hrg-own**: its own answers | 1 |" in section


def test_the_rows_of_pcgnet_keep_their_runs() -> None:
    """A study that takes hours is not trained again because another model joined it."""
    assert FROZEN.run_name(0) == "frozen-0-3b77b754"
    assert ADAPTED.run_name(0) == "adapted-0-0681c8b8"
