"""Which file an image element means: src, srcset, <picture>, and the attributes of lazy loading scripts.

Rules: the HTML standard's "parse a srcset attribute" and "select an image source", with one difference: what
a browser picks by screen and network, we pick by size. Lazy attributes are those of the common libraries
(lazysizes, lozad, WordPress, Jetpack, a3 Lazy Load, Unveil, Echo) and OBELICS' list.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache

from stages.extract.settings import ExtractSettings
from stages.web.urls import canonicalize_image, url_id

_LAZY_SRCSETS = ("data-srcset", "data-lazy-srcset", "data-original-set", "data-src-set")
_LAZY_SOURCES = (
    "data-src",
    "data-original",
    "data-lazy-src",
    "data-lazy",
    "data-original-src",
    "data-lazyload",
    "data-lateloadsrc",
    "data-gt-lazy-src",
    "data-img-src",
    "data-image-src",
    "data-src-fg",
    "data-scroll-image",
    "data-echo",
    "data-hi-res-src",
    "data-actualsrc",
    "data-orig-file",
    "data-large-file",
    "lazy-src",
    "lazysrc",
    "src2",
)
# Names of files that stand in until a script has loaded the real one: taken only when nothing else is offered.
_FILE = re.compile(r"([^/?#]*)\.(?:gif|png|svg|jpe?g|webp)\Z", re.IGNORECASE)
_PLACEHOLDER = re.compile(
    r"(?:^|[_.-])(?:blank|spacer|placeholder|pixel|transparent|loading|loader|lazy(?:load)?|grey|gray|1x1|empty|clear)"
    r"(?:[._-]|$)",
    re.IGNORECASE,
)
_DESCRIPTOR_PAREN = re.compile(r"\([^)]*\)?")
_PIXELS = re.compile(r"\+?(\d{1,6})(?:\.\d*)?\s*(?:px)?", re.IGNORECASE)
_STYLE_PIXELS = re.compile(r"(?:^|;)\s*(width|height)\s*:\s*(\d{1,6})(?:\.\d*)?\s*px", re.IGNORECASE)
_MAX_CANDIDATES = 64


@dataclass(frozen=True, slots=True)
class Candidate:
    """One file offered: URL as written, width in pixels or density where the page says so."""

    url: str
    width: int | None = None
    density: float | None = None


@dataclass(slots=True)
class Sources:
    """What the <source> elements before an <img> offer: of preferred types, and others; the first 64 together."""

    preferred: list[Candidate] = field(default_factory=list)
    others: list[Candidate] = field(default_factory=list)

    def add(self, attributes: dict[str, str | None], settings: ExtractSettings) -> None:
        """One more <source>."""
        room = _MAX_CANDIDATES - len(self.preferred) - len(self.others)
        if room > 0:
            kind = (attributes.get("type") or "").lower().removeprefix("image/").replace("jpg", "jpeg")
            of_kind = self.preferred if not kind or kind in settings.image_types else self.others
            of_kind += _srcset_of(attributes)[:room]


@dataclass(frozen=True, slots=True)
class Choice:
    """The file chosen, or why there is none."""

    url: str | None  # absolute canonical, or a data: URI
    image_id: str | None
    rule: str | None  # reason when url is None
    detail: str  # the URL as written
    stand_in: bool  # no real file was offered: what a <noscript> beside it holds is better


def parse_srcset(value: str) -> list[Candidate]:
    """Candidates of a srcset attribute, in order (HTML standard, "parse a srcset attribute")."""
    candidates: list[Candidate] = []
    position, end = 0, len(value)
    while len(candidates) < _MAX_CANDIDATES:
        while position < end and (value[position].isspace() or value[position] == ","):
            position += 1
        if position >= end:
            break
        start = position
        while position < end and not value[position].isspace():
            position += 1
        url = value[start:position]
        descriptors = ""
        if url.endswith(","):
            url = url.rstrip(",")
        else:
            start = position
            depth = 0
            while position < end and (depth or value[position] != ","):
                depth += (value[position] == "(") - (value[position] == ")" and depth > 0)
                position += 1
            descriptors = value[start:position]
        width, density = _descriptors(descriptors)
        if url:
            candidates.append(Candidate(url, width, density))
    return candidates


def _descriptors(text: str) -> tuple[int | None, float | None]:
    for descriptor in _DESCRIPTOR_PAREN.sub(" ", text).split():
        try:
            if descriptor[-1] == "w" and descriptor[:-1].isdecimal() and len(descriptor) < 8:
                return int(descriptor[:-1]), None
            if descriptor[-1] == "x" and 0 < float(descriptor[:-1]) < 100:
                return None, float(descriptor[:-1])
        except ValueError:
            continue
    return None, None


def rendered_size(attributes: dict[str, str | None]) -> tuple[int | None, int | None]:
    """CSS pixels (width, height) an image is shown at, from style or attributes; None where not given in pixels."""
    sizes: dict[str, int | None] = {"width": None, "height": None}
    for name in sizes:
        if match := _PIXELS.fullmatch((attributes.get(name) or "").strip()):
            sizes[name] = int(match.group(1))
    for name, pixels in _STYLE_PIXELS.findall(attributes.get("style") or ""):
        sizes[name.lower()] = int(pixels)
    return sizes["width"], sizes["height"]


def choose_image(
    attributes: dict[str, str | None],
    sources: Sources,
    base_url: str,
    encoding: str,
    settings: ExtractSettings,
) -> Choice:
    """The file of an <img> with `attributes`; `sources`: of the <picture> it stands in."""
    width, _ = rendered_size(attributes)
    lazy: list[Candidate] = []
    for name in _LAZY_SOURCES:
        value = (attributes.get(name) or "").strip()
        if value and value[0] not in "{[":  # settings of a script, not a URL
            lazy += parse_srcset(value) if value[:5] != "data:" and " " in value else [Candidate(value)]
    src = (attributes.get("src") or "").strip()
    # sizes are comparable across <picture> and <img>: the largest that fits may be in either
    ordered = _by_preference([*sources.preferred, *_srcset_of(attributes)], width, settings.target_width)
    ordered += lazy
    ordered += [Candidate(src)] if src else []
    ordered += _by_preference(sources.others, width, settings.target_width)
    ordered.sort(key=_is_placeholder)  # stable: real files first

    refusal: tuple[str, str] | None = None
    for candidate in ordered:
        rule = _refuse(candidate.url, settings)
        if rule is None:
            try:
                url = _canonical(candidate.url, base_url, encoding)
            except ValueError:
                rule = "bad_url"
            else:
                if url != base_url:  # what resolves to the page itself ("http://", "?") is no image
                    return Choice(url, url_id(url), None, candidate.url, _is_placeholder(candidate))
                rule = "bad_url"
        refusal = refusal or (rule, candidate.url)
    rule, detail = refusal or (None, attributes.get("alt") or "")
    return Choice(None, None, rule, detail, True)


def _canonical(url: str, base_url: str, encoding: str) -> str:
    if len(url) <= 2048:
        return _canonical_short(url, base_url, encoding)
    return canonicalize_image(url, base_url, encoding=encoding)


@lru_cache(maxsize=1 << 10)
def _canonical_short(url: str, base_url: str, encoding: str) -> str:
    # pages repeat their icons; errors are not remembered
    return canonicalize_image(url, base_url, encoding=encoding)


def _srcset_of(attributes: dict[str, str | None]) -> list[Candidate]:
    for name in ("srcset", *_LAZY_SRCSETS):
        value = attributes.get(name)
        if value:
            candidates = parse_srcset(value)
            if any(not _is_placeholder(candidate) for candidate in candidates):
                return candidates
    return []


def _by_preference(candidates: list[Candidate], rendered_width: int | None, target: int) -> list[Candidate]:
    """Largest that fits first, then the smallest above; densities count as multiples of the rendered width."""

    def key(candidate: Candidate) -> tuple[bool, float]:
        width = candidate.width
        if width is None:
            density = candidate.density or 1.0
            if rendered_width is None:
                return False, -density
            width = round(rendered_width * density)
        return (False, -width) if width <= target else (True, width)

    return sorted(candidates, key=key)


def _is_placeholder(candidate: Candidate) -> bool:
    return candidate.url[:5].lower() == "data:" or _named_placeholder(candidate.url[:2048])


@lru_cache(maxsize=1 << 12)
def _named_placeholder(url: str) -> bool:
    path = re.split("[?#]", url, maxsplit=1)[0]
    name = _FILE.match(path, path.rfind("/") + 1)
    return name is not None and _PLACEHOLDER.search(name[1]) is not None


def _refuse(url: str, settings: ExtractSettings) -> str | None:
    """Rule that keeps a URL from being used at all, or None."""
    if url[0] == "#":
        return "bad_url"  # a fragment would resolve to the page itself
    if url[:5].lower() != "data:":
        return None
    if len(url) < settings.min_data_uri:
        return "placeholder"
    if settings.data_uris == "drop":
        return "data_uri"
    if len(url) > settings.max_data_uri:
        return "data_uri_too_long"
    return None if url[5:11].lower() == "image/" else "data_uri_not_image"
