"""robots.txt (RFC 9309): what an origin's answer to the question means for us."""

from __future__ import annotations

from dataclasses import dataclass

from stages.web.consent.robots_txt import RobotsTxt, Rule
from stages.web.fetched import Failure

MAX_BYTES = 500 * 1024  # RFC 9309, 2.5: as much must be read at least; what lies beyond is not
MAX_REDIRECTS = 5  # RFC 9309, 2.3.1.2
_DAY = 86_400.0  # RFC 9309, 2.4: a cached copy is used for 24 hours at most
_SOON = 600.0  # an answer that may pass is asked for again after ten minutes

# Failures that are the host's and not robots.txt's: the page itself would meet the same.
_OF_THE_HOST = ("dns", "private_address", "tls")


@dataclass(frozen=True)
class Rules:
    """What one origin asks of crawlers."""

    source: str
    """The robots.txt URL and the status that decided, e.g. "http://h/robots.txt 404"."""
    groups: RobotsTxt | None
    """The parsed file, or null when the status alone decides."""
    reachable: bool
    """False: nobody could say, so nothing is allowed."""
    lifetime: float
    """Seconds for which the rules may be used again."""
    host_failure: Failure | None = None
    """Set when the host cannot be talked to at all."""

    def allow(self, url: str, product: str) -> bool:
        """Whether a canonical URL may be fetched by the user agent with this product token."""
        rule = self.deciding(url, product)
        return self.reachable if rule is None else rule.allows

    def deciding(self, url: str, product: str) -> Rule | None:
        """The line that decides about a URL; None where no line does, and all that is reachable is allowed."""
        return None if self.groups is None else self.groups.deciding(url, product)

    def crawl_delay(self, product: str) -> float:
        """Seconds between requests that the origin asks for, 0 when it asks for none."""
        return 0.0 if self.groups is None else self.groups.group(product).crawl_delay


def robots_url(origin: str) -> str:
    """Where an origin keeps its rules."""
    return f"{origin}/robots.txt"


def rules_from_answer(origin: str, http_status: int, body: bytes) -> Rules:
    """Rules from the last answer of an origin (after redirects); `body` may be cut at MAX_BYTES, and is read to there.

    2xx: the file. 3xx without a usable target and 4xx: everything is allowed. 5xx, and 429, which is no
    statement about the file (as Google reads it): nothing is allowed for now.
    """
    source = f"{robots_url(origin)} {http_status}"
    if 200 <= http_status < 300:
        if len(body) >= MAX_BYTES:
            # the rest of a line is another rule: "Disallow: /" of "Disallow: /private/"
            body = body[: max(body.rfind(b"\n", 0, MAX_BYTES), body.rfind(b"\r", 0, MAX_BYTES)) + 1]
        return Rules(source, RobotsTxt(body), reachable=True, lifetime=_DAY)
    if http_status >= 500 or http_status == 429:
        return Rules(source, None, reachable=False, lifetime=_SOON)
    return Rules(source, None, reachable=True, lifetime=_DAY)


def rules_from_failure(origin: str, failure: Failure) -> Rules:
    """Rules when no answer came: nothing is allowed for now."""
    of_the_host = failure if failure.reason in _OF_THE_HOST else None
    source = f"{robots_url(origin)} {failure.reason}"
    return Rules(source, None, reachable=False, lifetime=_SOON, host_failure=of_the_host)
