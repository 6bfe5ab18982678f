"""Strict decoding: bytes of any origin into upright 8-bit RGB, or the reason why not.

A picture that a lenient decoder would show half grey is refused here: nobody downstream looks at it again.
Dimensions are read from the header before any pixel is decoded, and only a short list of formats is tried, so that
no vector interpreter (EPS, WMF) ever sees the bytes.
"""

from __future__ import annotations

import io
import re
import struct
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

# Formats by their first bytes; the second column is Pillow's plugin.
SIGNATURES = (
    (b"\xff\xd8\xff", "jpeg", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "png", "PNG"),
    (b"GIF87a", "gif", "GIF"),
    (b"GIF89a", "gif", "GIF"),
    (b"II*\x00", "tiff", "TIFF"),
    (b"MM\x00*", "tiff", "TIFF"),
    (b"\x00\x00\x00\x0cjP  \r\n\x87\n", "jp2", "JPEG2000"),
    (b"\x00\x00\x01\x00", "ico", "ICO"),
    (b"BM", "bmp", "BMP"),
)
EXIF_ORIENTATION = 0x0112
# Pillow's default MAX_IMAGE_PIXELS; at the double of it Pillow refuses whatever we say.
PILLOW_PIXELS = 89_478_485
# An animation is its first frame here; this bounds the work of counting the others.
MAX_FRAMES = 10_000
# Our own limit decides, and Pillow's error above twice its own; its warning in between says nothing.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
# What an original must not carry if its bytes are to be stored as they are: places and names, or other colours.
METADATA = ("exif", "xmp", "XML:com.adobe.xmp", "photoshop", "icc_profile", "comment")


