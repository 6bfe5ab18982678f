"""The spec's `crawl` section: who we say we are, how politely we ask, where we may go and when we give up."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from stages.row_function import Settings

# Archives, programs and disks, documents, pictures, sound and films, fonts, parts of pages, lists and sums.
_FILES = """
    7z br bz2 gz lz4 lzma rar tar tbz tgz txz xz zip zst
    apk bin deb dmg exe img iso jar msi pkg rpm whl
    djvu doc docx eps epub fb2 mobi odp ods odt pdf ppt pptx ps rtf xls xlsx
    avif bmp gif heic ico jpeg jpg jxl png psd svg svgz tif tiff webp xcf
    aac avi flac flv m4a m4v mid mkv mov mp3 mp4 mpeg mpg oga ogg ogv opus wav webm wma wmv
    eot otf ttf woff woff2
    atom css js json mjs rss swf wasm
    asc csv md5 sha1 sha256 sha512 sig torrent txt
"""
_TRACKING = ("utm_*", "fbclid", "gclid", "dclid", "msclkid", "yclid", "mc_cid", "mc_eid", "_ga")
_SESSIONS = ("phpsessid", "jsessionid", "aspsessionid*", "cfid", "cftoken")
# A URL, a host that may have a port, or the hash of either.
Excluded = Annotated[
    str, Field(pattern=r"^(https?://\S+|sha256:[0-9a-f]{64}|[a-z0-9_.-]+(:\d+)?|\[[0-9a-f:]+\](:\d+)?)$")
]
HttpStatus = Annotated[int, Field(ge=100, le=599)]  # RFC 9110, 15


class CrawlSettings(Settings):
    """How pages and images are fetched over HTTP and which links of a page are followed."""

    user_agent: str = Field(default="interloom/0.1", pattern=r"^[A-Za-z_-]+(/[\x21-\x7e]+)?( [\x20-\x7e]+)?$")
    """The User-Agent header. Its first word up to the slash is the product token that robots.txt groups and
    X-Robots-Tag lines are matched with (RFC 9309, 2.2.1). Append an address where you can be reached. Default: ours,
    our name and version."""
    concurrency: int = Field(default=64, ge=1, le=4096)
    """Requests in flight at a time, over all hosts and workers. Default: ours, between Scrapy's 16 and aiohttp's 100
    connections; hosts, not this, are what politeness is about."""
    per_host: Literal["domain", "host", "address"] = "domain"
    """What politeness counts as one host: a registered domain (all of *.example.org), a host name, or the address that
    a name resolves to (a shared server is many hosts, and a CDN's address many sites). Default: ours, who registered a
    domain pays for all of it."""
    per_host_concurrency: int = Field(default=2, ge=1, le=256)
    """Requests in flight at a time to one host, as `per_host` has it. Default: ours, gentler than Scrapy's 8 of a
    domain; one slow answer does not stop a host."""
    per_host_delay: float = Field(default=1.0, ge=0, le=3600)
    """Seconds between the starts of two requests to one host, as `per_host` has it; a longer crawl-delay of its
    robots.txt wins. Default: ours, polite to a host that did not ask for anything (Scrapy's is 0)."""
    max_host_failures: int = Field(default=10, ge=0, le=100_000)
    """Requests in a row that a host name gives no answer to (no address, no connection, no answer in time), a number,
    after which its other URLs are not asked for ten minutes: rows "host_down", which --retry-failed asks again; 0 goes
    on asking. Default: ours, ten in a row are no accident."""
    max_failed: float = Field(default=0.9, ge=0, le=1)
    """Share of pages, or of pictures, that could not be fetched (errors, not what was refused) above which a build ends
    with the cause, once it has asked for 100; 1 never does. Default: ours, where nine in ten fail it is rarely the
    pages' fault."""
    max_crawl_delay: float = Field(default=30.0, ge=0, le=3600)
    """Seconds a crawl-delay of robots.txt is honoured up to. Default: ours, as scrapers' traps ask for days."""
    connect_timeout: float = Field(default=10.0, gt=0, le=600)
    """Seconds for name resolution, connection and TLS handshake. Default: img2dataset's timeout of 10, which it applies
    to every wait for a socket."""
    total_timeout: float = Field(default=60.0, gt=0, le=3600)
    """Seconds on the network for one item, all its redirects and attempts together; waiting for one's turn does not
    count. Default: ours, a page that takes longer holds up its host (Scrapy gives each attempt 180)."""
    max_page_bytes: int = Field(default=5_000_000, ge=1)
    """Decoded bytes of a page above which it is refused. Default: ours, just under the 5 MiB that Common Crawl keeps
    since 2025."""
    max_redirects: int = Field(default=10, ge=0, le=50)
    """Redirects followed for one item. Default: aiohttp's 10; RFC 9110 leaves the number open, browsers stop at 20."""
    retries: int = Field(default=2, ge=0, le=20)
    """Further attempts, a number, after a failure that may pass. Default: Scrapy's 2."""
    retry_backoff: float = Field(default=1.0, ge=0, le=600)
    """Seconds before the first further attempt, doubled for each one after it. Default: ours, short beside
    total_timeout, so that all retries fit in."""
    max_retry_wait: float = Field(default=60.0, ge=0, le=3600)
    """Seconds a backoff or a server's Retry-After is waited for at most. Default: ours, as long as total_timeout; who
    asks for more is asked again in a later run."""
    retryable_statuses: tuple[HttpStatus, ...] = Field(default=(408, 425, 429, 500, 502, 503, 504), strict=False)
    """HTTP statuses asked again within a run. Other 5xx rows are marked retryable, for a later run. Default: Scrapy's
    without Cloudflare's 522 and 524, and 425 (RFC 8470)."""
    conditional_requests: bool = True
    """Ask servers, for what an earlier snapshot has of them, whether it still holds (If-None-Match, If-Modified-Since):
    what does is not sent again. Turn it off for servers that call changed pages unchanged. Default: ours, it spares
    both sides nearly all bytes of a second crawl."""
    obey_robots: bool = True
    """Ask for robots.txt and keep to it (RFC 9309). Turn it off for sites of your own only: the files that stand beside
    it, ai.txt and tdmrep.json, are not asked for then either. Default: ours, consent comes first (Scrapy's is
    false)."""
    robots_max_age: float = Field(default=86_400.0, ge=0, le=86_400)
    """Seconds for which what an origin answered (robots.txt, and the files beside it) serves later builds too; 0 has
    every build ask. Files that could not be had are asked for again in any case. Default: ours, the 24 hours that
    RFC 9309 allows at most (2.4)."""
    obey_ai_txt: bool = True
    """Ask for /ai.txt (Spawning) beside robots.txt and keep to it. Default: ours, it says of training what robots.txt
    says of crawling."""
    obey_tdmrep: bool = True
    """Keep to reservations of text and data mining (TDMRep, a W3C Community Group report): of /.well-known/tdmrep.json,
    which is asked for beside robots.txt, of the header tdm-reservation and of the meta tag of that name. Default: ours,
    a reservation is what the law of the European Union asks to be honoured."""
    content_signals: tuple[str, ...] = Field(default=("ai-train", "train-ai", "train-genai"), strict=False)
    """Uses that a site may refuse in a group of robots.txt or in a header, and then nothing is taken: those of
    Content-Signal (contentsignals.org: search, ai-input, ai-train) and of Content-Usage (IETF, AI Preferences:
    train-ai). Default: ours, training by their names, which is what a corpus is for."""
    obey_rsl: bool = True
    """Take nothing from a site whose robots.txt names licence terms (RSL 1.0, "License: URL"): it is offered under them
    and not otherwise, and nobody here can read them. Turn it off where you have the licence. Default: ours, as RSL asks
    of a crawler that has not agreed."""
    page_directives: tuple[str, ...] = Field(
        default=("noindex", "none", "noai", "noml", "unavailable_after"), strict=False
    )
    """Directives of X-Robots-Tag and of the robots meta tag that refuse a page; unavailable_after does so once its date
    has passed. Default: ours, those of img2dataset that concern a page, `none`, which implies noindex, and noml, which
    sites write for noai."""
    image_directives: tuple[str, ...] = Field(
        default=("noindex", "none", "noai", "noml", "unavailable_after", "noimageindex", "noimageai"), strict=False
    )
    """Directives of X-Robots-Tag that refuse an image. Default: img2dataset's list, and what refuses a page."""
    page_image_directives: tuple[str, ...] = Field(default=("noimageindex", "noimageai"), strict=False)
    """Directives of X-Robots-Tag and of the robots meta tag by which a page keeps its pictures back: its text is used,
    no picture is taken from it. Default: ours, the two that say so; DeviantArt, who made noimageai, sets it on the
    pages of pictures that may not be learnt from."""
    excluded: tuple[Excluded, ...] = Field(default=(), strict=False)
    """Hosts, with all below them, and canonical URLs that are never asked for; each may be given as sha256: and its
    hash in hex. What a corpus was made to forget is excluded by the build itself. Default: ours, nobody is left out
    who has not asked for it."""
    allow_private_networks: bool = False
    """Connect to private, loopback and link-local addresses too: for intranets, demos and tests. Default: ours, a page
    must not reach into the network of its crawler."""
    max_pages: int = Field(default=10_000, ge=1)
    """Pages asked for in one crawl: a prefix of the breadth-first order, each level sorted. Default: ours, some three
    hours of one host at per_host_delay."""
    max_depth: int | None = Field(default=None, ge=0)
    """Links followed from a seed at most; 0 fetches the seeds alone, null follows without end. Default: Scrapy's,
    without end; max_pages ends it."""
    max_levels_alike: int = Field(default=200, ge=1)
    """Levels, a number, on which new pages of one shape are followed: of one host and path with any numbers and made-up
    names in it, and one set of query parameters. A calendar has a new month on every level, for ever. Default: ours,
    what is real is some way sooner at its end than a list that is paged through 200 times."""
    max_queries_of_path: int = Field(default=5000, ge=1)
    """Different queries, a number, with which one path is asked for: filters of a list can be combined without end.
    Default: ours, half of max_pages, as a whole wiki may have one path."""
    max_path_segments: int = Field(default=20, ge=1)
    """Segments of a path, a number, above which it is not followed. Default: ours, and the 20 of Heritrix's
    TooManyPathSegmentsDecideRule."""
    max_repeated_segments: int = Field(default=3, ge=1)
    """Times that one segment may stand in a path; more come from links that lead below themselves. Default: ours,
    between Heritrix's PathologicalPathDecideRule, which lets two repetitions in a row pass, and dates whose day, month
    and number are the same."""
    skip_extensions: tuple[str, ...] = Field(default=tuple(_FILES.split()), strict=False)
    """Extensions, lower case, of links that are not asked for as pages: "not_a_page" in the decisions. Seeds are asked
    for whatever they are called. Default: ours, archives, programs, office documents, pictures, sound, films, fonts,
    and what a page loads."""
    scope: Literal["host", "prefix", "regex", "any"] = "host"
    """Which links are followed: those on a seed's host (and port), below a seed's folder, those that `scope_regex`
    finds, or all. http and https are told apart by none of them. Default: ours, the site that was named and no
    other."""
    scope_regex: str | None = None
    """For `scope: regex`: searched in the canonical URL. Default: ours, null, as only that scope needs one."""
    drop_parameters: tuple[str, ...] = Field(default=_TRACKING + _SESSIONS, strict=False)
    """Query parameters removed from links before they are followed: they track the reader, or carry a session, and name
    no other page. A trailing * matches any ending. Default: ours, what analytics and advertising of the large networks
    append, and the sessions of PHP, Java, ASP and ColdFusion."""

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

    def at_any_pace(self) -> CrawlSettings:
        """The same at the default pace: how pages are asked for does not shape what they say."""
        pace = (
            *("concurrency", "per_host", "per_host_concurrency", "per_host_delay", "max_crawl_delay"),
            *("conditional_requests", "robots_max_age", "max_failed"),
        )
        return self.model_copy(update={name: type(self).model_fields[name].default for name in pace})

    @property
    def product(self) -> str:
        """The product token of the user agent, lower case: "interloom"."""
        return self.user_agent.partition("/")[0].partition(" ")[0].lower()
