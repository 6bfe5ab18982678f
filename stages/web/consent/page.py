"""What a page's meta tags decide: whether its text may be used, and whether its pictures may."""

from __future__ import annotations

from dataclasses import dataclass

from stages.row_function import Settings
from stages.web.consent.tdmrep import is_reserved
from stages.web.robots_tag import refusal
from stages.web.settings import CrawlSettings


class PageConsent(Settings):
    """Those of the `crawl` settings by which meta tags are judged."""

    product: str
    """The product token that tags are addressed to."""
    page_directives: tuple[str, ...]
    """As crawl.page_directives."""
    page_image_directives: tuple[str, ...]
    """As crawl.page_image_directives."""
    obey_tdmrep: bool
    """As crawl.obey_tdmrep."""

    @staticmethod
    def of(crawl: CrawlSettings) -> PageConsent:
        """Out of a spec's section."""
        return PageConsent(
            product=crawl.product,
            page_directives=crawl.page_directives,
            page_image_directives=crawl.page_image_directives,
            obey_tdmrep=crawl.obey_tdmrep,
        )


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why something is not used."""

    rule: str
    """Of the decision: "meta_robots" | "x_robots_tag" | "tdmrep"."""
    said: str
    """What was said, in a few words: "noai"."""


def page_refusal(meta_robots: str | None, meta_tdm: str | None, settings: PageConsent) -> Refusal | None:
    """What forbids the use of a page, out of its `meta_robots` and `meta_tdm` (schemas.document); None for nothing."""
    if (said := refusal(meta_lines(meta_robots), settings.product, settings.page_directives)) is not None:
        return Refusal("meta_robots", said)
    if settings.obey_tdmrep and meta_tdm is not None and is_reserved(meta_tdm.partition(" ")[0]):
        return Refusal("tdmrep", f"meta tdm-reservation: {meta_tdm}")
    return None


def pictures_refusal(meta_robots: str | None, x_robots_tag: str | None, settings: PageConsent) -> Refusal | None:
    """What forbids to take a page's pictures, out of its `meta_robots` and the X-Robots-Tag of its consent record."""
    refused = settings.page_image_directives
    if (said := refusal(meta_lines(meta_robots), settings.product, refused)) is not None:
        return Refusal("meta_robots", said)
    lines = [] if x_robots_tag is None else x_robots_tag.split("\n")
    if (said := refusal(lines, settings.product, refused)) is not None:
        return Refusal("x_robots_tag", said)
    return None


def meta_lines(meta_robots: str | None) -> list[str]:
    """Tags as lines in the form of X-Robots-Tag: "content", "name: content"."""
    return [] if meta_robots is None else meta_robots.split("; ")
