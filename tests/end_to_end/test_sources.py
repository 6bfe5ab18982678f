"""Other sources of the same pages, and sources that give nothing."""

from __future__ import annotations

import gzip
import io
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from fastwarc.warc import WarcRecord, WarcRecordType

from pipeline.corpus.version import Corpus
from tests.end_to_end.builds import build_here, documents, run, run_here, setting, tree, write_spec
from tests.end_to_end.site import ROUTED, SERIES
from tests.servers import ORIGIN_FILES, Site, answer, in_turn, routes

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("local_ray")]


def texts(out: Path) -> dict[str, list[str]]:
    """URL -> the document's words, without those that one document of a site keeps for all others."""
    return {
        row["url"]: [node["text"] for node in row["nodes"] if node["kind"] == "text" and node["text"] not in SERIES]
        for row in documents(out)
    }


def pictures(out: Path) -> dict[str, list[str]]:
    """URL -> hashes of the document's images."""
    return {row["url"]: [image["sha256"] for image in row["image_info"]] for row in documents(out)}


@pytest.fixture
def out(built: Path, tmp_path: Path) -> Path:
    """A corpus folder that remembers the vectors of the first build."""
    return Path(shutil.copytree(built, tmp_path / "out"))


def _spec(tmp_path: Path, site: Site, **source: Any) -> Path:
    # None is held out: of what looks alike on both sides of a split some would be dropped.
    shard = {"held_out_fraction": 0}
    return write_spec(tmp_path / "other.yaml", site.url, source={"snapshot": "two", **source}, shard=shard)


def _files_of(found: dict[str, Any]) -> dict[str, Any]:
    """Those whose page is a file of the site."""
    return {url: value for url, value in found.items() if not url.endswith(("/there.html", *ROUTED))}


def test_a_folder_gives_the_same_documents_without_a_request(
    out: Path, built: Path, folder: Path, site: Site, tmp_path: Path
) -> None:
    asked = len(site.log)
    spec = _spec(tmp_path, site, kind="html", path=str(folder), base_url=f"{site.url}/")
    build_here(spec, out).check()
    assert len(site.log) == asked
    found, expected = texts(out), _files_of(texts(built))
    # Nobody asks a folder's robots.txt.
    assert found.keys() - expected.keys() == {f"{site.url}/private/secret.html"}
    assert {url: found[url] for url in expected} == expected
    shared = _files_of(pictures(built))
    assert {url: value for url, value in pictures(out).items() if url in shared and "print-0" not in url} == {
        url: value for url, value in shared.items() if "print-0" not in url
    }
    assert {row["provenance"]["kind"] for row in documents(out)} == {"html"}


def test_a_list_of_urls_gives_the_same_documents(out: Path, built: Path, site: Site, tmp_path: Path) -> None:
    listed = sorted(texts(built))
    lines = "".join(f"{n},{url}\n" for n, url in enumerate([*listed, listed[0]]))
    (tmp_path / "urls.csv").write_text(f"number,url\n{lines}{len(listed)},{site.url}/gone.html\n")
    asked = len(site.log)
    build_here(_spec(tmp_path, site, kind="urls", path=str(tmp_path / "urls.csv")), out).check()
    assert texts(out) == texts(built) and pictures(out) == pictures(built)
    fetched = [path for path in site.paths()[asked:] if path not in ORIGIN_FILES]
    assert sorted(path for path in fetched if path.endswith(".html")) == sorted(
        [*(url.removeprefix(site.url) for url in listed), "/gone.html"]
    )
    assert len(fetched) == len(set(fetched))


def write_warc(path: Path, pages: dict[str, bytes]) -> None:
    """A gzipped WARC file of responses."""
    sink = io.BytesIO()
    for url, body in pages.items():
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n\r\n"
        record = WarcRecord()
        record.init_headers(WarcRecordType.response)
        record.headers["WARC-Target-URI"] = url
        record.headers["WARC-Date"] = "2026-01-02T03:04:05Z"
        record.headers["Content-Type"] = "application/http; msgtype=response"
        record.set_bytes_content(head + body)
        plain = io.BytesIO()
        record.write(plain)
        sink.write(gzip.compress(plain.getvalue(), mtime=0))
    path.write_bytes(sink.getvalue())


def test_a_warc_gives_the_same_documents(out: Path, built: Path, folder: Path, site: Site, tmp_path: Path) -> None:
    expected = _files_of(texts(built))
    pages = {url: (folder / url.removeprefix(f"{site.url}/")).read_bytes() for url in expected}
    for number in (0, 1):
        half = dict(list(pages.items())[number::2])
        write_warc(tmp_path / f"crawl-{number}.warc.gz", half)
    asked = len(site.log)
    build_here(_spec(tmp_path, site, kind="warc", paths=[str(tmp_path / "crawl-*.warc.gz")]), out).check()
    assert texts(out) == expected and pictures(out) == _files_of(pictures(built))
    assert not [path for path in site.paths()[asked:] if path.endswith(".html")]
    assert {row["provenance"]["file"] for row in documents(out)} == {
        str(tmp_path / f"crawl-{number}.warc.gz") for number in (0, 1)
    }


