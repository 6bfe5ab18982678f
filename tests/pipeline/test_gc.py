"""Collecting garbage: what kept versions need stays, and everything that was fetched."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipeline.corpus.version import Corpus
from pipeline.engine.keys import digest_json
from pipeline.engine.layout import LATEST
from pipeline.engine.mistake import UserMistake
from pipeline.engine.storage import Storage
from pipeline.engine.table import Table
from pipeline.gc import app, doomed
from schemas.build_record import FAILED, FINISHED, STOPPED, BuildRecord
from schemas.manifest import Manifest, VersionManifest

# Two versions share their pages and their scores' function; the extraction differs.
FUNCTION = {name: {"name": name, "settings": name} for name in ("score", "extract_old", "extract_new")}


def add_version(storage: Storage, version: str, built: str, phases: dict[str, tuple[str, str]]) -> None:
    """A version with a table a phase: phase -> (key, function)."""
    for phase, (key, function) in phases.items():
        ingredients = {"functions": {function: FUNCTION[function]}}
        table = Table(storage, phase, key)
        storage.write(f"{table.folder}/part-00000.parquet", b"rows")
        table.finish(Manifest(phase, key, "x", 1, (), (), ingredients))
        storage.write(f"rows/{function}/{digest_json(FUNCTION[function])}/00-ff-{phase}.parquet", b"rows")
    storage.write(f"versions/{version}/shards/part-00000.arrow", b"shard")
    keys = {phase: key for phase, (key, _) in phases.items()}
    manifest = VersionManifest("small", version, (), "shard", 1, keys, {}, {}, run={"built": built})
    storage.write(f"versions/{version}/manifest.json", manifest.to_json().encode())


def add_record(storage: Storage, build: str, state: str, version: str = "", **phases: str) -> None:
    """A build's record; a phase it has not begun has the key ""."""
    stores = (f"rows/score/{digest_json(FUNCTION['score'])}",)
    record = BuildRecord(build, "small", (), {}, phases, stores, state, "", "", "", version)
    storage.write(f"builds/{build}.json", record.to_json().encode())


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    """Versions old and new, of which `latest` names the new; leftovers of a third, unfinished build."""
    made = Storage(str(tmp_path / "corpus"))
    add_version(made, "aaaa", "2026-01-01T00:00:00Z", {"pages": ("p1", "score"), "documents": ("d1", "extract_old")})
    add_version(made, "bbbb", "2026-01-02T00:00:00Z", {"pages": ("p1", "score"), "documents": ("d2", "extract_new")})
    made.write(LATEST, b"bbbb\n")
    made.write("tables/documents/d3/receipt-00000.json", b"{}")
    made.write("versions/cccc/shards/part-00000.arrow", b"half")
    # Writers that were killed.
    for name in (
        "tables/pages/p1/part-00001.parquet",
        "rows/fetch_page/s1/y.pack",
        "versions/bbbb/shards/part-1.arrow",
    ):
        made.write(f"{name}.0123abcd.tmp", b"ha")
    for name in ("fetch_page/s1/x.pack", "fetch_image/s1/x.pack", "read_source/html/x.pack", "generations/s1.json"):
        made.write(f"rows/{name}", b"from outside")
    return made


def test_what_only_old_versions_need_goes(storage: Storage) -> None:
    old = digest_json(FUNCTION["extract_old"])
    assert doomed(storage, keep=1) == [
        f"rows/extract_old/{old}/00-ff-documents.parquet",
        "rows/fetch_page/s1/y.pack.0123abcd.tmp",
        "tables/documents/d1/manifest.json",
        "tables/documents/d1/part-00000.parquet",
        "tables/documents/d3/receipt-00000.json",
        "tables/pages/p1/part-00001.parquet.0123abcd.tmp",
        "versions/aaaa/manifest.json",
        "versions/aaaa/shards/part-00000.arrow",
        "versions/bbbb/shards/part-1.arrow.0123abcd.tmp",
        "versions/cccc/shards/part-00000.arrow",
    ]


def test_more_versions_may_be_kept(storage: Storage) -> None:
    assert [name for name in doomed(storage, keep=2) if not name.endswith(".tmp")] == [
        "tables/documents/d3/receipt-00000.json",
        "versions/cccc/shards/part-00000.arrow",
    ]


def test_the_published_version_is_kept_however_old(storage: Storage) -> None:
    storage.write(LATEST, b"aaaa\n")
    going = doomed(storage, keep=1)
    assert not [name for name in going if ("aaaa" in name or "bbbb" in name) and not name.endswith(".tmp")]


def test_the_command_removes_what_it_announced_and_then_finds_nothing(storage: Storage) -> None:
    before = set(storage.walk(""))
    going = set(doomed(storage, 1))
    arguments = ["--corpus", str(storage)]
    announced = CliRunner().invoke(app, [*arguments, "--dry-run"])
    assert announced.exit_code == 0
    assert announced.stdout == "10 objects, 0.0 MB would be removed; versions aaaa, cccc\n"
    assert set(storage.walk("")) == before
    assert CliRunner().invoke(app, arguments).stdout == "10 objects, 0.0 MB removed; versions aaaa, cccc\n"
    assert set(storage.walk("")) == before - going
    assert Corpus(str(storage)).version == "bbbb"
    assert storage.names("versions") == ["bbbb"]
    assert CliRunner().invoke(app, arguments).stdout == "0 objects, 0.0 MB removed\n"


def test_the_newest_build_goes_on_after_a_collection(storage: Storage) -> None:
    before = set(doomed(storage, 1))
    add_record(storage, "20260101-a", FINISHED, "aaaa", pages="p1")
    add_record(storage, "20260102-b", FINISHED, "bbbb", pages="p1")
    add_record(storage, "20260103-c", FAILED, pages="p1", documents="d1")
    storage.write("builds/20260103-c/report/index.html", b"<p>")
    add_record(storage, "20260104-d", STOPPED, pages="p1", documents="d3", shards="cccc0000")
    storage.write("versions/cccc0000/shards/part-00000.arrow", b"half")
    going = set(doomed(storage, 1))
    assert before - going == {"tables/documents/d3/receipt-00000.json"}, "what it has begun stays"
    assert going - before == {
        "builds/20260101-a.json",
        "builds/20260103-c.json",
        "builds/20260103-c/report/index.html",
    }
    assert CliRunner().invoke(app, ["--corpus", str(storage)]).exit_code == 0
    assert storage.names("builds") == ["20260102-b.json", "20260104-d.json"]


def test_row_stores_of_the_newest_build_stay(tmp_path: Path) -> None:
    """Also where nothing is published, and no table of the function is finished."""
    storage = Storage(str(tmp_path))
    store = f"rows/score/{digest_json(FUNCTION['score'])}/00-ff-x.parquet"
    for name in (store, "rows/score/other/00-ff-x.parquet", "tables/pages/p1/receipt-00000.json"):
        storage.write(name, b"rows")
    add_record(storage, "20260104-d", STOPPED, pages="p1", documents="")
    assert doomed(storage, 1) == ["rows/score/other/00-ff-x.parquet"]


def test_a_folder_that_is_no_corpus_is_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes(b"x")
    with pytest.raises(UserMistake, match="no version there"):
        doomed(Storage(str(tmp_path)), 1)
    assert (tmp_path / "photos" / "cat.jpg").exists()
    done = CliRunner().invoke(app, ["--corpus", "nosuch://x"])
    assert isinstance(done.exception, UserMistake) and "--corpus nosuch://x: cannot open" in str(done.exception)
