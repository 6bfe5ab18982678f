"""What is never asked for: hosts and URLs, by name or by the hash under which they are to be remembered."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from urllib.parse import urlsplit

HASHED = "sha256:"


def hashed(name: str) -> str:
    """sha256 hex of a canonical URL or of a host."""
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()


def hosts(url: str) -> list[str]:
    """The names by which the host of a canonical URL is meant: with its port, by itself, and each domain above it."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    labels = host.split(".")
    return [parts.netloc, *(".".join(labels[index:]) for index in range(len(labels)))] if host else []


def is_excluded(url: str, excluded: Collection[str]) -> bool:
    """Whether a canonical URL is one of those excluded, or lies on a host that is, or below it."""
    if not excluded:
        return False
    names = [url, *hosts(url)]
    return not set(excluded).isdisjoint([*names, *(HASHED + hashed(each) for each in names)])
