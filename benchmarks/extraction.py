"""What extraction keeps of pages whose main content people have marked, and what it keeps besides.

python -m benchmarks.extraction GOLD                # folder or .tar.gz with NAME/source.html, NAME/expected.html
python -m benchmarks.extraction GOLD --half 0       # pages whose names hash to 0: to look at; the rest is to judge by
python -m benchmarks.extraction GOLD --worst 10     # and the pages with the lowest F1
python -m benchmarks.extraction GOLD --beside       # and of trafilatura, resiliparse, readability-lxml, if installed
python -m benchmarks.extraction GOLD --speed        # bytes a second of one core, on the pages of 60 to 200 kB

Text: F1 of the words (\\w+) that a page and its marked content have in common, each counted as often as it stands, and
of their runs of five (ROUGE-5: Lin, "ROUGE: A Package for Automatic Evaluation of Summaries", 2004), a page at a time.
Pictures: the same picture counts, in whatever size and format: files that one <img> offers, or that are named alike but
for their sizes. Precision leaves out what the rules of `filters.images` drop by the size that a page gives.
"""

from __future__ import annotations

import hashlib
import math
import re
import statistics
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import unquote, urlsplit

import typer
from selectolax.lexbor import LexborHTMLParser, LexborNode

from stages.extract import ExtractSettings
from stages.extract.document import extract_document
from stages.extract.image_files import rendered_size
from stages.filter.settings import ImageRules

_URL = "http://fakehost/test/page.html"
_WORD = re.compile(r"\w+")
_SILENT = ("script", "style", "template", "noscript")
# What names of files say of their size: "-300x200", "_640", "@2x", "-scaled", "-thumb", and Wikipedia's "220px-".
_SIZE = re.compile(
    r"^\d+px-|[-_.@](?:\d{2,4}x\d{0,4}|x\d{2,4}|\d{2,4}(?:px|w|h)?|\dx|scaled|thumb(?:nail)?|small|medium|large)$",
    re.IGNORECASE,
)
_EXTENSION = re.compile(r"\.(?:jpe?g|png|gif|webp|svg|avif|bmp|tiff?)$", re.IGNORECASE)
_ADDRESS = re.compile(r"[^\s,]+")
_USUAL = (60_000, 200_000)  # bytes of the pages that are timed
_ROUNDS = 5
_MAX_INLINE = 256  # characters of a data: URI that tell it from others


@dataclass(frozen=True)
class _Score:
    """One page: text against text, and pictures as numbers of different ones."""

    name: str
    words: tuple[float, float, float]
    """Precision, recall, F1."""
    rouge: float
    found: int
    marked: int
    right: int
    kept: int
    """Those of ours that pass the rules of size, of which `right` are marked."""


def _f1(ours: Counter[Any], marked: Counter[Any]) -> tuple[float, float, float]:
    common = (ours & marked).total()
    if not common:
        same = float(not ours and not marked)
        return same, same, same
    precision, recall = common / ours.total(), common / marked.total()
    return precision, recall, 2 * precision * recall / (precision + recall)


def _runs(words: list[str]) -> Counter[Any]:
    """Runs of five words, or the one run of a shorter text."""
    return Counter(zip(*(words[start:] for start in range(min(5, len(words)))), strict=False))


def _text(root: LexborNode) -> str:
    """The words of all text nodes in order, as separate pieces where elements part them."""
    pieces = []
    for node in root.traverse(include_text=True):
        if node.tag == "-text" and (node.parent is None or node.parent.tag not in _SILENT):
            pieces.append(node.text_content or "")
        elif node.tag not in ("a", "b", "i", "em", "strong", "span", "sup", "sub", "code", "u", "font"):
            pieces.append(" ")
    return "".join(pieces)


def _stem(address: str) -> str:
    """What a picture is called, without folder, ending and sizes; of an inline one, its first characters."""
    if address[:5] == "data:":
        return address[:_MAX_INLINE]
    path = unquote(urlsplit(address).path).rstrip("/").lower()
    name = path.rpartition("/")[2]
    while (shorter := _EXTENSION.sub("", name)) != name or (shorter := _SIZE.sub("", name)) != name:
        name = shorter
    # named by nothing but a size ("/abc/600.jpg"): the folder is the picture
    return name if name and not name.isdecimal() else _EXTENSION.sub("", path)


