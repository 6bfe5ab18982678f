"""Rechecking: the sites of a version are asked again what they allow; what they allow no longer is found and named."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.corpus.version import Corpus
from pipeline.corpus.words import CONSENT_RULES
from pipeline.engine.memo import compute_isolated
from pipeline.engine.table import read_listed
from pipeline.phases.takedowns import crawl_without, takedowns_of
from pipeline.spec.loading import Spec
from schemas.keys import digest
from schemas.takedown import Entry
from stages.extract import Extract
from stages.web.client import fetch
from stages.web.consent.excluded import hashed
from stages.web.consent.page import PageConsent, page_refusal, pictures_refusal
from stages.web.urls import host_of

# URLs that are asked for in one go; their rows are looked at as they come.
_AT_A_TIME = 20_000
# Answers that say that a thing is no longer there, or may not be shown.
_GONE = (404, 410)
_LEGAL = 451
_Kind = Literal["page", "image"]


@dataclass(frozen=True, order=True)
class Finding:
    """A page or an image that should go."""

    kind: _Kind
    url: str
    rule: str
    said: str

    @property
    def line(self) -> str:
        """In words for people."""
        return f"{self.kind} {self.url}: {self.rule}: {self.said}"

    def entry(self, snapshot: str) -> Entry:
        """What takes it down for the snapshot: another one asks its site again."""
        return Entry("url", hashed(self.url), "withdrawn", f"{self.rule}: {self.said}", digest(snapshot))


@dataclass
class Recheck:
    """What came out."""

    pages: int = 0  # asked for
    images: int = 0
    unanswered: list[str] = field(default_factory=list)  # URLs and why, of which nothing is known now
    findings: list[Finding] = field(default_factory=list)


def recheck(corpus: Corpus, spec: Spec, *, gone: bool = False) -> Recheck:
    """Ask for every page and image of a version again, under the spec's crawl settings.

    robots.txt and the files beside it, headers, and the meta tags of pages decide as they do in a crawl; images are
    asked for by HEAD, and by GET where a server does not answer that. What is to be forgotten, and the version still
    has, should go unasked. `gone`: what is not there any more should go too.
    """
    found = Recheck()
    pictures = _pictures(corpus)
    judge = _Judge(spec, pictures, found, gone)
    judge.pages(sorted(pictures, key=_by_host))
    judge.images(sorted({url for urls in pictures.values() for url in urls}, key=_by_host))
    found.findings = sorted(set(found.findings))
    return found


def _pictures(corpus: Corpus) -> dict[str, list[str]]:
    """URLs of the pictures of each document in the shards, by the URL that its page was asked for under."""
    ids = [part.column("document_id").combine_chunks() for part in _parts(corpus, "shards", "document_id")]
    in_shards = pa.chunked_array(ids, pa.string()).combine_chunks()
    asked: dict[str, str] = {}
    for part in _parts(corpus, "pages", "page_id", "url"):
        mine = part.filter(pc.is_in(part.column("page_id"), value_set=in_shards))
        asked.update(zip(mine.column("page_id").to_pylist(), mine.column("url").to_pylist(), strict=True))
    found: dict[str, list[str]] = {}
    for part in _parts(corpus, "kept", "document_id", "url", "images"):
        mine = part.filter(pc.is_in(part.column("document_id"), value_set=in_shards))
        for row in mine.to_pylist():
            url = asked.get(row["document_id"], row["url"])
            if _is_web(url):
                found.setdefault(url, []).extend(each["url"] for each in row["images"] if _is_web(each["url"]))
    return found


def _parts(corpus: Corpus, phase: str, *columns: str) -> Iterator[pa.Table]:
    table = corpus.table(phase)
    return (read_listed(corpus.storage, part, columns) for part in table.parts)


def _is_web(url: str) -> bool:
    return url.startswith(("http://", "https://"))


def _by_host(url: str) -> tuple[str, str]:
    return host_of(url), url


class _Judge:
    def __init__(self, spec: Spec, pictures: Mapping[str, list[str]], found: Recheck, gone: bool) -> None:
        self._spec = spec
        self._crawl = crawl_without(spec.crawl, takedowns_of(spec))
        self._consent = PageConsent.of(spec.crawl)
        self._pictures = pictures
        self._found = found
        self._gone = gone

    def pages(self, urls: Sequence[str]) -> None:
        self._found.pages += len(urls)
        for table in self._tables(urls, "page", self._spec.crawl.max_page_bytes, "GET"):
            answered = pc.equal(table.column("status"), "ok")
            self._tags(table.filter(answered))
            for row in table.filter(pc.invert(answered)).to_pylist():
                self._failed("page", row)

    def images(self, urls: Sequence[str]) -> None:
        self._found.images += len(urls)
        again: list[str] = []
        for row in self._rows(urls, "HEAD"):
            if row["reason"] in ("http_status", "protocol"):
                again.append(row["url"])  # many a server does not know HEAD
            elif row["status"] != "ok":
                self._failed("image", row)
        for row in self._rows(again, "GET"):
            if row["status"] != "ok":
                self._failed("image", row)

    def _rows(self, urls: Sequence[str], method: Literal["GET", "HEAD"]) -> Iterator[dict[str, Any]]:
        for table in self._tables(urls, "image", self._spec.images.max_bytes, method):
            yield from table.drop_columns("body").to_pylist()

    def _tables(
        self, urls: Sequence[str], kind: _Kind, max_bytes: int, method: Literal["GET", "HEAD"]
    ) -> Iterator[pa.Table]:
        for start in range(0, len(urls), _AT_A_TIME):
            some = urls[start : start + _AT_A_TIME]
            yield from fetch(some, self._crawl, kind=kind, max_bytes=max_bytes, method=method)

    def _tags(self, table: pa.Table) -> None:
        """What the meta tags of pages say, of themselves and of their pictures."""
        pages = pa.table(
            {"url": table.column("final_url"), **{name: table.column(name) for name in ("content_type", "body")}}
        )
        read = compute_isolated(Extract(self._spec.extract), pages).select(["meta_robots", "meta_tdm", "error"])
        for row, told in zip(table.select(["url", "consent"]).to_pylist(), read.to_pylist(), strict=True):
            url, robots = row["url"], told["meta_robots"]
            if told["error"] is not None:
                self._found.unanswered.append(f"page {url}: {told['error']}")
            elif (refusal := page_refusal(robots, told["meta_tdm"], self._consent)) is not None:
                self._found.findings.append(Finding("page", url, refusal.rule, refusal.said))
            elif (refusal := pictures_refusal(robots, row["consent"]["x_robots_tag"], self._consent)) is not None:
                said = f"{refusal.rule}: {refusal.said} on {url}"
                self._found.findings += [Finding("image", image, "kept_back", said) for image in self._pictures[url]]

    def _failed(self, kind: _Kind, row: Mapping[str, Any]) -> None:
        rule, status = row["reason"], row["http_status"]
        should_go = (
            (rule in CONSENT_RULES and not row["retryable"])
            or (rule == "http_status" and status == _LEGAL)
            or (self._gone and rule == "http_status" and status in _GONE)
        )
        if should_go:
            self._found.findings.append(Finding(kind, row["url"], rule, row["detail"]))
        elif rule in CONSENT_RULES or row["status"] == "error":
            self._found.unanswered.append(f"{kind} {row['url']}: {rule}: {row['detail']}")


def entries(findings: Iterable[Finding], snapshot: str) -> list[Entry]:
    """What takes them down, each once; what is excluded is left out of every build as it is."""
    return list({each.url: each.entry(snapshot) for each in findings if each.rule != "excluded"}.values())
