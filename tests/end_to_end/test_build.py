"""A whole build of a small site: what comes out, what is said about what does not, and that it is always the same."""

from __future__ import annotations

import io
from pathlib import Path

import pyarrow as pa
import pytest
from PIL import Image

from pipeline.corpus.records import newest_build
from pipeline.corpus.version import Corpus
from pipeline.engine.storage import Storage
from schemas.build_record import FINISHED
from schemas.contract import conform
from schemas.shard import SHARD, SPLITS, shard_name
from schemas.shard_file import ShardFile
from stages.web.urls import url_id
from tests.end_to_end.builds import build, decisions, documents, tree
from tests.end_to_end.site import EXPECTED_IMAGES, EXPECTED_PAGES, NEVER_FETCHED, NUM_ARTICLES, SERIES
from tests.servers import ORIGIN_FILES, Site

pytestmark = pytest.mark.slow
# Of a document and its copy either may be kept: the choice follows ids, which follow the server's port.
COPIES = {"/copy.html": "/print-1.html", "/mirror/print-2.html": "/print-2.html", "/alias.html": "/print-5.html"}


def test_every_page_is_kept_or_has_a_decision_that_says_why(built: Path, site: Site) -> None:
    kept = {row["document_id"] for row in documents(built)}
    rules: dict[str, list[str]] = {}
    for row in decisions(built):
        if row["kind"] in ("page", "document"):
            rules.setdefault(row["subject_id"], []).append(row["rule"])
    found = {
        path: "kept" if (page := url_id(site.url + path)) in kept else " ".join(rules.get(page, ["silently lost"]))
        for path in EXPECTED_PAGES
    }
    for copy, original in COPIES.items():
        if found[copy] == "kept":
            found[copy], found[original] = found[original], found[copy]
    assert found == EXPECTED_PAGES
    assert not kept & rules.keys()
    asked = {row["page_id"] for row in Corpus(str(built)).rows("pages", ["page_id"]).to_pylist()}
    assert asked == {url_id(site.url + path) for path in EXPECTED_PAGES}


def test_every_image_is_kept_or_has_a_decision_that_says_why(built: Path, site: Site) -> None:
    article = url_id(f"{site.url}/print-0.html")
    (document,) = (row for row in documents(built) if row["document_id"] == article)
    kept = {image["url"] for image in document["image_info"]}
    decided = {
        row["url"]: (row["rule"], row["detail"] or "")
        for row in decisions(built)
        if row["kind"] == "image" and row["document_id"] == article
    }
    for path, expected in EXPECTED_IMAGES.items():
        url = site.url + path
        if expected == "kept":
            assert url in kept and url not in decided, (path, decided.get(url))
        else:
            rule, words = expected
            assert url not in kept, path
            assert decided[url][0] == rule and words in decided[url][1], (path, decided[url])


def test_pictures_are_upright_and_in_plain_colours(built: Path, site: Site) -> None:
    images = {image["url"].removeprefix(site.url): image for row in documents(built) for image in row["image_info"]}
    rotated = images["/images/rotated.jpg"]
    assert (rotated["width"], rotated["height"]) == (213, 320)
    for path in ("/images/rotated.jpg", "/images/cmyk.jpg", "/images/animated.webp"):
        assert images[path]["format"] == "jpeg", path
    frames = {
        row["url"].removeprefix(site.url): row["num_frames"]
        for row in Corpus(str(built)).rows("images", ["url", "num_frames"]).to_pylist()
    }
    assert frames["/images/animated.webp"] == 3
    assert any(path.startswith("data:image/jpeg") for path in images)


def test_text_is_whole_and_in_the_right_encoding(built: Path, site: Site) -> None:
    of = {row["document_id"]: row for row in documents(built)}
    latin = " ".join(node["text"] or "" for node in of[url_id(f"{site.url}/latin.html")]["nodes"])
    assert "the café that is called señor déjà vu" in latin
    moved = of[url_id(f"{site.url}/moved.html")]
    assert moved["url"] == f"{site.url}/there.html"
    assert all(row["language"] == "en" and row["consent"]["robots_allowed"] for row in of.values())


