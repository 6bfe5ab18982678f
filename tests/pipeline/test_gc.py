"""Collecting garbage: what kept versions need stays, and everything that was fetched."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from typer.testing import CliRunner

from pipeline.builds.lease import this_machine
from pipeline.corpus.version import Corpus
from pipeline.engine.damage import Damaged
from pipeline.engine.key_range import WHOLE, KeyRange
from pipeline.engine.keys import digest_json
from pipeline.engine.layout import LATEST
from pipeline.engine.mistake import UserMistake
from pipeline.engine.moment import now
from pipeline.engine.row_store import RowStore
from pipeline.engine.storage import Storage
from pipeline.engine.table import Table
from pipeline.engine.work_folder import WorkFolder
from pipeline.gc import app, doomed
from schemas.build_record import FAILED, FINISHED, RUNNING, STOPPED, BuildRecord
from schemas.contract import contract, table_from_rows
from schemas.decision import DECISION
from schemas.manifest import PhaseRecord, VersionManifest

# Two versions share their pages and their scores' function; the extraction differs.
FUNCTION = {name: {"name": name, "settings": name} for name in ("score", "extract_old", "extract_new")}
THING = contract("thing", 1, [pa.field("id", pa.string(), nullable=False), pa.field("words", pa.string())], key="id")
HALF = KeyRange(0, (1 << 31) - 1)


def add_receipt(storage: Storage, phase: str, key: str, keys: KeyRange, words: str, decided: str = "") -> list[str]:
    """A finished key range of one row; its files: a part, and decisions where there are some."""
    folder = WorkFolder(storage, phase, key)
    rows = pa.table({"id": [f"{keys.first:08x}"], "words": [words]})
    said = [{"phase": phase, "kind": "page", "action": "drop", "subject_id": decided, "rule": "r"}] if decided else []
    folder.put(keys, 0, rows, THING, table_from_rows(said, DECISION), [], {})
    receipt = next(each for each in folder.receipts(0) if each.keys == keys)
    return [file.name for file in (receipt.part, *receipt.decisions)]


def add_phase(storage: Storage, phase: str, key: str, function: str, halves: tuple[str, str]) -> str:
    """A finished phase whose table has two parts of these words; its record, named from the corpus root."""
    folder = WorkFolder(storage, phase, key)
    for keys, words in zip((HALF, KeyRange(1 << 31, WHOLE.last)), halves, strict=True):
        add_receipt(storage, phase, key, keys, words, decided=words)
    receipts = folder.receipts(0)
    table, digest = folder.finish(receipts, THING)
    decisions = tuple(file for each in receipts for file in each.decisions)
    ingredients = {"functions": {function: FUNCTION[function]}}
    record = PhaseRecord(phase, key, 0, table, digest, 2, decisions, ingredients)
    name = Table(storage, record).record_name
    storage.write(name, record.to_json().encode())
    storage.write(f"rows/{function}/{digest_json(FUNCTION[function])}/00-ff-{phase}.parquet", b"rows")
    return name


def add_version(storage: Storage, version: str, built: str, phases: dict[str, str]) -> None:
    """A version of these phases' records."""
    storage.write(f"versions/{version}/shards/train-00000-of-00001.arrow", b"shard")
    manifest = VersionManifest("small", version, (), "shard", 1, phases, {}, {}, run={"built": built})
    storage.write(f"versions/{version}/manifest.json", manifest.to_json().encode())


def add_record(
    storage: Storage, build: str, state: str, version: str = "", host: str = "", process: int = 0, **phases: str
) -> None:
    """A build's record; a phase it has not begun has the place ""."""
    stores = (f"rows/score/{digest_json(FUNCTION['score'])}",)
    record = BuildRecord(build, "small", (), {}, phases, stores, state, "", now(), now(), host, process, version)
    storage.write(f"builds/{build}.json", record.to_json().encode())


def of_phase(storage: Storage, record: str) -> set[str]:
    """A record and all that it refers to."""
    found = PhaseRecord.from_json(storage.read(record))
    table = Table(storage, found)
    files = {file.name for file in found.decisions} | {part.name for part in table.parts}
    folder = f"work/{found.phase}/{found.key}"
    return {record, found.table, *files, *storage.walk(folder)}


