"""What of a page is not its content, and where its content is.

Three kinds of evidence, strongest first: what the page declares (tags, ARIA roles, hidden), the words sites use
in class and id, and how much of a block is links. The last two are guesses, so a guess that would take a large
part of the page's own text is not believed.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from functools import lru_cache

from stages.extract import vocabulary
from stages.extract.image_files import rendered_size
from stages.extract.prose import Prose
from stages.extract.tree import Tree
from stages.text.normal_form import normalize

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
_TEASER_SHARE = 0.5  # of a list of headlines with pictures, where sources and dates stand beside them
_HEADLINE = 20  # characters of linked text for each of its pictures
_NAMES = 1000  # characters of a class or id that are looked at, and remembered
_LABEL = 200  # characters: what is not read is a label or a hover text, not a text
_SAID = 300  # characters by which two elements are told to say the same
_FEW = 100  # elements and texts that are looked through for a formula
_SIGNS = 2  # characters ("[]") that an element's block may have besides
_CLOSE = 4  # elements around a button among which a heading is looked for
_MIN_PICTURE = 100  # CSS pixels of either side, below which a button's image is its icon
_INLINE = vocabulary.word_set("a span small sup sub i b em button code abbr")
_SEEN = vocabulary.HEADINGS | vocabulary.word_set("figcaption caption p span em strong b i img picture figure")
_TITLES = vocabulary.HEADINGS | {"dt", "summary"}
_PICTURE = re.compile(r"\.(?:svg|png|jpe?g|gif|webp|avif)(?:[?#]|$)", re.IGNORECASE)
_LETTER = re.compile(r"[^\W\d_]")
_ACCORDIONS = frozenset(("accordion", "faq", "question", "collapsible"))
_AROUND_PORTRAIT = 4  # an image and elements around it that may say that it shows an author
_BYLINE = 200  # characters of the text beside it
_ONE_ARTICLE = 0.6  # of a main element's text that its one article with the page's heading must hold
_NOT_CONTENT = vocabulary.TAGS | vocabulary.SILENT | {"header"}


def is_hidden(tree: Tree, index: int) -> bool:
    """Whether the page says that nobody sees the element."""
    tag, attributes = tree.tags[index], tree.attributes[index]
    if not attributes or tag in ("html", "body", "main", "article"):
        return False  # anti-flicker snippets hide the whole page until a script has run
    if "hidden" in attributes and attributes["hidden"] != "until-found":
        return True
    style = attributes.get("style")
    if style is not None and _HIDDEN_STYLE.search(style) is not None:
        return True
    return (attributes.get("aria-hidden") or "").lower() == "true" and _is_unseen(tree, index)


def _is_unseen(tree: Tree, index: int) -> bool:
    """Whether an element that is hidden from assistive software is no content to those who see it either.

    WAI-ARIA 1.2 lets aria-hidden stand on what everybody sees, so that it is not read out twice (a caption that repeats
    the alt text). Believed are containers, signs and icons, what a script shows over the page, and one of two that say
    the same.
    """
    attributes = tree.attributes[index]
    if (
        tree.tags[index] not in _SEEN
        or "tabindex" in attributes
        or (attributes.get("role") or "").lower() in vocabulary.ROLES
    ):
        return True
    names = re.split("[-_ ]+", _CAMEL.sub("-", (attributes.get("class") or "")[:_NAMES]).lower())
    if not vocabulary.OVERLAYS.isdisjoint(names):
        return True
    if tree.num_images(index):
        return False
    length = tree.text_length(index)
    if not says_something(tree, index):
        return True
    text = normalize(tree.text_of(index, _SAID))
    if 2 * tree.link_length(index) > length and tree.num_links(index) >= _MIN_LINKS:
        return True
    for other in (tree.before(index), tree.after(index)):
        if other >= 0 and (_holds_formula(tree, other) or normalize(tree.text_of(other, _SAID)) == text):
            return True
    return False


def _holds_formula(tree: Tree, index: int) -> bool:
    return "math" in tree.tags[index : min(tree.ends[index], index + _FEW)]


def is_unread(tree: Tree, index: int, prose: Prose) -> bool:
    """Whether an element is a heading's anchor, a line number, a copy button, a hover text and the like.

    A name alone does not say so of pictures, of long texts, of blocks with words, or of all the words of their heading.
    """
    names = tree.attributes[index].get("class")
    if names is None or not _named_unread(names[:_NAMES]) or tree.num_images(index):
        return False
    if not says_something(tree, index):
        return True
    if tree.text_length(index) > _LABEL or prose.num_paragraphs(index):
        return False
    if not vocabulary.SHOWN_ON_DEMAND.isdisjoint(names[:_NAMES].lower().split()):
        return True
    parent = tree.parents[index]
    alone = parent >= 0 and tree.text_length(parent) <= tree.text_length(index) + _SIGNS
    return tree.tags[index] in _INLINE and not alone


def says_something(tree: Tree, index: int) -> bool:
    """Whether there is a letter in the element's text."""
    return any(_LETTER.search(text) for text in tree.texts[index : tree.ends[index]])


