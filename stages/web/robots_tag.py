"""X-Robots-Tag: what a response says about its own use, read from the headers before the body is."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

_AGENT = re.compile(r"\*|[a-z0-9._-]+(/[^ ]*)?")  # dates and other values that hold a colon have blanks
# Directives that carry a value after a colon; any other word before a colon names a user agent.
_VALUED = frozenset({"unavailable_after", "max-snippet", "max-image-preview", "max-video-preview", "notranslate"})


def directives(header_lines: Iterable[str], product: str) -> frozenset[str]:
    """Directives, lower case, that address everyone or the given product token.

    `header_lines`: the X-Robots-Tag lines of one response. A line may start with a user agent ("otherbot:
    noindex, nofollow"), which then holds to the end of the line or the next user agent in it.
    Source: Google's robots meta tag specification, the only written one.
    """
    found = set()
    for line in header_lines:
        agent = "*"
        for part in line.split(","):
            name, colon, value = part.strip().lower().partition(":")
            name = name.strip()
            if colon and name not in _VALUED and _AGENT.fullmatch(name):
                agent, name = name.partition("/")[0], value.strip()
            if name and agent in ("*", product):
                found.add(name)
    return frozenset(found)


def refusal(header_lines: Iterable[str], product: str, refused: Collection[str]) -> str | None:
    """The first refused directive, in alphabetical order, that holds for us, or null."""
    return min(directives(header_lines, product) & {name.lower() for name in refused}, default=None)
