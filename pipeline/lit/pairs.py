"""Pictures with their words, for the LiT heads: out of documentation and clip art that anybody may reuse.

The sources are Debian packages, taken with `apt-get download` and unpacked with `dpkg -x`, nothing installed.
"""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from selectolax.lexbor import LexborHTMLParser, LexborNode

PICTURES = (".png", ".jpg", ".jpeg")
HEADINGS = ("h1", "h2", "h3", "h4", "h5", "h6")
# Formulas, thumbnails and generated diagrams of classes: words beside them say nothing of what they show.
FURNITURE = re.compile(
    r"(^|/)(math|form_\d|.*thumb|.*graph|.*inherit|class|struct|.*logo|.*icon|favicon)", re.IGNORECASE
)
# A picture on more pages than this is furniture too.
MAX_PAGES = 3
MAX_WORDS = 60


class PairsMissing(RuntimeError):
    """A source could not be had; the message is one line."""


@dataclass(frozen=True)
class Source:
    """One Debian package and what is read of it."""

    package: str
    licence: str
    kind: str
    """"pages" (HTML with pictures) or "clip art" (PNG by name, words in the SVG of the same name)."""


SOURCES = (
    Source("openclipart-png", "public domain", "clip art"),
    Source("openclipart-svg", "public domain", "words"),
    Source("python-skimage-doc", "BSD-3-Clause", "pages"),
    Source("python-sklearn-doc", "BSD-3-Clause", "pages"),
    Source("python-scipy-doc", "BSD-3-Clause", "pages"),
    Source("python-astropy-doc", "BSD-3-Clause", "pages"),
    Source("python-vispy-doc", "BSD-3-Clause", "pages"),
    Source("python-ezdxf-doc", "MIT", "pages"),
    Source("opencv-doc", "Apache-2.0", "pages"),
)


@dataclass(frozen=True)
class Pair:
    """A picture and what is written about it."""

    path: Path
    texts: tuple[str, ...]
    """The most particular first: caption, description, heading."""
    source: str
    """Package."""
    page: str
    """Page it stands on, or its own name: pairs of one page are never split."""


