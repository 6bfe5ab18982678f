"""The URL that documents share when they are the same page."""

from __future__ import annotations

from urllib.parse import urlsplit


def url_key(url: str, canonical_url: str | None) -> str:
    """The URL a document is grouped by: its rel=canonical, unless that is a site's common mistake.

    A canonical URL on another host, or the site's front page given by every page of the site, is not believed.
    """
    if not canonical_url:
        return url
    page, canonical = urlsplit(url), urlsplit(canonical_url)
    if canonical.netloc != page.netloc:
        return url
    if canonical.path in ("", "/") and not canonical.query and page.path not in ("", "/"):
        return url
    return canonical_url
