"""Own conversations, as a user types the commands: baselines, runs, ledger, card, labels."""

from __future__ import annotations

import csv
import errno
import json
import shlex
from collections.abc import Sequence
from pathlib import Path

import pytest

from model.data.reader import read_data_set
from model.pcgnet.checkpoint import load_checkpoint
from model.registry import kind_named
from model.training.options import Run
from stream.errors import ConfigError, ModelUnfit, SourceError
from tests.fakes import console
from tests.fakes.encoder import write_tiny_encoder

WORDS = {"annoyed": "stop doing that", "calm": "what a lovely day", "happy": "oh really now"}
SMALL = ("--text", "frozen", "--hidden", "8", "--epochs", "1")


def run(*arguments: str) -> str:
    return " ".join(console.run(*arguments).split())


def write_calls(path: Path, labels: Sequence[str] = ("calm",) * 8) -> None:
    """Write calls of two speakers: an eighth of the utterances annoyed, the others of `labels`."""
    lines = ["call_id,speaker,transcript,emotion"]
    for call in range(20):
        for turn in range(6):
            pick = (5 * call + 3 * turn) % 8
            emotion = "annoyed" if pick == 0 else labels[pick]
            lines.append(f"c{call},{'ab'[turn % 2]},{WORDS.get(emotion, 'so it is')} now,{emotion}")
    path.write_text("\n".join(lines) + "\n", "utf-8")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_tiny_encoder(tmp_path_factory.mktemp("encoder")))


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A converted set in an own folder, which is the current one: no project is around."""
    monkeypatch.chdir(tmp_path)
    write_calls(tmp_path / "calls.csv")
    run("data", "convert", "calls.csv", "--out", "calls")
    return "calls"


# Baselines ------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", ["logistic", "markov", "gru"])
@pytest.mark.parametrize("more", [(), ("--text-only", "--split", "test")])
def test_a_baseline_reads_the_sentences_of_a_set_without_vectors(
    calls: str, encoder: str, name: str, more: tuple[str, ...]
) -> None:
    run("baseline", name, "--data", calls, "--encoder", encoder, "--json", "f.json", *more)
    figures = json.loads(Path("f.json").read_text("utf-8"))
    assert figures["A1"]["value"] == 100.0  # a sentence says its label
    assert len(list(Path("runs/.text").glob("*.npy"))) == (3 if more else 2)


def test_encoded_sentences_are_kept_and_a_damaged_file_of_them_is_made_again(
    calls: str, encoder: str
) -> None:
    common = ("baseline", "logistic", "--data", calls, "--encoder", encoder)
    assert "encoding sentences" in run(*common)
    assert "encoding sentences" not in run(*common)
    for file in Path("runs/.text").iterdir():
        file.write_bytes(b"\x93NUMPY")
    assert "encoding sentences" in run(*common)


def test_without_vectors_and_sentences_or_with_one_label_a_baseline_is_one_sentence(
    tmp_path: Path, encoder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    lines = ["call,speaker,text,emotion,split"]
    lines += [f"c{i},a,hello,{e},{s}" for i, (e, s) in enumerate([("x", "train"), ("y", "dev")])]
    lines = [line.replace("call,", "call_id,") for line in lines]
    Path("one.csv").write_text("\n".join(lines), "utf-8")
    assert "no utterance of the train split is y" in run("data", "convert", "one.csv", "--out", "o")
    with pytest.raises(SourceError, match="needs two labels"):
        run("baseline", "logistic", "--data", "o", "--encoder", encoder)


@pytest.mark.slow
def test_a_set_without_dev_holds_dialogues_out_for_a_baseline_as_for_a_training(
    calls: str, encoder: str
) -> None:
    run("data", "convert", "calls.csv", "--out", "no", "--dev-share", "0", "--test-share", "0")
    output = run("baseline", "markov", "--data", "no", "--encoder", encoder)
    assert "2 of 20 train dialogues held out" in output


# Finished runs --------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_finished_run_is_repeated_by_nobody_and_replaced_by_nothing(
    calls: str, encoder: str
) -> None:
    common = ("train", "--data", calls, "--encoder", encoder, *SMALL)
    run(*common)
    before = {p.name: p.read_bytes() for p in Path("runs/calls").iterdir()}
    digest = before["digest"].decode()[:16]
    assert f"already there: checkpoint {digest} in runs/calls" in run(*common)
    with pytest.raises(SourceError, match=r"runs/calls holds a finished run with other settings"):
        run(*common, "--seed", "1")
    run("data", "convert", "calls.csv", "--out", "other", "--dev-share", "0.3")
    with pytest.raises(SourceError, match=r"other data \(emotrack train --data calls .*--name"):
        run("train", "--data", "other", "--encoder", encoder, *SMALL)
    assert {p.name: p.read_bytes() for p in Path("runs/calls").iterdir()} == before
    run("train", "--data", "other", "--encoder", encoder, *SMALL, "--name", "second")
    assert load_checkpoint(Path("runs/second")).digest != load_checkpoint(Path("runs/calls")).digest
    Path("runs/calls/run.json").unlink()  # as before runs said what they were made of
    with pytest.raises(SourceError, match=r"no run\.json that says of what run"):
        run(*common)


@pytest.mark.slow
def test_a_run_of_folds_goes_on_after_those_that_have_finished(calls: str, encoder: str) -> None:
    common = ("train", "--data", calls, "--encoder", encoder, *SMALL, "--folds", "2")
    whole = run(*common).rpartition("2 folds, ")[2]
    for file in Path("runs/calls/fold-2").iterdir():
        file.unlink()
    again = run(*common)
    assert again.count("already there") == 1
    assert again.rpartition("2 folds, ")[2] == whole


@pytest.mark.slow
def test_a_crash_after_training_leaves_no_half_checkpoint_and_the_run_goes_on(
    calls: str, encoder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    common = ("train", "--data", calls, "--encoder", encoder, *SMALL)
    run(*common, "--name", "whole")

    def too_large(*_: object, **__: object) -> None:
        raise MemoryError

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr("model.train_run.evaluate", too_large)
        with pytest.raises(MemoryError):
            run(*common)
    assert sorted(p.name for p in Path("runs/calls").iterdir()) == ["epochs.csv", "progress.pt"]
    with monkeypatch.context() as broken:
        broken.setattr("model.train_run.learning_curves", full)
        with pytest.raises(ModelUnfit, match=r"No space left.*run the same command again"):
            run(*common)
    assert sorted(p.name for p in Path("runs/calls").iterdir()) == ["epochs.csv", "progress.pt"]
    text = Path("calls.csv").read_text("utf-8")
    Path("calls.csv").write_text(text.replace("lovely", "dark", 1), "utf-8")
    run("data", "convert", "calls.csv", "--out", "another")
    with pytest.raises(SourceError, match=r"progress\.pt is of a run with other data"):
        run("train", "--data", "another", "--encoder", encoder, *SMALL)
    run(*common)
    names = [sorted(p.name for p in Path("runs", n).iterdir()) for n in ("calls", "whole")]
    assert names[0] == names[1]
    digests = {load_checkpoint(Path("runs", name)).digest for name in ("calls", "whole")}
    assert len(digests) == 1


# Ledger ---------------------------------------------------------------------------------------


def rows_of(ledger: str) -> list[str]:
    with Path(ledger).open(encoding="utf-8", newline="") as file:
        return [row["checkpoint"] for row in csv.DictReader(file)]


def test_looks_at_an_own_set_are_recorded_next_to_it(calls: str, tmp_path: Path) -> None:
    run("baseline", "majority", "--data", calls, "--split", "test", "--report", "page")
    assert rows_of("calls/calls_test-ledger.csv") == ["baseline-majority-seed0"]
    page = (tmp_path / "page" / "report.html").read_text("utf-8")
    assert "recorded in calls/calls_test-ledger.csv: number 1" in page
    assert "emotrack baseline majority --data calls --set calls --split test" in page
    assert "calls_test-ledger.csv" not in run("data", "check", calls)  # it is no set


def test_the_projects_ledger_is_for_the_projects_sets_only(calls: str) -> None:
    Path("docs").mkdir()
    Path("docs/test-ledger.csv").write_text("date,checkpoint\n", "utf-8")
    run("baseline", "majority", "--data", calls, "--split", "test")
    assert rows_of("docs/test-ledger.csv") == []
    run("data", "convert", "calls.csv", "--out", "like-meld", "--name", "meld")
    run("baseline", "majority", "--data", "like-meld", "--split", "test")
    assert rows_of("docs/test-ledger.csv") == ["baseline-majority-seed0"]


def test_a_ledger_that_cannot_be_written_is_refused_before_anything_is_computed(
    calls: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def computed(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr("model.study.baselines.fit_baseline", computed)
    monkeypatch.setattr("model.evaluate.evaluate", computed)
    Path("calls/calls_test-ledger.csv").write_text("mine,yours\n1,2\n", "utf-8")
    for words in (("baseline", "gru"), ("evaluate", "pcgnet")):
        with pytest.raises(ConfigError, match=r"calls_test-ledger\.csv is no ledger.*--ledger"):
            run(*words, "--data", calls, "--split", "test")


# Card -----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_card_names_the_command_the_ledger_and_only_what_is_rare(
    calls: str, encoder: str
) -> None:
    words = ("train", "--data", calls, "--encoder", encoder, "--name", "k 2", *SMALL)
    run(*words)
    card = Path("runs/k 2/README.md").read_text("utf-8")
    command = next(line for line in card.splitlines() if line.startswith("`emotrack train"))
    assert "--data calls --set calls --name 'k 2'" in command
    assert "`calls/calls_test-ledger.csv`" in card
    assert "docs/test-ledger.csv" not in card
    assert "Rare classes (annoyed)" in card or "Rare classes" not in card  # calm is 7 of 8
    assert "calm" not in card.partition("Rare classes")[2].partition(")")[0]
    again = shlex.split(command.strip("`"))[1:]
    assert "already there" in run(*again)  # the command as printed is that run


# Labels ---------------------------------------------------------------------------------------


def test_a_sentiment_is_an_option_a_column_or_in_the_meta_file(calls: str, tmp_path: Path) -> None:
    convert = ("data", "convert", "calls.csv", "--out", "s")
    output = run(*convert)
    assert "no sentiment is known of annoyed, calm: answers will call that neutral" in output
    output = run(*convert, "--sentiment", "annoyed=negative", "--sentiment", "calm=Positive")
    assert "no sentiment" not in output
    assert "annoyed (negative)" in output
    assert "calm (positive)" in run("data", "check", "s")
    with pytest.raises(SourceError, match="names 'bored', which is no label"):
        run(*convert, "--sentiment", "bored=negative")
    with pytest.raises(SourceError, match="'bad': say positive, neutral, negative"):
        run(*convert, "--sentiment", "calm=bad")
    with pytest.raises(ConfigError, match="annoyed=negative"):
        run(*convert, "--sentiment", "annoyed")
    lines = Path("calls.csv").read_text("utf-8").splitlines()
    said = [f"{line},{'NEGATIVE' if line.endswith('annoyed') else ''}" for line in lines[1:]]
    Path("calls.csv").write_text("\n".join([f"{lines[0]},sentiment", *said]), "utf-8")
    output = run(*convert)
    assert "annoyed (negative)" in output
    assert "known of calm:" in output
    Path("s/calls_meta.json").write_text('{"labels": ["annoyed", "calm"], "sentiment": {"x": ""}}')
    with pytest.raises(SourceError, match=r"calls_meta\.json: `sentiment` names 'x'"):
        run("data", "check", "s")


@pytest.mark.slow
def test_a_stated_sentiment_is_what_a_checkpoint_answers(calls: str, encoder: str) -> None:
    run("data", "convert", "calls.csv", "--out", "s", "--sentiment", "annoyed=negative")
    output = run("train", "--data", "s", "--encoder", encoder, *SMALL)
    assert "known of calm:" in output
    sentiment = load_checkpoint(Path("runs/calls")).config.sentiment
    assert dict(sentiment) == {"annoyed": "negative", "calm": "neutral"}


def test_hrg_ssa_learns_to_say_the_stated_sentiment(calls: str, encoder: str) -> None:
    run("data", "convert", "calls.csv", "--out", "s", "--sentiment", "annoyed=negative")
    kind = kind_named("hrg-ssa")
    plan = kind.plan(read_data_set(Path("s")), kind.options(encoder=Path(encoder)), Run(command=""))
    assert dict(plan.config.sentiment) == {"annoyed": "negative", "calm": "neutral"}


def test_labels_that_differ_in_case_only_are_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_calls(Path("c.csv"), labels=("calm", "Calm") * 4)
    output = run("data", "convert", "c.csv", "--out", "c")
    assert "differ in case only are different labels: Calm/calm" in output


# Sentences ------------------------------------------------------------------------------------


def convert_refused(content: bytes) -> str:
    Path("x.csv").write_bytes(content)
    with pytest.raises(SourceError) as refused:
        run("data", "convert", "x.csv", "--out", "x")
    return str(refused.value)


def test_tables_that_cannot_be_a_set_are_one_sentence_with_a_cure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    head = b"call_id,speaker,text,emotion\n"
    unlabelled = convert_refused(head + b"c,a,hello,\nd,a,hello,\n")
    assert "x.csv: none of the 2 utterances has an emotion" in unlabelled
    assert "emotrack publish x.csv" in unlabelled and "emotrack predict x.csv" in unlabelled
    assert "x.csv, line 3: nothing in the column `speaker_id`" in convert_refused(
        head + b"c,a,hello,calm\nc,,hello,mad\n"
    )
    latin = convert_refused(head + "c,a,hello,calm\nc,a,caf\xe9,mad\n".encode("latin-1"))
    assert "x.csv, line 3: byte 0xe9 is not UTF-8" in latin
    assert "iconv -f WINDOWS-1252 -t UTF-8 x.csv > new.csv" in latin
    assert "iconv -f UTF-16" in convert_refused("call_id,é\n".encode("utf-16"))


def test_a_set_that_is_not_there_names_those_that_are(calls: str) -> None:
    with pytest.raises(SourceError, match="no set nope in calls: it holds calls"):
        run("baseline", "majority", "--data", calls, "--set", "nope")
    with pytest.raises(SourceError, match="no set nope in nowhere: there is no such folder"):
        run("data", "check", "nowhere", "--set", "nope")


ODD = {
    "three conversations": ("ab", 3, 6, ("mad", "calm")),
    "one speaker": ("a", 10, 4, ("mad", "calm")),
    "one utterance each": ("a", 12, 1, ("mad", "calm")),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ODD)
def test_odd_sets_have_a_sensible_result(
    name: str, tmp_path: Path, encoder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    speakers, calls, turns, labels = ODD[name]
    lines = ["call_id,speaker,text,emotion"]
    for call in range(calls):
        for turn in range(turns):
            emotion = labels[(call + turn) % 2]
            lines.append(f"c{call},{speakers[turn % len(speakers)]},oh really now,{emotion}")
    Path("odd.csv").write_text("\n".join(lines), "utf-8")
    run("data", "convert", "odd.csv", "--out", "odd")
    assert "accuracy" in run("baseline", "markov", "--data", "odd", "--encoder", encoder)
    assert "checkpoint" in run("train", "--data", "odd", "--encoder", encoder, *SMALL)


def test_one_label_is_refused_before_a_set_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "1 emotion named (calm)" in convert_refused(
        b"call_id,speaker,text,emotion\nc,a,hello,calm\nd,b,hello,calm\n"
    )
    assert not Path("x").exists()
