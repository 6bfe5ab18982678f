"""The first phase of every kind of source: which pages a sample lets in, and which of equal ids stands."""

from __future__ import annotations

import gzip
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pyarrow as pa
import pytest

from pipeline.engine.key_range import WHOLE, KeyRange, evenly
from pipeline.engine.phase import Part
from pipeline.engine.row_store import RowStore
from pipeline.engine.storage import Storage
from pipeline.phases import crawling
from pipeline.phases.graph import graph
from pipeline.spec.loading import Spec
from stages.sources.sample import in_sample
from tests.end_to_end.test_sources import write_warc
from tests.given import lines, parquet
from tests.servers import Handler, Site, answer, routes

NUM_PAGES = 24
NAMES = [f"/page-{number}.html" for number in range(NUM_PAGES)]


class Here:
    """A scout whose crew works in this process."""

    ranges = evenly(3)

    def __init__(self, storage: Storage) -> None:
        self.storage = storage

    @contextmanager
    def crew(
        self, member: Callable[[Part, int], Callable[[Any], Any]], requests: int, keys: int | None = None
    ) -> Iterator[Here]:
        assert requests >= 1
        self.members = [member(Part("pages", "", keys, self.storage, {}), 3) for keys in self.ranges]
        yield self

    def ask(self, questions: Mapping[int, Any]) -> list[Any]:
        return [self.members[index](question) for index, question in questions.items()]


def pages(
    folder: Path, source: dict[str, Any], chosen: Mapping[str, Any] = MappingProxyType({})
) -> tuple[dict[str, dict[str, Any]], Part]:
    """(rows of the phase by URL, its part) of a source, on one worker; `chosen` of its crawl settings."""
    crawl = {"allow_private_networks": True, "per_host_delay": 0, "obey_robots": False, **chosen}
    spec = Spec.model_validate({"name": "a", "output": {"url": str(folder)}, "source": source, "crawl": crawl})
    phase = graph(spec)[0]
    storage = Storage(str(folder))
    part = Part("pages", "", WHOLE, storage, {})
    assert phase.units is not None and phase.exchange is not None
    tables = [phase.exchange.emit(part, unit) for unit in phase.units(Here(storage))]
    assert all(table.schema.equals(phase.exchange.schema) for table in tables)
    rows = pa.concat_tables(tables).sort_by([(name, "ascending") for name in phase.exchange.order])
    made = phase.run(part, rows).to_pylist()
    found = {row["url"]: row for row in made}
    assert len(found) == len(made) == part.counts["pages"]
    return found, part


def page(number: int) -> bytes:
    """Each page links to the next two: whichever is left out, some can be reached over it alone."""
    linked = [NAMES[following] for following in (number + 1, number + 2) if following < NUM_PAGES]
    return f"<p>page {number}".encode() + b"".join(f'<a href="{name}">next</a>'.encode() for name in linked)


def sources(kind: str, folder: Path, site: Site) -> dict[str, Any]:
    """The same pages by each kind of source."""
    folder.mkdir(exist_ok=True)
    urls = [site.url + name for name in NAMES]
    if kind == "site":
        return {"kind": kind, "seeds": urls[:1]}
    if kind == "urls":
        (folder / "urls.txt").write_text("\n".join(urls))
        return {"kind": kind, "path": str(folder / "urls.txt")}
    if kind == "html":
        for number, name in enumerate(NAMES):
            (folder / name[1:]).write_bytes(page(number))
        return {"kind": kind, "path": str(folder), "base_url": f"{site.url}/"}
    if kind == "warc":
        write_warc(folder / "a.warc.gz", {url: page(number) for number, url in enumerate(urls)})
        return {"kind": kind, "paths": [str(folder / "a.warc.gz")]}
    (folder / "a.jsonl").write_bytes(lines([{"url": url, "nodes": []} for url in urls]))
    return {"kind": kind, "path": str(folder)}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["site", "urls", "html", "warc", "documents"])
