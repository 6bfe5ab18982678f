"""The page as flat lists in document order: one pass over the parser's tree, then index arithmetic.

The subtree of element i is the range i..ends[i]; text and link characters are running sums, so the text of
any subtree, and how much of it is links, is a subtraction. Nothing here recurses.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field

from selectolax.lexbor import LexborDocumentOptions, LexborHTMLParser, LexborNode

from stages.extract.vocabulary import word_set

# Elements whose content is never text or images of the page.
_OPAQUE = word_set("title script style template iframe frameset noframes noembed select textarea datalist svg canvas")


@dataclass(slots=True)
class Tree:
    """Elements and text nodes in document order; index 0 is <html>."""

    tags: list[str] = field(default_factory=list)  # "" for text
    texts: list[str] = field(default_factory=list)  # "" for elements
    attributes: list[dict[str, str | None]] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)  # index after the subtree
    parents: list[int] = field(default_factory=list)  # index of the element around it, -1 for the first
    # characters of non-blank text outside <noscript>, and of those in links, before index i; one entry more than tags
    text_sums: list[int] = field(default_factory=lambda: [0])
    link_sums: list[int] = field(default_factory=lambda: [0])
    links: list[int] = field(default_factory=list)  # indexes of <a>, outermost only
    images: list[int] = field(default_factory=list)  # indexes of <img> and <amp-img>
    head: list[int] = field(default_factory=list)  # meta, link, base, in order, wherever they stand
    title: str = ""  # text of the first <title>
    deep: int = 0  # subtrees left out below the depth cap

    def text_length(self, index: int) -> int:
        """Characters of text in the subtree."""
        return self.text_sums[self.ends[index]] - self.text_sums[index]

    def link_length(self, index: int) -> int:
        """Characters of text in the subtree that stand in links."""
        return self.link_sums[self.ends[index]] - self.link_sums[index]

    def before(self, index: int) -> int:
        """Index of the element or the text before, under the same parent, that is not blank; -1 for none."""
        parent = self.parents[index]
        while (index := index - 1) > parent:
            while self.parents[index] != parent:
                index = self.parents[index]
            if self.tags[index] or not self.texts[index].isspace():
                return index
        return -1

    def after(self, index: int) -> int:
        """As `before`, but behind the subtree."""
        parent = self.parents[index]
        index = self.ends[index]
        while parent >= 0 and index < self.ends[parent]:
            if self.tags[index] or not self.texts[index].isspace():
                return index
            index = self.ends[index]
        return -1

    def num_links(self, index: int) -> int:
        """Links in the subtree."""
        return bisect_left(self.links, self.ends[index]) - bisect_left(self.links, index)

    def num_images(self, index: int) -> int:
        """<img> and <amp-img> elements in the subtree."""
        return len(self.images_between(index, self.ends[index]))

    def images_between(self, start: int, end: int) -> list[int]:
        """Indexes of the <img> and <amp-img> elements in a range."""
        return self.images[bisect_left(self.images, start) : bisect_left(self.images, end)]

    def text_of(self, index: int, limit: int) -> str:
        """About `limit` characters of the subtree's text, blanks folded."""
        pieces: list[str] = []
        length = 0
        for i in range(index, self.ends[index]):
            if self.texts[i]:
                piece = " ".join(self.texts[i].split())
                if piece:
                    pieces.append(piece)
                    length += len(piece) + 1
                    if length > limit:
                        break
        return " ".join(pieces)[:limit]


_NO_ATTRIBUTES: dict[str, str | None] = {}
_HEAD_TAGS = frozenset(("meta", "link", "base"))


def parse(html: str, max_depth: int) -> Tree:
    """The tree of a page whose source was made safe; subtrees below twice `max_depth` are left out."""
    # without mutation events: with them the parser is quadratic in the options of a <select>
    parser = LexborHTMLParser(html, options=LexborDocumentOptions.WO_EVENTS)
    tree = Tree()
    node = parser.root
    if node is None:
        return tree
    tags, texts, attributes, ends, parents = tree.tags, tree.texts, tree.attributes, tree.ends, tree.parents
    text_sums, link_sums = tree.text_sums, tree.link_sums
    text_sum = link_sum = 0
    link_depth = 0  # depth at which the open link began, 0 for none
    mute_depth = 0  # the same of <noscript>, whose text nobody reads
    open_nodes: list[LexborNode] = []
    open_indexes: list[int] = []
    while True:
        tag = node.tag or "-unknown"
        child = None
        index = len(tags)
        parent = open_indexes[-1] if open_indexes else -1
        added = True
        if tag == "-text":
            text = node.text_content or ""
            length = 0 if mute_depth or text.isspace() else len(text)
            text_sum += length
            if link_depth:
                link_sum += length
            tags.append("")
            texts.append(text)
            attributes.append(_NO_ATTRIBUTES)
            ends.append(index + 1)
            parents.append(parent)
        elif tag[0] == "-":
            added = False
        else:
            tags.append(tag)
            texts.append("")
            attributes.append(node.attributes)
            ends.append(index + 1)
            parents.append(parent)
            if tag == "img" or tag == "amp-img":
                tree.images.append(index)
            elif tag == "a" and not link_depth:
                link_depth = len(open_nodes) + 1
                tree.links.append(index)
            elif tag == "noscript" and not mute_depth:
                mute_depth = len(open_nodes) + 1
            elif tag in _HEAD_TAGS:
                tree.head.append(index)
            elif tag == "title" and not tree.title:
                tree.title = node.text()
            if tag not in _OPAQUE:
                child = node.first_child
                if child is not None and len(open_nodes) > 2 * max_depth:
                    tree.deep += 1
                    child = None
        if added:
            text_sums.append(text_sum)
            link_sums.append(link_sum)
        if child is not None:
            open_nodes.append(node)
            open_indexes.append(index)
            node = child
            continue
        # leave this node and every ancestor that ends with it
        following = node.next
        if tag == "a" and link_depth == len(open_nodes) + 1:
            link_depth = 0
        if tag == "noscript" and mute_depth == len(open_nodes) + 1:
            mute_depth = 0
        while following is None and open_nodes:
            node = open_nodes.pop()
            index = open_indexes.pop()
            ends[index] = len(tags)
            if link_depth == len(open_nodes) + 1 and tags[index] == "a":
                link_depth = 0
            if mute_depth == len(open_nodes) + 1 and tags[index] == "noscript":
                mute_depth = 0
            following = node.next if open_nodes else None
        if following is None or not open_nodes:
            break
        node = following
    return tree