PAGES, OLD, NEW = (
    f"records/{phase}/{key}/00000.json" for phase, key in (("pages", "p1"), ("documents", "d1"), ("documents", "d2"))
)


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    """Versions old and new, of which `latest` names the new; leftovers of a third, unfinished build.

    The documents of old and new have one part in common.
    """
    made = Storage(str(tmp_path / "corpus"))
    assert add_phase(made, "pages", "p1", "score", ("a", "b")) == PAGES
    assert add_phase(made, "documents", "d1", "extract_old", ("same", "old")) == OLD
    assert add_phase(made, "documents", "d2", "extract_new", ("same", "new")) == NEW
    add_version(made, "aaaa", "2026-01-01T00:00:00Z", {"pages": PAGES, "documents": OLD})
    add_version(made, "bbbb", "2026-01-02T00:00:00Z", {"pages": PAGES, "documents": NEW})
    made.write(LATEST, b"bbbb\n")
    add_receipt(made, "documents", "d3", HALF, "third", decided="third")
    made.write("versions/cccc/shards/train-00000-of-00001.arrow", b"half")
    # Writers that were killed.
    for name in (
        "tables/pages/parts/0.parquet",
        "rows/fetch_page/s1/y.pack",
        "versions/bbbb/shards/train-1.arrow",
        "records/pages/p1/00000.json",
        "work/pages/p1/x.json",
    ):
        made.write(f"{name}.0123abcd.tmp", b"ha")
    for name in ("fetch_page/s1/x.pack", "fetch_image/s1/x.pack", "read_source/html/x.pack", "generations/s1.json"):
        made.write(f"rows/{name}", b"from outside")
    return made


@pytest.fixture
def other_process() -> Iterator[int]:
    """Id of a process of somebody else on this machine."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    yield process.pid
    process.kill()
    process.wait()


def half_written(storage: Storage) -> set[str]:
    return {name for name in storage.walk("") if name.endswith(".tmp")}


def begun(storage: Storage) -> set[str]:
    """What the unfinished build has made of its documents: a receipt and its files."""
    (receipt,) = WorkFolder(storage, "documents", "d3").receipts(0)
    files = {file.name for file in (receipt.part, *receipt.decisions)}
    return {*storage.walk("work/documents/d3"), *files}


def test_what_only_old_versions_need_goes(storage: Storage) -> None:
    old = digest_json(FUNCTION["extract_old"])
    only_old = of_phase(storage, OLD) - of_phase(storage, NEW)
    assert len(only_old) == 6, "a record, a table, a part, its decisions and two receipts"
    assert len(begun(storage)) == 3
    assert doomed(storage, keep=1) == sorted(
        {
            *only_old,
            *begun(storage),
            *half_written(storage),
            f"rows/extract_old/{old}/00-ff-documents.parquet",
            "versions/aaaa/manifest.json",
            "versions/aaaa/shards/train-00000-of-00001.arrow",
            "versions/cccc/shards/train-00000-of-00001.arrow",
        }
    )


def test_a_part_of_two_versions_stays_until_neither_is_kept(storage: Storage) -> None:
    shared = of_phase(storage, OLD) & of_phase(storage, NEW)
    assert sorted(name.split("/")[2] for name in shared) == ["decisions", "parts"]
    before = {name: storage.read(name) for name in shared}
    assert not shared & set(doomed(storage, keep=2)) and not shared & set(doomed(storage, keep=1))
    assert CliRunner().invoke(app, ["--corpus", str(storage)]).exit_code == 0
    assert {name: storage.read(name) for name in shared} == before
    assert Corpus(str(storage)).rows("documents").column("words").to_pylist() == ["same", "new"]
    third = add_phase(storage, "documents", "d4", "extract_new", ("other", "words"))
    add_version(storage, "dddd", "2026-01-03T00:00:00Z", {"pages": PAGES, "documents": third})
    assert not shared & set(doomed(storage, keep=1)), "latest still names the version before"
    storage.write(LATEST, b"dddd\n")
    assert shared <= set(doomed(storage, keep=1)) and not shared & set(doomed(storage, keep=2))
    assert CliRunner().invoke(app, ["--corpus", str(storage)]).exit_code == 0
    assert Corpus(str(storage)).rows("documents").column("words").to_pylist() == ["other", "words"]


def test_more_versions_may_be_kept(storage: Storage) -> None:
    assert set(doomed(storage, keep=2)) - half_written(storage) == {
        *begun(storage),
        "versions/cccc/shards/train-00000-of-00001.arrow",
    }


def test_the_published_version_is_kept_however_old(storage: Storage) -> None:
    storage.write(LATEST, b"aaaa\n")
    going = set(doomed(storage, keep=1))
    needed = of_phase(storage, PAGES) | of_phase(storage, OLD) | of_phase(storage, NEW)
    assert not going & needed - half_written(storage)
    assert not [name for name in going - half_written(storage) if "aaaa" in name or "bbbb" in name]


def test_the_command_removes_what_it_announced_and_then_finds_nothing(storage: Storage) -> None:
    before = set(storage.walk(""))
    going = set(doomed(storage, 1))
    arguments = ["--corpus", str(storage)]
    said = f"{len(going)} objects, 0.0 MB"
    announced = CliRunner().invoke(app, [*arguments, "--dry-run"])
    assert announced.exit_code == 0
    assert announced.stdout == f"{said} would be removed; versions aaaa, cccc\n"
    assert set(storage.walk("")) == before
    assert CliRunner().invoke(app, arguments).stdout == f"{said} removed; versions aaaa, cccc\n"
    assert set(storage.walk("")) == before - going
    assert Corpus(str(storage)).version == "bbbb"
    assert storage.names("versions") == ["bbbb"]
    assert CliRunner().invoke(app, arguments).stdout == "0 objects, 0.0 MB removed\n"


def test_what_says_that_something_is_there_goes_before_it(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A collection that is killed anywhere leaves nothing that points to what is gone."""
    add_record(storage, "20260101-a", FINISHED, "aaaa", pages=PAGES, documents=OLD)
    add_record(storage, "20260102-b", FINISHED, "bbbb", pages=PAGES, documents=NEW)
    only_old = of_phase(storage, OLD) - of_phase(storage, NEW)
    gone: list[str] = []
    monkeypatch.setattr(Storage, "delete", lambda self, name: gone.append(name))
    assert CliRunner().invoke(app, ["--corpus", str(storage)]).exit_code == 0
    place = {name: index for index, name in enumerate(gone)}
    shard = place["versions/aaaa/shards/train-00000-of-00001.arrow"]
    assert place["builds/20260101-a.json"] < place["versions/aaaa/manifest.json"] < shard < place[OLD]
    rest = only_old - {OLD}
    assert place[OLD] < min(place[name] for name in rest)
    receipts = [place[name] for name in rest if name.startswith("work/")]
    assert max(receipts) < min(place[name] for name in rest if name.startswith("tables/"))