class _Pictures:
    """Which names are one picture: those that stand in the attributes of one <img> or one <picture>."""

    def __init__(self, page: LexborNode) -> None:
        self._first: dict[str, str] = {}
        for node in page.css("img, picture source, amp-img"):
            holder = node.parent if node.parent is not None and node.parent.tag == "picture" else node
            self._join(self._names([holder, *holder.css("img, source")]))

    def _names(self, nodes: Iterable[LexborNode]) -> list[str]:
        names = []
        for node in nodes:
            for attribute, value in node.attributes.items():
                if value and (attribute in ("src", "srcset") or attribute.startswith("data-")):
                    names += [_stem(each) for each in _ADDRESS.findall(value[:20_000]) if _is_file(attribute, each)]
        return names

    def _join(self, names: list[str]) -> None:
        firsts = {self.of(name) for name in names}
        if firsts:
            first = min(firsts)
            for each in firsts:
                self._first[each] = first

    def of(self, name: str) -> str:
        """The one name of a picture."""
        while (first := self._first.get(name, name)) != name:
            name = first
        return name


def _is_file(attribute: str, value: str) -> bool:
    """Whether a piece of an attribute is a file's address; a data: URI is a stand-in for any picture."""
    if value[:5] == "data:" or re.fullmatch(r"\d+(?:\.\d+)?[wx]", value):
        return False
    return attribute == "src" or ("/" in value and not value.startswith(("{", "[")))


def _small(node: dict[str, Any], rules: ImageRules) -> bool:
    """Whether the page gives an image a size at which the rules drop it."""
    sides = ((node["rendered_width"], rules.rendered_width), (node["rendered_height"], rules.rendered_height))
    return any(side is not None and bounds.min is not None and side < bounds.min for side, bounds in sides)


@dataclass(frozen=True)
class _Found:
    """What an extractor makes of a page."""

    texts: list[str]
    images: list[tuple[str, bool]]
    """Addresses, and whether the rules of size keep each as far as the page gives one."""
    as_text: frozenset[str] = frozenset()
    """Alternative texts of pictures that became text: formulas and emoji."""


def _ours(source: bytes) -> _Found:
    document = extract_document(source, _URL, "text/html", ExtractSettings())
    images = [node for node in document["nodes"] if node["kind"] == "image"]
    return _Found(
        [node["text"] for node in document["nodes"] if node["kind"] == "text"],
        [(node["image_url"], not _small(node, ImageRules())) for node in images],
        frozenset(row["detail"] for row in document["dropped"] if row["rule"] in ("formula", "emoji")),
    )


def _of_html(html: str, image: str = "img") -> _Found:
    """The texts and pictures of an extractor's own HTML."""
    root = LexborHTMLParser(f"<body>{html}").root
    assert root is not None
    sizes = ((node, rendered_size(node.attributes)) for node in root.css(image) if node.attributes.get("src"))
    images = [
        (node.attributes["src"] or "", not _small({"rendered_width": width, "rendered_height": height}, ImageRules()))
        for node, (width, height) in sizes
    ]
    return _Found([_text(root)], images)


def _trafilatura(source: bytes) -> _Found:
    import trafilatura

    found = trafilatura.extract(source, url=_URL, output_format="xml", include_images=True) or ""
    return _of_html(found, "graphic")


def _resiliparse(source: bytes) -> _Found:
    from resiliparse.extract.html2text import extract_plain_text
    from resiliparse.parse.html import HTMLTree

    return _Found([extract_plain_text(HTMLTree.parse_from_bytes(source), main_content=True, alt_texts=False)], [])


def _readability(source: bytes) -> _Found:
    import readability

    return _of_html(readability.Document(source.decode("utf-8", "replace"), url=_URL).summary(html_partial=True))


_BESIDE: dict[str, Callable[[bytes], _Found]] = {
    "trafilatura": _trafilatura,
    "resiliparse": _resiliparse,
    "readability-lxml": _readability,
}


def _score(folder: Path, extractor: Callable[[bytes], _Found] = _ours) -> _Score:
    source = (folder / "source.html").read_bytes()
    made = extractor(source)
    # which pictures are words is asked of ours for all, so that they are scored on the same ones
    as_text = made.as_text if extractor is _ours else _ours(source).as_text
    marked = LexborHTMLParser((folder / "expected.html").read_text(encoding="utf-8", errors="replace"))
    page = LexborHTMLParser(source.decode("utf-8", "replace"))
    assert marked.root is not None and page.root is not None
    ours = _WORD.findall(" ".join(made.texts).lower())
    theirs = _WORD.findall(_text(marked.root).lower())
    pictures = _Pictures(page.root)
    pictures_marked, of_words = set(), set()
    for node in marked.css("img, amp-img"):
        address = node.attributes.get("src") or next(iter(_ADDRESS.findall(node.attributes.get("srcset") or "")), "")
        is_words = (node.attributes.get("alt") or "")[:200] in as_text
        if address:
            (of_words if is_words else pictures_marked).add(pictures.of(_stem(address)))
    found = {pictures.of(_stem(address)) for address, _ in made.images} - of_words
    kept = {pictures.of(_stem(address)) for address, is_kept in made.images if is_kept} - of_words
    return _Score(
        folder.name,
        _f1(Counter(ours), Counter(theirs)),
        _f1(_runs(ours), _runs(theirs))[2],
        len(found & pictures_marked),
        len(pictures_marked),
        len(kept & pictures_marked),
        len(kept),
    )


