"""Consent over time: sites that say no after a build, and what somebody asks to be forgotten."""

from __future__ import annotations

import base64
import shutil
from pathlib import Path
from typing import Any

import pytest

from pipeline.corpus.version import Corpus
from pipeline.engine.storage import Storage
from pipeline.engine.table import Table, records_of
from stages.web.urls import url_id
from tests.end_to_end.builds import Ended, build_here, decisions, documents, run_here, shards, write_spec
from tests.end_to_end.site import photograph
from tests.servers import ORIGIN_FILES, Site, answer

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("local_ray")]


@pytest.fixture
def corpus(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "out"))


@pytest.fixture
def said(site: Site) -> Any:
    """What the site answers, to be changed by a test."""
    before = dict(site.table)
    yield site.table
    site.table.clear()
    site.table.update(before)


def consent(out: Path, *more: str) -> Ended:
    return run_here("pipeline.consent", "--corpus", str(out), *more)


def held(out: Path, words: bytes) -> list[str]:
    """Files of the row stores in which bytes stand."""
    return [str(path) for path in (out / "rows").rglob("*") if path.is_file() and words in path.read_bytes()]


def urls(out: Path) -> set[str]:
    return {row["url"] for row in documents(out)}


def image_urls(out: Path) -> set[str]:
    return {each["url"] for row in documents(out) for each in row["image_info"]}


def tabled(out: Path, phase: str) -> set[str]:
    """URLs in all tables of a phase, of whichever build."""
    storage = Storage(str(out))
    parts = [part for record in records_of(storage, phase) for part in Table(storage, record).read_all()]
    return {url for part in parts for url in part.column("url").to_pylist()}


def shown_by(out: Path, page: str) -> dict[str, Any]:
    """The first picture of a page's document."""
    info: list[dict[str, Any]] = next(row["image_info"] for row in documents(out) if row["url"] == page)
    return info[0]


def test_what_a_site_allows_no_longer_is_found_listed_and_taken_down(
    corpus: Path, folder: Path, spec: Path, site: Site, said: Any
) -> None:
    before, pictures = urls(corpus), image_urls(corpus)
    quiet = consent(corpus, "--recheck").check()
    assert quiet.out.splitlines()[-1].endswith(" images asked for: 0 should go, of 0 nothing is known now")
    assert len(quiet.out.splitlines()) == 1
    heads = [entry for entry in site.log if entry.method == "HEAD"]
    assert {entry.path for entry in heads} >= {url.removeprefix(site.url) for url in pictures if url.startswith("http")}

    page, tagged, gone = f"{site.url}/print-0.html", f"{site.url}/print-7.html", f"{site.url}/print-4.html"
    picture = shown_by(corpus, f"{site.url}/print-6.html")["url"]
    assert {page, tagged, gone} <= before
    said["/print-0.html"] = answer(body=(folder / "print-0.html").read_bytes(), tdm_reservation="1")
    body = (folder / "print-7.html").read_bytes().replace(b"<title>", b'<meta name="robots" content="noai"><title>')
    said["/print-7.html"] = answer(body=body)
    said["/print-4.html"] = answer(410, b"gone", "text/plain")
    path = picture.removeprefix(site.url)
    said[path] = answer(body=(folder / path[1:]).read_bytes(), content_type="image/jpeg", X_Robots_Tag="noai")

    told = consent(corpus, "--recheck")
    assert told.code == 3
    assert f"page {page}: tdmrep: tdm-reservation: 1" in told.out
    assert f"page {tagged}: meta_robots: noai" in told.out
    assert f"image {picture}: x_robots_tag: X-Robots-Tag: noai" in told.out
    assert f"not known now: page {gone}: http_status: HTTP status 410" in told.out
    assert "3 should go, of 1 nothing is known now" in told.out
    assert f"page {gone}: http_status: HTTP status 410" in consent(corpus, "--recheck", "--gone").out
    assert urls(corpus) == before

    version = (corpus / "latest").read_text()
    consent(corpus, "--recheck", "--apply").check()
    assert (corpus / "latest").read_text() != version
    assert urls(corpus) & before == urls(corpus) - {page, tagged}
    assert page not in urls(corpus) and picture not in image_urls(corpus)
    dropped = {(row["url"], row["rule"]): row for row in decisions(corpus)}
    assert dropped[page, "withdrawn"]["detail"] == "tdmrep: tdm-reservation: 1"
    assert dropped[page, "withdrawn"]["action"] == "refuse"
    told = run_here("pipeline.explain", "--corpus", str(corpus), "--url", page).check()
    assert "allowed no longer, as a recheck found" in told.out
    # The same is built from the same list, whoever builds it.
    assert "nothing to do" in build_here(spec, corpus).check().out