@lru_cache(maxsize=1 << 14)
def _named_unread(names: str) -> bool:
    return not vocabulary.UNREAD.isdisjoint(names.lower().split())


def is_silent(tree: Tree, index: int) -> bool:
    """Whether an element is no text of the page: scripts, styles, embedded media, ruby annotations."""
    tag = tree.tags[index]
    if tag == "object" and tree.num_images(index):
        # an <img> in it is the same picture for browsers that cannot show the object's
        attributes = tree.attributes[index]
        kind = (attributes.get("type") or "").lower()
        return not (kind.startswith("image/") or _PICTURE.search(attributes.get("data") or ""))
    return tag in vocabulary.SILENT


def is_control(tree: Tree, index: int, prose: Prose) -> bool:
    """Whether an element is a form control, and no more than that.

    The title of an accordion is a button or a label, in a heading or around one; others wrap paragraphs or pictures.
    """
    tag, attributes = tree.tags[index], tree.attributes[index]
    if tag not in vocabulary.CONTROLS:
        return tag == "fieldset" and prose.num_controls(index) > 0 and not prose.num_paragraphs(index)
    if tag == "output":
        return "for" in attributes
    if tag not in ("button", "label") or prose.num_controls(index) > (tag == "button"):
        return True
    if prose.num_headings(index) or prose.num_paragraphs(index) or _holds_picture(tree, index):
        return False
    if not tree.text_length(index):
        return True
    names = re.split("[-_ ]+", (attributes.get("class") or "")[:_NAMES].lower())
    return _ACCORDIONS.isdisjoint(names) and not _in_title(tree, index)


def _in_title(tree: Tree, index: int) -> bool:
    """Whether an element stands in a heading, a term or a summary."""
    for _ in range(_CLOSE):
        index = tree.parents[index]
        if index < 0:
            break
        if tree.tags[index] in _TITLES or tree.attributes[index].get("role") == "heading":
            return True
    return False


def _holds_picture(tree: Tree, index: int) -> bool:
    """Whether one of the element's images is more than an icon, as far as the page says."""
    for image in tree.images_between(index, tree.ends[index]):
        attributes = tree.attributes[image]
        if "srcset" in attributes or max(filter(None, rendered_size(attributes)), default=0) >= _MIN_PICTURE:
            return True
    return False


def is_portrait(tree: Tree, index: int) -> bool:
    """Whether an image shows who wrote the page or a comment: it is named so, or what is around it and says little is.

    A picture in a <figure> is one of the text ("The author in 1968").
    """
    around = index
    for step in range(_AROUND_PORTRAIT):
        attributes = tree.attributes[around]
        if tree.tags[around] == "figure" or tree.text_length(around) > _BYLINE:
            return False
        names = f"{attributes.get('class') or ''} {attributes.get('id') or ''}"[:_NAMES]
        if _named_portrait(names) or (step and attributes.get("rel") == "author"):
            return True
        around = tree.parents[around]
        if around < 0:
            break
    return False


@lru_cache(maxsize=1 << 14)
def _named_portrait(names: str) -> bool:
    return not vocabulary.PORTRAITS.isdisjoint(re.split("[-_ ]+", _CAMEL.sub("-", names).lower()))


def declares_furniture(tree: Tree, index: int, prose: Prose, in_section: bool, page_text: int, guesses: bool) -> bool:
    """Whether the page itself says that an element is not content; `in_section`: inside sectioning content.

    Not believed of an <aside>, a <header> or a role that holds most of the page's text outside links, nor of an <aside>
    that is a note to the text; without `guesses`, of none of them that holds a paragraph.
    """
    tag = tree.tags[index]
    if not _is_declared(tag, tree.attributes[index], in_section):
        return False
    if tag == "aside" and _is_note(tree, index, prose):
        return False
    if not guesses and tag not in ("nav", "footer") and prose.num_paragraphs(index):
        return False
    own_text = tree.text_length(index) - tree.link_length(index)
    return tag in ("nav", "footer") or own_text <= _MOST * page_text


def _is_note(tree: Tree, index: int, prose: Prose) -> bool:
    """Whether an <aside> is part of the text: by its name, or by what it holds and where it stands."""
    attributes = tree.attributes[index]
    names = (attributes.get("class") or "")[:_NAMES]
    classes = names.lower().split()
    if not vocabulary.CONTENT_ASIDES.isdisjoint(classes):
        return True
    if (attributes.get("role") or "").lower() in vocabulary.CONTENT_ROLES:
        return True
    if _named_furniture(names, "aside"):
        return False
    words = {part for name in _CAMEL.sub("-", names).lower().split() for part in re.split("[-_]+", name)}
    words |= set((attributes.get("aria-label") or "").lower().split())
    if not vocabulary.CALLOUTS.isdisjoint(words):
        return True
    return prose.speaks(index) and prose.in_text(index)