def test_a_sample_is_the_same_pages_from_every_source(kind: str, tmp_path: Path) -> None:
    with routes({name: answer(body=page(number)) for number, name in enumerate(NAMES)}) as site:
        source = sources(kind, tmp_path / "in", site)
        whole, told = pages(tmp_path / "whole", source)
        assert sorted(whole) == sorted(site.url + name for name in NAMES) and told.counts["sampled_out"] == 0
        asked = len(site.log)
        found = {share: pages(tmp_path / share, source | {"sample": share}) for share in ("20%", "60%")}
        for share, (rows, part) in found.items():
            wanted = {url for url in whole if in_sample(url, float(share[:-1]) / 100)}
            assert set(rows) == wanted and part.counts["sampled_out"] == NUM_PAGES - len(wanted)
            assert not part.decisions
            for url in wanted:
                same = ("page_id", "status", "content_hash", "depth")
                assert [rows[url][name] for name in same] == [whole[url][name] for name in same]
        assert set(found["20%"][0]) < set(found["60%"][0]) < set(whole)
        # A crawl follows links on every page; a list is fetched as far as the sample goes.
        fetched = {"site": 2 * NUM_PAGES, "urls": sum(len(rows) for rows, _ in found.values())}
        assert len(site.log) - asked == fetched.get(kind, 0)


def urlset(*urls: str) -> bytes:
    return f"<urlset>{''.join(f'<url><loc>{url}</loc><lastmod>2026</lastmod></url>' for url in urls)}</urlset>".encode()


def index(*urls: str) -> bytes:
    return f"<sitemapindex>{''.join(f'<sitemap><loc>{url}</loc></sitemap>' for url in urls)}</sitemapindex>".encode()


def test_sitemaps_add_pages_in_scope_and_say_what_they_leave_out(tmp_path: Path) -> None:
    with routes({f"/{name}": answer(body=b"<p>page") for name in "sabc"}) as site:
        here = site.url
        robots = f"Sitemap: {here}/index.xml\nUser-agent: *\nDisallow: /closed\nSitemap: {here}/closed.xml".encode()
        listed = {
            "/robots.txt": answer(body=robots, content_type="text/plain"),
            # An index that lists itself, one that goes on below it, and one that is not there.
            "/index.xml": answer(
                body=index(*(f"{here}/{each}" for each in ("index.xml", "1.xml.gz", "2", "gone.xml")))
            ),
            "/1.xml.gz": answer(body=gzip.compress(urlset(f"{here}/a#x", f"{here}/b?utm_source=x", "http://else/c"))),
            "/2": answer(body=index(f"{here}/3.xml"), X_Robots_Tag="noindex"),
            "/3.xml": answer(body=index(f"{here}/4.xml")),
            "/4.xml": answer(body=index(f"{here}/5.xml")),
            "/5.xml": answer(body=urlset(f"{here}/c")),
            "/named.txt": answer(body=f"{here}/s\n{here}/c\nnonsense".encode(), content_type="text/plain"),
        }
        site.table.update(listed)
        source = {"kind": "site", "seeds": [f"{here}/s"], "sitemaps": ["robots.txt", f"{here}/named.txt"]}
        rows, _ = pages(tmp_path, source, {"obey_robots": True})
        told = {url.removeprefix(here): (row["status"], row["depth"], row["lastmod"]) for url, row in rows.items()}
        assert {url: each for url, each in told.items() if each[0] == "ok"} == {
            "/s": ("ok", 0, None),
            "/a": ("ok", 1, "2026"),
            "/b": ("ok", 1, "2026"),
            "/c": ("ok", 1, None),
        }
        left_out = {url.removeprefix(here): row for url, row in rows.items() if row["status"] != "ok"}
        assert {row["reason"] for row in left_out.values()} == {"sitemap"}
        assert {url: row["detail"] for url, row in left_out.items()} == {
            "/1.xml.gz": "1 of 3 pages are out of scope",
            "/5.xml": "indexes lie in each other more than 3 deep",
            "/closed.xml": f"robots: {here}/robots.txt 200 disallows {here}/closed.xml",
            "/gone.xml": "http_status: HTTP status 404",
            "/named.txt": "it is neither XML nor a list of URLs",
        }
        asked = Counter(site.paths())
        assert asked["/index.xml"] == asked["/s"] == asked["/c"] == 1 and not asked["/5.xml"] + asked["/closed.xml"]
        again, _ = pages(tmp_path, source, {"obey_robots": True})
        same = ("page_id", "status", "reason", "detail", "depth", "lastmod")
        assert [[row[name] for name in same] for row in again.values()] == [
            [row[name] for name in same] for row in rows.values()
        ]
        assert Counter(site.paths())["/index.xml"] == 1, "a sitemap is asked for once a snapshot, as pages are"


