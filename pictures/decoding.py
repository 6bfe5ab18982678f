"""Strict decoding: bytes of any origin into upright 8-bit RGB, or the reason why not.

A picture that a lenient decoder would show half grey is refused here: nobody downstream looks at it again.
Dimensions are read from the header before any pixel is decoded, and only a short list of formats is tried, so that
no vector interpreter (EPS, WMF) ever sees the bytes.
"""

from __future__ import annotations

import io
import re
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageFile, UnidentifiedImageError

from pictures.headers import (
    MAX_FRAMES,
    Undecodable,
    check_bmp,
    check_ico,
    check_jpeg,
    check_png,
    check_size,
    count_gif_frames,
    count_tiff_pages,
    is_avif,
    webp_size,
)

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
# Our own limit decides, and Pillow's error above twice its own; its warning in between says nothing.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
# What an original must not carry if its bytes are to be stored as they are: places and names, or other colours.
METADATA = ("exif", "xmp", "XML:com.adobe.xmp", "photoshop", "icc_profile", "comment")


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
    if is_avif(data):
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
    check_jpeg(data)
    orientation, metadata, profile = jpeg_metadata(data)
    if colours in ("CMYK", "YCCK"):
        # Decoded small for its warnings; Pillow knows about Adobe's inverted inks.
        simplejpeg.decode_jpeg(data, colorspace="CMYK", strict=True, min_height=1, min_width=1, min_factor=8)
        with Image.open(io.BytesIO(data), formats=["JPEG", "MPO"]) as image:
            pixels = np.asarray(to_srgb(image, profile).convert("RGB"))
    elif profile and colours in ("Gray", "GRAY"):
        grey = simplejpeg.decode_jpeg(data, colorspace="GRAY", strict=True)[..., 0]
        pixels = np.asarray(to_srgb(Image.fromarray(grey), profile).convert("RGB"))
    else:
        pixels = simplejpeg.decode_jpeg(data, colorspace="RGB", strict=True)
        if profile:
            pixels = np.asarray(to_srgb(Image.fromarray(pixels), profile))
    plain = colours in ("Gray", "GRAY", "YCbCr", "RGB") and not metadata and orientation in (None, 1)
    return Picture(upright(pixels, orientation), "jpeg", orientation, 1, plain)


def jpeg_metadata(data: bytes) -> tuple[int | None, bool, bytes | None]:
    """EXIF orientation, whether the file carries metadata or a profile (if unparsable, it does), and the profile."""
    try:
        with Image.open(io.BytesIO(data), formats=["JPEG", "MPO"]) as image:
            carried = any(key in image.info for key in METADATA)
            return read_orientation(image), carried, image.info.get("icc_profile")
    except UnidentifiedImageError:
        return None, True, None


def decode_other(data: bytes, name: str, plugin: str, max_pixels: int) -> Picture:
    """All but JPEG, by Pillow, after the checks that Pillow leaves out."""
    num_frames = 1
    if name == "png":
        check_png(data)
    elif name == "gif":
        num_frames = count_gif_frames(data)
    elif name == "webp":
        check_size(*webp_size(data), max_pixels)
    elif name == "tiff":
        num_frames = count_tiff_pages(data)
    elif name == "ico":
        check_ico(data, max_pixels)
    elif name == "bmp":
        check_bmp(data)
    with Image.open(io.BytesIO(data), formats=[plugin]) as image:
        check_size(*image.size, max_pixels)
        if name == "tiff":
            check_strips(image)
        elif name != "gif":
            num_frames = int(getattr(image, "n_frames", 1))
        if num_frames > MAX_FRAMES:
            raise Undecodable("too_many_frames", f"{num_frames} is more than {MAX_FRAMES}")
        orientation = read_orientation(image)
        image.load()
        # TIFF and AVIF plugins may have turned the picture on loading, and then dropped the tag.
        pixels = upright(to_rgb(image, image.info.get("icc_profile")), read_orientation(image))
        plain = (
            image.mode in ("RGB", "L")
            and not image.has_transparency_data
            and num_frames == 1
            and orientation in (None, 1)
            and not any(key in image.info for key in METADATA)
            and not (name == "png" and data[24] == 16)
        )
    return Picture(pixels, name, orientation, num_frames, plain)


