"""What a page says about itself: title, language, canonical URL, licence, robots directives, base URL."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from stages.extract.tree import Tree
from stages.text.normal_form import normalize
from stages.web.consent.tdmrep import POLICY, RESERVATION
from stages.web.robots_tag import words
from stages.web.urls import canonicalize

_LANGUAGE = re.compile(r"[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*")
# What tells a tag for one robot, which may have any name, from other tags: a directive that keeps something back.
_REFUSING = frozenset({"noindex", "none", "noai", "noml", "noimageai", "noimageindex", "unavailable_after"})
_DIRECTIVES = _REFUSING | {
    *("all", "index", "follow", "nofollow", "noarchive", "nocache", "nosnippet", "notranslate", "noodp", "noydir"),
    *("indexifembedded", "nositelinkssearchbox", "max-snippet", "max-image-preview", "max-video-preview"),
}
_ROBOT = re.compile("[a-z0-9._-]{1,64}")
_MAX_ROBOTS = 1000  # characters kept


@dataclass(frozen=True, slots=True)
class Head:
    """Facts of the page as a whole; each None where the page is silent or its value is unusable."""

    base_url: str  # relative URLs resolve against it
    title: str | None
    language: str | None
    canonical_url: str | None
    license: str | None
    meta_robots: str | None
    meta_tdm: str | None


def read_head(tree: Tree, url: str, encoding: str) -> Head:
    """The head of a page at `url` (its final URL, absolute), read with the codec `encoding`."""
    base_url = url
    for attributes in _elements(tree, "base"):
        href = attributes.get("href")
        if href is not None:  # HTML standard: the first base element with a href counts, valid or not
            base_url = _absolute(href, url, encoding) or url
            break
    canonical = license_url = None
    for attributes in _elements(tree, "link"):
        relations = _tokens(attributes.get("rel"))
        if canonical is None and "canonical" in relations:
            canonical = _absolute(attributes.get("href"), base_url, encoding)
        if license_url is None and "license" in relations:
            license_url = _absolute(attributes.get("href"), base_url, encoding)
    if license_url is None:
        license_url = _license_link(tree, base_url, encoding)
    return Head(
        base_url=base_url,
        title=normalize(tree.title) or None,
        language=_language(tree),
        canonical_url=canonical,
        license=license_url,
        meta_robots=_meta_robots(tree),
        meta_tdm=_meta_tdm(tree),
    )


def _meta_robots(tree: Tree) -> str | None:
    """Content of the robots meta tags; those for one robot only as "name: content", all joined by "; "."""
    parts = []
    for attributes in _elements(tree, "meta"):
        name = (attributes.get("name") or "").strip().lower()
        content = normalize(attributes.get("content") or "").replace(";", ",").replace(": ", ":")
        if name == "robots" and content:
            parts.append(content)
        elif _ROBOT.fullmatch(name) and len(content) <= _MAX_ROBOTS and _is_for_robots(content):
            parts.append(f"{name}: {content}")
    return "; ".join(parts)[:_MAX_ROBOTS] or None


def _is_for_robots(content: str) -> bool:
    """Whether a tag's content is directives: between commas, or blanks where all of them are some."""
    said = words(content)
    apart = {part.strip().lower() for part in content.split(",")}
    return not _REFUSING.isdisjoint(apart) or (not _REFUSING.isdisjoint(said) and _DIRECTIVES.issuperset(said))


def _meta_tdm(tree: Tree) -> str | None:
    """Content of the tag tdm-reservation, and of tdm-policy behind a blank (TDMRep)."""
    found: dict[str, str] = {}
    for attributes in _elements(tree, "meta"):
        name = (attributes.get("name") or "").strip().lower()
        if name in (RESERVATION, POLICY):
            found.setdefault(name, normalize(attributes.get("content") or "").strip())
    if not found.get(RESERVATION):
        return None
    return f"{found[RESERVATION]} {found.get(POLICY, '')}".strip()[:_MAX_ROBOTS]


def _language(tree: Tree) -> str | None:
    root = tree.attributes[0] if tree.attributes else {}
    candidates = [root.get("lang"), root.get("xml:lang")]
    for attributes in _elements(tree, "meta"):
        if (attributes.get("http-equiv") or "").lower() == "content-language":
            candidates.append((attributes.get("content") or "").partition(",")[0])
    for candidate in candidates:
        tag = (candidate or "").strip().replace("_", "-")
        if _LANGUAGE.fullmatch(tag):
            return tag
    return None


def _license_link(tree: Tree, base_url: str, encoding: str) -> str | None:
    for tag, attributes in zip(tree.tags, tree.attributes, strict=True):
        if tag in ("a", "area") and "license" in _tokens(attributes.get("rel")):
            found = _absolute(attributes.get("href"), base_url, encoding)
            if found is not None:
                return found
    return None


def _elements(tree: Tree, tag: str) -> Iterator[dict[str, str | None]]:
    return (tree.attributes[index] for index in tree.head if tree.tags[index] == tag)


def _tokens(value: str | None) -> list[str]:
    return (value or "").lower().split()


def _absolute(href: str | None, base_url: str, encoding: str) -> str | None:
    if not href or not href.strip():
        return None
    try:
        return canonicalize(href, base_url, encoding=encoding)
    except ValueError:
        return None
