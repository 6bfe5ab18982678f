"""The spec's `crawl` section: who we say we are, how politely we ask, where we may go and when we give up."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, field_validator, model_validator

from stages.row_function import Settings


class CrawlSettings(Settings):
    """How pages and images are fetched over HTTP and which links of a page are followed."""

    user_agent: str = Field(default="interloom/0.1", pattern=r"^[A-Za-z_-]+(/[\x21-\x7e]+)?( [\x20-\x7e]+)?$")
    """The User-Agent header. Its first word up to the slash is the product token that robots.txt groups and
    X-Robots-Tag lines are matched with (RFC 9309, 2.2.1). Append an address where you can be reached."""
    concurrency: int = Field(default=64, ge=1, le=4096)
    """Requests in flight at a time in one worker, over all hosts."""
    per_host_concurrency: int = Field(default=2, ge=1, le=256)
    """Requests in flight at a time to one host."""
    per_host_delay: float = Field(default=1.0, ge=0, le=3600)
    """Seconds between the starts of two requests to one host; a longer crawl-delay of its robots.txt wins."""
    max_crawl_delay: float = Field(default=30.0, ge=0, le=3600)
    """Seconds a crawl-delay of robots.txt is honoured up to; scrapers' traps ask for days."""
    connect_timeout: float = Field(default=10.0, gt=0, le=600)
    """Seconds for name resolution, connection and TLS handshake."""
    total_timeout: float = Field(default=60.0, gt=0, le=3600)
    """Seconds on the network for one item, all its redirects and attempts together; waiting for one's turn
    does not count."""
    max_page_bytes: int = Field(default=5_000_000, ge=1)
    """Decoded bytes of a page above which it is refused. Common Crawl keeps 5 MiB since 2025."""
    max_redirects: int = Field(default=10, ge=0, le=50)
    """Redirects followed for one item; RFC 9110 leaves the number open, browsers stop at 20."""
    retries: int = Field(default=2, ge=0, le=20)
    """Further attempts after a failure that may pass."""
    retry_backoff: float = Field(default=1.0, ge=0, le=600)
    """Seconds before the first further attempt, doubled for each one after it."""
    max_retry_wait: float = Field(default=60.0, ge=0, le=3600)
    """Seconds a backoff or a server's Retry-After is waited for at most."""
    retryable_statuses: tuple[int, ...] = Field(default=(408, 425, 429, 500, 502, 503, 504), strict=False)
    """HTTP statuses asked again within a run. Other 5xx rows are marked retryable, for a later run."""
    obey_robots: bool = True
    """Ask for robots.txt and keep to it (RFC 9309). Turn it off for sites of your own only."""
    page_directives: tuple[str, ...] = Field(default=("noindex", "none", "noai"), strict=False)
    """X-Robots-Tag directives that refuse a page."""
    image_directives: tuple[str, ...] = Field(
        default=("noindex", "none", "noai", "noimageindex", "noimageai"), strict=False
    )
    """X-Robots-Tag directives that refuse an image (img2dataset's list, and `none`, which implies noindex)."""
    allow_private_networks: bool = False
    """Connect to private, loopback and link-local addresses too: for intranets, demos and tests."""
    max_pages: int = Field(default=10_000, ge=1)
    """Pages asked for in one crawl: a prefix of the breadth-first order, each level sorted."""
    max_depth: int | None = Field(default=None, ge=0)
    """Links followed from a seed at most; 0 fetches the seeds alone, null follows without end."""
    scope: Literal["host", "prefix", "regex", "any"] = "host"
    """Which links are followed: those on a seed's host (and port), below a seed's folder, those that
    `scope_regex` finds, or all. http and https are told apart by none of them."""
    scope_regex: str | None = None
    """For `scope: regex`: searched in the canonical URL."""
    drop_parameters: tuple[str, ...] = Field(
        default=("utm_*", "fbclid", "gclid", "dclid", "msclkid", "yclid", "mc_cid", "mc_eid", "_ga"), strict=False
    )
    """Query parameters removed from links before they are followed: they track the reader and name no other
    page. A trailing * matches any ending."""

    @field_validator("scope_regex")
    @classmethod
    def _compiles(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                re.compile(value)
            except re.error as error:
                raise ValueError(f"scope_regex: {error}") from None
        return value

    @model_validator(mode="after")
    def _regex_given(self) -> CrawlSettings:
        if (self.scope == "regex") != (self.scope_regex is not None):
            raise ValueError("scope_regex goes with scope: regex, and scope: regex needs it")
        return self

    @property
    def product(self) -> str:
        """The product token of the user agent, lower case: "interloom"."""
        return self.user_agent.partition("/")[0].partition(" ")[0].lower()
