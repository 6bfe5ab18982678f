"""A small site with everything a corpus meets: articles with real photographs, copies of them, and ugly things.

`EXPECTED_PAGES` and `EXPECTED_IMAGES` say what must become of each: "kept", or the rules of its decision rows.
"""

from __future__ import annotations

import base64
import io
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import skimage.data
from PIL import Image

from stages.dedup.split import Border, positions
from stages.web.urls import url_id
from tests.servers import MEDIA_TYPES, Route, Site, answer, endless_redirect, huge_page, redirect, routes

# A photograph and a quarter of it (None is the whole): pictures that share neither bytes nor perceptual hash.
PHOTOS: dict[str, tuple[str, int | None]] = {
    f"{name}{'' if quarter is None else f'-{quarter}'}": (name, quarter)
    for name in ("astronaut", "chelsea", "coffee", "rocket")
    for quarter in (None, 0, 1, 2, 3)
}
NUM_ARTICLES = 18
# Articles 16 and 17 show what 0 and 1 show, so they belong to one group each.
ILLUSTRATIONS = [list(PHOTOS)[number % 16] for number in range(NUM_ARTICLES)]
_SUBJECTS = {
    "astronaut": "The astronaut in the orange suit smiles at the camera in front of a flag and a model of the shuttle",
    "chelsea": "The tabby cat called Chelsea rests on a blanket and looks at the photographer with bright green eyes",
    "coffee": "A cup of espresso stands on a wooden table beside a small spoon and a folded paper napkin",
    "rocket": "The rocket waits on its launch pad at night while the floodlights make the steam glow around it",
}
_SENTENCES = (
    "People who take pictures for a living know that the light of the early morning is kinder than the light of noon.",
    "It is said that a good picture needs no words, but most of the pictures that we keep have a story to them.",
    "When the shutter was slow, everyone in front of the lens had to sit very still for as long as they could.",
    "The lens that was on the camera at that time was made in a small town by a family of three brothers.",
    "In the archive there are more than two hundred boxes, and nobody has yet looked through all of them.",
    "Some of the prints were made on paper that has turned yellow over the years, which gives them a warm tone.",
    "The best time to visit the collection is in the winter, because the rooms are quiet and the staff have time.",
    "She wrote the date on the back of every print, and without that habit we would know very little today.",
    "A careful reader will see that the shadows in the two pictures fall to different sides of the building.",
    "They were sent by post to a friend abroad, who kept them in a drawer until his children found them there.",
    "What the picture does not show is the crowd that was standing just behind the man with the camera.",
    "There is a note in pencil under the print that tells us where it was taken and who paid for the film.",
    "He went back to the same place every year for ten years and took the same picture from the same spot.",
    "The colours are not those of the original, for the scanner of that time could not see the deep reds well.",
    "If you look at it for a while, you will notice that the reflection in the window is of another street.",
)
# Stands on every page; one copy is kept.
SERIES = "This page belongs to the series of prints, and it was put online by the friends of the collection."

# Pages that show the same picture, and copies of one text.
_SHARED_PICTURE = [("/print-0.html", "/print-16.html"), ("/print-1.html", "/print-17.html")]
_SHARED_PICTURE += [("/print-3.html", "/print-14.html"), ("/print-12.html", "/truncated.html")]
_SHARED_PICTURE += [("/print-0.html", "/print-10.html")]
_SHARED_TEXT = [("/print-1.html", "/copy.html"), ("/print-2.html", "/mirror/print-2.html")]

# Path -> what becomes of the page: "kept", or the rule of its decision.
EXPECTED_PAGES: dict[str, str] = {
    **{f"/print-{number}.html": "kept" for number in range(NUM_ARTICLES)},
    "/truncated.html": "kept",
    "/latin.html": "kept",
    "/moved.html": "kept",
    "/index.html": "language",
    "/copy.html": "near_duplicate",
    "/mirror/print-2.html": "same_text",
    "/alias.html": "same_url",
    "/few.html": "num_words",
    "/not-html.html": "extract",
    "/empty.html": "extract",
    "/deep.html": "num_images",
    "/noindex.html": "meta_robots",
    "/header.html": "x_robots_tag",
    "/private/secret.html": "robots",
    "/gone.html": "http_status",
    "/mirror/index.html": "http_status",
    "/paper.pdf": "not_a_page",
    "/paper": "not_html",
    "/huge.html": "too_large",
    "/announced.html": "too_large",
    "/endless": "too_many_redirects",
}
# Path -> what becomes of the image: "kept", or the rule of its decision and words of its detail.
EXPECTED_IMAGES: dict[str, str | tuple[str, str]] = {
    "/images/rotated.jpg": "kept",
    "/images/cmyk.jpg": "kept",
    "/images/animated.webp": "kept",
    "/images/truncated.jpg": ("status", "truncated"),
    "/images/disguised.jpg": ("status", "not_an_image"),
    "/images/bomb.png": ("status", "too_many_pixels"),
    "/images/missing.jpg": ("status", "http_status"),
    "/images/noai.jpg": ("status", "x_robots_tag"),
    "/private/hidden.jpg": ("status", "robots"),
    "/images/tiny.png": ("original_width", ""),
    "/images/moving.jpg": ("format", "gif"),
    "/images/moving.gif": ("format", ""),
    "/images/site-logo.jpg": ("url_words", ""),
}
# Dropped by their address alone.
NEVER_FETCHED = (
    "/images/moving.gif",
    "/images/site-logo.jpg",
    "/paper.pdf",
    "/private/hidden.jpg",
    "/private/secret.html",
)
# Served without a file; where a folder is the source they do not exist.
ROUTED = (
    "/header.html",
    "/huge.html",
    "/announced.html",
    "/endless",
    "/moved.html",
    "/paper.pdf",
    "/paper",
    "/gone.html",
)