class Undecodable(ValueError):
    """No picture: `reason` is the rule's name, `detail` one line of evidence."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True)
class Picture:
    """A decoded picture and what its file said."""

    pixels: NDArray[np.uint8]
    """(height, width, 3) RGB, upright, over white where it was transparent."""
    format: str
    """jpeg, png, webp, gif, bmp, tiff, ico, avif or jp2."""
    orientation: int | None
    """EXIF orientation 1..8, None when absent or outside."""
    num_frames: int
    """Frames of an animation, pages of a TIFF (counted to 10,000)."""
    plain: bool
    """The file is just these pixels: upright, opaque, 8 bits, RGB or grey, one frame, no metadata, no profile."""


def sniff(data: bytes) -> tuple[str, str]:
    """Format and Pillow plugin by the first bytes; Undecodable "empty", "svg" or "not_an_image" otherwise."""
    for signature, name, plugin in SIGNATURES:
        if data.startswith(signature):
            return name, plugin
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp", "WEBP"
    if data[4:12] in (b"ftypavif", b"ftypavis"):
        return "avif", "AVIF"
    if not data:
        raise Undecodable("empty", "no bytes")
    start = data[:4096].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith(b"<svg") or (start.startswith((b"<?xml", b"<!--", b"<!doctype svg")) and b"<svg" in start):
        raise Undecodable("svg", "a vector drawing")
    raise Undecodable("not_an_image", f"starts with {data[:24]!r}")


def decode(data: bytes, max_pixels: int) -> Picture:
    """The picture in `data`; Undecodable when it is not one, is damaged, or exceeds `max_pixels` (width x height).

    Raises MemoryError as it comes.
    """
    name, plugin = sniff(data)
    try:
        return decode_jpeg(data, max_pixels) if name == "jpeg" else decode_other(data, name, plugin, max_pixels)
    except (Undecodable, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise Undecodable("too_many_pixels", one_line(error)) from None
    except Exception as error:
        # Decoders raise nearly every built-in exception on hostile bytes; each is a statement about the bytes.
        said = one_line(error)
        cut = any(word in said.lower() for word in ("truncated", "premature", "eof", "end of"))
        raise Undecodable("truncated" if cut else "damaged", said) from None


def decode_jpeg(data: bytes, max_pixels: int) -> Picture:
    """JPEG by libjpeg-turbo with each of its warnings an error (Pillow sees half of the bit flips, this all)."""
    height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
    check_size(width, height, max_pixels)
    orientation, metadata = jpeg_metadata(data)
    if colours in ("CMYK", "YCCK"):
        # Decoded small for its warnings; Pillow knows about Adobe's inverted inks.
        simplejpeg.decode_jpeg(data, colorspace="CMYK", strict=True, min_height=1, min_width=1, min_factor=8)
        with Image.open(io.BytesIO(data), formats=["JPEG", "MPO"]) as image:
            pixels = np.asarray(image.convert("RGB"))
    else:
        pixels = simplejpeg.decode_jpeg(data, colorspace="RGB", strict=True)
    plain = colours in ("Gray", "GRAY", "YCbCr", "RGB") and not metadata and orientation in (None, 1)
    return Picture(upright(pixels, orientation), "jpeg", orientation, 1, plain)


def jpeg_metadata(data: bytes) -> tuple[int | None, bool]:
    """EXIF orientation, and whether the file carries metadata or a profile; what cannot be parsed counts as carried."""
    try:
        with Image.open(io.BytesIO(data), formats=["JPEG", "MPO"]) as image:
            return read_orientation(image), any(key in image.info for key in METADATA)
    except UnidentifiedImageError:
        return None, True


def decode_other(data: bytes, name: str, plugin: str, max_pixels: int) -> Picture:
    """All but JPEG, by Pillow, after the checks that Pillow leaves out."""
    num_frames = 1
    if name == "png":
        check_png(data)
    elif name == "gif":
        num_frames = count_gif_frames(data)
    elif name == "webp":
        check_size(*webp_size(data), max_pixels)
    with Image.open(io.BytesIO(data), formats=[plugin]) as image:
        check_size(*image.size, max_pixels)
        orientation = read_orientation(image)
        image.load()
        if name == "tiff":
            num_frames = count_tiff_pages(data)
        elif name != "gif":
            num_frames = int(getattr(image, "n_frames", 1))
        # TIFF and AVIF plugins may have turned the picture on loading, and then dropped the tag.
        pixels = upright(to_rgb(image), read_orientation(image))
        plain = (
            image.mode in ("RGB", "L")
            and not image.has_transparency_data
            and num_frames == 1
            and orientation in (None, 1)
            and not any(key in image.info for key in METADATA)
            and not (name == "png" and data[24] == 16)
        )
    return Picture(pixels, name, orientation, num_frames, plain)


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Undecodable "too_many_pixels" when the header promises more than `max_pixels`."""
    if width < 1 or height < 1:
        raise Undecodable("damaged", f"{width} x {height} pixels")
    if width * height > max_pixels:
        raise Undecodable("too_many_pixels", f"{width} x {height} is more than {max_pixels} pixels")


def read_orientation(image: Image.Image) -> int | None:
    """EXIF orientation 1..8 or None."""
    try:
        value = image.getexif().get(EXIF_ORIENTATION)
    except Exception:
        # A broken EXIF block says nothing about the pixels.
        return None
    return value if isinstance(value, int) and 1 <= value <= 8 else None


