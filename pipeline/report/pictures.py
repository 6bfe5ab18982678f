"""Thumbnails: pictures of the shards, small enough to stand inside one page."""

from __future__ import annotations

import base64
import io
import warnings

from PIL import Image, UnidentifiedImageError

from pipeline.report.data import Picture

# Formats that shards hold; nothing else is handed to a decoder.
FORMATS = ("JPEG", "PNG", "WEBP")


def thumbnail(data: bytes | None, side: int, alt: str = "", quality: int = 70) -> Picture | None:
    """A picture of at most `side` pixels either way as JPEG in a data: URI; None when it cannot be drawn.

    Transparency becomes white.
    """
    if not data:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                image.draft("RGB", (2 * side, 2 * side))
                image.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=2.0)
                flat = _flat(image)
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    sink = io.BytesIO()
    flat.save(sink, "JPEG", quality=quality, optimize=True, progressive=True)
    uri = f"data:image/jpeg;base64,{base64.b64encode(sink.getvalue()).decode()}"
    return Picture(uri, flat.width, flat.height, alt[:300])


def _flat(image: Image.Image) -> Image.Image:
    """RGB on white."""
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        layer = image.convert("RGBA")
        page = Image.new("RGBA", layer.size, "white")
        page.alpha_composite(layer)
        return page.convert("RGB")
    return image.convert("RGB")
