"""Which elements of a page are captions, and of which pictures.

Strongest first: the elements that HTML has for it; the names that generators and sites give (DocBook, Asciidoctor,
docutils, LaTeXML, MediaWiki, WordPress, pandoc, Doxygen, Texinfo, Blogger; for the others "caption" as a part of a
class); what a reader sees: a table that holds pictures and a line to each, a picture with a slanted or small line below
it, and a short paragraph beside a picture that begins as "Figure 3:".
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right, insort
from functools import lru_cache
from itertools import accumulate

from stages.extract.tree import Tree
from stages.extract.vocabulary import CAPTION_TAGS, HEADINGS, PREFORMATTED, word_set
from stages.text.figure_labels import caption_label

Range = tuple[int, int]

_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
_CAPTION_WORDS = frozenset(
    ("caption", "captions", "figcaption", "thumbcaption", "gallerycaption", "imgcaption", "cutline")
)
# Blocks of a picture and its words, and what their captions are called there besides "caption".
_FIGURES = word_set(
    "figure informalfigure mediaobject imageblock image-block float wp-caption thumb thumbinner tsingle",
    "ltx_figure gallerybox gallery-item blocks-gallery-item sphx-glr-thumbcontainer captioned-image img_caption",
)
_TITLES = word_set("title legend gallerytext sphx-glr-thumbnail-title")
_CLOSE = 8  # elements around a caption among which its figure is looked for, ...
_NEAR = 4  # ... and among which a picture is, where no element is a figure
_BESIDE = 200  # characters that an element may hold besides a picture and its caption (credits, "Enlarge")
_LINE = 300  # characters of a line that only its place shows to be a caption
_LABELLED = 1000  # characters of one that begins as "Figure 3:"
_NAMES = 1000  # characters of a class that are looked at
_SLANTED = word_set("em i small cite")
_BLOCKS = HEADINGS | PREFORMATTED | word_set("p div ul ol dl table blockquote figure section article li")
_OPEN_BLOCKS = word_set("p div center td th span font section li")
_ROOTS = word_set("body html main article")
_MAX_ROWS = 400  # of a table that is looked through for pictures and their lines


def find_captions(tree: Tree) -> dict[int, Range]:
    """Index of each caption's element to the range of the tree in which its pictures stand; empty without any.

    A caption's own element may lie in that range, or be it: a paragraph of a picture and its line.
    """
    return _Search(tree).found


class _Search:
    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self.found: dict[int, Range] = {}
        self._places: list[int] = []  # the keys of `found`, in order
        self._by_tag_and_name()
        if tree.images:
            self._by_table()
            self._by_look()

    def _add(self, index: int, where: Range) -> None:
        if index not in self.found:
            insort(self._places, index)
        self.found[index] = where

    def _has_caption(self, index: int) -> bool:
        """Whether one of the captions found so far lies in the element."""
        return bisect_right(self._places, index) < bisect_left(self._places, self._tree.ends[index])

    # ---- what the page says

    def _by_tag_and_name(self) -> None:
        tree = self._tree
        named: list[int] = []
        until = 0  # end of the caption that the search is in
        for index, tag in enumerate(tree.tags):
            if index < until or not tag:
                continue
            if tag in CAPTION_TAGS:
                holder = self._figure_of(index)
                self._add(index, (holder, tree.ends[holder]) if holder >= 0 else (index, index))
                until = tree.ends[index]
            elif (attributes := tree.attributes[index]) and (names := attributes.get("class")):
                kind = _kind(names[:_NAMES])
                if not kind or not tree.images or not tree.text_length(index):
                    continue
                if (
                    tree.num_images(index) and "thumbcaption" not in names.split()
                ):  # MediaWiki's holds a magnifying glass
                    continue
                holder = self._figure_of(index)
                if holder >= 0 and tree.num_images(holder):
                    self._add(index, (holder, tree.ends[holder]))
                    until = tree.ends[index]
                elif kind == "caption":
                    named.append(index)
                    until = tree.ends[index]
        said = list(accumulate(map(tree.text_length, named), initial=0))
        for position, index in enumerate(named):
            if where := self._nearest(position, named, said):
                self._add(index, where)

    def _figure_of(self, index: int) -> int:
        """The innermost element around a caption that is a figure, or a table for its <caption>; -1 for none."""
        tree = self._tree
        for _ in range(_CLOSE):
            index = tree.parents[index]
            if index < 0:
                break
            if tree.tags[index] in ("figure", "table"):
                return index
            if (names := tree.attributes[index].get("class")) and not _FIGURES.isdisjoint(names[:_NAMES].split()):
                return index
        return -1

    def _nearest(self, position: int, captions: list[int], said: list[int]) -> Range | None:
        """Where the pictures of a caption stand that no figure holds: just before it, else just after.

        captions: all of that kind, in order, and its place among them; said: running sums of their texts.
        """
        tree = self._tree
        around = index = captions[position]
        for _ in range(_NEAR):
            around = tree.parents[around]
            if around < 0 or tree.tags[around] in _ROOTS:
                break
            if not tree.num_images(around):
                continue
            low, high = bisect_left(captions, around), bisect_left(captions, tree.ends[around])
            if tree.text_length(around) - (said[high] - said[low]) > _BESIDE:
                break
            first = tree.ends[captions[position - 1]] if position > low else around
            if tree.images_between(first, index):
                return first, index
            last = captions[position + 1] if position + 1 < high else tree.ends[around]
            return (tree.ends[index], last) if tree.images_between(tree.ends[index], last) else None
        for each in (tree.before(index), tree.after(index)):
            if each >= 0 and self._is_picture(each):
                return each, tree.ends[each]
        return None

    # ---- what a reader sees

    def _is_picture(self, index: int) -> bool:
        """Whether an element is pictures and nothing else."""
        return self._tree.num_images(index) > 0 and self._tree.text_length(index) == 0

    def _is_line(self, index: int, longest: int = _LINE) -> bool:
        """Whether an element is one line of text outside links, of no more than so many characters."""
        tree = self._tree
        length = tree.text_length(index)
        if not 0 < length <= longest or tree.num_images(index) or tree.link_length(index) > length // 2:
            return False
        if tree.tags[index] in HEADINGS | PREFORMATTED:
            return False
        return not any(tag in HEADINGS for tag in tree.tags[index : tree.ends[index]])

    def _by_table(self) -> None:
        tree = self._tree
        tables: set[int] = set()
        for image in tree.images:
            around = image
            for _ in range(_CLOSE):
                around = tree.parents[around]
                if around < 0 or tree.tags[around] == "table":
                    break
            if around >= 0 and tree.tags[around] == "table":
                tables.add(around)
        for table in sorted(tables):
            if not self._has_caption(table):
                self._lines_of(self._rows(table))

    def _rows(self, table: int) -> list[list[int]]:
        """The cells of each row of a table, without those of tables in it."""
        tree = self._tree
        rows: list[list[int]] = []
        index = table + 1
        while index < tree.ends[table] and len(rows) < _MAX_ROWS:
            tag = tree.tags[index]
            if tag == "tr":
                rows.append([])
            elif tag in ("td", "th"):
                if rows:
                    rows[-1].append(index)
                index = tree.ends[index]
                continue
            index += 1
        return rows

    def _lines_of(self, rows: list[list[int]]) -> None:
        """A row of pictures and nothing else above one with a line to each, or below lines that are labelled."""
        pictures = [bool(row) and any(map(self._is_picture, row)) for row in rows]
        words = [self._tree.text_length(cell) for row in rows for cell in row]
        pictured = sum(pictures)
        if not pictured or sum(words) > _LINE * sum(map(len, rows)):
            return
        taken: set[int] = set()
        for position, row in enumerate(rows):
            if not pictures[position]:
                continue
            shown = [cell for cell in row if self._tree.num_images(cell) or self._tree.text_length(cell)]
            if not all(map(self._is_picture, shown)):
                continue
            for other in (position + 1, position - 1):
                if other in taken or not 0 <= other < len(rows) or pictures[other]:
                    continue
                lines = [cell for cell in rows[other] if self._tree.text_length(cell)]
                if not lines or not all(map(self._is_line, lines)):
                    continue
                if other < position and not all(map(self._is_labelled, lines)):
                    continue
                if len(rows[other]) == len(row):
                    for cell, line in zip(row, rows[other], strict=True):
                        if self._is_picture(cell) and self._tree.text_length(line):
                            self._add(line, (cell, self._tree.ends[cell]))
                elif len(lines) == 1:
                    self._add(lines[0], (row[0], self._tree.ends[row[-1]]))
                else:
                    continue
                taken.add(other)
                break

    def _by_look(self) -> None:
        tree = self._tree
        beside: dict[int, list[int]] = {}  # of a labelled line: the pictures before it and after it, -1 for none
        done: set[int] = set()
        within: set[int] = set()
        for image in tree.images:
            block = self._block_of(image)
            if block in done:
                continue
            done.add(block)
            around = tree.parents[block]
            if around not in within:
                within.add(around)
                self._line_within(around, block)
            for place, other in enumerate((tree.after(block), tree.before(block))):
                if other >= 0 and tree.tags[other] and other not in self.found and self._is_labelled(other):
                    beside.setdefault(other, [-1, -1])[place] = block
        taken: set[int] = set()
        for line in sorted(beside):
            block = next((each for each in beside[line] if each >= 0 and each not in taken), -1)
            if block >= 0 and not self._has_caption(block):
                taken.add(block)
                self._add(line, (block, tree.ends[block]))

    def _block_of(self, image: int) -> int:
        """The outermost element that holds the image, other images perhaps, and no text."""
        tree = self._tree
        parent = tree.parents[image]
        while parent >= 0 and tree.tags[parent] not in _ROOTS and tree.text_length(parent) == 0:
            image, parent = parent, tree.parents[parent]
        return image

    def _is_labelled(self, index: int) -> bool:
        tree = self._tree
        if not self._is_line(index, _LABELLED) or tree.tags[index] not in _OPEN_BLOCKS:
            return False
        return caption_label(tree.text_of(index, _LINE)) is not None

    def _line_within(self, around: int, block: int) -> None:
        """A paragraph of a picture (`block`) and its line, which is labelled, or slanted or small as a whole."""
        tree = self._tree
        if around < 0 or tree.tags[around] not in _OPEN_BLOCKS or around in self.found or self._has_caption(around):
            return
        length, end = tree.text_length(around), tree.ends[around]
        if not 0 < length <= _LABELLED or tree.text_sums[block] > tree.text_sums[around]:
            return
        last = tree.images_between(around, end)[-1]
        if tree.text_sums[last] > tree.text_sums[around]:
            return  # pictures between words
        for index in range(block, end):
            if tree.tags[index] in _BLOCKS and tree.text_length(index):
                return
            if tree.tags[index] in _SLANTED and tree.text_length(index) == length and length <= _LINE:
                if not tree.num_images(index):
                    self._add(index, (around, end))
                return
        if caption_label(tree.text_of(around, _LINE)) is not None:
            self._add(around, (around, end))


@lru_cache(maxsize=1 << 14)
def _kind(names: str) -> str | None:
    """What an element's class says of it: "caption", "title" (a caption only within a figure), or nothing."""
    tokens = names.lower().split()
    if any(not _CAPTION_WORDS.isdisjoint(re.split("[-_]+", _CAMEL.sub("-", each).lower())) for each in names.split()):
        return "caption"
    return None if _TITLES.isdisjoint(tokens) else "title"
