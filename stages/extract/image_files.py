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
from stages.extract.vocabulary import word_set
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
# Attributes that name another file than the picture.
_NOT_LAZY = frozenset(("src", "srcset", "alt", "title", "style", "class", "id", "longdesc", "usemap", "name"))
_NOT_PICTURE = re.compile(
    r"placeholder|fallback|error|loading|lqip|blur|preview|thumb|low|default|icon|avatar|^on|alt|title"
)
_FILE_ADDRESS = re.compile(r"\S.*\.(?:jpe?g|png|webp|gif|avif)(?:[?#].*)?", re.IGNORECASE)
_ENDING = re.compile(r"\.(?:jpe?g|png|webp|gif|avif|svg)(?:[?#]\S*)?\Z", re.IGNORECASE)
# Names of files that stand in until a script has loaded the real one: taken only when nothing else is offered. Words
# that name nothing else do so in any name; of the others ("gray-wolf.jpg") the name must hold no word besides.
_FILE = re.compile(r"([^/?#]*)\.(?:gif|png|svg|jpe?g|webp)\Z", re.IGNORECASE)
_STAND_INS = frozenset(("placeholder", "spacer", "lazyload", "lazyloading", "preloader", "1x1"))
_STANDING_IN = _STAND_INS | word_set("blank pixel transparent loading loader lazy grey gray empty clear trans")
_SAYING_NOTHING = word_set(
    "image images img photo picture pic bg background gif png svg jpg ajax spinner dot white black small large thumb",
    "thumbnail square portrait landscape wide px base64 default shim ratio",
)
_NAME_PARTS = re.compile(r"[._\s-]+|(?<=[a-z])(?=[A-Z])")
_NUMBER = re.compile(r"\d+(?:x\d*)?(?:px)?|(?=[a-f]*\d)[0-9a-f]{6,}")  # a size, or a hash of the contents
# What an address says of the size of its file, and nothing of the picture.
_SIZE = re.compile(
    r"^\d+px-|[-_.@](?:\d{2,4}x\d{0,4}|\d{2,4}(?:px|w)?|\dx|scaled|thumb|small|medium|large)$", re.IGNORECASE
)
_WIDTH = re.compile(
    r"(?:[?&,/_](?:w|width|imwidth|resize|max)[=_/:-]?|/|[-_])(\d{2,4})(?=[/&,.?x_-]|w\b|px|$)", re.IGNORECASE
)
_DESCRIPTOR_PAREN = re.compile(r"\([^)]*\)?")
_PIXELS = re.compile(r"\+?(\d{1,6})(?:\.\d*)?\s*(?:px)?", re.IGNORECASE)
_STYLE_SIZE = re.compile(r"(?:^|;)\s*(width|height)\s*:\s*([^;!]*)", re.IGNORECASE)
_STYLE_PIXELS = re.compile(r"(\d{1,6})(?:\.\d*)?\s*px\s*|\+?0+(?:\.0*)?\s*", re.IGNORECASE)
_SRCSET = re.compile(r"\s\+?\d+(?:\.\d+)?[wx]\s*(?:,|\Z)")
_DESCRIPTOR = re.compile(r"\(|\+?\d[\d.e+-]*[wxh]\Z")
_MAX_CANDIDATES = 64
_MAX_NAME = 200  # characters of a file's name by which two are told to be the same
_MAX_UNLISTED = 1 << 14  # characters


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
            of_kind += (_srcset_of(attributes) or _unlisted(attributes))[:room]


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
        if descriptors and not _ENDING.search(url):
            url = _with_blanks(url, descriptors)
        if url:
            candidates.append(Candidate(url, width, density))
    return candidates