def _is_declared(tag: str, attributes: dict[str, str | None], in_section: bool) -> bool:
    if tag == "header":
        return not in_section
    if tag in vocabulary.TAGS and not (tag == "footer" and in_section and "class" not in attributes):
        return True
    role = attributes.get("role")
    if role is None:
        return False
    # an ARIA banner or contentinfo is of the page only when it is not inside a section
    return role.lower() in vocabulary.ROLES and not (in_section and role.lower() in ("banner", "contentinfo"))


def is_furniture(tree: Tree, index: int, prose: Prose, page_text: int, guesses: bool) -> bool:
    """Whether an element's names or links say that it is navigation, sharing, consent, advertising and so on.

    `page_text`: characters of the page's text outside links, against which a guess is weighed. Without `guesses`, names
    say nothing of what holds a paragraph.
    """
    tag = tree.tags[index]
    if tag not in vocabulary.BLOCKS:
        return False
    attributes = tree.attributes[index]
    own_text = tree.text_length(index) - tree.link_length(index)
    if own_text > _TOO_LARGE * page_text and page_text:
        return own_text <= _NEARLY_ALL * page_text and _holds_comments(attributes)
    if attributes and (guesses or not prose.num_paragraphs(index)):
        names = (attributes.get("class") or "")[:_NAMES]
        # the id of a section is its heading as a slug: the author's words, not the site's
        is_slug = tag == "section" or names in ("section", "level2", "level3")
        identifier = "" if is_slug else (attributes.get("id") or "")[:_NAMES]
        named = _named_furniture(names, tag) or _named_furniture(identifier, tag)
        if named and not _speaks_for_itself(tree, index, prose, names, identifier):
            return True
        if _holds_comments(attributes):
            return True
    return tag in ("ul", "ol", "dl", "menu", "div", "section", "p", "table") and (
        _is_link_list(tree, index) or _is_teasers(tree, index, prose)
    )


def _speaks_for_itself(tree: Tree, index: int, prose: Prose, names: str, identifier: str) -> bool:
    """Whether what a block holds counts for more than its names.

    A name that is a whole word of furniture counts for more than a part of one ("sidebar", "social-history"): such a
    block is content only in the middle of a text. One that asks something of the reader (consent, to subscribe) needs
    pictures, many paragraphs, or others of its kind beside it.
    """
    if not prose.speaks(index):
        return False
    tokens = _CAMEL.sub("-", f"{names} {identifier}").lower().split()
    if not vocabulary.EXACT.isdisjoint(tokens):
        return prose.in_text(index)
    if any(vocabulary.ASKING.search(token) for token in tokens):
        beside = (tree.before(index), tree.after(index))
        like = any(each >= 0 and names and tree.attributes[each].get("class") == names for each in beside)
        return prose.num_pictures(index) > 0 or prose.num_paragraphs(index) > 2 or like
    return True


def _holds_comments(attributes: dict[str, str | None]) -> bool:
    names = f"{attributes.get('class') or ''} {attributes.get('id') or ''}".lower().split()
    return not vocabulary.COMMENTS.isdisjoint(names)


def _is_link_list(tree: Tree, index: int) -> bool:
    num_links = tree.num_links(index)
    if num_links < _MIN_LINKS or tree.num_images(index):
        return False
    linked = tree.link_length(index)
    return linked >= _LINK_SHARE * tree.text_length(index) and linked <= _LINK_LENGTH * num_links


def _is_teasers(tree: Tree, index: int, prose: Prose) -> bool:
    """Whether a block is headlines of other pages with their pictures, all in links, and no text of its own.

    A gallery links its pictures to their files, or says of them less than a headline does.
    """
    num_links, num_images = tree.num_links(index), tree.num_images(index)
    if not num_images or num_links < _MIN_LINKS or prose.num_pictures(index) or prose.num_paragraphs(index):
        return False
    linked = tree.link_length(index)
    if linked < _TEASER_SHARE * tree.text_length(index) or linked < _HEADLINE * num_images:
        return False
    first = bisect_left(tree.links, index)
    links = (tree.attributes[link] for link in tree.links[first : first + num_links])
    return not any(_PICTURE.search(attributes.get("href") or "") for attributes in links)


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


def find_main(tree: Tree) -> tuple[int, int] | None:
    """The range of the page's main content, or None when no mark can be trusted.

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
    return None if best is None else (best[2], _end_of_article(tree, best[2], candidates, sums))


def _end_of_article(tree: Tree, main: int, candidates: list[tuple[int, int]], sums: list[int]) -> int:
    """Where a main element ends, or the one <article> in it that holds the page's heading: teasers of others follow."""
    whole = sums[tree.ends[main]] - sums[main]
    articles = [index for _, index in candidates if tree.tags[index] == "article" and main < index < tree.ends[main]]
    largest = max(articles, key=lambda index: sums[tree.ends[index]] - sums[index], default=main)
    end = tree.ends[largest]
    if sums[end] - sums[largest] < _ONE_ARTICLE * whole or "h1" not in tree.tags[largest:end]:
        return tree.ends[main]
    return end


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
                and (attributes.get("role") in vocabulary.ROLES or is_hidden(tree, index))
            ):
                skip_until = tree.ends[index]
        sums.append(total)
    return sums