def test_a_corpus_out_of_its_own_warcs_is_the_same(out: Path, built: Path, site: Site, tmp_path: Path) -> None:
    to = tmp_path / "warc"
    said = run_here("pipeline.warc", "--corpus", str(built), "--to", str(to), "--target-bytes", "100000").check().out
    assert re.match(r"[0-9,]+ captures of version \w+ in [0-9,]+ WARC files, [0-9,]+ bytes; 0 files were there$", said)
    asked = len(site.log)
    source = {"kind": "warc", "snapshot": "two", "paths": [f"{to}/*.warc.gz"]}
    build_here(write_spec(tmp_path / "warc.yaml", site.url, source=source), out).check()
    # Asked for again is what could not be had.
    images = Corpus(str(built)).rows("fetched_images", ["url", "status"]).to_pylist()
    failed = {row["url"].removeprefix(site.url) for row in images if row["status"] != "ok"}
    assert set(site.paths()[asked:]) <= {*failed, *ORIGIN_FILES}
    made, before = documents(out), documents(built)
    assert {row.pop("provenance")["kind"] for row in made} == {"warc"}
    assert {row.pop("provenance")["kind"] for row in before} == {"site"}
    assert made == before


def test_an_empty_site_fails_in_one_line_and_changes_no_corpus(out: Path, folder: Path, tmp_path: Path) -> None:
    """The site is down; what is published stays; --retry-failed asks again once it is up."""
    good = answer(body=(folder / "print-1.html").read_bytes())
    with routes({"/index.html": in_turn(answer(503, b"", "text/plain"), good)}) as down:
        spec = write_spec(tmp_path / "down.yaml", down.url)
        before = tree(out)
        said = build_here(spec, out).failed(1)
        assert said == (
            "error: pages: not one page could be read: the server answered with an error status (1); "
            f"the first is {down.url}/index.html: HTTP status 503; "
            f"ask again with python -m pipeline.build --spec {spec} --out {out} --retry-failed"
        )
        after = tree(out)
        assert {name: after[name] for name in before} == before
        assert not [name for name in after if name.startswith("versions/") and name not in before]
        asked = down.paths().count("/index.html")
        assert build_here(spec, out, "--until", "documents").failed(1) == said
        assert down.paths().count("/index.html") == asked == 1, "a remembered failure was asked for again"
        ended = build_here(spec, out, "--until", "documents", "--retry-failed").check()
        assert "stopped after documents" in ended.err and down.paths().count("/index.html") == 2
        told = run_here("pipeline.explain", "--corpus", str(out), "--url", f"{down.url}/index.html").check().out
        assert " stopped after documents: --until documents; phases from scores on did not finish\n" in told
        assert "  result: still in after extract; text scores has not been done\n" in told
        # The last line of the phase: while it goes on it says how far it is.
        assert " 1 document " in [line for line in ended.err.splitlines() if line.startswith("  documents")][-1]


def test_an_expectation_that_fails_leaves_a_report_and_latest(built: Path, spec: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(built, tmp_path / "out"))
    published = (out / "latest").read_text().strip()
    more = setting(mine__top_k=1, expect__negatives__min=100_000)
    said = build_here(spec, out, *more).failed(1)
    assert "expect: negatives is " in said and "expected at least 100000" in said
    assert (out / "latest").read_text().strip() == published
    (version,) = {path.name for path in (out / "versions").iterdir()} - {published}
    assert f"versions/{version}/report/index.html" in said
    assert (out / "versions" / version / "report/index.html").exists()
    told = run_here("pipeline.report", "--corpus", str(out)).check().out
    assert told.strip() == str(out / "versions" / version / "report/index.html")
    assert "Not published: build " in Path(told.strip()).read_text()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--spec", "nosuch.yaml"], "nosuch.yaml: no such file, nor a packaged spec (there are demo.yaml"),
        (["--spec", "demo", "--set", "filter.document.num_word.min=3"], "did you mean 'num_words'?"),
        (["--spec", "demo", "--until", "embedings"], "--until embedings: no such phase; there are pages"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(arguments: list[str], words: str) -> None:
    """As a process; tests/pipeline/test_commands.py holds the rest of them."""
    ended = run("pipeline.build", *arguments)
    assert words in ended.failed(2) and len(ended.err.splitlines()) == 1 and ended.out == ""