def _half(name: str) -> int:
    return hashlib.sha256(name.encode()).digest()[0] & 1


def _say(title: str, scores: list[_Score]) -> None:
    precision, recall, f1 = (statistics.mean(score.words[i] for score in scores) for i in range(3))
    median = statistics.median(score.words[2] for score in scores)
    rouge = [score.rouge for score in scores]
    found, marked = sum(score.found for score in scores), sum(score.marked for score in scores)
    right, kept = sum(score.right for score in scores), sum(score.kept for score in scores)
    print(
        f"{title}: {len(scores)} pages; words P {precision:.3f} R {recall:.3f} F1 {f1:.3f}, median {median:.3f}; "
        f"ROUGE-5 F1 {statistics.mean(rouge):.3f}, median {statistics.median(rouge):.3f}; "
        f"pictures: recall {found / max(1, marked):.3f} of {marked}, precision {right / max(1, kept):.3f} of {kept}"
    )


def _speed(folders: list[Path]) -> None:
    """Megabytes of HTML a second of processor time, the best of some rounds over pages of a usual size."""
    bodies = [(folder / "source.html").read_bytes() for folder in folders]
    bodies = [body for body in bodies if _USUAL[0] <= len(body) <= _USUAL[1]]
    if not bodies:
        raise SystemExit(f"no page of {_USUAL[0]:,} to {_USUAL[1]:,} bytes")
    best = math.inf
    for _ in range(_ROUNDS):
        began = time.process_time()
        for body in bodies:
            extract_document(body, _URL, "text/html", ExtractSettings())
        best = min(best, time.process_time() - began)
    size = sum(map(len, bodies))
    print(f"{len(bodies)} pages of {size / len(bodies) / 1e3:.0f} kB: {size / best / 1e6:.1f} MB a second of one core")


def main(
    gold: Annotated[Path, typer.Argument(help="Folder, or .tar.gz of it, of NAME/source.html and NAME/expected.html.")],
    half: Annotated[int | None, typer.Option(min=0, max=1, help="Only pages whose names hash to it.")] = None,
    worst: Annotated[int, typer.Option(min=0, help="How many of the worst pages to name.")] = 0,
    beside: Annotated[bool, typer.Option("--beside", help="Score others that are installed as well.")] = False,
    speed: Annotated[bool, typer.Option("--speed", help="Only how fast pages are read.")] = False,
) -> None:
    """Extract each page with default settings and compare."""
    with tempfile.TemporaryDirectory() as scratch:
        if gold.is_file():
            with tarfile.open(gold) as archive:
                archive.extractall(scratch, filter="data")
            gold = Path(scratch)
        began = time.process_time()
        folders = sorted(path.parent for path in gold.rglob("expected.html"))
        folders = [each for each in folders if half is None or _half(each.name) == half]
        if not folders:
            raise SystemExit(f"{gold}: no NAME/expected.html; give the folder that holds the pages")
        if speed:
            _speed(folders)
            return
        scores = [_score(each) for each in folders]
        for name, extractor in _BESIDE.items() if beside else ():
            try:
                _say(name, [_score(each, extractor) for each in folders])
            except ImportError:
                print(f"{name}: not installed")
    for each in (0, 1):
        if part := [score for score in scores if _half(score.name) == each]:
            _say(f"half {each}", part)
    _say("all", scores)
    print(f"{time.process_time() - began:.1f} s of processor time")
    for score in sorted(scores, key=lambda score: score.words[2])[:worst]:
        precision, recall, f1 = score.words
        pictures = f"{score.found}/{score.marked} pictures, {score.right} of {score.kept} right"
        print(f"{score.name}: P {precision:.3f} R {recall:.3f} F1 {f1:.3f} ROUGE-5 {score.rouge:.3f}; {pictures}")


if __name__ == "__main__":
    typer.run(main)
