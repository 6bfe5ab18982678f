"""Records of builds: written as a build goes on and however it ends, and by none that has nothing to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.builds import run
from pipeline.builds.order import Order
from pipeline.builds.recording import recorded
from pipeline.corpus.records import build_ids, newest_build
from pipeline.engine.ending import Terminated
from pipeline.engine.mistake import UserMistake
from pipeline.engine.progress import Progress
from pipeline.engine.resources import Resources
from pipeline.engine.runner import PhaseFailed, Runner
from pipeline.engine.storage import Storage, StorageFull
from pipeline.phases.graph import graph
from schemas.build_record import FAILED, FINISHED, RUNNING, STOPPED, BuildRecord
from schemas.page import PAGE
from tests.pipeline.builds.test_dry_run import finish, key_of, spec_of
from tests.pipeline.small_corpus import page, put

PHASES = ("pages", "documents")


def runner(storage: Storage, **places: str) -> Runner:
    progress = Progress(lambda phase: [0, 0, 0])
    return Runner(storage, Resources(1.0, 0.0), progress, None, places=places, stores={"b", "a"})


def kept(storage: Storage) -> BuildRecord:
    record = newest_build(storage)
    assert record is not None
    return record


def test_a_record_goes_along_with_its_build(tmp_path: Path) -> None:
    storage, spec = Storage(str(tmp_path)), spec_of(tmp_path)
    label, overrides = "s.yaml", ["a=http://me:sekret@host/", "b=2"]
    with recorded(storage, spec, label, overrides, PHASES) as recording:
        assert (kept(storage).state, kept(storage).phases) == (RUNNING, {"pages": "", "documents": ""})
        recording.begun(runner(storage, pages="work/pages/p1"))
        assert kept(storage).phases == {"pages": "work/pages/p1", "documents": ""}
        assert kept(storage).stores == ("a", "b")
        pages, documents = "records/pages/p1/00000.json", "records/documents/d1/00000.json"
        recording.made(runner(storage, pages=pages, documents=documents), "v1")
        assert kept(storage).phases == {"pages": pages, "documents": documents}
        assert kept(storage).version == "v1" and kept(storage).state == RUNNING
    record = kept(storage)
    assert (record.state, record.cause, record.label) == (FINISHED, "", "s.yaml")
    assert record.overrides == ("a=http://***@host/", "b=2") and record.spec == spec.model_dump(mode="json")
    assert BuildRecord.from_json(record.to_json()) == record


@pytest.mark.parametrize(
    ("error", "state", "cause"),
    [
        (Terminated(), STOPPED, "terminated"),
        (KeyboardInterrupt(), STOPPED, "interrupted"),
        (PhaseFailed("expect: documents is 0\nmore"), FAILED, "expect: documents is 0"),
        (RuntimeError("no\n s3://me:sekret@b"), FAILED, "RuntimeError: no s3://***@b"),
    ],
)
def test_however_it_ends_is_written(tmp_path: Path, error: BaseException, state: str, cause: str) -> None:
    storage = Storage(str(tmp_path))
    with pytest.raises(type(error)), recorded(storage, spec_of(tmp_path), "s", [], PHASES):
        raise error
    assert (kept(storage).state, kept(storage).cause) == (state, cause)


def test_an_end_that_was_asked_for_stands(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    with recorded(storage, spec_of(tmp_path), "s", [], PHASES) as recording:
        recording.ended(STOPPED, "--until pages")
    assert (kept(storage).state, kept(storage).cause) == (STOPPED, "--until pages")


def test_a_full_disk_is_told_and_not_the_record_that_it_took(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = Storage(str(tmp_path))

    def full(self: Storage, name: str, data: bytes) -> None:
        raise StorageFull(28, "no space left for the record")

    with pytest.raises(StorageFull, match="for a part"), recorded(storage, spec_of(tmp_path), "s", [], PHASES):
        monkeypatch.setattr(Storage, "write", full)
        raise StorageFull(28, "no space left for a part")
    assert kept(storage).state == RUNNING


def test_ids_sort_by_time(tmp_path: Path) -> None:
    storage, made = Storage(str(tmp_path)), []
    for _ in range(5):
        with recorded(storage, spec_of(tmp_path), "s", [], PHASES) as recording:
            made.append(recording.record.id)
    assert build_ids(storage) == made


@pytest.fixture
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    def connected(*_: Any, **__: Any) -> None:
        raise AssertionError("a Ray is started")

    monkeypatch.setattr(run, "connected", connected)


def test_a_build_that_has_nothing_to_do_starts_nothing_and_records_nothing(tmp_path: Path, no_ray: None) -> None:
    spec = spec_of(tmp_path)
    key = key_of(graph(spec)[0], {})
    put(Storage(str(tmp_path)), "pages", key, PAGE, [page("/a")], [], {})
    finish(spec, until="documents")
    assert list(run.build(Order(spec, "s", until="documents"))) == [
        "nothing to do: every phase up to documents is finished"
    ]
    assert not (tmp_path / "builds").exists()
    put(Storage(str(tmp_path)), "pages", key, PAGE, [page("/a", "error", reason="connection")], [], {})
    finish(spec, until="documents")
    with pytest.raises(AssertionError, match="a Ray is started"):  # and would say that not one page was got
        list(run.build(Order(spec, "s", until="documents")))


@pytest.mark.parametrize("out", ["nosuch://x", "FILE/out"])
def test_an_output_that_cannot_be_used_is_told_before_a_ray_is_started(tmp_path: Path, no_ray: None, out: str) -> None:
    (tmp_path / "file").write_text("")
    spec = spec_of(Path(tmp_path), f"output.url={out.replace('FILE', str(tmp_path / 'file'))}")
    with pytest.raises(UserMistake, match="output: cannot "):
        list(run.build(Order(spec, "s")))
