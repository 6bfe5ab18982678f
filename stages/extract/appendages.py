"""What hangs on to a text behind its end, and no mark says that it is none: offers, headlines, portraits, counters.

The text is where most of a page's paragraphs stand together: from the page down, the one element that holds most of
them. What follows it, or an element around it, is judged block by block by what it holds: paragraphs and how long they
are, links, headings that are links, pictures, and whether it is of the text's own kind. Before the text, where a title,
a summary and the first picture stand, only blocks of linked headlines and pictures go. Anywhere behind a text what
stands below a heading of readers' comments goes, and links and pictures below one of other stories ("Most read").
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from stages.extract import vocabulary
from stages.extract.prose import Prose
from stages.extract.tree import Tree
from stages.extract.vocabulary import HEADINGS, PREFORMATTED, word_set

_MOST = 0.6  # of all paragraphs' characters, that the element which is the text must hold
_MIN_PARAGRAPHS = 1
_MIN_LENGTH = 500  # characters of the text's paragraphs, below which it is none that others could hang on to
_LINKED = 0.25  # of a block's characters that may be links
_MOSTLY = 0.5
_SEVERAL = 3
_MAX_COMMENTS = 16  # headings of comments behind which is looked
_TITLE = 60  # characters of a heading that says what stands below it
_LONG = 200  # characters of a block's paragraphs from which it is a text and no offer
_OPENERS = word_set("div section article main body html center td tr tbody table form span font")
_KEPT = PREFORMATTED | word_set("p blockquote figure dl table img amp-img picture math br hr script style noscript")
# What authors write behind a text, by names.
_NOTES = vocabulary.CONTENT_ASIDES | word_set(
    "references reference bibliography footnotes endnotes notes sources appendix glossary corrections correction",
    "update license licence acknowledgements acknowledgments reflist refbegin seealso",
)
_NAMES = 1000  # characters of a class that are looked at


def find_appendages(tree: Tree, prose: Prose, start: int, end: int) -> frozenset[int]:
    """Indexes of the elements in a range that hang on to its text behind the end; empty where there is no one text."""
    path = _path_to_text(tree, prose, start, end)
    found = _below_titles(tree, prose, start, end)
    for parent, child in pairwise(path):
        index = parent + 1
        while index < child:
            if tree.tags[index] and tree.tags[index] not in _KEPT and _is_offer(tree, prose, index):
                found.add(index)
            index = tree.ends[index]
        like = (tree.tags[child], tree.attributes[child].get("class"))
        run: list[int] = []  # the last heading and what has been found behind it
        kept = True
        index = tree.ends[child]
        while index < tree.ends[parent]:
            if tree.tags[index] in HEADINGS:
                if not kept:
                    found.update(run)
                run, kept = [index], False
            elif tree.tags[index] and not _belongs(tree, prose, index, like):
                found.add(index)
            elif tree.tags[index] or not tree.texts[index].isspace():
                kept = True
            index = tree.ends[index]
        if not kept:
            found.update(run)
    return frozenset(found)


def _path_to_text(tree: Tree, prose: Prose, start: int, end: int) -> list[int]:
    """Elements from the one that is the range, or the body, down to the one that is the text; empty without one."""
    if not tree.tags:
        return []
    index = start if tree.ends[start] == end and tree.tags[start] else 0
    whole = prose.length(index)
    if whole < _MIN_LENGTH:
        return []
    path = [index]
    while True:
        child, inner = -1, index + 1
        while inner < tree.ends[index]:
            if tree.tags[inner] in _OPENERS and prose.length(inner) >= _MOST * whole:
                child = inner
                break
            inner = tree.ends[inner]
        if child < 0 or prose.num_paragraphs(child) < _MIN_PARAGRAPHS:
            return path if prose.num_paragraphs(index) >= _MIN_PARAGRAPHS else []
        path.append(child)
        index = child


def _below_titles(tree: Tree, prose: Prose, start: int, end: int) -> set[int]:
    """What stands below headings that say what it is, where there is a text before them."""
    found: set[int] = set()
    until = num_comments = 0
    for index in range(start, end):
        if tree.tags[index] not in HEADINGS or index < until or tree.text_length(index) > _TITLE:
            continue
        if prose.length_between(start, index) < _MIN_LENGTH:
            continue
        title = tree.text_of(index, _TITLE).strip(" :\u00bb>\u2026.!?\u2193")
        if comments := vocabulary.COMMENTS_TITLE.fullmatch(title):
            num_comments += 1
            if num_comments > _MAX_COMMENTS:
                continue
            block = _block_of_title(tree, index)
            below = list(_siblings(tree, block))
            # a manual has a chapter on comments too
            if (
                any(comments.groups())
                or any(map(prose.num_controls, below))
                or not any(map(tree.text_length, below[1:]))
            ):
                until = tree.ends[tree.parents[block]]
                found.update(below)
        elif vocabulary.OFFERS_TITLE.fullmatch(title):
            block = _block_of_title(tree, index)
            run = []
            for each in _siblings(tree, block):
                if each != block and (tree.tags[each] in HEADINGS or not _is_linked(tree, prose, each)):
                    break
                run.append(each)
            if len(run) > 1:
                found.update(run)
                until = tree.ends[run[-1]]
    return found


def _block_of_title(tree: Tree, index: int) -> int:
    """The outermost element that holds a heading and no other text and no picture."""
    parent = tree.parents[index]
    while parent > 0 and tree.text_length(parent) == tree.text_length(index) and not tree.num_images(parent):
        index, parent = parent, tree.parents[parent]
    return index


def _siblings(tree: Tree, index: int) -> Iterator[int]:
    """An element and those behind it under the same parent."""
    end = tree.ends[tree.parents[index]]
    while index < end:
        if tree.tags[index]:
            yield index
        index = tree.ends[index]


def _is_linked(tree: Tree, prose: Prose, index: int) -> bool:
    """Whether an element is links, linked headlines or linked pictures, and no more; or nothing at all."""
    length = tree.text_length(index)
    if prose.has_linked_headings(index) and not prose.num_pictures(index):
        return True
    return tree.link_length(index) >= _MOSTLY * length and not prose.num_pictures(index)


def _is_offer(tree: Tree, prose: Prose, index: int) -> bool:
    """Whether an element is headlines of other pages: several links with pictures or as headings, and no text."""
    length = tree.text_length(index)
    if not length or prose.length(index) or prose.num_pictures(index) or tree.num_links(index) < _SEVERAL:
        return False
    if tree.link_length(index) < _MOSTLY * length or "h1" in tree.tags[index : tree.ends[index]]:
        return False
    return prose.has_linked_headings(index) or tree.num_images(index) > 1


def _belongs(tree: Tree, prose: Prose, index: int, like: tuple[str, str | None]) -> bool:
    """Whether an element behind the text is a part of it."""
    tag, names = tree.tags[index], tree.attributes[index].get("class")
    length = tree.text_length(index)
    if not length and not tree.num_images(index):
        return True
    if tag in _KEPT or (tag, names) == like:
        return True
    words = set((names or "")[:_NAMES].lower().split()) | set((tree.attributes[index].get("id") or "").lower().split())
    if not _NOTES.isdisjoint(words):
        return True
    if tree.link_length(index) > _LINKED * length or prose.has_linked_headings(index) or prose.num_controls(index):
        return False
    return prose.length(index) >= _LONG
