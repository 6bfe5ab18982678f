"""Documents that were extracted elsewhere: a folder of files in every layout, in one build, and a sample of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.corpus.version import Corpus
from stages.sources.sample import in_sample
from tests.end_to_end.builds import build_here, decisions, documents, ran, run_here, setting, tree, write_spec
from tests.given import lines, mmc4, obelics, parquet, zipped
from tests.servers import Site

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("local_ray")]
# Pages of the site whose documents are given in each layout.
OWN, URLS, BYTES, MMC4 = range(0, 4), range(4, 8), range(8, 12), range(12, 16)


def _page(site: Site, number: int) -> str:
    return f"{site.url}/print-{number}.html"


@pytest.fixture(scope="module")
def extracted(built: Path) -> pa.Table:
    """Documents of the site, as its build extracted them."""
    corpus = Corpus(str(built))
    return pa.concat_tables(corpus.table("documents").read_all())


@pytest.fixture(scope="module")
def given(extracted: pa.Table, site: Site, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of files: sound ones in all layouts, and one of everything that is wrong."""
    root = tmp_path_factory.mktemp("given")
    rows = {row["url"]: row for row in extracted.to_pylist()}

    def nodes(number: int) -> list[dict[str, Any]]:
        return rows[_page(site, number)]["nodes"]  # type: ignore[no-any-return]

    def picture(url: str) -> bytes:
        return (folder / url.removeprefix(f"{site.url}/")).read_bytes()

    own = [rows[_page(site, number)] for number in OWN]
    (root / "own").mkdir()
    pq.write_table(pa.Table.from_pylist([*own, own[0]], schema=extracted.schema), root / "own/part-0.parquet")
    (root / "own/few.jsonl").write_bytes(
        lines([{"url": f"{site.url}/few", "nodes": [{"kind": "text", "text": "Few."}]}])
    )
    (root / "urls.parquet").write_bytes(parquet([obelics(_page(site, n), nodes(n)) for n in URLS], row_group_size=3))
    unequal = obelics(f"{site.url}/unequal", nodes(4))
    unequal["texts"] = unequal["texts"][1:]
    with_bytes = [obelics(_page(site, n), nodes(n), picture) for n in BYTES]
    (root / "bytes.parquet").write_bytes(parquet([*with_bytes, obelics(f"{site.url}/none", [], picture)]))
    (root / "unequal.jsonl").write_bytes(lines([unequal]) + b"not json\n")
    sentences = [(n, [node["text"] for node in nodes(n) if node["kind"] == "text"]) for n in MMC4]
    image = {n: next(node["image_url"] for node in nodes(n) if node["kind"] == "image") for n in MMC4}
    shard = [mmc4(_page(site, n), texts, [(image[n], len(texts) - 1), (image[n], 99)]) for n, texts in sentences]
    (root / "shard_0.jsonl.zip").write_bytes(zipped({"shard_0.jsonl": lines(shard)}))
    (root / "damaged.parquet").write_bytes(b"PAR1 and nothing more PAR1")
    (root / "other.parquet").write_bytes(parquet([{"caption": "a cat", "image": "http://site.test/cat.jpg"}]))
    (root / "README.md").write_text("what this is")
    return root


def _spec(tmp_path: Path, site: Site, given: Path) -> Path:
    source = {"kind": "documents", "path": str(given), "snapshot": "given"}
    # None is held out: what looks alike on both sides of a split would be dropped.
    return write_spec(tmp_path / "given.yaml", site.url, source=source, shard={"held_out_fraction": 0})