def download(source: Source, folder: Path) -> Path:
    """The package unpacked under `folder`; PairsMissing when it cannot be had. Nothing happens the second time."""
    unpacked = folder / source.package
    if unpacked.is_dir():
        return unpacked
    folder.mkdir(parents=True, exist_ok=True)
    steps = (["apt-get", "download", "--quiet", source.package], ["dpkg", "-x", "", str(unpacked.with_suffix(".part"))])
    for step in steps:
        if step[0] == "dpkg":
            step[2] = str(max(folder.glob(f"{source.package}_*.deb")))
        try:
            done = subprocess.run(step, cwd=folder, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            raise PairsMissing(f"{step[0]} is not here: the training pairs are Debian packages") from None
        if done.returncode:
            raise PairsMissing(f"{source.package}: {step[0]} said {' '.join(done.stderr.split())[-200:]}")
    unpacked.with_suffix(".part").rename(unpacked)
    return unpacked


def clean(text: str) -> str:
    """One line without permalink signs and figure numbers, at most MAX_WORDS words."""
    line = " ".join(text.replace("¶", " ").replace("\uf0c1", " ").split()[:MAX_WORDS])
    return re.sub(r"^(Figure|Fig\.) ?[\d.]*:? ?", "", line)


def says_something(text: str) -> bool:
    """Words, not a file name or a link."""
    return len(re.findall(r"[^\W\d_]{3,}", text)) >= 1 and not re.search(
        r"\.(png|jpe?g|svg|py)\b|://|\( ?png ?,|^(logo|image)$", text
    )


def distinct(texts: list[str]) -> tuple[str, ...]:
    """Cleaned texts that say something, each once, in order."""
    return tuple(dict.fromkeys(text for text in map(clean, texts) if says_something(text)))


def pairs_of_pages(root: Path, source: str) -> list[Pair]:
    """Content pictures of every page under `root`, once each, on the first page that shows it."""
    found: dict[Path, Pair] = {}
    pages: Counter[Path] = Counter()
    for page in sorted(root.rglob("*.html")):
        seen = set()
        for path, texts in pictures_of(page):
            if path in seen or FURNITURE.search(path.name):
                continue
            seen.add(path)
            pages[path] += 1
            if texts and path not in found:
                found[path] = Pair(path, texts, source, str(page.relative_to(root)))
    return [pair for path, pair in found.items() if pages[path] <= MAX_PAGES]


def pictures_of(page: Path) -> Iterator[tuple[Path, tuple[str, ...]]]:
    """Local pictures of a page in reading order, with caption, alternative text, paragraph before and heading."""
    tree = LexborHTMLParser(page.read_text(encoding="utf-8", errors="replace"))
    body = tree.css_first("main, [role=main], div.body, div.contents") or tree.body
    if body is None:
        return
    heading = paragraph = ""
    for node in body.traverse():
        if node.tag in HEADINGS:
            heading, paragraph = node.text(separator=" "), ""
        elif node.tag == "p":
            paragraph = node.text(separator=" ")
        elif node.tag == "img":
            path = (page.parent / unquote(urlsplit(node.attributes.get("src") or "").path)).resolve()
            if path.suffix.lower() in PICTURES and path.is_file():
                alternative = node.attributes.get("alt") or ""
                first = re.split(r"(?<=[.!?:])\s", paragraph.strip(), maxsplit=1)[0]
                both = f"{clean(heading)}: {first}" if first else ""
                yield path, distinct([caption_of(node), alternative, first, both, heading])


def caption_of(picture: LexborNode) -> str:
    """Text of the figure's caption in Sphinx's, Doxygen's or plain HTML's way, "" without one."""
    node: LexborNode | None = picture
    for _ in range(3):
        node = node.parent if node is not None else None
        # Higher up stand other pictures, and a caption there is theirs.
        if node is None or (node.tag != "figure" and len(node.css("img")) > 1):
            return ""
        caption = node.css_first("figcaption, p.caption, div.caption")
        if caption is not None:
            return str(caption.text(separator=" "))
    return ""


def pairs_of_clip_art(pictures: Path, drawings: Path, source: str) -> list[Pair]:
    """Clip art by its title, its description and its keywords."""
    words = {path.stem: path for path in sorted(drawings.rglob("*.svg"))}
    found = []
    for path in sorted(pictures.rglob("*.png")):
        drawing = words.get(path.stem)
        if drawing is None or path.is_symlink():
            continue
        head = drawing.read_text(encoding="utf-8", errors="replace")
        metadata = head[: head.find("</metadata>")] if "</metadata>" in head else ""
        title, description = element(metadata, "dc:title"), element(metadata, "dc:description")
        keywords = [clean(word) for word in re.findall(r"<rdf:li>([^<]+)</rdf:li>", metadata)]
        texts = distinct([title, description, f"{title}: {', '.join(keywords)}", ", ".join(keywords)])
        if texts:
            found.append(Pair(path, texts, source, path.stem))
    return found


def element(xml: str, name: str) -> str:
    """Text of the first such element, "" without one."""
    match = re.search(rf"<{name}>([^<]*)</{name}>", xml)
    return re.sub(r"&(amp;)?\w+;", " ", match.group(1)) if match else ""


def all_pairs(folder: Path) -> list[Pair]:
    """Every pair of every source, downloaded into `folder` where it is not there; PairsMissing otherwise."""
    roots = {source.package: download(source, folder) for source in SOURCES}
    found = pairs_of_clip_art(roots["openclipart-png"], roots["openclipart-svg"], "openclipart-png")
    for source in SOURCES:
        if source.kind == "pages":
            found += pairs_of_pages(roots[source.package], source.package)
    return found


def version(source: Source, folder: Path) -> str:
    """Version of a downloaded package, by its file's name."""
    file = max(folder.glob(f"{source.package}_*.deb"))
    return unquote(file.name.split("_")[1])


def one_per_text(pairs: list[Pair]) -> list[Pair]:
    """The first pair of each first text, digits aside: captions that many pictures share have no right answer."""
    found: dict[str, Pair] = {}
    for pair in pairs:
        found.setdefault(re.sub(r"[\W\d_]+", " ", pair.texts[0].lower()), pair)
    return list(found.values())
