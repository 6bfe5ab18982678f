"""A changed spec: only what it touches is made again, the dry run says so beforehand, and old versions can go."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from pipeline.corpus.version import Corpus
from stages.web.urls import url_id
from tests.end_to_end.builds import SHARED, build, documents, ran, run, setting, shards
from tests.servers import Site

pytestmark = pytest.mark.slow
OTHER = "hash:96"
LOOSER = setting(filter__document__num_words__min=5)
SAID_OTHERWISE = [*LOOSER, *setting(embed__shared=OTHER, name="renamed", report__documents=1)]


def plan(said: str) -> dict[str, tuple[str, str]]:
    """phase -> (finished | would run, remark), from a dry run."""
    found = {}
    for line in said.splitlines():
        if line.startswith("  "):
            phase, rest = line.split(maxsplit=1)
            state = "would run" if rest.startswith("would run") else "finished"
            found[phase] = (state, rest.removeprefix(state).strip())
    return found


@pytest.fixture(scope="module")
def corpus(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the build that the tests of this module change, one after the other."""
    return Path(shutil.copytree(built, tmp_path_factory.mktemp("changes") / "out"))


def test_a_changed_text_threshold_fetches_and_embeds_only_what_is_new(corpus: Path, spec: Path, site: Site) -> None:
    before = len(documents(corpus))
    phases = Corpus(str(corpus)).phases
    dry = build(spec, corpus, "--dry-run", *LOOSER).check()
    planned = plan(dry.out)
    stale = [phase for phase in phases if planned[phase][0] == "would run"]
    assert stale == phases[phases.index("text") :]
    assert planned["text"][1] == "settings.filter.document.num_words.min: 10.0 -> 5.0"
    assert planned["signatures"][1] == "input text would change"
    assert dry.out.splitlines()[-1] == f"{len(stale)} of {len(phases)} phases would run; nothing was done"

    asked = len(site.log)
    build(spec, corpus, *LOOSER).check()
    assert [path for path in site.paths()[asked:] if path != "/robots.txt"] == ["/images/rocket-2.jpg"]
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
    assert plan(build(spec, corpus, "--dry-run", *LOOSER).check().out)["text"][0] == "finished"


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
    planned = plan(build(spec, corpus, "--dry-run", *other).check().out)
    assert [p for p in phases if planned[p][0] == "would run"] == phases[phases.index("embeddings") :]
    assert f"settings.shared: {SHARED!r} ->".replace("'", "") in planned["embeddings"][1].replace("'", "").replace(
        '"', ""
    )
    asked = len(site.log)
    build(spec, corpus, *other).check()
    assert len(site.log) == asked
    done = ran(corpus)
    assert done["embeddings"]["rows_computed"] > 30 and done["embeddings"]["rows_remembered"] == 0
    # Both changes, one after the other, come to what an empty folder would have.
    build(spec, tmp_path / "fresh", *other).check()
    assert shards(corpus) == shards(tmp_path / "fresh")


def test_what_touches_no_shard_is_said_again(corpus: Path, spec: Path) -> None:
    before = shards(corpus)
    said = build(spec, corpus, "--dry-run", *SAID_OTHERWISE).check().out
    assert "card and report would be written again: name: prints -> renamed; report.documents: " in said
    assert "corpus renamed, version" in build(spec, corpus, *SAID_OTHERWISE).check().out
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
    assert "would run   files of 2 of" in build(spec, corpus, "--dry-run", *SAID_OTHERWISE).check().out
    build(spec, corpus, *SAID_OTHERWISE).check()
    assert shards(corpus) == before


def test_collected_garbage_is_missed_by_nobody(corpus: Path, spec: Path) -> None:
    """Three versions are there, the middle one by far the cheapest to make again: the newest alone is kept."""
    kept = shards(corpus)
    versions = sorted(path.name for path in (corpus / "versions").iterdir())
    assert len(versions) == 3
    told = run("pipeline.gc", "--corpus", str(corpus), "--dry-run").check().out
    assert "would be removed" in told and sorted(path.name for path in (corpus / "versions").iterdir()) == versions
    assert told.replace("would be removed", "removed") == run("pipeline.gc", "--corpus", str(corpus)).check().out
    assert shards(corpus) == kept
    assert [path.name for path in (corpus / "versions").iterdir() if any(path.rglob("*.arrow"))] == [
        (corpus / "latest").read_text().strip()
    ]
    assert "nothing to do" in build(spec, corpus, *SAID_OTHERWISE).check().out
    assert documents(corpus) and "0 objects" in run("pipeline.gc", "--corpus", str(corpus)).check().out
