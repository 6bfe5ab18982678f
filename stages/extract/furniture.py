"""What of a page is not its content, and where its content is.

Three kinds of evidence, strongest first: what the page declares (tags, ARIA roles, hidden), the words sites use
in class and id, and how much of a block is links. The last two are guesses, so a guess that would take a large
part of the page's own text is not believed.
"""

from __future__ import annotations

import re
from functools import lru_cache

from stages.extract import vocabulary
from stages.extract.tree import Tree

_HIDDEN_STYLE = re.compile(r"(?:^|;)\s*(?:display\s*:\s*none|visibility\s*:\s*hidden)", re.IGNORECASE)
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")

# A block that only its name or its links speak against keeps its place when it holds this share of the
# page's text outside links: "content-sidebar-wrap" wraps the content.
_TOO_LARGE = 0.35
_MOST = 0.5  # the same for what tags and roles say
_NEARLY_ALL = 0.9  # the same for readers' comments: above it they are what the page is for
_LINK_SHARE = 0.8  # of a block's characters, above which it is a list of links
_LINK_LENGTH = 60  # mean characters of a link's text, below which a list of links is navigation
_MIN_LINKS = 3
_NAMES = 1000  # characters of a class or id that are looked at, and remembered
_NOT_CONTENT = vocabulary.TAGS | vocabulary.SILENT | {"header"}


def is_hidden(tag: str, attributes: dict[str, str | None]) -> bool:
    """Whether the page says that nobody sees the element."""
    if not attributes or tag in ("html", "body", "main", "article"):
        return False  # anti-flicker snippets hide the whole page until a script has run
    if "hidden" in attributes and attributes["hidden"] != "until-found":
        return True
    if (attributes.get("aria-hidden") or "").lower() == "true":
        return True
    style = attributes.get("style")
    return style is not None and _HIDDEN_STYLE.search(style) is not None


def is_unread(attributes: dict[str, str | None]) -> bool:
    """Whether an element is a heading's anchor, a line number, a copy button, a hover text and the like."""
    names = attributes.get("class")
    return names is not None and _named_unread(names[:_NAMES])


@lru_cache(maxsize=1 << 14)
def _named_unread(names: str) -> bool:
    return not vocabulary.UNREAD.isdisjoint(names.lower().split())


def is_silent(tag: str) -> bool:
    """Whether an element is left out without a word: scripts, styles, embedded media, ruby annotations."""
    return tag in vocabulary.SILENT


def is_control(tag: str) -> bool:
    """Whether an element is a form control."""
    return tag in vocabulary.CONTROLS


def declares_furniture(tree: Tree, index: int, in_section: bool, page_text: int) -> bool:
    """Whether the page itself says that an element is not content; `in_section`: inside sectioning content.

    Not believed of an <aside>, a <header> or a role that holds most of the page's text outside links.
    """
    tag = tree.tags[index]
    if not _is_declared(tag, tree.attributes[index], in_section):
        return False
    own_text = tree.text_length(index) - tree.link_length(index)
    return tag in ("nav", "footer") or own_text <= _MOST * page_text


def _is_declared(tag: str, attributes: dict[str, str | None], in_section: bool) -> bool:
    if tag == "aside":
        return vocabulary.CONTENT_ASIDES.isdisjoint((attributes.get("class") or "").lower().split())
    if tag == "header":
        return not in_section
    if tag in vocabulary.TAGS and not (tag == "footer" and in_section and "class" not in attributes):
        return True
    role = attributes.get("role")
    if role is None:
        return False
    # an ARIA banner or contentinfo is of the page only when it is not inside a section
    return role.lower() in vocabulary.ROLES and not (in_section and role.lower() in ("banner", "contentinfo"))


