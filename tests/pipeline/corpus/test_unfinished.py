"""Builds that were stopped, killed, or refused by an expectation: explain and report read what there is of them."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline import explain
from pipeline.command import run_command
from pipeline.corpus.records import build_command
from pipeline.corpus.unfinished import open_corpus
from pipeline.corpus.version import Corpus
from pipeline.engine.layout import LATEST
from pipeline.engine.mistake import UserMistake
from pipeline.report import __main__ as report
from schemas.build_record import FAILED, FINISHED, RUNNING, STOPPED
from tests.pipeline.small_corpus import SITE, VERSION, record_build, write

Say = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def intact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(write(str(tmp_path_factory.mktemp("intact"))).storage.url)


@pytest.fixture
def corpus(intact: Path, tmp_path: Path) -> Corpus:
    return Corpus(str(shutil.copytree(intact, tmp_path / "a corpus")))


@pytest.fixture
def say(corpus: Corpus, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Say:
    """say(command, argument, …): exit code and output; a failure is one line."""

    def run(command: str, *arguments: str) -> tuple[int, str]:
        app = {"explain": explain.app, "report": report.app}[command]
        monkeypatch.setattr(sys, "argv", [command, "--corpus", corpus.storage.url, *arguments])
        with pytest.raises(SystemExit) as ended:
            run_command(app)
        said = capsys.readouterr()
        if ended.value.code:
            assert said.out == "" and said.err.count("\n") == 1 and said.err.startswith("error: "), said
        return int(ended.value.code or 0), said.out or said.err

    return run


def only(corpus: Corpus) -> None:
    """Nothing is published."""
    corpus.storage.delete(LATEST)
    corpus.storage.delete(f"versions/{VERSION}/manifest.json")


@pytest.mark.parametrize("published", [True, False])
def test_a_build_that_was_stopped_is_told_as_far_as_it_came(corpus: Corpus, say: Say, published: bool) -> None:
    record = record_build(corpus, "text", STOPPED, "--until text")
    if not published:
        only(corpus)
    code, said = say("explain", "--url", f"{SITE}/dogs-copy")
    lines = said.splitlines()
    assert code == 0 and lines[0] == (
        f"build {record.id} stopped after text: --until text; phases from clusters on did not finish"
    )
    assert "  result: still in after text filters; groups of copies has not been done" in lines
    assert "     0 paragraph: still in" in lines and "shards" not in said and "went with" not in said
    assert lines[-1] == (
        "to go on with the build: python -m pipeline.build --spec 'small spec.yaml' --set mine.top_k=3 "
        f"--out '{corpus.storage}'"
    )
    dropped = say("explain", "--url", f"{SITE}/old")[1]
    assert "text filters: dropped, too few or too many pictures left" in dropped and "not in the shards" in dropped
    assert "  not fetched yet\n" in say("explain", "--url", f"{SITE}/img/1.jpg")[1]
    code, said = say("explain", "--url", "zzz")
    assert code == 2 and f"neither a page nor an image of build {record.id} (" in said


def test_a_page_of_a_build_that_only_crawled_is_not_called_lost(corpus: Corpus, say: Say) -> None:
    record_build(corpus, "pages", STOPPED, "interrupted")
    assert "  result: still in after crawl; extract has not been done\n" in say("explain", "--url", f"{SITE}/cats")[1]
    down = say("explain", "--url", f"{SITE}/down")[1]
    assert "  result: no document was made of it\n" in down
    assert "\nto fetch again what may pass: python -m pipeline.build --spec 'small spec.yaml' --set" in down


@pytest.mark.slow
def test_the_report_of_a_stopped_build_shows_what_there_is_and_why(corpus: Corpus, say: Say) -> None:
    record = record_build(corpus, "text", STOPPED, "--until text <b>")
    before = set(corpus.storage.walk("versions"))
    name = f"builds/{record.id}/report/index.html"
    assert say("report") == (0, f"{corpus.storage.path(name)}\n")
    page = corpus.storage.read(name).decode()
    assert f"Unfinished: build {record.id} stopped after text: --until text &lt;b&gt;; phases from clusters" in page
    for there in ('id="flow"', 'id="funnel"', 'id="time"', "Disallow: /private", "<dt>pages</dt><dd>6</dd>"):
        assert there in page
    for absent in ('id="gallery"', 'id="duplicates"', 'id="guards"', "in the shards", "without copies"):
        assert absent not in page
    assert set(corpus.storage.walk("versions")) == before
    assert say("report", "--version", VERSION)[1] == f"{corpus.storage.path(corpus.report)}\n"
    assert "Unfinished" not in corpus.storage.read(corpus.report).decode()


def test_a_version_that_an_expectation_refused_is_read(corpus: Corpus, say: Say) -> None:
    record = record_build(corpus, "shards", FAILED, "expect: documents is 2, expected at least 9", version=VERSION)
    corpus.storage.delete(LATEST)
    code, said = say("explain", "--url", f"{SITE}/cats")
    assert code == 0 and said.startswith(
        f"version {VERSION}, not published: build {record.id} failed after shards: expect: documents is 2, expected"
    )
    assert f"result: in versions/{VERSION}/shards/" in said
    assert say("report") == (0, f"{corpus.storage.path(corpus.report)}\n")
    assert f"Not published: build {record.id} failed" in corpus.storage.read(corpus.report).decode()


@pytest.mark.parametrize("finished", [False, True])
def test_a_killed_build_is_running_or_killed(corpus: Corpus, say: Say, finished: bool) -> None:
    """The last phase that it began left receipts, and a record where it was killed before the next began."""
    phases = {name: corpus.manifest.phases[name] if name in ("pages", "documents") else "" for name in corpus.phases}
    key = corpus.table("scores").record.key if finished else "0" * 32
    record = record_build(corpus, "scores", RUNNING, phases=phases | {"scores": f"work/scores/{key}"})
    said = say("explain", "--url", f"{SITE}/cats")[1].splitlines()
    last, ahead = ("scores", "text") if finished else ("documents", "scores")
    assert said[0] == (
        f"build {record.id} is running, or was killed after {last} (last heard of at 2026-01-03T00:01:00Z); "
        f"phases from {ahead} on did not finish"
    )


def test_a_record_that_was_lost_is_where_a_build_ended(corpus: Corpus, say: Say) -> None:
    record = record_build(corpus, "clusters", STOPPED, "interrupted")
    corpus.storage.delete(record.phases["text"])
    assert say("explain", "--url", f"{SITE}/cats")[1].startswith(
        f"build {record.id} stopped after scores: interrupted; phases from text on did not finish\n"
    )


def test_the_published_version_is_read_where_no_newer_build_has_anything(corpus: Corpus, say: Say) -> None:
    finished = record_build(corpus, "shards", FINISHED, version=VERSION)
    arguments = ("--url", f"{SITE}/down")
    said = say("explain", *arguments)[1]
    assert (
        said.startswith(f"version {VERSION}, built ")
        and build_command(corpus.storage.url, finished, "--retry-failed") in said
    )
    failed = record_build(corpus, "pages", FAILED, "pages: no", phases=dict.fromkeys(corpus.phases, ""))
    said = say("explain", *arguments)[1]
    assert said.startswith(f"version {VERSION}, built ") and f"; the newer build {failed.id} failed: pages: no" in said
    assert say("explain", *arguments, "--build", finished.id)[1].startswith(f"version {VERSION}, ")
    only(corpus)
    code, said = say("explain", *arguments)
    assert code == 2 and said.endswith(f"nothing to read; go on with {build_command(corpus.storage.url, failed)}\n")


def test_builds_are_named_or_there_is_one_line(corpus: Corpus, say: Say) -> None:
    old, new = record_build(corpus, "text", STOPPED), record_build(corpus, "images", FAILED, "x")
    assert say("explain", "--url", f"{SITE}/cats", "--build", old.id)[1].startswith(f"build {old.id} stopped after")
    assert open_corpus(corpus.storage.url)[0].called == f"build {new.id}"
    for unknown in ("nosuch", "../latest", ""):
        code, said = say("report", "--build", unknown)
        assert code == 2 and f"no build {unknown!r}; there are: {old.id}, {new.id}" in said
    with pytest.raises(UserMistake, match="--version and --build: give one of them"):
        open_corpus(corpus.storage.url, VERSION, old.id)


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"\xff", b'{"record_version": 1}', b'{"record_version": 9}'])
def test_a_record_that_is_none_is_one_line(corpus: Corpus, say: Say, data: bytes) -> None:
    record = record_build(corpus, "text", STOPPED)
    corpus.storage.write(f"builds/{record.id}.json", data)
    for command in (["explain", "--url", f"{SITE}/cats"], ["report"]):
        code, said = say(*command)
        assert code == 1 and f"builds/{record.id}.json: " in said and said.endswith(": delete it\n"), said
    assert say("explain", "--url", f"{SITE}/down", "--version", VERSION)[0] == 0
