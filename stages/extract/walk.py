"""The walk: a tree in document order becomes text and image nodes, block by block.

Text is collected until a block begins or ends; what kind of edge that was decides the separator between two
text nodes, the strongest on the way from one to the next ("\n\n" between paragraphs, "\n" between list items and
table rows, " " where an image interrupts a sentence).
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from stages.extract import furniture
from stages.extract.captions import Range, find_captions
from stages.extract.data_tables import is_data_table
from stages.extract.image_files import (
    Sources,
    choose_image,
    is_counter,
    is_tracking_pixel,
    picture_name,
    rendered_size,
    stated_width,
)
from stages.extract.nodes import ALT_LENGTH, CAPTION_LENGTH, alt_text, merge_facts, new_node
from stages.extract.prose import Prose
from stages.extract.settings import ExtractSettings
from stages.extract.tree import Tree
from stages.extract.vocabulary import HEADINGS, PREFORMATTED, SECTIONING, word_set
from stages.text.normal_form import normalize, normalize_lines
from stages.web.urls import canonicalize_image

_SEPARATORS = (" ", "\n", "\n\n")
_EDGES = {
    **dict.fromkeys(("p", "h1", "h2", "h3", "h4", "h5", "h6", "ul", "ol", "dl", "table", "pre", "blockquote"), 2),
    **dict.fromkeys(("menu", "figure", "hr", "article", "section", "main", "hgroup", "listing", "xmp", "plaintext"), 2),
    **dict.fromkeys(("form", "fieldset", "details", "header", "footer", "aside", "figcaption", "caption"), 2),
    **dict.fromkeys(("li", "dt", "dd", "tr", "td", "th", "div", "center", "address", "summary", "legend"), 1),
    **dict.fromkeys(("body", "html", "thead", "tbody", "tfoot", "dir", "marquee", "multicol", "option"), 1),
}
# Blocks that name their text; a paragraph inside one of `_HOLDERS` keeps the holder's name ("li", not "p").
_NAMED = (
    frozenset(("p", "li", "dt", "dd", "td", "th", "pre", "blockquote", "figcaption", "caption", "summary")) | HEADINGS
)
_HOLDERS = frozenset(("li", "dt", "dd", "td", "th", "blockquote", "figcaption", "caption", "summary"))
# Inline elements that mean nothing here unless an attribute says so.
_PLAIN = word_set(
    "span a b i em strong code kbd samp var tt u small big font abbr cite q mark ins s time wbr tbody thead"
)
# Inside these, inner blocks do not cut the text: a heading, caption or table row is one node.
_SOFT = HEADINGS | frozenset(("figcaption", "caption", "dt", "summary"))

_EMBEDDED = word_set("object applet audio video map")  # whose content only some browsers show
_IMAGES = frozenset(("img", "amp-img"))
# Pictures of words: their alt text is what the reader reads.
_WORD_IMAGES = {
    "math": "formula",
    "mwe-math-fallback-image-inline": "formula",
    "mwe-math-fallback-image-display": "formula",
    "latex": "formula",
    "tex": "formula",
    "emoji": "emoji",
    "wp-smiley": "emoji",
}
# Raised numbers keep their meaning: 10<sup>6</sup> is not 106.
_RAISED = str.maketrans(
    "0123456789+-\u2212=()n",
    "\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079\u207a\u207b\u207b\u207c\u207d\u207e\u207f",
)
_RAISABLE = re.compile(r"\s*[0-9+\u2212=()n-]*[0-9][0-9+\u2212=()n-]*\s*")
_MAX_RAISED = 32  # characters
_BREAK = "\0"  # <br>; the parser lets no U+0000 through
_CELL = "\1"  # edge between cells of a table row
_DETAIL = 200  # characters of a dropped row's detail
_URL_DETAIL = 2048  # where it is an image's address
_MAX_BLUR = 4096  # characters of a data: URI that may be a blurred stand-in
_BLURRED = 100  # pixels of width, up to which a file may be one
_WRAPPERS = 3  # elements around an image in which its stand-in is looked for, ...
_WRAPPED = 3  # ... with at most so many images: the two, and one in <noscript>
_MAX_SEEN = 8  # <img> elements whose files are compared, for each that a page may keep


@dataclass(slots=True)
class _Frame:
    """An open element that something has to be done for when it ends."""

    end: int
    tag: str
    edge: int = 0
    named: bool = False
    soft: bool = False
    pre: bool = False
    pictures: Range | None = None  # of a caption: where its pictures stand in the tree
    caption_start: int = -1  # of a caption: index of its first node
    silent_text: bool = False  # <noscript>: only images count
    section: bool = False
    picture: bool = False
    num_paragraphs: int = 0  # <p> directly inside so far


@dataclass(frozen=True, slots=True)
class _LastImage:
    """The image just before, for which the next one may stand, or which may stand for the next one."""

    node: dict[str, Any] | None  # None when it was dropped for want of a file
    index: int  # in nodes, or in dropped
    stand_in: bool
    in_noscript: bool
    place: int = -1  # in the tree
    alt: str | None = None
    size: tuple[int | None, int | None] = (None, None)


@dataclass(slots=True)
class Walk:
    """One page on its way to nodes and dropped rows, both as dicts of schemas.document."""

    tree: Tree
    base_url: str
    encoding: str
    settings: ExtractSettings
    prose: Prose
    page_text: int = 0  # characters outside links, to weigh guesses against
    guesses: bool = True  # whether names and asides are believed to be furniture
    nodes: list[dict[str, Any]] = field(default_factory=list)
    dropped: list[dict[str, str]] = field(default_factory=list)
    appendages: frozenset[int] = frozenset()
    _buffer: list[str] = field(default_factory=list)
    _frames: list[_Frame] = field(default_factory=list)
    _names: list[str] = field(default_factory=list)
    _pending: int = 0  # strongest edge since the last text node
    _last_text: int = -1
    _soft: int = 0
    _pre: int = 0
    _mute: int = 0
    _sections: int = 0
    _sources: Sources = field(default_factory=Sources)
    _last_image: _LastImage | None = None  # null once text came after it
    _num_images: int = 0
    _num_seen: int = 0
    _images: list[tuple[int, dict[str, Any]]] = field(default_factory=list)  # their indexes in the tree, and nodes
    _captions: dict[int, Range] = field(init=False)
    _said: dict[Range, str] = field(default_factory=dict)  # captions by where their pictures stand
    _without_tex: int = 0  # before this index no formula carries its TeX

    def __post_init__(self) -> None:
        self._captions = find_captions(self.tree)

    @property
    def num_characters(self) -> int:
        """Characters of the text nodes."""
        return sum(len(node["text"]) for node in self.nodes if node["kind"] == "text")

    def run(self, start: int, end: int) -> None:
        """Walk the elements start..end of the tree."""
        tree = self.tree
        index = start
        while index < end:
            while self._frames and self._frames[-1].end <= index:
                self._leave(self._frames.pop())
            tag = tree.tags[index]
            if tag:
                index = self._enter(index, tag)
            else:
                if not self._mute:
                    self._buffer.append(tree.texts[index])
                index += 1
        while self._frames:
            self._leave(self._frames.pop())
        self._flush()
        self._give_captions()

    def drop_range(self, start: int, end: int, rule: str) -> None:
        """Record the images and the first words of a range that is left out."""
        tree = self.tree
        for index in tree.images_between(start, end):
            choice = choose_image(tree.attributes[index], Sources(), self.base_url, self.encoding, self.settings)
            self._drop("image", rule, choice.url or choice.detail)
        if tree.text_sums[end] > tree.text_sums[start]:
            words = ""
            for index in range(start, end):
                if tree.texts[index]:
                    words = f"{words} {normalize(tree.texts[index])}"
                    if len(words) > _DETAIL:
                        break
            if words.strip():
                self._drop("text", rule, words.strip())

    def _drop(self, kind: str, rule: str, detail: str) -> None:
        most = _URL_DETAIL if kind == "image" and detail[:5] != "data:" else _DETAIL
        self.dropped.append({"kind": kind, "rule": rule, "detail": detail[:most]})

    def _absolute(self, source: str) -> str:
        """An image's address as a URL where it is one, so that it can be asked for."""
        try:
            url = canonicalize_image(source, self.base_url, encoding=self.encoding)
        except ValueError:
            return source
        return source if url == self.base_url else url

    # ---- elements

    def _enter(self, index: int, tag: str) -> int:
        """Handle an element's start; the index to go on at: inside it, or behind it."""
        tree = self.tree
        attributes = tree.attributes[index]
        end = tree.ends[index]
        if index in self.appendages:
            self.drop_range(index, end, "appendage")
            return end
        if not attributes and tag in _PLAIN and index not in self._captions:
            return index + 1
        if tag == "br":
            self._buffer.append(_BREAK)
            return end
        if tag == "source":
            self._sources.add(attributes, self.settings)
            return end
        if tag == "svg":
            if not furniture.is_hidden(tree, index):
                self._drop("image", "inline_svg", attributes.get("aria-label") or attributes.get("class") or "")
            return end
        if furniture.is_silent(tree, index):
            if tag in _EMBEDDED:
                self.drop_range(index, end, "embedded")
            return end
        if furniture.is_control(tree, index, self.prose):
            self.drop_range(index, end, "form_control")
            return end
        if attributes and furniture.is_hidden(tree, index) and not self._is_formula(tag, attributes):
            self.drop_range(index, end, "hidden")
            return end
        if tag in _IMAGES:
            self._image(index)
            return end
        if tag == "math":
            return self._formula(index, attributes)
        if attributes and furniture.is_unread(tree, index, self.prose):
            if furniture.says_something(tree, index):
                self.drop_range(index, end, "unread")
            return end
        if tag == "sup":
            if "reference" in (attributes.get("class") or "").split():
                return end  # Wikipedia's [1]
            if not self._mute and not self._pre and tree.text_length(index) <= _MAX_RAISED:
                text = "".join(tree.texts[index:end])
                if _RAISABLE.fullmatch(text):
                    self._buffer.append(text.translate(_RAISED))
                    return end
        if furniture.declares_furniture(tree, index, self.prose, self._sections > 0, self.page_text, self.guesses):
            self.drop_range(index, end, "furniture")
            return end
        if not self._pre and furniture.is_furniture(tree, index, self.prose, self.page_text, self.guesses):
            self.drop_range(index, end, "boilerplate")
            return end
        self._open(index, tag, attributes)
        return index + 1

    def _open(self, index: int, tag: str, attributes: dict[str, str | None]) -> None:
        """Push a frame for an element whose end matters; inline elements need none."""
        edge = _EDGES.get(tag, 0)
        pictures = self._captions.get(index)
        is_caption = pictures is not None
        if not (edge or is_caption or tag in ("noscript", "picture")):
            return
        frame = _Frame(self.tree.ends[index], tag, max(edge, 2 * is_caption))
        if tag == "td" or tag == "th":
            if self._frames and self._frames[-1].tag == "tr" and self._frames[-1].soft:  # the row of a data table
                self._buffer.append(_CELL)
                frame.edge = 0
        elif tag == "p" and self._frames and self._frames[-1].tag in ("li", "dd", "td", "th"):
            frame.edge = 1  # items of loose lists stay one under the other
            if self._frames[-1].num_paragraphs:
                self._edge(2)
            self._frames[-1].num_paragraphs += 1
        self._edge(frame.edge)
        frame.soft = tag in _SOFT or is_caption or (tag == "tr" and not self._soft and self._in_data_table())
        frame.pre = tag in PREFORMATTED
        frame.section = tag in SECTIONING
        if tag == "table" and is_data_table(self.tree, index):
            frame.named = True
            self._names.append("data")
        elif tag == "tr" and frame.soft:
            frame.named = True
            self._names.append("tr")
        elif is_caption:
            frame.named = True
            self._names.append("figcaption" if tag != "caption" else tag)
        elif tag in _NAMED and not (self._soft or (tag == "p" and self._names and self._names[-1] in _HOLDERS)):
            frame.named = True
            self._names.append(tag)
        if is_caption:
            frame.pictures, frame.caption_start = pictures, len(self.nodes)
        if tag == "noscript":
            frame.silent_text = True
        if tag == "picture":
            frame.picture = True
            self._sources = Sources()
        self._soft += frame.soft
        self._pre += frame.pre
        self._mute += frame.silent_text
        self._sections += frame.section
        self._frames.append(frame)

    def _leave(self, frame: _Frame) -> None:
        self._soft -= frame.soft
        self._edge(frame.edge)
        self._pre -= frame.pre
        self._mute -= frame.silent_text
        self._sections -= frame.section
        if frame.named:
            self._names.pop()
        if frame.picture:
            self._sources = Sources()
        if frame.pictures is not None and frame.pictures[0] < frame.pictures[1]:
            self._say(frame.pictures, frame.caption_start)

    def _say(self, pictures: Range, start: int) -> None:
        """Note the texts from node `start` on as a caption, cut at CAPTION_LENGTH: each picture will carry it."""
        caption = self._said.get(pictures, "")
        for index in range(start, len(self.nodes)):
            if len(caption) >= CAPTION_LENGTH:
                break
            if text := self.nodes[index]["text"]:
                caption = f"{caption} {text[:CAPTION_LENGTH]}" if caption else text
        self._said[pictures] = caption[:CAPTION_LENGTH]

    def _give_captions(self) -> None:
        """Captions to their pictures, of those around a picture the closest."""
        for pictures in sorted(self._said, key=lambda each: (each[1] - each[0], each)):
            for node in self._images_in(pictures):
                if node["caption"] is None:
                    node["caption"] = self._said[pictures] or None

    def _images_in(self, pictures: Range) -> Iterator[dict[str, Any]]:
        start, end = (bisect_left(self._images, each, key=lambda image: image[0]) for each in pictures)
        return (node for _, node in self._images[start:end])

    def _in_data_table(self) -> bool:
        return bool(self._names) and self._names[-1] == "data"

    # ---- text

    def _edge(self, strength: int) -> None:
        if not strength:
            return
        if self._soft:
            self._buffer.append(" ")
            return
        self._flush()
        self._pending = max(self._pending, strength)

    def _flush(self) -> None:
        if not self._buffer:
            return
        raw = "".join(self._buffer)
        self._buffer.clear()
        name = next((name for name in reversed(self._names) if name != "data"), "div")
        if self._pre:
            self._emit(normalize_lines(raw.replace(_BREAK, "\n")), "pre")
            return
        if _CELL in raw:
            cells = [normalize(cell.replace(_BREAK, " ")) for cell in raw.split(_CELL)[1:]]
            while cells and not cells[-1]:
                cells.pop()
            self._emit(" | ".join(cells) if any(cells) else "", "tr")
            return
        if _BREAK not in raw:
            self._emit(normalize(raw), name)
            return
        lines: list[str] = []
        num_paragraphs = 0
        for piece in [*raw.split(_BREAK), ""]:
            line = normalize(piece)
            if line:
                lines.append(line)
            elif lines:  # two line breaks in a row, or the end
                if num_paragraphs:
                    self._pending = 2
                self._emit((" " if self._soft or name in _SOFT else "\n").join(lines), name)
                num_paragraphs += 1
                lines = []
        if not num_paragraphs:
            self._pending = max(self._pending, 1)

    def _emit(self, text: str, tag: str) -> None:
        if not text:
            return
        if self._last_text >= 0:
            self.nodes[self._last_text]["separator"] = _SEPARATORS[self._pending]
        self._pending = 0
        self._last_text = len(self.nodes)
        self._last_image = None
        self.nodes.append(new_node("text", tag, text=text, separator="\n\n"))

    # ---- images

    def _is_formula(self, tag: str, attributes: dict[str, str | None]) -> bool:
        """Wikipedia hides its formula images from screen readers: their text stands beside them."""
        return tag in _IMAGES and any(name in _WORD_IMAGES for name in (attributes.get("class") or "").split())

    def _formula(self, index: int, attributes: dict[str, str | None]) -> int:
        """MathML: its TeX where it carries any, else its characters."""
        tree = self.tree
        tex = attributes.get("alttext")
        for i in range(max(index + 1, self._without_tex), tree.ends[index]):
            if tex:
                break
            is_tex = tree.tags[i] == "annotation" and "tex" in (tree.attributes[i].get("encoding") or "")
            if is_tex and tree.text_length(i):
                tex = tree.text_of(i, 10_000)
        if not tex:
            self._without_tex = max(self._without_tex, tree.ends[index])
            return index + 1
        self._buffer.append(f" {tex} ")
        return tree.ends[index]

    def _image(self, index: int) -> None:
        attributes = self.tree.attributes[index]
        for name in (attributes.get("class") or "").split():
            rule = _WORD_IMAGES.get(name)
            if rule and attributes.get("alt"):
                self._buffer.append(attributes["alt"] or "")
                self._drop("image", rule, attributes["alt"] or "")
                return
        self._num_seen += 1
        if self._num_seen > _MAX_SEEN * self.settings.max_images:
            self._drop("image", "max_images", self._absolute(attributes.get("src") or ""))
            return
        choice = choose_image(attributes, self._sources, self.base_url, self.encoding, self.settings)
        if self._num_images >= self.settings.max_images:
            self._drop("image", "max_images", choice.url or choice.detail)
            return
        width, height = rendered_size(attributes)
        before = None if any(not piece.isspace() for piece in self._buffer) else self._last_image
        if (
            choice.stand_in
            and before is not None
            and (before.in_noscript or self._is_blur_of(choice.url, before, index))
        ):
            self._drop("image", "placeholder", choice.url or choice.detail)
        elif choice.url is None:
            alt = alt_text(attributes)
            self._last_image = _LastImage(
                None, len(self.dropped), True, self._mute > 0, index, alt, (width or None, height or None)
            )
            # Without any source the detail is what the image would have been called.
            detail = self._absolute(choice.detail) if choice.rule else choice.detail
            self._drop("image", choice.rule or "no_source", detail)
        elif furniture.is_portrait(self.tree, index):
            self._drop("image", "portrait", choice.url)
        elif is_tracking_pixel(attributes, width, height):
            self._drop("image", "tracking_pixel", choice.url)
        else:
            if width is not None and height is not None and max(width, height) <= 2:
                width = height = None  # sized by other means
            node = new_node(
                "image",
                "img",
                image_url=choice.url,
                image_id=choice.image_id,
                alt=alt_text(attributes),
                title=normalize(attributes.get("title") or "")[:ALT_LENGTH] or None,
                rendered_width=width or None,
                rendered_height=height or None,
            )
            self._add_image(node, before, choice.stand_in, index)

    def _add_image(self, node: dict[str, Any], before: _LastImage | None, stand_in: bool, index: int) -> None:
        """Append an image, once: lazy loading puts one picture into <img> and <noscript>, in either order."""
        if before is not None and before.node is not None and before.node["image_id"] == node["image_id"]:
            merge_facts(before.node, node)
            return
        if before is not None and self._is_same_picture(before, node, index):
            if before.node is None:
                self.dropped.pop(before.index)
            elif _is_smaller(node["image_url"], before.node["image_url"]):
                self._drop("image", "placeholder", node["image_url"])
                merge_facts(before.node, node)
                return
            else:  # the file that stood in gives way
                self._drop("image", "placeholder", before.node["image_url"])
                before.node.update(image_url=node["image_url"], image_id=node["image_id"])
                merge_facts(before.node, node)
                size = (before.node["rendered_width"], before.node["rendered_height"])
                self._last_image = _LastImage(
                    before.node, before.index, False, self._mute > 0, index, before.node["alt"], size
                )
                return
        if self._mute and is_counter(self.tree.attributes[index], node["image_url"]):
            self._drop("image", "tracking_pixel", node["image_url"])
            return
        if not self._soft:
            self._flush()
        self._num_images += 1
        self._images.append((index, node))
        self.nodes.append(node)
        size = (node["rendered_width"], node["rendered_height"])
        self._last_image = _LastImage(node, len(self.nodes) - 1, stand_in, self._mute > 0, index, node["alt"], size)

    def _is_same_picture(self, before: _LastImage, node: dict[str, Any], index: int) -> bool:
        """Whether an image shows what the one directly before it shows, which gives way to it.

        A script puts the real file beside one that stands in: a lone <img> in <noscript>, or a second one in the same
        small wrapper. What tells of them is what they share: alt, size, and a name but for its size.
        """
        size = (node["rendered_width"], node["rendered_height"])
        same_size = None not in size and size == before.size
        same_alt = before.alt == node["alt"]
        url = before.node["image_url"] if before.node is not None else None
        same_name = (
            url is not None and (name := picture_name(url)) is not None and name == picture_name(node["image_url"])
        )
        if self._mute and not before.in_noscript:
            if before.stand_in:
                return before.alt is None or same_alt or same_size or same_name
            return (same_name and (same_alt or before.alt is None or node["alt"] is None)) or (same_size and same_alt)
        if url is None or not (same_alt or None in (before.alt, node["alt"])) or not self._share_wrapper(before, index):
            return False
        if url[:5].lower() == "data:":
            return before.stand_in and len(url) <= _MAX_BLUR
        width = stated_width(url)
        return same_name and width is not None and width <= _BLURRED and not _is_smaller(node["image_url"], url)

    def _is_blur_of(self, url: str | None, before: _LastImage, index: int) -> bool:
        """Whether a file that stands in does so for the image directly before it."""
        return (
            before.node is not None
            and not before.stand_in
            and (url is None or (url[:5].lower() == "data:" and len(url) <= _MAX_BLUR))
            and self._share_wrapper(before, index)
        )

    def _share_wrapper(self, before: _LastImage, index: int) -> bool:
        """Whether an element close around both images holds no others."""
        around = index
        for _ in range(_WRAPPERS):
            around = self.tree.parents[around]
            if around < 0 or self.tree.num_images(around) > _WRAPPED:
                return False
            if around < before.place:
                return self.tree.text_length(around) == 0
        return False


def _is_smaller(url: str, other: str) -> bool:
    """Whether a file is smaller than another, as far as their addresses say."""
    width, other_width = stated_width(url), stated_width(other)
    return width is not None and other_width is not None and width < other_width