def test_a_repeated_paragraph_stays_once(built: Path) -> None:
    """In the document that the decisions name, which is kept."""
    asked = Corpus(str(built)).rows("documents", ["document_id", "nodes"]).to_pylist()
    nodes = {row["document_id"]: [node["text"] for node in row["nodes"]] for row in asked}
    dropped = [row for row in decisions(built) if row["rule"] == "paragraph_documents"]
    series = [row for row in dropped if nodes[row["document_id"]][row["position"]] == SERIES]
    (keeper,) = {row["detail"].removeprefix("kept ") for row in series}
    kept = documents(built)
    # One page is cut off before it.
    having = [row for row in kept if SERIES in nodes[row["document_id"]]]
    assert len(series) == len(having) - 1 >= NUM_ARTICLES - 1
    for row in kept:
        found = [node["text"] for node in row["nodes"]].count(SERIES)
        assert found == (row["document_id"] == keeper), row["url"]


def test_nothing_is_fetched_twice(built: Path, first_log: list[str]) -> None:
    paths = [path for path in first_log if path not in ORIGIN_FILES]
    assert len(paths) == len(set(paths))
    assert not set(paths) & set(NEVER_FETCHED)
    # A process asks for itself: at most one for each of the two workers and each kind of phase.
    assert 1 <= first_log.count("/robots.txt") <= 4
    assert len([path for path in paths if path.startswith("/endless")]) == 11


def test_the_version_folder_opens_with_datasets(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its card alone: splits as splits, pictures as pictures, in a copy and streamed."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_OFFLINE", True)
    folder = str(built / "versions" / (built / "latest").read_text().strip())
    rows = {row["document_id"]: row for row in documents(built)}
    loaded = datasets.load_dataset(folder, cache_dir=str(built.parent / "datasets"))
    streamed = datasets.load_dataset(folder, streaming=True)
    assert list(loaded) == list(streamed) == ["train", "held_out"]
    for split in loaded:
        assert loaded[split].column_names == SHARD.names and loaded[split].cache_files
        assert set(loaded[split]["document_id"]) == {name for name, row in rows.items() if row["split"] == split}
        for found, again in zip(loaded[split], streamed[split], strict=True):
            row = rows[found["document_id"]]
            assert again["document_id"] == found["document_id"]
            for ours, picture, same in zip(row["images"], found["images"], again["images"], strict=True):
                with Image.open(io.BytesIO(ours["bytes"])) as expected:
                    assert picture.tobytes() == same.tobytes() == expected.tobytes()


def test_shards_follow_their_schema_and_hold_one_split(built: Path) -> None:
    corpus = Corpus(str(built))
    names = [part.name for part in corpus.manifest.shards]
    of = {split: [name for name in names if name.startswith(f"shards/{split}-")] for split in SPLITS}
    assert len(of["train"]) > 1 and len(of["held_out"]) > 0 and names == [*of["train"], *of["held_out"]]
    for split, found in of.items():
        assert found == [f"shards/{shard_name(split, number, len(found))}" for number in range(len(found))]
    for name, table in zip(names, corpus.shards(), strict=True):
        assert table.schema.equals(SHARD, check_metadata=True)
        conform(table, SHARD)
        ShardFile(pa.memory_map(str(built / corpus.folder / name))).check()
        # A range of few ids may hold no document.
        assert {f"shards/{side}" for side in table.column("split").to_pylist()} <= {name.partition("-")[0]}


def test_counts_are_what_the_shards_hold(built: Path) -> None:
    rows = documents(built)
    counts = Corpus(str(built)).manifest.counts
    assert counts["shards.documents"] == len(rows) == list(EXPECTED_PAGES.values()).count("kept")
    assert counts["shards.held_out"] == sum(row["split"] == "held_out" for row in rows)
    assert counts["shards.images"] == sum(item["kind"] == "image" for row in rows for item in row["slices"])
    assert counts["shards.sentences"] == sum(item["kind"] == "sentence" for row in rows for item in row["slices"])
    assert counts["shards.negatives"] == sum(len(row["negatives"]) for row in rows) > 0
    assert counts["documents.pages"] == len(EXPECTED_PAGES)
    assert counts["choose.near_duplicate"] == counts["choose.same_url"] == counts["choose.same_text"] == 1


