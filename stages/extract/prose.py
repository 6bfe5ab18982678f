"""What speaks for a block: paragraphs, headings and pictures of its own, and few links and no controls beside them.

Names that a site gives to its blocks are guesses ("social-history" is a chapter, "social-links" a row of buttons);
what a block holds is evidence. All is counted once a page, as running sums, so that a block costs a subtraction.
"""

from __future__ import annotations

from itertools import accumulate

from stages.extract.tree import Tree
from stages.extract.vocabulary import HEADINGS, word_set

_PARAGRAPH = 60  # characters outside links from which a run of text is more than a label
_DENSE = 150  # bytes of UTF-8 from which fewer characters are as much: scripts of one character a word
_LINKED = 0.25  # most of a block's characters that may be links
_TYPED = word_set("input select textarea button")
_CONTROL_ROLES = word_set("button switch checkbox radio textbox searchbox combobox")


class Prose:
    """Running sums over a tree; every method takes the index of an element and answers for its subtree."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        size = len(tree.tags)
        paragraphs, headings, linked_headings, controls, pictures, lengths = ([0] * (size + 1) for _ in range(6))
        paragraph_end = link_end = 0
        for index, tag in enumerate(tree.tags):
            if not tag:
                seen = (
                    tree.text_sums[index + 1] > tree.text_sums[index]
                    and tree.link_sums[index + 1] == tree.link_sums[index]
                )
                if seen and index >= paragraph_end:
                    paragraphs[index + 1] = len(tree.texts[index]) >= _PARAGRAPH // 2 and _is_long(
                        " ".join(tree.texts[index].split())
                    )
                    lengths[index + 1] = paragraphs[index + 1] and len(tree.texts[index])
            elif tag == "p":
                paragraph_end = max(paragraph_end, tree.ends[index])
                paragraphs[index + 1] = self._is_paragraph(index)
                lengths[index + 1] = paragraphs[index + 1] and tree.text_length(index) - tree.link_length(index)
            elif tag == "a":
                link_end = max(link_end, tree.ends[index])
            elif tag in HEADINGS:
                linked = index < link_end or 2 * tree.link_length(index) > tree.text_length(index)
                (linked_headings if linked else headings)[index + 1] = tree.text_length(index) > 0
            elif tag in ("img", "amp-img"):
                pictures[index + 1] = index >= link_end
            elif tag in _TYPED:
                controls[index + 1] = (tree.attributes[index].get("type") or "").lower() != "hidden"
            elif tree.attributes[index] and (tree.attributes[index].get("role") or "").lower() in _CONTROL_ROLES:
                controls[index + 1] = 1
        self._paragraphs, self._headings, self._linked_headings, self._controls, self._pictures, self._lengths = (
            list(accumulate(each)) for each in (paragraphs, headings, linked_headings, controls, pictures, lengths)
        )

    def num_paragraphs(self, index: int) -> int:
        """Paragraphs, and texts outside of any, that are more than a label."""
        return self._paragraphs[self._tree.ends[index]] - self._paragraphs[index]

    def length(self, index: int) -> int:
        """Characters outside links of those paragraphs and texts."""
        return self._lengths[self._tree.ends[index]] - self._lengths[index]

    def length_between(self, start: int, end: int) -> int:
        """The same of a range of the tree."""
        return self._lengths[end] - self._lengths[start]

    def num_controls(self, index: int) -> int:
        """Buttons and fields."""
        return self._controls[self._tree.ends[index]] - self._controls[index]

    def num_headings(self, index: int) -> int:
        """Headings that are no links."""
        return self._headings[self._tree.ends[index]] - self._headings[index]

    def num_pictures(self, index: int) -> int:
        """Pictures that are no links."""
        return self._pictures[self._tree.ends[index]] - self._pictures[index]

    def speaks(self, index: int) -> bool:
        """Whether a block holds paragraphs of its own with a heading, a picture or more of them, and little else."""
        tree = self._tree
        num_paragraphs = self.num_paragraphs(index)
        if not num_paragraphs or self.num_controls(index) or self.has_linked_headings(index):
            return False
        if tree.link_length(index) > _LINKED * tree.text_length(index):
            return False
        return num_paragraphs > 1 or self.num_headings(index) > 0 or self.num_pictures(index) > 0

    def in_text(self, index: int) -> bool:
        """Whether a paragraph stands directly before or after a block: it is a part of a running text."""
        neighbours = (self._tree.before(index), self._tree.after(index))
        return any(each >= 0 and self._is_text(each) for each in neighbours)

    def has_linked_headings(self, index: int) -> bool:
        """Whether a heading is, or stands in, a link: a headline of another page."""
        return self._linked_headings[self._tree.ends[index]] > self._linked_headings[index]

    def _is_text(self, index: int) -> bool:
        return self._tree.tags[index] in ("", "p") and self.num_paragraphs(index) > 0

    def _is_paragraph(self, index: int) -> bool:
        length = self._tree.text_length(index) - self._tree.link_length(index)
        if length >= _PARAGRAPH or length < _PARAGRAPH // 3:
            return length >= _PARAGRAPH
        return _is_long(self._tree.text_of(index, _DENSE))


def _is_long(text: str) -> bool:
    return len(text) >= _PARAGRAPH or len(text.encode("utf-8", "replace")) >= _DENSE