def test_the_newest_build_goes_on_after_a_collection(storage: Storage) -> None:
    before = set(doomed(storage, 1))
    add_record(storage, "20260101-a", FINISHED, "aaaa", pages=PAGES)
    add_record(storage, "20260102-b", FINISHED, "bbbb", pages=PAGES)
    add_record(storage, "20260103-c", FAILED, pages=PAGES, documents=OLD)
    storage.write("builds/20260103-c/report/index.html", b"<p>")
    shards = "work/shards/cccc00000000aaaa"
    add_record(storage, "20260104-d", STOPPED, pages=PAGES, documents="work/documents/d3", shards=shards, later="")
    storage.write("versions/cccc00000000/shards/train-00000-of-00001.arrow", b"half")
    going = set(doomed(storage, 1))
    assert before - going == begun(storage), "what it has begun stays: receipts, their parts and decisions"
    assert going - before == {
        "builds/20260101-a.json",
        "builds/20260103-c.json",
        "builds/20260103-c/report/index.html",
    }
    kept = {name: storage.read(name) for name in begun(storage)}
    assert CliRunner().invoke(app, ["--corpus", str(storage)]).exit_code == 0
    assert storage.names("builds") == ["20260102-b.json", "20260104-d.json"]
    assert {name: storage.read(name) for name in begun(storage)} == kept
    add_record(storage, "20260105-e", STOPPED, pages=PAGES)
    assert begun(storage) <= set(doomed(storage, 1)), "and goes with the next build that has no use for it"


def test_row_stores_of_the_newest_build_stay(tmp_path: Path) -> None:
    """Also where nothing is published, and no table of the function is finished."""
    storage = Storage(str(tmp_path))
    store = f"rows/score/{digest_json(FUNCTION['score'])}/00-ff-x.parquet"
    for name in (store, "rows/score/other/00-ff-x.parquet"):
        storage.write(name, b"rows")
    add_receipt(storage, "pages", "p1", HALF, "words")
    add_record(storage, "20260104-d", STOPPED, pages="work/pages/p1", documents="")
    assert doomed(storage, 1) == ["rows/score/other/00-ff-x.parquet"]


