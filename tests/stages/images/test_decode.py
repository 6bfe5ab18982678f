"""Real photographs, and everything that happens to photographs on the web."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import random
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import simplejpeg
import skimage.data
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile
from pydantic import ValidationError

from pictures import decoding as image_decoding
from pictures.decoding import decode, upright
from stages.images.decode import OUTPUT, DecodeImage, ImagesSettings, load_resizer
from stages.images.perceptual_hash import phash
from stages.row_function import RowFunction

REPOSITORY = Path(__file__).parents[3]
PHOTOS = {name: getattr(skimage.data, name)() for name in ("astronaut", "chelsea", "coffee", "rocket")}
PHOTO = PHOTOS["chelsea"]  # 300 x 451


def encoded(pixels: np.ndarray[Any, Any] | Image.Image, format: str = "JPEG", **options: Any) -> bytes:
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def run(*bodies: bytes | None, content_type: str | None = None, **options: Any) -> list[dict[str, Any]]:
    rows = pa.table(
        {
            "body": pa.array(bodies, pa.large_binary()),
            "content_type": pa.array([content_type] * len(bodies), pa.string()),
        }
    )
    table = DecodeImage(ImagesSettings(**options))(rows)
    assert table.schema == OUTPUT
    found: list[dict[str, Any]] = table.to_pylist()
    return found


def one(body: bytes, **options: Any) -> dict[str, Any]:
    (row,) = run(body, **options)
    return row


def stored(row: dict[str, Any]) -> np.ndarray[Any, Any]:
    assert row["status"] == "ok", row
    return np.asarray(Image.open(io.BytesIO(row["body"])).convert("RGB"))


def psnr(first: np.ndarray[Any, Any], second: np.ndarray[Any, Any]) -> float:
    error = np.mean((first.astype(float) - second.astype(float)) ** 2)
    return float(10 * np.log10(255**2 / max(error, 1e-9)))


def test_it_is_a_row_function() -> None:
    stage = DecodeImage(ImagesSettings())
    assert isinstance(stage, RowFunction)
    assert (stage.name, stage.weights) == ("decode_image", None)
    assert pickle.loads(pickle.dumps(stage)).settings == stage.settings


def test_a_photograph_becomes_a_stored_picture_and_its_facts() -> None:
    body = encoded(PHOTOS["astronaut"], quality=90)
    row = one(body, image_size=256)
    assert row["status"] == "ok" and row["reason"] is None and row["error"] is None
    assert row["original_hash"] == hashlib.sha256(body).hexdigest()
    assert row["sha256"] == hashlib.sha256(row["body"]).hexdigest()
    assert (row["original_format"], row["original_width"], row["original_height"]) == ("jpeg", 512, 512)
    assert (row["format"], row["width"], row["height"], row["num_frames"]) == ("jpeg", 256, 256, 1)
    assert row["exif_orientation"] is None
    assert (
        psnr(stored(row), np.asarray(Image.fromarray(PHOTOS["astronaut"]).resize((256, 256), Image.Resampling.BOX)))
        > 30
    )


@pytest.mark.parametrize("only_if_bigger", [True, False])
@pytest.mark.parametrize("mode", ["no", "border", "keep_ratio", "center_crop", "keep_ratio_largest"])
@pytest.mark.parametrize("size", [128, 400])
def test_resizing_is_img2datasets(mode: str, size: int, only_if_bigger: bool) -> None:
    """The same bytes as img2dataset makes of a lossless file, in each mode, shrinking and enlarging."""
    body = encoded(PHOTO, "PNG")
    row = one(body, image_size=size, resize_mode=mode, resize_only_if_bigger=only_if_bigger, keep_original=False)
    resizer = load_resizer().Resizer(size, mode, only_if_bigger)
    expected, width, height, *_ = resizer(io.BytesIO(body))
    assert (row["width"], row["height"]) == (width, height)
    assert row["body"] == expected
    if mode == "border" and not only_if_bigger:
        assert stored(row).shape == (size, size, 3) and stored(row)[2, 2].min() > 250  # white bars


@pytest.mark.parametrize(
    ("format", "quality", "decoded"), [("png", 9, "png"), ("webp", 80, "webp"), ("jpg", 50, "jpeg")]
)
def test_encode_format_and_quality(format: str, quality: int, decoded: str) -> None:
    row = one(encoded(PHOTO), image_size=100, encode_format=format, encode_quality=quality)
    assert row["format"] == decoded == image_decoding.sniff(row["body"])[0]
    assert stored(row).shape == (67, 100, 3) or stored(row).shape == (66, 100, 3)


def test_clean_originals_keep_their_bytes() -> None:
    for format in ("JPEG", "PNG", "WEBP"):
        body = encoded(PHOTO, format)
        assert one(body)["body"] == body
        assert one(body, keep_original=False)["body"] != body
        assert one(body, image_size=100)["body"] != body
        assert one(body, resize_only_if_bigger=False)["body"] != body
    grey = encoded(PHOTO[..., 0])
    assert one(grey)["body"] == grey


def test_originals_that_say_where_they_were_taken_do_not_keep_their_bytes() -> None:
    exif = Image.Exif()
    exif[0x010E] = "42 Private Road"
    for format in ("JPEG", "PNG", "WEBP"):
        body = encoded(PHOTO, format, exif=exif)
        assert b"Private Road" in body
        row = one(body)
        assert row["status"] == "ok" and b"Private" not in row["body"]
    assert b"secret" not in one(encoded(PHOTO, comment=b"secret"))["body"]
    for clean in (encoded(PHOTO, "GIF"), encoded(PHOTO, "BMP"), encoded(PHOTO, "TIFF")):
        assert one(clean)["format"] == "jpeg"


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_pictures_stand_upright(orientation: int, format: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    # Turned the other way, so that the tag brings the cat back to its feet.
    undo = {1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}[orientation]
    row = one(
        encoded(upright(PHOTO, undo), format, exif=exif), encode_format="png", encode_quality=1, keep_original=False
    )
    assert (row["original_width"], row["original_height"], row["exif_orientation"]) == (451, 300, orientation)
    assert psnr(stored(row), PHOTO) > 30


def test_an_orientation_outside_the_standard_is_none() -> None:
    exif = Image.Exif()
    exif[0x0112] = 77
    row = one(encoded(PHOTO, exif=exif))
    assert row["exif_orientation"] is None and (row["original_width"], row["original_height"]) == (451, 300)


@pytest.mark.slow
def test_inks_deep_greys_palettes_and_transparency() -> None:
    photo = Image.fromarray(PHOTO)
    assert psnr(stored(one(encoded(photo.convert("CMYK"), quality=95))), PHOTO) > 30
    grey = PHOTO.mean(axis=2)
    deep = Image.fromarray((grey * 257).astype(np.uint16))
    assert psnr(stored(one(encoded(deep, "PNG")))[..., 0], grey) > 30
    assert psnr(stored(one(encoded(deep, "TIFF")))[..., 0], grey) > 30
    floats = Image.fromarray(((grey - grey.min()) / np.ptp(grey)).astype(np.float32))
    assert stored(one(encoded(floats, "TIFF"))).max() > 250
    assert psnr(stored(one(encoded(photo.quantize(256), "PNG"))), PHOTO) > 25
    assert psnr(stored(one(encoded(photo.convert("1"), "PNG"))), np.asarray(photo.convert("1").convert("RGB"))) > 25

    half = photo.convert("RGBA")
    half.putalpha(128)
    over = PHOTO * (128 / 255) + 255 * (127 / 255)
    assert psnr(stored(one(encoded(half, "PNG"))), over) > 30
    assert psnr(stored(one(encoded(half, "WEBP", lossless=True))), over) > 30
    clear = photo.quantize(255)
    corner = int(np.asarray(clear)[0, 0])
    flat = stored(one(encoded(clear, "PNG", transparency=corner), encode_format="png", encode_quality=1))
    assert (flat[np.asarray(clear) == corner] == 255).all()
    keyed = stored(
        one(encoded(photo, "PNG", transparency=tuple(PHOTO[0, 0].tolist())), encode_format="png", encode_quality=1)
    )
    assert (keyed[0, 0] == 255).all()


def icc_profile(space: str, colours: dict[str, tuple[float, float, float]], gamma: float, name: str = "Test") -> bytes:
    """A display profile, version 2 (ICC.1:2001-04): XYZ of its primaries, and one gamma for all."""

    def xyz(*values: float) -> bytes:
        return b"XYZ " + bytes(4) + b"".join(struct.pack(">i", round(value * 65536)) for value in values)

    described = name.encode() + b"\0"
    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256)) + bytes(2)
    tags = {b"desc": b"desc" + bytes(4) + struct.pack(">I", len(described)) + described + bytes(78)}
    tags |= {b"cprt": b"text" + bytes(4) + b"none\0", b"wtpt": xyz(0.9642, 1, 0.8249)}
    tags |= {f"{colour}XYZ".encode(): xyz(*values) for colour, values in colours.items()}
    tags |= {f"{colour}TRC".encode(): curve for colour in colours or "k"}
    table, body, start = b"", b"", 128 + 4 + 12 * len(tags)
    for tag, content in tags.items():
        content += bytes(-len(content) % 4)
        table += tag + struct.pack(">II", start + len(body), len(content))
        body += content
    head = bytes(8) + struct.pack(">I", 0x02400000) + b"mntr" + space.encode().ljust(4) + b"XYZ " + bytes(12)
    head += b"acsp" + bytes(28) + xyz(0.9642, 1, 0.8249)[8:] + bytes(48)
    whole = head + struct.pack(">I", len(tags)) + table + body
    return struct.pack(">I", len(whole)) + whole[4:]


# Red and green of sRGB in each other's place, so that a reader sees the other one.
SWAPPED = {"r": (0.3851, 0.7169, 0.0971), "g": (0.4361, 0.2225, 0.0139), "b": (0.1431, 0.0606, 0.7141)}


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_colours_are_what_a_reader_sees(mode: str, format: str) -> None:
    red = Image.new("RGB", (40, 30), (200, 40, 40))
    image = red if format == "JPEG" else red.convert(mode)
    profile = icc_profile("RGB", SWAPPED, 2.2)
    row = one(encoded(image, format, icc_profile=profile), encode_format="png", encode_quality=1)
    seen = stored(row).reshape(-1, 3).mean(axis=0)
    assert np.abs(seen - (40, 200, 40)).max() < 12
    assert "icc_profile" not in Image.open(io.BytesIO(row["body"])).info


@pytest.mark.parametrize("format", ["PNG", "JPEG", "TIFF"])
def test_a_grey_profile_is_applied(format: str) -> None:
    grey = Image.new("L", (40, 30), 55)
    row = one(encoded(grey, format, icc_profile=icc_profile("GRAY", {}, 1.0)), encode_format="png", encode_quality=1)
    assert abs(float(stored(row).mean()) - 128) < 4  # a fifth of the light is half of sRGB's scale


@pytest.mark.parametrize(
    "profile",
    [
        b"no profile at all",
        icc_profile("RGB", SWAPPED, 2.2)[:200],
        icc_profile("RGB", SWAPPED, 2.2, "sRGB IEC61966-2.1"),
        icc_profile("GRAY", {}, 1.0),
    ],
    ids=["none", "cut", "named sRGB", "of other colours"],
)
@pytest.mark.parametrize("format", ["PNG", "JPEG"])
def test_profiles_that_say_nothing_change_nothing(format: str, profile: bytes) -> None:
    body = encoded(PHOTO, format, icc_profile=profile)
    row = one(body, encode_format="png", encode_quality=1)
    assert psnr(stored(row), PHOTO) > (90 if format == "PNG" else 30)


def test_a_gif_may_end_between_its_blocks() -> None:
    body = encoded(PHOTO[:40, :60], "GIF")
    assert body[-2:] == b"\0;"
    assert one(body[:-1])["status"] == "ok"
    assert np.array_equal(stored(one(body[:-1], encode_format="png", encode_quality=1)), decode(body, 10**6).pixels)
    assert one(body[:-2])["reason"] == "truncated"
    assert one(body[: body.index(b",")])["status"] == "error"


def test_avif_by_any_of_its_brands() -> None:
    body = encoded(PHOTO[:64, :64], "AVIF")
    size = struct.unpack(">I", body[:4])[0]
    brands = [body[at : at + 4] for at in range(16, size, 4)]
    assert b"avif" in brands and body[8:12] == b"avif"
    row = one(body[:8] + b"mif1" + body[12:])
    assert (row["status"], row["original_format"]) == ("ok", "avif")
    other = b"".join(b"heic" if brand == b"avif" else brand for brand in brands)
    assert one(body[:8] + b"mif1" + body[12:16] + other + body[size:])["reason"] == "not_an_image"


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG"])
def test_animations_give_their_first_frame(format: str) -> None:
    frames = [Image.fromarray(np.roll(PHOTO, 40 * shift, axis=1)) for shift in range(3)]
    row = one(encoded(frames[0], format, save_all=True, append_images=frames[1:], duration=100))
    assert row["num_frames"] == 3 and row["body"] is not None
    assert psnr(stored(row), PHOTO) > 25


def test_pages_of_a_tiff_are_counted() -> None:
    pages = [Image.fromarray(PHOTO[:20, :20]) for _ in range(4)]
    assert one(encoded(pages[0], "TIFF", save_all=True, append_images=pages[1:]))["num_frames"] == 4


def test_one_pixel_is_a_picture() -> None:
    assert one(encoded(PHOTO[:1, :1], "PNG"))["status"] == "ok"
    assert one(encoded(PHOTO[:1, :1], "GIF"))["status"] == "ok"


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_every_truncation_is_found(format: str) -> None:
    for pixels in PHOTOS.values():
        body = encoded(pixels[:200, :300], format)
        cuts = [
            len(body) - (2 if format == "GIF" else 1),
            *(len(body) * share // 100 for share in (99, 95, 80, 50, 20, 5, 1)),
        ]
        for row in run(*(body[:cut] for cut in cuts)):
            assert row["status"] == "error" and row["body"] is None, format
            assert row["reason"] in ("truncated", "damaged", "not_an_image")


def test_truncated_progressive_jpeg_is_found() -> None:
    body = encoded(PHOTO, progressive=True)
    assert one(body)["status"] == "ok"
    for share in (30, 60, 90, 99):
        assert one(body[: len(body) * share // 100])["reason"] in ("truncated", "damaged")


@pytest.mark.parametrize("format", ["JPEG", "PNG"])
def test_damage_is_found(format: str) -> None:
    """200 bytes of a file changed. A PNG has checksums; a JPEG's code seldom survives so much, but has none."""
    generator = random.Random(3)
    whole = [encoded(pixels, format) for pixels in PHOTOS.values()]
    bodies = []
    for body in whole * 10:
        damaged = bytearray(body)
        for _ in range(200):
            damaged[generator.randrange(1000, len(damaged) - 2)] ^= generator.randrange(1, 256)
        bodies.append(bytes(damaged))
    found = [row["reason"] for row in run(*bodies)]
    assert set(found) <= {"damaged", "truncated", None}
    assert found.count(None) <= (2 if format == "JPEG" else 0)