def _with_blanks(url: str, descriptors: str) -> str:
    """The URL with what stands before the descriptors, where the name of a file holds blanks that were not escaped."""
    pieces = [url]
    for piece in descriptors.split():
        if _DESCRIPTOR.match(piece):
            break
        pieces.append(piece)
    joined = "%20".join(pieces)
    return joined if len(pieces) > 1 and _ENDING.search(joined) else url


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
    """CSS pixels (width, height) an image is shown at, from style or attributes; None where not given in pixels.

    The style counts for more: `width: 100%` makes a width attribute void, `height: auto` makes the height follow.
    """
    given: list[int | None] = []
    for name in ("width", "height"):
        match = _PIXELS.fullmatch((attributes.get(name) or "").strip())
        given.append(int(match.group(1)) if match else None)
    style = {name.lower(): value.strip() for name, value in _STYLE_SIZE.findall(attributes.get("style") or "")}
    if not style:
        return given[0], given[1]
    shown = list(given)
    for side, name in enumerate(("width", "height")):
        if name in style:
            pixels = _STYLE_PIXELS.fullmatch(style[name])
            shown[side] = int(pixels.group(1) or 0) if pixels else None
    for side, name in enumerate(("width", "height")):
        own, other, shown_other = given[side], given[1 - side], shown[1 - side]
        if style.get(name, "").lower() == "auto" and own and other and shown_other:
            shown[side] = round(own * shown_other / other)
    return shown[0], shown[1]


def is_tracking_pixel(attributes: dict[str, str | None], width: int | None, height: int | None) -> bool:
    """Whether an image is shown so small that nobody sees it, and is not sized by other means."""
    if width is None or height is None or max(width, height) > 2:
        return False
    # a picture of no size is one that a style sheet sizes (next/image) where it has what no counter needs
    named = width == height == 0 and attributes.get("alt") and attributes.get("class")
    return not (named or attributes.get("sizes") or attributes.get("srcset"))


def is_counter(attributes: dict[str, str | None], url: str) -> bool:
    """Whether an image in <noscript> that stands for no other counts visits: a query, no file, nothing said of it."""
    said = any(attributes.get(name) for name in ("alt", "title", "width", "height", "srcset"))
    return not said and "?" in url and not _ENDING.search(url.partition("?")[0])


def picture_name(url: str) -> str | None:
    """What the file of an image is called, less its ending and its size; None for names that say nothing."""
    if url[:5].lower() == "data:":
        return None
    name = re.split("[?#]", url, maxsplit=1)[0].rpartition("/")[2].lower()
    name = (name.rpartition(".")[0] or name)[:_MAX_NAME]
    while (shorter := _SIZE.sub("", name)) != name:
        name = shorter
    return name if len(name) > 2 and not name.isdecimal() else None


def stated_width(url: str) -> int | None:
    """The width in pixels that an image's address seems to ask for ("/max/60/", "?w=640", "-300x200.jpg")."""
    widths = [int(width) for width in _WIDTH.findall(url[:2048])] if url[:5].lower() != "data:" else []
    return max(widths, default=None)


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
            lazy += _by_preference(_files(value), width, settings.target_width)
    src = (attributes.get("src") or "").strip()
    # sizes are comparable across <picture> and <img>: the largest that fits may be in either
    ordered = _by_preference([*sources.preferred, *_srcset_of(attributes)], width, settings.target_width)
    ordered += lazy
    ordered += [Candidate(src)] if src else []
    ordered += _by_preference(sources.others, width, settings.target_width)
    if all(map(_is_placeholder, ordered)):
        ordered += _by_preference(_unlisted(attributes), width, settings.target_width)
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


def _files(value: str) -> list[Candidate]:
    """The files of a lazy attribute, which holds a srcset or one address, in which blanks may stand."""
    return parse_srcset(value) if value[:5].lower() != "data:" and _SRCSET.search(value) else [Candidate(value)]


def _unlisted(attributes: dict[str, str | None]) -> list[Candidate]:
    """What looks like a picture's file in an attribute that no list knows."""
    found: list[Candidate] = []
    for name, value in attributes.items():
        value = (value or "").strip()
        known = name in _NOT_LAZY or name in _LAZY_SOURCES or _NOT_PICTURE.search(name)
        if known or len(value) > _MAX_UNLISTED or value[:1] in ("", "{", "["):
            continue
        found += [each for each in _files(value) if _FILE_ADDRESS.fullmatch(each.url)]
    return found[:_MAX_CANDIDATES]


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
    if name is None:
        return False
    parts = [part.lower() for part in _NAME_PARTS.split(name[1]) if part]
    if not _STAND_INS.isdisjoint(parts):
        return True
    words = [word for part in parts if not _NUMBER.fullmatch(part) and (word := part.rstrip("0123456789"))]
    return not _STANDING_IN.isdisjoint(words) and _STANDING_IN.issuperset(set(words) - _SAYING_NOTHING)


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