def test_a_host_that_is_forgotten_takes_its_pages_and_pictures_along(folder: Path, site: Site, tmp_path: Path) -> None:
    other = site.url.replace("127.0.0.1", "localhost")
    pages = [*(f"{site.url}/print-{number}.html" for number in (10, 11, 12)), f"{other}/print-13.html"]
    (tmp_path / "urls.txt").write_text("\n".join(pages))
    source = {"kind": "urls", "path": str(tmp_path / "urls.txt"), "snapshot": "one"}
    spec, out = write_spec(tmp_path / "spec.yaml", site.url, source=source), tmp_path / "out"
    build_here(spec, out).check()
    assert urls(out) == set(pages) and any(url.startswith(other) for url in image_urls(out))
    body = (folder / "print-13.html").read_bytes()
    picture = (folder / shown_by(out, pages[-1])["url"].removeprefix(f"{other}/")).read_bytes()
    assert held(out, body) and held(out, picture)

    asked = len(site.log)
    consent(out, "--forget", "localhost", "--apply").check()
    assert urls(out) == set(pages[:-1]) and not any(url.startswith(other) for url in image_urls(out))
    assert held(out, body) == held(out, picture) == []
    assert (pages[-1], "forgotten") in {(row["url"], row["rule"]) for row in decisions(out)}
    build_here(spec, out, "--set", "filter.document.num_words.min=1").check()
    assert urls(out) == set(pages[:-1]) and "/print-13.html" not in site.paths()[asked:]


def test_what_is_forgotten_is_gone_and_stays_so(
    corpus: Path, folder: Path, spec: Path, site: Site, tmp_path: Path
) -> None:
    page = f"{site.url}/print-3.html"
    secret, carried = (folder / "print-3.html").read_bytes(), photograph("coffee", 3, quality=50)
    picture = shown_by(corpus, f"{site.url}/print-8.html")
    assert held(corpus, secret) and held(corpus, carried)
    assert base64.b64encode(carried) in secret
    others = urls(corpus)

    told = consent(corpus, "--forget", page, "--forget", picture["sha256"]).check()
    assert "rows taken out of the stores" in told.out and "versions made before keep what they hold" in told.out
    original = (folder / picture["url"].removeprefix(f"{site.url}/")).read_bytes()
    assert held(corpus, secret) == held(corpus, carried) == held(corpus, original) == []
    remembered = b"".join(path.read_bytes() for path in (corpus / "takedowns").glob("*.json"))
    assert b"print-3" not in remembered and b"127.0.0.1" not in remembered

    asked = len(site.log)
    build_here(spec, corpus).check()
    fetched = {path for path in site.paths()[asked:] if path not in ORIGIN_FILES}
    assert not fetched & {"/print-3.html", picture["url"].removeprefix(site.url)}
    assert page not in urls(corpus) and urls(corpus) <= others
    assert picture["sha256"] not in {each["sha256"] for row in documents(corpus) for each in row["image_info"]}
    assert held(corpus, secret) == held(corpus, carried) == held(corpus, original) == []
    assert (page, "forgotten") in {(row["url"], row["rule"]) for row in decisions(corpus)}
    assert "nothing to do" in build_here(spec, corpus).check().out
    # Asked for again, nothing is left to be done; and the old version goes as ever.
    assert consent(corpus, "--forget", page).check().out.startswith("0 remembered to be forgotten; 0 rows taken out")
    run_here("pipeline.gc", "--corpus", str(corpus)).check()
    assert [path.name for path in (corpus / "versions").iterdir()] == [(corpus / "latest").read_text().strip()]
    everything = [path for path in corpus.rglob("*") if path.is_file()]
    assert not [path for path in everything if secret in path.read_bytes() or carried in path.read_bytes()]
    assert url_id(page) in {row["page_id"] for row in Corpus(str(corpus)).rows("pages").to_pylist()}
    assert page not in tabled(corpus, "documents") and tabled(corpus, "documents") >= urls(corpus)
    # What nobody asked for comes out as it would without.
    build_here(spec, tmp_path / "fresh").check()
    shutil.copytree(corpus / "takedowns", tmp_path / "fresh" / "takedowns")
    run_here("pipeline.consent", "--corpus", str(tmp_path / "fresh"), "--forget", page, "--apply").check()
    assert shards(tmp_path / "fresh") == shards(corpus)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "--recheck, --forget or both"),
        (["--gone", "--forget", "h.test"], "--gone goes with --recheck"),
        (["--forget", "two words"], "neither a URL nor a host nor the sha256"),
        (["--forget", "http://"], "--forget http://: "),
        (["--forget", "0123456789abcdef" * 2], "a sha256 has 64 hexadecimal digits, this has 32"),
        (["--forget", "org"], "name one of them"),
    ],
)
def test_mistakes(built: Path, arguments: list[str], words: str) -> None:
    assert words in consent(built, *arguments).failed(2)


def test_without_a_corpus_there_is_nothing_to_do(tmp_path: Path) -> None:
    none = tmp_path / "none"
    assert "no finished corpus there" in consent(none, "--recheck").failed(2)
    assert "no version there, nor a record of a build" in consent(none, "--forget", "h.test").failed(2)
    assert not none.exists()
