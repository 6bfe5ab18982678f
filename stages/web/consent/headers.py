"""What an answer's headers say about its own use, before its body is read."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from stages.web.consent.content_signals import HEADERS, header_preferences, refusing
from stages.web.consent.patterns import path_of
from stages.web.consent.signals import Signal
from stages.web.consent.tdmrep import POLICY, RESERVATION, is_reserved
from stages.web.fetched import Consent, Failure, one_line
from stages.web.robots_tag import refusal
from stages.web.settings import CrawlSettings
from stages.web.urls import canonicalize

_TAG = "X-Robots-Tag"
# Header lines of one name that are kept: more say nothing that these do not.
_MOST_LINES = 50
# RFC 8288, 3: a target, and parameters of which each may be a quoted string.
_LINK = re.compile(r'<([^<>]*)>((?:\s*;\s*[^\s;,="]+(?:\s*=\s*(?:"(?:[^"\\]|\\.)*"|[^\s;,"]*))?)*)')
_RELATION = re.compile(r';\s*rel\s*=\s*(?:"([^"]*)"|([^\s;,"]+))', re.IGNORECASE)


@dataclass(frozen=True)
class HeaderConsent:
    """What was said, and what follows."""

    x_robots_tag: str | None
    """The lines of X-Robots-Tag as sent, one a line: a user agent named in one says nothing about the next."""
    signals: tuple[Signal, ...] = ()
    """What else was said."""
    license: str | None = None
    """Absolute URL of the first `Link: <...>; rel="license"`."""
    refused_by: Signal | None = None
    """What forbids the use, None for nothing."""

    def added_to(self, consent: Consent) -> Consent:
        """A consent record with what these headers say."""
        signals = (*consent.signals, *self.signals)
        known = replace(consent, x_robots_tag=self.x_robots_tag, signals=signals, license=self.license)
        return known.decided(self.refused_by)

    def failure(self) -> Failure:
        """Of headers that refuse: the row's reason."""
        assert self.refused_by is not None
        return Failure(self.refused_by.signal, self.refused_by.said, status="refused")


def header_consent(
    lines_of: Callable[[str], Sequence[str]], url: str, kind: Literal["page", "image"], settings: CrawlSettings
) -> HeaderConsent:
    """The consent that an answer's headers tell.

    `lines_of`: the lines of one header by its name, [] where it was not sent. `url`: canonical, of the answer.
    """
    tags = list(lines_of(_TAG))
    signals: list[Signal] = []
    refused: list[Signal] = []
    directives = settings.page_directives if kind == "page" else settings.image_directives
    if (directive := refusal(tags, settings.product, directives)) is not None:
        refused.append(Signal("x_robots_tag", f"{_TAG}: {directive}"))
    for name in (RESERVATION, POLICY):
        for line in lines_of(name)[:_MOST_LINES]:
            signals.append(Signal("tdmrep", f"{name}: {one_line(line)}"))
            if name == RESERVATION and settings.obey_tdmrep and is_reserved(line):
                refused.append(signals[-1])
    for name in HEADERS:
        lines = lines_of(name)[:_MOST_LINES]
        signals += [Signal("content_signal", f"{name}: {one_line(line)}") for line in lines]
        said = refusing(header_preferences(name, lines), path_of(url), settings.content_signals)
        if said is not None:
            refused.append(Signal("content_signal", said.line))
    return HeaderConsent(
        x_robots_tag="\n".join(one_line(line) for line in tags[:_MOST_LINES]) if tags else None,
        signals=tuple(signals),
        license=_license(lines_of("Link")[:_MOST_LINES], url),
        refused_by=refused[0] if refused else None,
    )


def _license(lines: Sequence[str], url: str) -> str | None:
    for line in lines:
        for target, parameters in _LINK.findall(line):
            relation = _RELATION.search(parameters)
            if relation is not None and "license" in (relation[1] or relation[2] or "").lower().split():
                try:
                    return canonicalize(target, url)
                except ValueError:
                    continue
    return None