def test_the_two_sides_share_nothing(built: Path) -> None:
    sides: dict[str, dict[str, set[str]]] = {}
    for row in documents(built):
        side = sides.setdefault(row["split"], {"clusters": set(), "sha256": set(), "phash": set()})
        side["clusters"].add(row["cluster_id"])
        side["sha256"] |= {image["sha256"] for image in row["image_info"]}
        side["phash"] |= {image["phash"] for image in row["image_info"]}
    assert sides.keys() == {"train", "held_out"}
    for name, values in sides["train"].items():
        assert values and not values & sides["held_out"][name], name


def test_matches_and_negatives_point_to_what_they_say(built: Path) -> None:
    of = {row["document_id"]: row for row in documents(built)}
    num_negatives = 0
    for row in of.values():
        slices = row["slices"]
        assert len(row["similarity_matrix"]) == sum(item["kind"] == "image" for item in slices)
        for index, item in enumerate(slices):
            assert (item["matched"] is None) == (item["similarity"] is None) == (item["match_kind"] is None)
            if item["matched"] is not None:
                other = slices[item["matched"]]
                assert other["kind"] != item["kind"]
                assert other["matched"] == index or item["kind"] == "sentence"
            node = row["nodes"][item["node"]]
            if item["kind"] == "image":
                assert row["images"][node["image"]]["bytes"][:2] in (b"\xff\xd8", b"\x89P", b"RI")
            else:
                assert 0 <= item["start"] < item["end"] <= len(node["text"])
        for negative in row["negatives"]:
            num_negatives += 1
            other = of[negative["document_id"]]
            assert other["cluster_id"] != row["cluster_id"] and other["split"] == row["split"]
            query, candidate = slices[negative["slice"]], other["slices"][negative["candidate"]]
            assert f"{query['kind']}_to_{candidate['kind']}" == negative["direction"]
            assert negative["kind"] == "mined" and negative["text"] is None
    assert num_negatives > 20


def test_a_match_with_the_own_caption_is_markup(built: Path) -> None:
    kinds = set()
    for row in documents(built):
        for item in row["slices"]:
            if item["kind"] == "image" and item["matched"] is not None:
                sentence = row["slices"][item["matched"]]
                node = row["nodes"][sentence["node"]]
                caption = row["image_info"][row["nodes"][item["node"]]["image"]]["caption"]
                is_caption = caption is not None and node["text"] in caption
                assert item["match_kind"] == ("markup" if is_caption else "similarity")
                kinds.add(item["match_kind"])
    assert kinds == {"markup", "similarity"}


def test_a_second_build_does_nothing_and_says_so(built: Path, spec: Path, site: Site) -> None:
    before, asked = tree(built), len(site.log)
    ended = build(spec, built).check()
    assert "nothing to do" in ended.out and ended.err == ""
    assert tree(built) == before and len(site.log) == asked
    dry = build(spec, built, "--dry-run").check()
    assert dry.out.splitlines()[-1] == "nothing to do" and dry.out.count(" cached ") == len(Corpus(str(built)).phases)
    assert tree(built) == before


def test_the_record_says_what_was_built(built: Path, spec: Path) -> None:
    record = newest_build(Storage(str(built)))
    assert record is not None and (record.state, record.cause, record.label) == (FINISHED, "", str(spec))
    corpus = Corpus(str(built))
    assert record.version == corpus.version and record.phases == corpus.manifest.phases
    there = {f"rows/{folder.parent.name}/{folder.name}" for folder in (built / "rows").glob("*/*") if folder.is_dir()}
    assert set(record.stores) <= there
    # What came from outside is kept in any case.
    assert {store.split("/")[1] for store in there.difference(record.stores)} == {
        "fetch_page",
        "fetch_image",
        "origin_files",
        "read_source",
    }