def upright(pixels: NDArray[np.uint8], orientation: int | None) -> NDArray[np.uint8]:
    """Pixels turned as EXIF orientation says (CIPA DC-008, tag 0x0112)."""
    if orientation in (None, 1):
        return pixels
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def to_rgb(image: Image.Image) -> NDArray[np.uint8]:
    """Any Pillow mode as uint8 RGB: transparency over white, 16 bits scaled, integers and floats stretched."""
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        values = np.asarray(image).astype(np.float64)
        if image.mode.startswith("I;16"):
            grey = np.rint(values / 257)
        else:
            # No white level is stated: the finite range of the values is shown.
            finite = values[np.isfinite(values)]
            low, high = (finite.min(), finite.max()) if finite.size else (0.0, 0.0)
            stretched = (values - low) / max(high - low, np.finfo(np.float64).tiny) * 255
            grey = np.rint(np.nan_to_num(stretched, nan=0.0, posinf=255, neginf=0))
        return np.repeat(grey.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)
    if image.has_transparency_data:
        over = Image.new("RGBA", image.size, "white")
        over.alpha_composite(image.convert("RGBA"))
        image = over
    # On an RGB picture `convert` would copy.
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def png_chunks(data: bytes) -> Iterator[tuple[int, bytes, memoryview]]:
    """(offset, type, body) of each chunk; Undecodable when one is cut or its checksum is wrong."""
    view = memoryview(data)
    offset = 8
    while True:
        if offset + 12 > len(data):
            raise Undecodable("truncated", f"PNG ends at byte {len(data)} without IEND")
        (length,) = struct.unpack_from(">I", data, offset)
        end = offset + 12 + length
        if end > len(data):
            raise Undecodable("truncated", f"PNG chunk at byte {offset} ends at {end} of {len(data)}")
        (checksum,) = struct.unpack_from(">I", data, end - 4)
        if zlib.crc32(view[offset + 4 : end - 4]) != checksum:
            raise Undecodable("damaged", f"PNG chunk at byte {offset} has a wrong checksum")
        yield offset, data[offset + 4 : offset + 8], view[offset + 8 : end - 4]
        if data[offset + 4 : offset + 8] == b"IEND":
            return
        offset = end


def check_png(data: bytes) -> None:
    """Every chunk's CRC-32 up to IEND (Pillow passes over those of IDAT)."""
    for _ in png_chunks(data):
        pass


def count_gif_frames(data: bytes) -> int:
    """Image blocks up to the trailer (GIF89a specification); Undecodable when it ends before."""
    try:
        offset = 13 + (3 << (data[10] & 7) + 1 if data[10] & 0x80 else 0)
        frames = 0
        while data[offset] != 0x3B:
            if data[offset] == 0x21:
                offset += 2
            elif data[offset] == 0x2C:
                frames += 1
                flags = data[offset + 9]
                offset += 11 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
            elif data[offset] == 0 and frames:
                # Padding between blocks, which encoders of the nineties wrote and every viewer passes over.
                offset += 1
                continue
            else:
                raise Undecodable("damaged", f"GIF block of unknown type {data[offset]} at byte {offset}")
            while data[offset]:
                offset += data[offset] + 1
            offset += 1
            if frames > MAX_FRAMES:
                raise Undecodable("too_many_frames", f"more than {MAX_FRAMES}")
    except IndexError:
        raise Undecodable("truncated", f"GIF ends at byte {len(data)} without its trailer") from None
    return frames


def count_tiff_pages(data: bytes) -> int:
    """Pages of a TIFF, counted to MAX_FRAMES."""
    with Image.open(io.BytesIO(data), formats=["TIFF"]) as image:
        pages = 1
        while pages < MAX_FRAMES:
            try:
                image.seek(pages)
            except EOFError:
                break
            pages += 1
    return pages


def webp_size(data: bytes) -> tuple[int, int]:
    """Width and height of a WebP by its header (RFC 9649), before libwebp allocates a canvas for them."""
    if 8 + int.from_bytes(data[4:8], "little") > len(data):
        raise Undecodable("truncated", f"WebP says {8 + int.from_bytes(data[4:8], 'little')} bytes, has {len(data)}")
    kind = data[12:16]
    if kind == b"VP8X" and len(data) >= 30:
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if kind == b"VP8L" and len(data) >= 25:
        bits = int.from_bytes(data[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 " and len(data) >= 30:
        return int.from_bytes(data[26:28], "little") & 0x3FFF, int.from_bytes(data[28:30], "little") & 0x3FFF
    raise Undecodable("damaged", f"WebP chunk {kind!r}")


_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


def one_line(error: BaseException) -> str:
    """Its message on one line of at most 200 characters, with the type where it is empty."""
    # Libraries name objects by where they lie in memory, which is another place each time.
    said = " ".join(_ADDRESS.sub("", str(error)).split())[:200]
    return said or type(error).__name__