def photograph(name: str, quarter: int | None = None, **save: object) -> bytes:
    """A real photograph, or a quarter of it, 320 pixels wide as JPEG bytes."""
    picture = Image.fromarray(getattr(skimage.data, name)()).convert("RGB")
    if quarter is not None:
        width, height = picture.width // 2, picture.height // 2
        left, top = quarter % 2 * width, quarter // 2 * height
        picture = picture.crop((left, top, left + width, top + height))
    picture = picture.resize((320, 320 * picture.height // picture.width))
    sink = io.BytesIO()
    picture.save(sink, "JPEG", **{"quality": 85, **save})
    return sink.getvalue()


def article(number: int, photo: str, extra: str = "") -> str:
    """An article about a photograph; equal numbers give equal words."""
    chosen = random.Random(number).sample(_SENTENCES, 8)
    own = f"This is print number {number} of the series, and it was the {number}th to be shown in the great hall."
    caption = f"{_SUBJECTS[photo.partition('-')[0]]}, as it was hung in room {number}."
    return f"""<!doctype html><html lang="en"><head><title>Print {number}</title></head><body>
<nav><a href="index.html">All prints</a></nav>
<article><h1>About print number {number}</h1>
<p>{" ".join(chosen[:4])}</p>
<figure><img src="images/{photo}.jpg" width="320" alt="{photo}"><figcaption>{caption}</figcaption></figure>
<p>{own} {" ".join(chosen[4:])}</p>{extra}
<p>{SERIES}</p></article></body></html>"""


def salt_without_leaks(url: str, share: float) -> str:
    """A salt with which the split of the site at this address, whose port its documents' ids follow, drops none."""
    kept = [path for path, fate in EXPECTED_PAGES.items() if fate == "kept"]
    for number in range(100_000):
        salt = f"split {number}"
        text = dict(_SHARED_TEXT)
        pages = [*kept, *(text.get(path, path) for path in kept)]
        h = positions([url_id(url + path) for path in pages], salt).reshape(2, -1).max(axis=0)
        p = dict(zip(kept, h.tolist(), strict=True))
        # Of a URL the smaller id stays, and its cluster is its own.
        p["/print-5.html"] = float(
            positions([min(url_id(f"{url}/print-5.html"), url_id(f"{url}/alias.html"))], salt)[0]
        )
        q = dict(p)
        for one, other in _SHARED_PICTURE:
            q[one], q[other] = max(q[one], p[other]), max(q[other], p[one])
        border = Border()
        border.add(np.array(list(p.values())), np.array(list(q.values())))
        t = border.find(share)
        if all((p[path] < t) == (q[path] < t) for path in kept):
            return salt
    raise AssertionError("no salt keeps all pages")


def write_site(root: Path) -> Path:
    """The files of the site under `root`; every page is linked from index.html."""
    (root / "images").mkdir(parents=True)
    for photo, (name, quarter) in PHOTOS.items():
        (root / "images" / f"{photo}.jpg").write_bytes(photograph(name, quarter))
    carried = base64.b64encode(photograph("coffee", 3, quality=50)).decode()
    _write_ugly_images(root / "images")
    pages = {}
    for number, photo in enumerate(ILLUSTRATIONS):
        extra = ""
        if number == 0:
            extra = "".join(f'<img src="{path[1:]}">' for path in EXPECTED_IMAGES)
        elif number == 3:
            extra = f'<img src="data:image/jpeg;base64,{carried}">'
        pages[f"print-{number}.html"] = article(number, photo, extra).encode()
    # Nearly the words of print 1: one sentence is another one.
    copy = article(1, ILLUSTRATIONS[1]).replace("print number 1 of the series", "print number one of the old series")
    pages["copy.html"] = copy.encode()
    # Exactly the words of print 2, at another URL.
    pages["mirror/print-2.html"] = article(2, ILLUSTRATIONS[2]).replace('src="images', 'src="../images').encode()
    # Says itself that it is another page.
    alias = article(60, ILLUSTRATIONS[5]).replace("<title>", '<link rel="canonical" href="print-5.html"><title>')
    pages["alias.html"] = alias.encode()
    pages |= _ugly_pages()
    pages["index.html"] = _index(pages).encode()
    for name, body in pages.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(body)
    (root / "robots.txt").write_text("User-agent: *\nDisallow: /private/\n")
    return root


def _index(pages: Mapping[str, bytes]) -> str:
    names = sorted({*pages, *(path[1:] for path in ROUTED)})
    links = "".join(f'<li><a href="{name}">{name}</a></li>' for name in names)
    return f"<html><title>Prints</title><body><ul>{links}</ul></body></html>"


@contextmanager
def served(folder: Path) -> Iterator[Site]:
    """The site on loopback: its files, and what only a server can do to a crawler."""
    table: dict[str, Route] = {
        f"/{path.relative_to(folder).as_posix()}": answer(
            body=path.read_bytes(), content_type=MEDIA_TYPES.get(path.suffix, "text/plain")
        )
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    table |= {
        "/header.html": answer(body=article(54, "chelsea-1").encode(), X_Robots_Tag="noindex"),
        "/huge.html": huge_page(50_000_000, announce=False),
        "/announced.html": huge_page(50_000_000, announce=True),
        "/endless": endless_redirect,
        "/moved.html": redirect("/there.html", 301),
        "/there.html": answer(body=article(55, "rocket-3").encode()),
        "/paper.pdf": answer(body=b"%PDF-1.7", content_type="application/pdf"),
        "/paper": answer(body=b"%PDF-1.7", content_type="application/pdf"),
        "/gone.html": answer(410, b"gone", "text/plain"),
        "/images/noai.jpg": answer(body=photograph("rocket"), content_type="image/jpeg", X_Robots_Tag="noai"),
    }
    with routes(table) as site:
        yield site


def _write_ugly_images(folder: Path) -> None:
    """Damaged, disguised, tiny, huge and odd pictures."""
    good = photograph("coffee")
    tiny, bomb, rotated, cmyk, moving, animated = (io.BytesIO() for _ in range(6))
    Image.new("RGB", (1, 1)).save(tiny, "PNG")
    Image.new("1", (30_000, 30_000)).save(bomb, "PNG")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(skimage.data.rocket()).resize((320, 213)).save(rotated, "JPEG", exif=exif)
    Image.fromarray(skimage.data.coffee()).resize((300, 200)).convert("CMYK").save(cmyk, "JPEG")
    frames = [Image.new("P", (200, 200), colour) for colour in (1, 90, 200)]
    frames[0].save(moving, "GIF", save_all=True, append_images=frames[1:])
    colours = [Image.fromarray(skimage.data.chelsea()).resize((300, 200)).rotate(angle) for angle in (90, 180, 270)]
    colours[0].save(animated, "WEBP", save_all=True, append_images=colours[1:])
    files = {
        "truncated.jpg": good[: len(good) // 2],
        "disguised.jpg": b"<!doctype html><html><body>not found</body></html>",
        "tiny.png": tiny.getvalue(),
        "bomb.png": bomb.getvalue(),
        "rotated.jpg": rotated.getvalue(),
        "cmyk.jpg": cmyk.getvalue(),
        "animated.webp": animated.getvalue(),
        "moving.gif": moving.getvalue(),
        "moving.jpg": moving.getvalue(),
        "site-logo.jpg": good,
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)


def _ugly_pages() -> dict[str, bytes]:
    """Pages that are none, or hardly."""
    whole = article(50, "coffee-1").encode()
    noindex = article(53, "chelsea-2").replace("<title>", '<meta name="robots" content="noindex"><title>')
    # Its server says UTF-8, as for all pages; the page knows better.
    latin = article(51, "rocket-1", "<p>They met at the café that is called señor déjà vu.</p>")
    latin = latin.replace("<title>", '<meta charset="iso-8859-1"><title>')
    few = '<html lang="en"><p>There is something about the photographs that nobody understood.</p>'
    few += '<img src="images/rocket-2.jpg"></html>'
    return {
        "not-html.html": bytes(range(256)) * 40,
        "truncated.html": whole[: len(whole) * 4 // 5],
        "latin.html": latin.encode("latin-1"),
        "deep.html": b"<html><body>" + b"<div>" * 100_000 + b"<p>At the bottom of it all.</p>",
        "empty.html": b"",
        "few.html": few.encode(),
        "private/secret.html": article(52, "coffee-2").replace('src="images', 'src="../images').encode(),
        "noindex.html": noindex.encode(),
    }
