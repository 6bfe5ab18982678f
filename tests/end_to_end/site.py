"""A small site with everything a corpus meets: articles with real photographs, copies of them, and ugly pages."""

from __future__ import annotations

import io
import random
from pathlib import Path

import skimage.data
from PIL import Image

PHOTOS = ("astronaut", "chelsea", "coffee", "rocket")
_SUBJECTS = {
    "astronaut": "The astronaut in the orange suit smiles at the camera in front of a flag and a model of the shuttle.",
    "chelsea": "The tabby cat called Chelsea rests on a blanket and looks at the photographer with bright green eyes.",
    "coffee": "A cup of espresso stands on a wooden table beside a small spoon and a folded paper napkin.",
    "rocket": "The rocket waits on its launch pad at night while the floodlights make the steam glow around it.",
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


def photograph(name: str, width: int = 320, **save: object) -> bytes:
    """A real photograph as JPEG bytes."""
    picture = Image.fromarray(getattr(skimage.data, name)())
    picture = picture.resize((width, width * picture.height // picture.width))
    sink = io.BytesIO()
    picture.save(sink, "JPEG", **{"quality": 90, **save})
    return sink.getvalue()


def article(number: int, photo: str, extra: str = "") -> str:
    """An article about a photograph; equal numbers give equal words."""
    chosen = random.Random(number).sample(_SENTENCES, 8)
    own = f"This is print number {number} of the series, and it was the {number}th to be shown in the great hall."
    return f"""<!doctype html><html lang="en"><head><title>Print {number}</title></head><body>
<nav><a href="index.html">All prints</a></nav>
<article><h1>About print number {number}</h1>
<p>{" ".join(chosen[:4])}</p>
<figure><img src="images/{photo}.jpg" width="320" alt="{photo}"><figcaption>{_SUBJECTS[photo]}</figcaption></figure>
<p>{own} {" ".join(chosen[4:])}</p>{extra}
</article></body></html>"""


def write_site(root: Path, num_articles: int = 12) -> Path:
    """The site under `root`; every page is linked from index.html."""
    (root / "images").mkdir(parents=True)
    for name in PHOTOS:
        (root / "images" / f"{name}.jpg").write_bytes(photograph(name))
    pages = {}
    for number in range(num_articles):
        photo = PHOTOS[number % len(PHOTOS)]
        extra = ""
        if number == 0:
            extra = "".join(f'<img src="images/{name}">' for name in _ugly_images(root / "images"))
        pages[f"print-{number}.html"] = article(number, photo, extra).encode()
    # Nearly the words of print 1: one sentence is another one.
    copy = article(1, PHOTOS[1]).replace("print number 1 of the series", "print number one of the old series")
    pages["copy.html"] = copy.encode()
    # Exactly the words of print 2, at another URL.
    pages["mirror/print-2.html"] = article(2, PHOTOS[2]).replace('src="images', 'src="../images').encode()
    pages |= _ugly_pages()
    links = "".join(f'<li><a href="{name}">{name}</a></li>' for name in sorted(pages))
    pages["index.html"] = f"<html><title>Prints</title><body><ul>{links}</ul></body></html>".encode()
    for name, body in pages.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(body)
    (root / "robots.txt").write_text("User-agent: *\nDisallow: /private/\n")
    return root


def _ugly_images(folder: Path) -> list[str]:
    """Damaged, disguised, tiny, huge and odd pictures; their names."""
    good = photograph("coffee")
    tiny, bomb, rotated, cmyk, moving = (io.BytesIO() for _ in range(5))
    Image.new("RGB", (1, 1)).save(tiny, "PNG")
    Image.new("1", (30_000, 30_000)).save(bomb, "PNG")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(skimage.data.rocket()).resize((320, 213)).save(rotated, "JPEG", exif=exif)
    Image.fromarray(skimage.data.coffee()).resize((300, 200)).convert("CMYK").save(cmyk, "JPEG")
    frames = [Image.new("P", (200, 200), colour) for colour in (1, 90, 200)]
    frames[0].save(moving, "GIF", save_all=True, append_images=frames[1:])
    files = {
        "truncated.jpg": good[: len(good) // 2],
        "disguised.jpg": b"<!doctype html><html><body>not found</body></html>",
        "tiny.png": tiny.getvalue(),
        "bomb.png": bomb.getvalue(),
        "rotated.jpg": rotated.getvalue(),
        "cmyk.jpg": cmyk.getvalue(),
        "moving.gif": moving.getvalue(),
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return [*sorted(files), "missing.jpg"]


def _ugly_pages() -> dict[str, bytes]:
    """Pages that are none, or hardly."""
    whole = article(50, "coffee").encode()
    return {
        "not-html.html": bytes(range(256)) * 40,
        "truncated.html": whole[: len(whole) * 2 // 3],
        "latin.html": article(51, "rocket", "<p>Café, naïve, señor: déjà vu.</p>").encode("latin-1"),
        "deep.html": b"<html><body>" + b"<div>" * 100_000 + b"<p>At the bottom of it all.</p>",
        "empty.html": b"",
        "private/secret.html": article(52, "coffee").encode(),
        "noindex.html": article(53, "chelsea").replace("<title>", '<meta name="robots" content="noindex"><title>').encode(),
    }