def test_a_single_flipped_bit_in_a_png_is_found() -> None:
    body = encoded(PHOTO[:50, :50], "PNG")
    generator = random.Random(5)
    for _ in range(50):
        damaged = bytearray(body)
        damaged[generator.randrange(8, len(body))] ^= 1 << generator.randrange(8)
        assert one(bytes(damaged))["status"] == "error"


def bomb_png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    pixels = zlib.compress(bytes((width // 8 + 1) * 100))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def bomb_webp(width: int, height: int) -> bytes:
    size = struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
    chunk = b"VP8X" + struct.pack("<I", 10) + bytes(4) + size
    return b"RIFF" + struct.pack("<I", 4 + len(chunk)) + b"WEBP" + chunk


def bomb_jpeg(width: int, height: int) -> bytes:
    body = bytearray(encoded(PHOTO[:16, :16]))
    at = body.index(b"\xff\xc0") + 5
    body[at : at + 4] = struct.pack(">HH", height, width)
    return bytes(body)


@pytest.mark.parametrize(
    "body",
    [
        bomb_png(60_000, 60_000),
        bomb_png(12_000, 12_000),
        bomb_webp(16_000, 16_000),
        bomb_jpeg(65_000, 65_000),
        encoded(PHOTO[:2, :2], "GIF")[:6] + b"\xff\xff\xff\xff" + encoded(PHOTO[:2, :2], "GIF")[10:],
    ],
    ids=["png", "png under Pillow's own limit", "webp", "jpeg", "gif"],
)
def test_bombs_are_refused_by_their_header(body: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    def exploded(*_: Any, **__: Any) -> None:
        raise AssertionError("pixels were decoded")

    monkeypatch.setattr(Image.Image, "load", exploded)
    monkeypatch.setattr(simplejpeg, "decode_jpeg", exploded)
    row = one(body)
    assert (row["status"], row["reason"], row["body"]) == ("error", "too_many_pixels", None)


def test_an_icon_is_judged_by_the_picture_inside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def icon(*pictures: bytes) -> bytes:
        offset, entries = 6 + 16 * len(pictures), b""
        for picture in pictures:
            entries += struct.pack("<BBBBHHII", 16, 16, 0, 0, 1, 32, len(picture), offset)
            offset += len(picture)
        return b"\0\0\1\0" + struct.pack("<H", len(pictures)) + entries + b"".join(pictures)

    small = encoded(PHOTO[:16, :16], "PNG")
    bitmap = struct.pack("<IiiHHIIiiII", 40, 12_000, 24_000, 1, 32, 0, 0, 0, 0, 0, 0)
    assert one(icon(small))["status"] == "ok"
    assert one(icon(small)[:60])["status"] == "error"

    def exploded(*_: Any, **__: Any) -> None:
        raise AssertionError("pixels were decoded")

    monkeypatch.setattr(Image.Image, "load", exploded)
    monkeypatch.setattr(ImageFile.ImageFile, "load", exploded)
    for body in (icon(bomb_png(12_000, 12_000)), icon(small, bomb_png(12_000, 12_000)), icon(bitmap)):
        assert one(body)["reason"] == "too_many_pixels"
    assert one(icon(small)[:22])["reason"] == "truncated"


def test_a_jpeg_of_too_many_passes_is_refused_before_the_first() -> None:
    progressive = encoded(PHOTO, "JPEG", progressive=True, exif=b"Exif\0\0" + b"\xff\xda" * 600)
    at = progressive.rindex(b"\xff\xda")
    assert one(progressive)["status"] == "ok"  # marks inside a segment are no scans
    assert one(progressive + b"\xff\xda" * 600)["status"] == "ok"  # nor is what lies behind the picture
    body = progressive[:at] + progressive[at:-2] * 501 + b"\xff\xd9"
    row = one(body)
    assert (row["status"], row["reason"], row["detail"]) == ("error", "too_many_scans", "more than 500")
    body = body[:at] + body[at:].replace(b"\xff\xda", b"\xff\xff\xff\xda")
    assert one(body)["reason"] == "too_many_scans"  # marks may be filled


PLAIN_TIFF = {256: 8, 257: 8, 258: 8, 259: 1, 262: 1, 277: 1, 278: 8, 279: 64}  # 8 x 8 grey pixels in one strip


def tiff(entries: list[tuple[int, int, int, int]], following: int = 0, height: int = 8) -> bytes:
    """A TIFF of 8 grey pixels a row with these entries (tag, type, count, value) besides."""
    pixels = 8 + 2 + 12 * (len(PLAIN_TIFF) + 1 + len(entries)) + 4
    plain = [(tag, 3, 1, value) for tag, value in (PLAIN_TIFF | {257: height}).items()]
    body = b"".join(struct.pack("<HHII", *entry) for entry in [*plain, (273, 4, 1, pixels), *entries])
    head = b"II*\0" + struct.pack("<IH", 8, len(body) // 12)
    return head + body + struct.pack("<I", following) + bytes(range(64))


def test_directories_of_a_tiff_that_lie_on_each_other_are_read_once() -> None:
    num_pages = num_entries = 4000
    tags = list((PLAIN_TIFF | {273: 8}).items())
    # each directory begins twelve bytes after the one before, in the upper half of an entry's value
    body = b"II*\0" + struct.pack("<IH", 8, num_entries)
    for entry in range(num_entries):
        tag, value = tags[entry % len(tags)]
        body += struct.pack("<HHIHH", tag, 3, 1, value, num_entries)
    for page in range(num_pages):
        following = 8 + 12 * (page + 1) if page < num_pages - 1 else 0
        body += struct.pack("<IIHH", following, 1, 0, num_entries)
    start = time.process_time()
    row = one(body + bytes(16))
    assert time.process_time() - start < 5
    assert (row["status"], row["num_frames"]) == ("ok", num_pages)
    assert one(tiff([], following=8))["num_frames"] == 1  # a circle


PNG = encoded(PHOTO[:8, :8], "PNG")
GIF = encoded(PHOTO[:8, :8], "GIF")
JPEG = encoded(PHOTO[:8, :8])
EMPTY_CHUNK = bytes(4) + b"teSt" + struct.pack(">I", zlib.crc32(b"teSt"))
ANIMATION = struct.pack(">I", 8) + b"acTL" + struct.pack(">II", 1 << 31, 0)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (tiff([(700 + i, 3, 1, 0) for i in range(5000)]), "too_many_parts"),
        (tiff([(700 + i, 4, 250_000, 8) for i in range(5)]), "too_many_parts"),
        (tiff([], following=1 << 20), "truncated"),
        (tiff([])[:100], "truncated"),
        (tiff([], height=60_000), "truncated"),  # one strip of eight rows
        (JPEG[:2] + b"\xff\xfe\0\2" * 100_001 + JPEG[2:], "too_many_parts"),
        (PNG[:33] + EMPTY_CHUNK * 100_001 + PNG[33:], "too_many_parts"),
        (PNG[:33] + ANIMATION + struct.pack(">I", zlib.crc32(ANIMATION[4:])) + PNG[33:], "too_many_frames"),
        (GIF[: GIF.index(b",")] + b"!\xfe" + b"\1x" * 100_001 + b"\0" + GIF[GIF.index(b",") :], "too_many_parts"),
        (b"BM" + bytes(28) + b"\1\0\0\0" + b"\1\5" * 1_000_001, "too_many_parts"),
    ],
    ids=["entries", "numbers", "outside", "cut", "strips", "jpeg", "png", "apng", "gif", "bmp"],
)
def test_files_that_ask_for_more_work_than_their_picture_holds(body: bytes, reason: str) -> None:
    start = time.process_time()
    row = one(body)
    assert (row["status"], row["reason"], row["error"]) == ("error", reason, None)
    assert time.process_time() - start < 5


def test_enlarging_a_thread_into_a_sheet_is_refused() -> None:
    row = one(encoded(PHOTO[:1, :400], "PNG"), image_size=10_000, resize_mode="keep_ratio", resize_only_if_bigger=False)
    assert (row["reason"], row["detail"]) == ("too_many_pixels", "resized to 4000000 x 10000")
    thin = one(encoded(np.tile(PHOTO[:1], (1, 9, 1)), "PNG"), image_size=16)
    assert (thin["status"], thin["width"], thin["height"]) == ("ok", 16, 1)


def test_what_the_format_cannot_hold_is_refused() -> None:
    long = encoded(np.zeros((1, 17_000, 3), np.uint8), "PNG")  # WebP ends at 16,383
    row = one(long, resize_mode="no", encode_format="webp", keep_original=False)
    assert (row["status"], row["reason"], row["body"]) == ("error", "not_resizable", None)
    assert row["detail"] and row["original_width"] == 17_000


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><html><body>404</body></html>", "not_an_image"),
        (b"\n <html>", "not_an_image"),
        (b"GIF8 but not really", "not_an_image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not_an_image"),
        (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "svg"),
        (b'\xef\xbb\xbf<?xml version="1.0"?>\n<!-- made by hand -->\n<svg/>', "svg"),
        (b"\xff\xd8\xff", "damaged"),
        (b"\x89PNG\r\n\x1a\n", "truncated"),
        (b"RIFF\x04\x00\x00\x00WEBP", "damaged"),
        (b"BM", "damaged"),
    ],
)
def test_what_is_not_a_picture(body: bytes, reason: str) -> None:
    row = one(body, content_type="image/jpeg")
    assert (row["status"], row["reason"], row["error"]) == ("error", reason, None)
    assert row["detail"] and "\n" not in row["detail"]
    assert ("served as image/jpeg" in row["detail"]) == (reason == "not_an_image")


def test_html_that_calls_itself_a_picture_says_so() -> None:
    row = one(b"<html>", content_type="image/png")
    assert row["detail"] == "starts with b'<html>'; served as image/png"


def test_too_many_bytes_and_frames() -> None:
    assert one(encoded(PHOTO), max_bytes=1000)["reason"] == "too_many_bytes"
    gif = encoded(PHOTO[:1, :1], "GIF")
    at = gif.index(b"\x2c")
    assert one(gif[:at] + gif[at:-1] * 10_001 + b";")["reason"] == "too_many_frames"


def test_rows_do_not_see_their_neighbours() -> None:
    bodies = [encoded(PHOTO), b"<html>", None, encoded(PHOTOS["coffee"], "PNG"), encoded(PHOTO)[:900]]
    together = run(*bodies)
    assert [row["status"] for row in together] == ["ok", "error", "error", "ok", "error"]
    assert together == [run(body)[0] for body in bodies]
    assert together[::-1] == run(*bodies[::-1])


def test_an_unexpected_failure_is_its_rows_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    real: Callable[[bytes, int], Any] = decode

    def scarce(data: bytes, max_pixels: int) -> Any:
        if data.startswith(b"\x89PNG"):
            raise MemoryError("no room\nat all")
        return real(data, max_pixels)

    monkeypatch.setattr("stages.images.decode.decode", scarce)
    rows = run(encoded(PHOTO), encoded(PHOTO, "PNG"))
    assert rows[0]["status"] == "ok"
    assert rows[1]["error"] == "decode_image: MemoryError: no room at all"
    assert all(value is None for key, value in rows[1].items() if key != "error")


@settings(derandomize=True, deadline=None, max_examples=60)
@given(st.data())
def test_no_bytes_make_it_raise(data: st.DataObject) -> None:
    seed = data.draw(st.sampled_from(SEEDS))
    body = bytearray(seed)
    for position, value in data.draw(
        st.lists(st.tuples(st.integers(0, len(seed) - 1), st.integers(0, 255)), max_size=8)
    ):
        body[position] = value
    row = one(bytes(body[: data.draw(st.integers(0, len(seed)))]), max_pixels=1_000_000)
    assert row["error"] is None
    assert (row["status"] == "ok") == (row["body"] is not None) == (row["reason"] is None)


SEEDS = [
    encoded(PHOTO[:24, :24], format)
    for format in ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "ICO", "AVIF", "JPEG2000")
]