def test_loose_files_whose_rows_are_compacted_go(tmp_path: Path, other_process: int) -> None:
    """As a compaction leaves them that had part of a file, or was killed; unless a build may look at them."""
    storage = Storage(str(tmp_path))
    store = RowStore(storage, "fetch_page", "snapshot", pa.schema([pa.field("body", pa.large_binary())]))
    for numbers in ((1, 200), (3,)):
        keys = [f"{number:02x}{0:030x}" for number in numbers]
        bodies = pa.array([b"body"] * len(numbers), pa.large_binary())
        generations = pa.array([0] * len(numbers), pa.int32())
        store.append(pa.table({"row_key": keys, "generation": generations, "body": bodies}))
    loose = {name for name in storage.walk("rows") if "03000000" not in name}
    for half in (HALF, KeyRange(1 << 31, WHOLE.last)):
        store.compact(half)
    assert loose < set(storage.walk("rows"))
    held: dict[str, Any] = {"host": this_machine(), "process": other_process}
    add_record(storage, "20260104-d", RUNNING, **held)
    assert doomed(storage, 1) == []
    add_record(storage, "20260104-d", STOPPED)
    assert set(doomed(storage, 1)) == loose
    assert CliRunner().invoke(app, ["--corpus", str(storage)]).exit_code == 0
    assert store.read().num_rows == 3 and not [name for name in storage.walk("rows") if ".loose." in name]


@pytest.mark.parametrize("there", [True, False])
def test_a_build_at_work_keeps_what_it_holds(storage: Storage, other_process: int, there: bool) -> None:
    """Though it is not the newest: another was stopped since."""
    store = f"rows/score/{digest_json(FUNCTION['score'])}"
    storage.write(f"{store}/00-ff-more.parquet", b"rows")
    process = other_process if there else 1 << 30
    held: dict[str, Any] = {"host": this_machine(), "process": process, "documents": "work/documents/d3"}
    add_record(storage, "20260101-a", RUNNING, **held, pages=OLD, shards="work/shards/cccc00000000aaaa")
    add_record(storage, "20260102-b", STOPPED, pages=PAGES)
    storage.write("versions/cccc00000000/shards/train-00000-of-00002.arrow", b"half")
    needed = {
        *begun(storage),
        *of_phase(storage, OLD),
        "builds/20260101-a.json",
        "versions/cccc00000000/shards/train-00000-of-00002.arrow",
        f"rows/extract_old/{digest_json(FUNCTION['extract_old'])}/00-ff-documents.parquet",
    }
    going = set(doomed(storage, 1))
    if there:
        assert not needed & going
        assert "versions/aaaa/manifest.json" in going, "what no build at work holds goes all the same"
    else:
        assert needed - of_phase(storage, NEW) <= going


def test_what_is_kept_and_does_not_say_what_it_needs_stops_the_collection(storage: Storage) -> None:
    before = set(storage.walk(""))
    record = PhaseRecord.from_json(storage.read(NEW))
    for name, words in (
        (record.table, "is damaged: it is missing: delete records/documents and work/documents and build again"),
        (NEW, "documents/d2/00000.json is missing: build again"),
    ):
        data = storage.read(name)
        storage.delete(name)
        done = CliRunner().invoke(app, ["--corpus", str(storage)])
        assert isinstance(done.exception, Damaged) and words in str(done.exception)
        storage.write(name, data)
    assert set(storage.walk("")) == before


def test_an_older_version_of_an_earlier_release_keeps_its_shards(storage: Storage) -> None:
    name = "versions/aaaa/manifest.json"
    old = storage.read(name).decode().replace('"manifest_version": 2', '"manifest_version": 1')
    storage.write(name, old.encode())
    storage.write("tables/documents/d1/manifest.json", b"{}")
    going = set(doomed(storage, 2))
    assert "tables/documents/d1/manifest.json" in going
    assert not [each for each in going if each.startswith("versions/aaaa/")]
    assert not going & of_phase(storage, NEW)


def test_a_corpus_of_an_earlier_release_is_left_alone(storage: Storage) -> None:
    name = "versions/bbbb/manifest.json"
    old = storage.read(name).decode().replace('"manifest_version": 2', '"manifest_version": 1')
    storage.write(name, old.encode())
    with pytest.raises(Damaged, match="the tables of this version are of an earlier release"):
        doomed(storage, 1)


def test_a_folder_that_is_no_corpus_is_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes(b"x")
    with pytest.raises(UserMistake, match="no version there"):
        doomed(Storage(str(tmp_path)), 1)
    assert (tmp_path / "photos" / "cat.jpg").exists()
    done = CliRunner().invoke(app, ["--corpus", "nosuch://x"])
    assert isinstance(done.exception, UserMistake) and "--corpus nosuch://x: cannot open" in str(done.exception)
