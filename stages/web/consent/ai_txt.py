"""ai.txt, as Spawning proposed it: a robots.txt about training, whose patterns are mostly endings of file names.

"User-Agent: *", "Disallow: *.jpg", "Allow: *.txt", "Disallow: /". What its generator writes lists the endings of each
kind of media; an address need not have one. So a page without an ending that says what it is is judged as .html, a
picture as each of the usual endings, and an ending compares without case. Where one of these is disallowed, it all is.
"""

from __future__ import annotations

import re
from typing import Literal
from urllib.parse import urlsplit

from stages.web.consent.patterns import path_of
from stages.web.consent.robots_txt import RobotsTxt, Rule

PATH = "/ai.txt"
_ENDING = re.compile(r"\.([a-z0-9]{1,5})$")
# Of the endings that Spawning's generator lists, those of text and of pictures.
_PAGES = frozenset({"html", "htm", "xhtml", "txt", "pdf", "doc", "docx", "odt", "rtf", "tex"})
_PICTURES = frozenset({"bmp", "gif", "ico", "jpeg", "jpg", "png", "svg", "tif", "tiff", "webp"})
_USUAL_PICTURES = ("jpg", "jpeg", "png", "gif", "webp")


def deciding(file: RobotsTxt, url: str, kind: Literal["page", "image"], product: str) -> Rule | None:
    """The rule that decides about a canonical URL: the one that disallows it, else one that allows it, else None."""
    group = file.group(product)
    rules = [group.deciding(path) for path in _paths(url, kind)]
    known = [rule for rule in rules if rule is not None]
    return next((rule for rule in known if not rule.allows), known[0] if known else None)


def _paths(url: str, kind: Literal["page", "image"]) -> list[bytes]:
    """The paths that a URL is judged as."""
    path = urlsplit(url).path
    paths = [path_of(url)]
    ending = _ENDING.search(path.lower())
    if ending is not None and ending[1] in _PAGES | _PICTURES:
        endings: tuple[str, ...] = (ending[1],) if not path.endswith(ending[0]) else ()
        path = path[: -len(ending[0])]
    else:
        endings = ("html",) if kind == "page" else _USUAL_PICTURES
    return [*paths, *(path_of(f"http://h{path or '/'}.{each}") for each in endings)]
