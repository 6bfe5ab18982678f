"""Sites: registered domains, which politeness is owed to and by which a crawl is shared out."""

from __future__ import annotations

from functools import cache, lru_cache

from publicsuffixlist import PublicSuffixList

from schemas.keys import digest
from stages.web.urls import host_of

_SUFFIXES = PublicSuffixList()


def is_public_suffix(host: str) -> bool:
    """Whether a host is a suffix of a registry ("com", "co.uk"); a hoster's ("github.io") is its own, and is none."""
    return bool(_registries().is_public(host))


@cache
def _registries() -> PublicSuffixList:
    return PublicSuffixList(accept_unknown=False, only_icann=True)


@lru_cache(maxsize=65_536)
def site_of(host: str) -> str:
    """The registered domain of a canonical host ("en.example.co.uk:8080" -> "example.co.uk").

    By the Public Suffix List with its private part, so that the users of a hoster are sites of their own. Addresses,
    names of one label and suffixes themselves have no registered domain: they stand for themselves, port included.
    """
    name = host.partition(":")[0]
    if host.startswith("[") or "." not in name or name.rpartition(".")[2].isdigit():
        return host
    return _SUFFIXES.privatesuffix(name) or host


def site_key(url: str) -> str:
    """Leading 32 bits, as hex, under which everything of a canonical URL's site is kept together."""
    return digest(site_of(host_of(url)))[:8]