def is_furniture(tree: Tree, index: int, page_text: int) -> bool:
    """Whether an element's names or links say that it is navigation, sharing, consent, advertising and so on.

    `page_text`: characters of the page's text outside links, against which a guess is weighed.
    """
    tag = tree.tags[index]
    if tag not in vocabulary.BLOCKS:
        return False
    attributes = tree.attributes[index]
    own_text = tree.text_length(index) - tree.link_length(index)
    if own_text > _TOO_LARGE * page_text and page_text:
        return own_text <= _NEARLY_ALL * page_text and _holds_comments(attributes)
    if attributes:
        names = attributes.get("class")
        # the id of a section is its heading as a slug: the author's words, not the site's
        identifier = None if tag == "section" or names in ("section", "level2", "level3") else attributes.get("id")
        if _named_furniture((names or "")[:_NAMES], tag) or _named_furniture((identifier or "")[:_NAMES], tag):
            return True
        if _holds_comments(attributes):
            return True
    return tag in ("ul", "ol", "dl", "div", "section", "p", "table") and _is_link_list(tree, index)


def _holds_comments(attributes: dict[str, str | None]) -> bool:
    names = f"{attributes.get('class') or ''} {attributes.get('id') or ''}".lower().split()
    return not vocabulary.COMMENTS.isdisjoint(names)


def _is_link_list(tree: Tree, index: int) -> bool:
    num_links = tree.num_links(index)
    if num_links < _MIN_LINKS or tree.num_images(index):
        return False
    linked = tree.link_length(index)
    return linked >= _LINK_SHARE * tree.text_length(index) and linked <= _LINK_LENGTH * num_links


@lru_cache(maxsize=1 << 14)
def _named_furniture(names: str, tag: str) -> bool:
    if not names:
        return False
    tokens = [token.lower() for token in _CAMEL.sub("-", names).split()]
    if "topic" in tokens and "contents" in tokens:
        return True
    if tag in ("span", "a", "td", "p", "li"):  # inline names describe words ("menu selection"), not page parts
        return any(token in vocabulary.EXACT and "-" in token for token in tokens) or "sr-only" in tokens
    return any(token in vocabulary.EXACT or vocabulary.PART.search(token) for token in tokens)


def main_candidates(tree: Tree) -> list[tuple[int, int]]:
    """(rank, index) of elements that the page marks as its main content; rank 0 is the most explicit."""
    found: list[tuple[int, int]] = []
    for index, (tag, attributes) in enumerate(zip(tree.tags, tree.attributes, strict=True)):
        if tag not in ("main", "article", "div", "section", "td"):
            continue
        if tag == "main" or (attributes.get("role") or "").lower() == "main":
            found.append((0, index))
            continue
        if (attributes.get("itemprop") or "").lower() == "articlebody":
            found.append((1, index))
            continue
        classes = (attributes.get("class") or "").lower().split()
        named = not vocabulary.MAIN_CLASSES.isdisjoint(classes) or (attributes.get("id") or "").lower() in (
            vocabulary.MAIN_IDS
        )
        if named or (tag == "div" and "body" in classes):
            found.append((2, index))
        elif tag == "article":
            found.append((3, index))
    return found


def find_main(tree: Tree) -> int | None:
    """Index of the element that holds the page's main content, or None when no mark can be trusted.

    A mark is trusted when it holds much of the page's text outside links and furniture; of several the most
    explicit, then the largest, wins. Lists of articles (a blog's front page) have no single main element.
    """
    candidates = main_candidates(tree)
    if not candidates:
        return None
    sums = _content_sums(tree)
    best: tuple[int, int, int] | None = None
    for rank, index in candidates:
        length = sums[tree.ends[index]] - sums[index]
        share = 0.3 if rank == 0 else 0.5
        if length and length >= share * sums[-1] and (best is None or (rank, -length) < best[:2]):
            best = (rank, -length, index)
    return None if best is None else best[2]


def _content_sums(tree: Tree) -> list[int]:
    """Characters of text outside links, declared furniture and hidden elements before each index."""
    sums = [0]
    total = skip_until = 0
    own = [
        b - a - d + c
        for a, b, c, d in zip(tree.text_sums, tree.text_sums[1:], tree.link_sums, tree.link_sums[1:], strict=False)
    ]
    for index, tag in enumerate(tree.tags):
        if index >= skip_until:
            if not tag:
                total += own[index]
            elif tag in _NOT_CONTENT or (
                (attributes := tree.attributes[index])
                and (attributes.get("role") in vocabulary.ROLES or is_hidden(tag, attributes))
            ):
                skip_until = tree.ends[index]
        sums.append(total)
    return sums
