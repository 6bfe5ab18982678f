"""A changed spec: only what it touches is made again, the dry run says so beforehand, and old versions can go."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from pipeline.corpus.records import newest_build
from pipeline.corpus.version import Corpus
from pipeline.engine.storage import Storage
from stages.web.urls import url_id
from tests.end_to_end.builds import SHARED, build_here, documents, ran, run, run_here, setting, shards
from tests.servers import ORIGIN_FILES, Site, answer

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("local_ray")]
OTHER = "hash:96"
LOOSER = setting(filter__document__num_words__min=5)
SAID_OTHERWISE = [*LOOSER, *setting(embed__shared=OTHER, name="renamed", report__documents=1)]


def plan(said: str) -> dict[str, tuple[str, str]]:
    """phase -> (cached | runs | looks | runs if, remark), from a dry run."""
    found = {}
    for line in said.splitlines():
        if line.startswith("  "):
            phase, rest = line.split(maxsplit=1)
            state = "runs if" if rest.startswith("runs if") else rest.split()[0]
            found[phase] = (state, rest.removeprefix(state).strip())
    return found


@pytest.fixture(scope="module")
def corpus(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the build that the tests of this module change, one after the other."""
    return Path(shutil.copytree(built, tmp_path_factory.mktemp("changes") / "out"))


def test_a_changed_text_threshold_fetches_and_embeds_only_what_is_new(corpus: Path, spec: Path, site: Site) -> None:
    before = len(documents(corpus))
    phases = Corpus(str(corpus)).phases
    dry = build_here(spec, corpus, "--dry-run", *LOOSER).check()
    planned = plan(dry.out)
    stale = [phase for phase in phases if planned[phase][0] != "cached"]
    assert stale == phases[phases.index("text") :]
    assert planned["text"] == ("runs", "settings.filter.document.num_words.min: 10.0 -> 5.0")
    assert planned["signatures"] == ("runs if", "text changes")
    assert (
        dry.out.splitlines()[-1] == f"{len(stale)} of {len(phases)} phases would run, or may have to; nothing was done"
    )

    asked = len(site.log)
    build_here(spec, corpus, *LOOSER).check()
    assert [path for path in site.paths()[asked:] if path not in ORIGIN_FILES] == ["/images/rocket-2.jpg"]
    rows = documents(corpus)
    assert len(rows) == before + 1
    assert url_id(f"{site.url}/few.html") in {row["document_id"] for row in rows}
    done = ran(corpus)
    contents = {slice_id for row in rows for slice_id in _contents(row)}
    assert done["fetched_images"]["rows_computed"] == done["images"]["rows_computed"] == 1
    # one image and one sentence
    assert done["embeddings"]["rows_computed"] == 2
    assert done["embeddings"]["rows_remembered"] == len(contents) - 2
    assert done["signatures"]["rows_computed"] == 1 and done["signatures"]["rows_remembered"] > 0
    assert plan(build_here(spec, corpus, "--dry-run", *LOOSER).check().out)["text"][0] == "cached"


def _contents(row: dict[str, Any]) -> set[str]:
    """What a document's slices hold, by content."""
    found = set()
    for item in row["slices"]:
        node = row["nodes"][item["node"]]
        if item["kind"] == "image":
            found.add(row["image_info"][node["image"]]["sha256"])
        else:
            found.add(node["text"][item["start"] : item["end"]])
    return found


def test_a_changed_encoder_runs_only_from_the_embeddings_on(
    corpus: Path, spec: Path, site: Site, tmp_path: Path
) -> None:
    other = [*LOOSER, *setting(embed__shared=OTHER)]
    phases = Corpus(str(corpus)).phases
    planned = plan(build_here(spec, corpus, "--dry-run", *other).check().out)
    assert [p for p in phases if planned[p][0] != "cached"] == phases[phases.index("embeddings") :]
    assert f"settings.shared: {SHARED!r} ->".replace("'", "") in planned["embeddings"][1].replace("'", "").replace(
        '"', ""
    )
    asked = len(site.log)
    build_here(spec, corpus, *other).check()
    assert len(site.log) == asked
    done = ran(corpus)
    assert done["embeddings"]["rows_computed"] > 30 and done["embeddings"]["rows_remembered"] == 0
    # Both changes, one after the other, come to what a folder would have that knows where it is split and no more.
    shutil.copytree(corpus / "splits", tmp_path / "fresh" / "splits")
    build_here(spec, tmp_path / "fresh", *other).check()
    assert shards(corpus) == shards(tmp_path / "fresh")


