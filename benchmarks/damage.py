"""How many of damaged picture files are found: cut, with one bit flipped, or with bytes of a scan changed.

python -m benchmarks.damage                      # 1,000 files of each kind
python -m benchmarks.damage --files 200
"""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from typing import Annotated, Any

import skimage.data
import typer
from PIL import Image

from pictures.decoding import PILLOW_PIXELS, decode
from pictures.headers import Undecodable

_PHOTOS = ("astronaut", "chelsea", "coffee", "rocket")
_FORMATS: dict[str, list[dict[str, Any]]] = {
    "JPEG": [{"quality": 75}, {"quality": 90}],
    "JPEG, progressive": [{"quality": 75, "progressive": True}, {"quality": 90, "progressive": True}],
    "PNG": [{}],
    "WebP": [{"quality": 80}],
    "WebP, lossless": [{"lossless": True}],
}
_CHANGED = 200  # bytes, of those that are changed at random places


def _files(name: str) -> list[bytes]:
    """Photographs of 300 x 200 pixels in a format."""
    files = []
    for photo in _PHOTOS:
        image = Image.fromarray(getattr(skimage.data, photo)()).crop((0, 0, 300, 200))
        for options in _FORMATS[name]:
            stream = io.BytesIO()
            image.save(stream, name.partition(",")[0], **options)
            files.append(stream.getvalue())
    return files


def _start(body: bytes) -> int:
    """Where damage may begin: behind the header of a JPEG's first scan, or the signature."""
    return body.index(b"\xff\xda") + 14 if body[:2] == b"\xff\xd8" else 12


def _cut(body: bytes, chance: random.Random) -> bytes:
    return body[: chance.randrange(1, len(body))]


def _flip(body: bytes, chance: random.Random) -> bytes:
    changed = bytearray(body)
    changed[chance.randrange(_start(body), len(body) - 2)] ^= 1 << chance.randrange(8)
    return bytes(changed)


def _change(body: bytes, chance: random.Random) -> bytes:
    changed = bytearray(body)
    for _ in range(_CHANGED):
        changed[chance.randrange(_start(body), len(body) - 2)] ^= chance.randrange(1, 256)
    return bytes(changed)


def _is_found(body: bytes) -> bool:
    try:
        decode(body, PILLOW_PIXELS)
    except Undecodable:
        return True
    return False


def main(files: Annotated[int, typer.Option(min=1, help="Damaged files of each format and kind.")] = 1000) -> None:
    """Damage, decode, count."""
    kinds: dict[str, Callable[[bytes, random.Random], bytes]] = {
        "cut": _cut,
        "one bit flipped": _flip,
        f"{_CHANGED} bytes changed": _change,
    }
    for name in _FORMATS:
        whole = _files(name)
        for kind, damage in kinds.items():
            chance = random.Random(7)
            found = sum(_is_found(damage(chance.choice(whole), chance)) for _ in range(files))
            print(f"{name}, {kind}: {found} of {files} found ({found / files:.1%})", flush=True)


if __name__ == "__main__":
    typer.run(main)