def test_sitemaps_that_list_more_than_the_cap_are_read_no_further(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crawling, "_SITEMAPS_AT_A_TIME", 1)
    with routes({f"/{name}": answer(body=b"<p>page") for name in "sab"}) as site:
        site.table.update({f"/{each}.xml": answer(body=urlset(f"{site.url}/{each}")) for each in "abc"})
        named = [f"{site.url}/{each}.xml" for each in "cba"]
        source = {"kind": "site", "seeds": [f"{site.url}/s"], "sitemaps": named}
        rows, _ = pages(tmp_path, source, {"max_pages": 2})
        assert {url.removeprefix(site.url): row["reason"] for url, row in rows.items()} == {
            **{"/s": None, "/a": None, "/b": "max_pages", "/c.xml": "sitemap"},
        }
        assert "/c.xml" not in site.paths()


def month(handler: Handler) -> None:
    """A calendar's page: it leads to the next month, to a file, and on the first also to an article."""
    number = int(handler.path.partition("=")[2])
    body = f'<p>month<a href="/cal?m={number + 1}">next</a><a href="/cal.ics.zip">file</a><a href="/a.html">a</a>'
    handler.reply(200, {"Content-Type": "text/html"}, body.encode())


def test_a_calendar_is_bounded_and_a_level_costs_the_same_however_late(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    range_of = RowStore.read

    def counted(store: RowStore, within: KeyRange) -> pa.Table:
        read.extend([str(within)] * (store.function == "fetch_page"))
        return range_of(store, within)

    monkeypatch.setattr(RowStore, "read", counted)
    with routes({"/cal": month, "/a.html": answer()}) as site:
        crawl = {"max_levels_alike": 40}
        found, _ = pages(tmp_path, {"kind": "site", "seeds": [f"{site.url}/cal?m=1"]}, crawl)
        assert len(site.log) == 41
    assert len(read) == len(Here.ranges), "once a member, not once a level"
    reasons = {url.removeprefix(site.url): (row["reason"], row["depth"]) for url, row in found.items()}
    left_out = {"/cal?m=41": ("max_levels_alike", 40), "/cal.ics.zip": ("not_a_page", 1)}
    asked = {f"/cal?m={number}": (None, number - 1) for number in range(1, 41)}
    assert reasons == {**asked, **left_out, "/a.html": (None, 1)}
    said = f"max_levels_alike is 40, this would be 41 of pages like {site.url}/cal?m="
    assert found[f"{site.url}/cal?m=41"]["detail"] == said
    # Again: nothing is asked for, the same pages are found.
    assert pages(tmp_path, {"kind": "site", "seeds": [f"{site.url}/cal?m=1"]}, crawl)[0] == found


def test_of_documents_with_one_id_the_first_by_place_stands(tmp_path: Path) -> None:
    rows = [{"document_id": "ab" * 16, "url": "http://site.test/a", "nodes": []}] * 2
    other = [{"document_id": "cd" * 16, "url": "http://site.test/b", "nodes": []}, *rows[:1]]
    (tmp_path / "in").mkdir()
    (tmp_path / "in/b.parquet").write_bytes(parquet(rows))
    (tmp_path / "in/a.parquet").write_bytes(parquet(other))
    found, part = pages(tmp_path / "out", {"kind": "documents", "path": str(tmp_path / "in")})
    assert found["http://site.test/a"]["provenance"]["file"] == "a.parquet" and len(found) == 2
    (decided,) = (table.to_pylist() for table in part.decisions)
    assert [(row["rule"], row["kind"], row["url"]) for row in decided] == [
        ("duplicate_id", "page", "http://site.test/a")
    ] * 2
    assert {row["detail"] for row in decided} == {
        f"{'ab' * 16} at b.parquet, {place}; kept is the one at a.parquet, 1" for place in (0, 1)
    }
    assert len({row["subject_id"] for row in decided} | {"ab" * 16}) == 3


def test_ids_do_not_depend_on_where_the_files_lie(tmp_path: Path) -> None:
    ids = []
    for name in ("here", "there"):
        root = tmp_path / name
        (root / "part").mkdir(parents=True)
        (root / "part/a.jsonl").write_bytes(lines([{"url": "http://site.test/a", "nodes": []}]))
        for path in (root, root / "*/*.jsonl", f"file://{root}"):
            found, _ = pages(tmp_path / "out", {"kind": "documents", "path": str(path)})
            ids.append(found["http://site.test/a"]["page_id"])
    # As a download cache has them.
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked/part").mkdir()
    (tmp_path / "linked/part/a.jsonl").symlink_to(tmp_path / "here/part/a.jsonl")
    found, _ = pages(tmp_path / "out", {"kind": "documents", "path": str(tmp_path / "linked")})
    ids.append(found["http://site.test/a"]["page_id"])
    assert len(ids) == 7 and len(set(ids)) == 1