def test_a_body_that_says_the_same_makes_the_same_version(
    built: Path, folder: Path, spec: Path, site: Site, tmp_path: Path
) -> None:
    """Crawled again under another snapshot's name: looking and extraction run, and nothing after them."""
    out = Path(shutil.copytree(built, tmp_path / "out"))
    version = (out / "latest").read_text()
    said = site.table["/print-0.html"]
    body = (folder / "print-0.html").read_bytes()
    site.table["/print-0.html"] = answer(body=body + b"<!-- seen again -->")
    try:
        again = setting(source__snapshot="two")
        planned = plan(build_here(spec, out, "--dry-run", *again).check().out)
        assert planned["pages"] == ("looks", "settings.source.snapshot: one -> two")
        assert planned["documents"] == ("runs if", "pages changes") and planned["shards"][0] == "runs if"
        build_here(spec, out, *again).check()
    finally:
        site.table["/print-0.html"] = said
    assert (out / "latest").read_text() == version
    record = newest_build(Storage(str(out)))
    assert record is not None
    old = Corpus(str(built))
    changed = [phase for phase in old.phases if record.phases[phase] != old.manifest.phases[phase]]
    assert changed == ["pages", "documents", "fetched_images"]


def test_what_touches_no_shard_is_said_again(corpus: Path, spec: Path) -> None:
    before = shards(corpus)
    said = build_here(spec, corpus, "--dry-run", *SAID_OTHERWISE).check().out
    assert "card and report would be written again: name: prints -> renamed; report.documents: " in said
    assert "corpus renamed, version" in build_here(spec, corpus, *SAID_OTHERWISE).check().out
    assert shards(corpus) == before
    folder = corpus / "versions" / (corpus / "latest").read_text().strip()
    assert "renamed" in (folder / "README.md").read_text() and "renamed" in (folder / "report/index.html").read_text()


def test_lost_shards_are_made_again(corpus: Path, spec: Path) -> None:
    before = shards(corpus)
    first, second, *_ = sorted(
        (corpus / "versions" / (corpus / "latest").read_text().strip()).glob("shards/train-*.arrow")
    )
    first.unlink()
    second.write_bytes(second.read_bytes()[:-1])
    assert "runs        2 of its files are lost" in build_here(spec, corpus, "--dry-run", *SAID_OTHERWISE).check().out
    build_here(spec, corpus, *SAID_OTHERWISE).check()
    assert shards(corpus) == before


def test_collected_garbage_is_missed_by_nobody(corpus: Path, spec: Path) -> None:
    """Three versions are there, the middle one by far the cheapest to make again: the newest alone is kept."""
    kept = shards(corpus)
    versions = sorted(path.name for path in (corpus / "versions").iterdir())
    assert len(versions) == 3
    told = run_here("pipeline.gc", "--corpus", str(corpus), "--dry-run").check().out
    assert "would be removed" in told and sorted(path.name for path in (corpus / "versions").iterdir()) == versions
    assert told.replace("would be removed", "removed") == run_here("pipeline.gc", "--corpus", str(corpus)).check().out
    assert shards(corpus) == kept
    assert [path.name for path in (corpus / "versions").iterdir() if any(path.rglob("*.arrow"))] == [
        (corpus / "latest").read_text().strip()
    ]
    assert "nothing to do" in build_here(spec, corpus, *SAID_OTHERWISE).check().out
    assert documents(corpus) and "0 objects" in run("pipeline.gc", "--corpus", str(corpus)).check().out