def check_strips(image: ImageFile.ImageFile) -> None:
    """Undecodable "truncated" when the strips or tiles of a TIFF leave a part of the picture black."""
    layers = len(image.getbands()) if getattr(image, "_planar_configuration", 1) == 2 else 1
    boxes = [tile.extents or (0, 0, 0, 0) for tile in image.tile]
    covered = sum((right - left) * (lower - upper) for left, upper, right, lower in boxes)
    if covered < image.width * image.height * layers and image.tile[0].codec_name != "libtiff":
        raise Undecodable("truncated", f"TIFF strips cover {covered} of {image.width * image.height * layers} pixels")


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


def to_rgb(image: Image.Image, profile: bytes | None = None) -> NDArray[np.uint8]:
    """Any Pillow mode as uint8 sRGB: transparency over white, 16 bits scaled, integers and floats stretched."""
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        grey = Image.fromarray(to_grey(np.asarray(image), image.mode))
        return np.asarray(to_srgb(grey, profile).convert("RGB"))
    if image.has_transparency_data:
        over = Image.new("RGBA", image.size, "white")
        over.alpha_composite(to_srgb(image.convert("RGBA"), profile))
        image = over
    elif profile:
        image = to_srgb(image.convert("RGB") if image.mode in ("P", "1") else image, profile)
    # On an RGB picture `convert` would copy.
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


_COLOURS = {"RGB": "RGB", "RGBA": "RGB", "L": "GRAY", "CMYK": "CMYK", "LAB": "Lab"}  # modes, and their profiles' spaces


def to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """The picture in sRGB as its ICC profile says (by LittleCMS), RGB or RGBA.

    Unchanged, as browsers leave it, where there is no profile, or one that is sRGB's own, damaged, for other colours
    than the file's, or of no use to a display.
    """
    if not profile or image.mode not in _COLOURS:
        return image
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        described = ImageCms.getProfileDescription(source)
        if source.profile.xcolor_space.strip() != _COLOURS[image.mode] or "sRGB" in described:
            return image
        mode = "RGBA" if image.mode == "RGBA" else "RGB"
        converted = ImageCms.profileToProfile(
            image, source, ImageCms.createProfile("sRGB"), ImageCms.Intent.PERCEPTUAL, mode
        )
    except (ImageCms.PyCMSError, OSError, ValueError):
        return image
    return image if converted is None else converted


def to_grey(values: NDArray[Any], mode: str) -> NDArray[np.uint8]:
    """Grey levels 0..255 of whole numbers or floats, (height, width), a band of rows at a time to save memory."""
    bands = np.array_split(values, max(1, values.size >> 20))
    low, high = 0.0, 65535.0
    if not mode.startswith("I;16"):
        # No white level is stated: the finite range of the values is shown.
        finite = [band[np.isfinite(band)] for band in bands]
        low = float(min((band.min() for band in finite if band.size), default=0.0))
        high = float(max((band.max() for band in finite if band.size), default=0.0))
    grey = np.empty(values.shape, np.uint8)
    start = 0
    for band in bands:
        stretched = (band.astype(np.float64) - low) / max(high - low, np.finfo(np.float64).tiny) * 255
        levels = np.rint(np.nan_to_num(stretched, nan=0.0, posinf=255, neginf=0)).clip(0, 255)
        grey[start : start + len(band)] = levels
        start += len(band)
    return grey


_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


def one_line(error: BaseException) -> str:
    """Its message on one line of at most 200 characters, with the type where it is empty."""
    # Libraries name objects by where they lie in memory, which is another place each time.
    said = " ".join(_ADDRESS.sub("", str(error)).split())[:200]
    return said or type(error).__name__
