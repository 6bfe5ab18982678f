"""Conditional requests: what an answer lets a later one be asked by, and what is made of 304 Not Modified.

RFC 9110, 8.8 and 13.1 (validators, If-None-Match, If-Modified-Since); RFC 9111, 3.2 (what a 304 freshens).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from multidict import CIMultiDict, CIMultiDictProxy

from stages.web.consent.content_signals import HEADERS
from stages.web.consent.tdmrep import POLICY, RESERVATION
from stages.web.fetched import http_date

Headers = CIMultiDictProxy[str]

NOT_MODIFIED = 304
# RFC 9110, 8.8.3. What is not of this form is not sent back: a server may mean anything by it, and by * everything.
_ETAG = re.compile(r'(?:W/)?"[\x21\x23-\x7e]*"')
# Headers by which an answer says how it may be used.
_OF_USE = ("X-Robots-Tag", RESERVATION, POLICY, *HEADERS, "Link")
# Beyond these, in characters and lines of all names, an answer is asked for anew rather than kept in part.
_MOST_CHARACTERS = 4000
_MOST_LINES = 50


@dataclass(frozen=True)
class Validators:
    """What an answer says by which it can be asked for again; nothing where it says nothing fit for that."""

    etag: str | None = None
    """ETag as sent, well-formed."""
    last_modified: str | None = None
    """Last-Modified as sent, a date."""
    use: tuple[str, ...] = ()
    """Header lines "Name: value" that speak of the answer's use, in order: they stand until a later answer changes
    them."""

    @classmethod
    def of(cls, headers: Headers) -> Validators:
        """The validators of an answer with these headers."""
        lines = ((name, value) for name in _OF_USE for value in headers.getall(name, ()))
        use = tuple(f"{name}: {value}" for name, value in lines if name != "Link" or "license" in value.lower())
        etag, last_modified = headers.get("ETag"), headers.get("Last-Modified")
        lengths = sum(map(len, use)), len(etag or ""), len(last_modified or "")
        if max(lengths) > _MOST_CHARACTERS or len(use) > _MOST_LINES or not "".join(use).isprintable():
            return cls()
        if etag is not None and _ETAG.fullmatch(etag) is None:
            etag = None
        if last_modified is not None and (not last_modified.isprintable() or http_date(last_modified) is None):
            last_modified = None
        return cls(etag, last_modified, use if etag or last_modified else ())

    def __bool__(self) -> bool:
        return self.etag is not None or self.last_modified is not None


@dataclass(frozen=True)
class Kept:
    """An answer of an earlier fetch."""

    final_url: str
    """The URL that gave it: its validators are no other's."""
    http_status: int
    content_type: str | None
    validators: Validators
    body: Callable[[], bytes | None]
    """Its body, which is looked up once a server has said that it holds; None where it is gone."""

    def conditions(self) -> dict[str, str]:
        """Headers of a request that is to be answered in full only if the answer would be another."""
        asked = {"If-None-Match": self.validators.etag, "If-Modified-Since": self.validators.last_modified}
        return {name: value for name, value in asked.items() if value is not None}

    def holds(self, headers: Headers) -> bool:
        """Whether a 304 with these headers speaks of this answer: it names no other by its validators.

        Entity tags are compared weakly, as the server has done (RFC 9110, 13.1.2): one that packs its answers has a
        weak tag for them and a strong one in a 304, which is not packed. A 304 that names none speaks of the only
        answer that was asked about.
        """
        etag, last_modified = headers.get("ETag"), headers.get("Last-Modified")
        if etag is not None:
            return etag.removeprefix("W/") == (self.validators.etag or "").removeprefix("W/")
        return last_modified is None or http_date(last_modified) == http_date(self.validators.last_modified)

    def freshened(self, headers: Headers) -> Headers:
        """The headers of this answer with those of a 304 in the place of theirs (RFC 9111, 3.2).

        Of what describes the body, which was not sent, the kept answer's stands.
        """
        found: CIMultiDict[str] = CIMultiDict()
        for line in self.validators.use:
            found.add(*line.split(": ", 1))
        for name, value in (("ETag", self.validators.etag), ("Last-Modified", self.validators.last_modified)):
            if value is not None:
                found[name] = value
        for name in dict.fromkeys(headers):
            found.popall(name, None)
        found.extend(headers)
        for name in ("Content-Type", "Content-Encoding"):
            found.popall(name, None)
        if self.content_type is not None:
            found["Content-Type"] = self.content_type
        return CIMultiDictProxy(found)


# The answer that an earlier fetch had of a canonical URL.
Earlier = Callable[[str], Kept | None]


def no_earlier(_: str) -> None:
    """Nothing was fetched before."""