def test_settings_are_strict() -> None:
    with pytest.raises(ValidationError, match="PNG's compression"):
        ImagesSettings(encode_format="png")
    with pytest.raises(ValidationError):
        ImagesSettings(resize_mode="squash")  # type: ignore[arg-type]  # what a spec may say
    with pytest.raises(ValidationError):
        ImagesSettings(image_sise=3)  # type: ignore[call-arg]  # a typing slip in a spec
    assert all(field.description for field in ImagesSettings.model_fields.values())


def hamming(first: str, second: str) -> int:
    """Bits in which two hashes differ."""
    return (int(first, 16) ^ int(second, 16)).bit_count()


def test_perceptual_hash_sees_the_picture_and_not_its_file() -> None:
    hashes = {name: phash(pixels) for name, pixels in PHOTOS.items()}
    for name, pixels in PHOTOS.items():
        image = Image.fromarray(pixels)
        small = np.asarray(image.resize((image.width // 3, image.height // 3), Image.Resampling.LANCZOS))
        rough = np.asarray(Image.open(io.BytesIO(encoded(image, quality=20))))
        bright = (pixels * 0.8).astype(np.uint8)
        for changed in (small, rough, bright):
            assert hamming(hashes[name], phash(changed)) <= 4
        for other, seen in hashes.items():
            assert other == name or hamming(hashes[name], seen) >= 18


def test_perceptual_hash_laws() -> None:
    assert phash(PHOTO[..., :1].repeat(3, axis=2)) == phash(PHOTO[..., 0])
    flat = {phash(np.full((height, 70), value, np.uint8)) for height in (9, 64) for value in (1, 77, 255)}
    assert flat == {"8000000000000000"}  # only the mean is above the median: no noise
    assert phash(np.zeros((5, 5), np.uint8)) == "0" * 16
    with pytest.raises(ValueError, match="uint8"):
        phash(np.zeros((4, 4, 4), np.uint8))


@pytest.mark.slow
def test_importing_the_stage_asks_no_network() -> None:
    """Neither the import nor the first resize opens a socket (albumentations asks for its version if allowed)."""
    program = """
import socket, sys
def refuse(*args, **kwargs): print("socket", args); sys.exit(9)
socket.socket.connect = refuse; socket.create_connection = refuse; socket.getaddrinfo = refuse
import io, numpy, pyarrow, PIL.Image
from stages.images.decode import DecodeImage, ImagesSettings
assert "cv2" not in sys.modules and "albumentations" not in sys.modules
stream = io.BytesIO(); PIL.Image.fromarray(numpy.zeros((40, 40, 3), numpy.uint8)).save(stream, "PNG")
table = DecodeImage(ImagesSettings(image_size=8))(pyarrow.table({"body": [stream.getvalue()]}))
assert table.column("status").to_pylist() == ["ok"], table
"""
    environment = {key: value for key, value in os.environ.items() if key != "NO_ALBUMENTATIONS_UPDATE"}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