@pytest.fixture(scope="module")
def out(given: Path, site: Site, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A build of the folder; beside it the paths that it asked the site for."""
    root = tmp_path_factory.mktemp("documents")
    before = len(site.log)
    ended = build_here(_spec(root, site, given), root / "out").check()
    (root / "asked.txt").write_text("\n".join(site.paths()[before:]))
    (root / "said.txt").write_text(ended.out)
    return root / "out"


def _words(row: dict[str, Any]) -> str:
    return " ".join(node["text"] for node in row["nodes"] if node["kind"] == "text")


def test_documents_come_in_as_they_were_extracted(out: Path, built: Path, extracted: pa.Table, site: Site) -> None:
    """Ids, words and pictures, in their order."""
    found = {row["url"]: row for row in documents(out)}
    assert set(found) == {_page(site, number) for number in range(16)}
    known = {image["sha256"] for row in documents(built) for image in row["image_info"]}
    ids = {row["url"]: row["document_id"] for row in extracted.to_pylist()}
    for number in range(16):
        row = found[_page(site, number)]
        if number in OWN:
            assert row["document_id"] == ids[row["url"]]
        assert row["language"] == "en" and row["provenance"]["kind"] == "documents"
        images = {image["sha256"] for image in row["image_info"]}
        assert images and images <= known
    assert found[_page(site, 5)]["provenance"] == {
        "kind": "documents", "snapshot": "given", "file": "urls.parquet", "offset": 1, "length": None
    }  # fmt: skip


def test_each_layout_keeps_its_order(out: Path, site: Site, extracted: pa.Table) -> None:
    made = {row["url"]: row for row in Corpus(str(out)).rows("documents", ["url", "nodes", "title"]).to_pylist()}
    before = {row["url"]: row for row in extracted.to_pylist()}

    def shown(row: dict[str, Any]) -> list[str]:
        return [node["text"] or node["image_url"] for node in row["nodes"]]

    for number in (*OWN, *URLS, *BYTES):
        assert shown(made[_page(site, number)]) == shown(before[_page(site, number)])
    assert made[_page(site, 0)]["title"] == "Print 0"
    for number in MMC4:
        texts = [node["text"] for node in before[_page(site, number)]["nodes"] if node["kind"] == "text"]
        found = shown(made[_page(site, number)])
        assert [*found[:-2], found[-1]] == texts and found[-2].endswith(".jpg")


def test_pictures_that_came_along_are_asked_of_nobody(out: Path, site: Site) -> None:
    asked = (out.parent / "asked.txt").read_text().splitlines()
    rows = {row["url"]: row for row in documents(out)}
    for number in range(16):
        for image in rows[_page(site, number)]["image_info"]:
            path = image["url"].removeprefix(site.url)
            alone = number in BYTES and not path.startswith("data:")
            if alone:
                assert image["consent"] is None
            elif not path.startswith("data:"):
                assert path in asked and image["consent"]["robots_allowed"] is True
    # A worker that lives on may have asked for it in a build before.
    assert "/robots.txt" in site.paths() and not [path for path in asked if path.endswith(".html")]


def test_what_is_no_document_is_a_row_that_says_why(out: Path, site: Site) -> None:
    told = {row["url"]: (row["rule"], row["detail"]) for row in decisions(out) if row["kind"] == "page"}
    assert {url: rule for url, (rule, _) in told.items()} == {
        _page(site, 0): "duplicate_id",
        f"{site.url}/unequal": "bad_row",
        re.sub("^", "unequal.jsonl#", str(_second_line(out))): "not_json",
        "damaged.parquet#0": "damaged_file",
        "other.parquet#0": "unknown_layout",
    }
    assert "kept is the one at own/part-0.parquet, 0" in told[_page(site, 0)][1]
    unplaced = [row for row in decisions(out) if row["rule"] == "matched_text_index"]
    assert len(unplaced) == len(MMC4) and all(row["url"].endswith(".jpg") for row in unplaced)
    empty = {row["url"] for row in decisions(out) if row["kind"] == "document"}
    assert empty == {f"{site.url}/none", f"{site.url}/few"}


def _second_line(out: Path) -> int:
    """Where the line that is not JSON begins."""
    pages = Corpus(str(out)).rows("pages", ["reason", "provenance"]).to_pylist()
    (place,) = (row["provenance"]["offset"] for row in pages if row["reason"] == "not_json")
    return int(place)


def test_the_commands_know_them(out: Path, site: Site, given: Path) -> None:
    told = run_here("pipeline.explain", "--corpus", str(out), "--url", _page(site, 9)).check().out
    assert "  crawl: read\n" in told and "result: in versions/" in told
    report = run_here("pipeline.report", "--corpus", str(out)).check().out.strip()
    assert "laid out in no way that is known" in Path(report).read_text()
    card = (out / "versions" / (out / "latest").read_text().strip() / "README.md").read_text()
    assert "kind: documents" in card and "came from a local source" in card
    before = tree(out)
    assert run_here("pipeline.gc", "--corpus", str(out)).check().out.startswith("0 objects")
    spec = out.parent / "given.yaml"
    assert build_here(spec, out, "--dry-run").check().out.strip().endswith("nothing to do")
    assert "nothing to do" in build_here(spec, out).check().out and tree(out) == before
    few = (given / "own/few.jsonl").read_bytes()
    (given / "own/few.jsonl").write_bytes(few * 2)
    changed = build_here(spec, out, "--dry-run").check().out.splitlines()
    (given / "own/few.jsonl").write_bytes(few)
    assert "pages              runs        settings.fingerprint changed" in changed[0]


def test_a_sample_is_a_part_of_the_whole(out: Path, site: Site, given: Path) -> None:
    """Of the same corpus folder, after the whole: nothing is fetched again."""
    before = len(site.log)
    ended = build_here(out.parent / "given.yaml", out, "--sample", "50%", *setting(expect__documents__min=1)).check()
    assert site.paths()[before:] == []
    urls = {row["url"] for row in Corpus(str(out)).rows("pages", ["url"]).to_pylist()}
    taken = {_page(site, number) for number in range(16) if in_sample(_page(site, number), 0.5)}
    assert {url for url in urls if "/print-" in url} == taken and 0 < len(taken) < 16
    corpus = Corpus(str(out))
    assert corpus.manifest.spec["source"]["sample"] == 0.5
    left_out = corpus.manifest.counts["pages.sampled_out"]
    assert f"; a sample of 50%, {left_out} are left out" in ended.out and left_out >= 16 - len(taken)
    card = (out / corpus.folder / "README.md").read_text()
    assert f"| pages | sample | page | {left_out} |" in card and "It is made of a sample, 50% of the pages" in card
    outside = next(_page(site, number) for number in range(16) if _page(site, number) not in taken)
    said = run_here("pipeline.explain", "--corpus", str(out), "--url", outside).failed(2)
    assert "as a page it would lie outside the sample of 50% (source.sample)" in said
    assert ran(out)["fetched_images"]["rows_computed"] == 0
