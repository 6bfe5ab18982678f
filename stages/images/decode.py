"""Images: fetched bytes into stored bytes (decoded strictly, upright, resized, encoded) with their facts."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import io
import os
import threading
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from pictures.decoding import PILLOW_PIXELS, Picture, decode, one_line
from pictures.headers import Undecodable
from stages.images.perceptual_hash import phash
from stages.row_function import ERROR, Settings

OUTPUT = pa.schema(
    [
        pa.field("status", pa.string()),  # "ok" | "error"
        pa.field("reason", pa.string()),
        pa.field("detail", pa.string()),
        pa.field("original_hash", pa.string()),
        pa.field("original_format", pa.string()),
        pa.field("original_width", pa.int32()),
        pa.field("original_height", pa.int32()),
        pa.field("exif_orientation", pa.int32()),
        pa.field("num_frames", pa.int32()),
        pa.field("sha256", pa.string()),
        pa.field("phash", pa.string()),
        pa.field("format", pa.string()),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("body", pa.large_binary()),
        ERROR,
    ]
)
ENCODED_FORMAT = {"jpg": "jpeg", "png": "png", "webp": "webp"}
# The resizer points the process's stdout and stderr elsewhere while it works: two threads at once would lose them.
RESIZER_LOCK = threading.Lock()


class ImagesSettings(Settings):
    """What is stored of each image; the spec's `images:` section, with img2dataset's names."""

    image_size: int = Field(default=512, ge=1, le=16_383)
    """Pixels of the side that `resize_mode` sets. Default: ours, as img2dataset's 256 are too few to read a
    screenshot."""
    resize_mode: Literal["no", "border", "keep_ratio", "center_crop", "keep_ratio_largest"] = "keep_ratio_largest"
    """img2dataset's modes: `no`; `border` fits the longest side and pads to a square with white; `keep_ratio` sets the
    shortest side; `center_crop` that, cropped to a square; `keep_ratio_largest` sets the longest side. Default: ours,
    as img2dataset's `border` trains models on white bars."""
    resize_only_if_bigger: bool = True
    """Leave pictures smaller than `image_size` as they are. Default: ours, as img2dataset's false enlarges them, which
    adds bytes and no detail."""
    encode_format: Literal["jpg", "png", "webp"] = "jpg"
    """Format of pictures that are encoded anew. Default: img2dataset's jpg."""
    encode_quality: int = Field(default=95, ge=0, le=100)
    """JPEG or WebP quality 0..100, or PNG compression 0..9. Default: img2dataset's 95."""
    keep_original: bool = True
    """Store the fetched bytes untouched when no resize is due and the file is a JPEG, PNG or WebP that is upright,
    opaque, 8 bits a channel, RGB or grey, one frame, and without EXIF, XMP, comment or colour profile. Default: ours,
    encoding it again would only lose; img2dataset's `skip_reencode` (false) asks for the format alone."""
    max_bytes: int = Field(default=50_000_000, ge=1)
    """Bytes of a file above which it is not decoded. Default: ours, several times what a camera writes; img2dataset has
    no such limit."""
    max_pixels: int = Field(default=PILLOW_PIXELS, ge=1, le=2 * PILLOW_PIXELS)
    """Pixels, width x height by the header and before decoding, above which a file is refused, and the most that a
    resize may produce. Default: Pillow's MAX_IMAGE_PIXELS."""
    svg: Literal["drop"] = "drop"
    """Vector drawings are refused with reason `svg`: rendering one runs its text through fonts and its links through a
    network. Default: OBELICS, which keeps jpg, jpeg, png and webp alone."""

    @model_validator(mode="after")
    def png_compression(self) -> ImagesSettings:
        """A PNG has no quality: its compression ends at 9."""
        if self.encode_format == "png" and self.encode_quality > 9:
            raise ValueError(
                f"encode_quality is PNG's compression, 0..9, when encode_format is png: {self.encode_quality}"
            )
        return self


class DecodeImage:
    """RowFunction `decode_image`: (body, content_type) into OUTPUT.

    A file that is not a usable picture is a row with status "error", a reason (empty, too_many_bytes, svg,
    not_an_image, too_many_pixels, too_many_frames, too_many_scans, too_many_parts, truncated, damaged,
    not_resizable) and one line of detail.
    """

    name = "decode_image"
    libraries = ("albumentations", "img2dataset", "numpy", "opencv-python-headless", "pillow", "simplejpeg")
    weights: str | None = None
    output = OUTPUT
    batch_size = 64

    def __init__(self, settings: ImagesSettings) -> None:
        self.settings = settings

    def __getstate__(self) -> ImagesSettings:
        return self.settings

    def __setstate__(self, settings: ImagesSettings) -> None:
        self.settings = settings

    @cached_property
    def resizer(self) -> Any:
        """img2dataset's Resizer with these settings."""
        return load_resizer().Resizer(
            image_size=self.settings.image_size,
            resize_mode=self.settings.resize_mode,
            resize_only_if_bigger=self.settings.resize_only_if_bigger,
            encode_format=self.settings.encode_format,
            encode_quality=self.settings.encode_quality,
        )

    def __call__(self, rows: pa.Table) -> pa.Table:
        """`body` (binary, may be null) and `content_type` (string, may be null) in, OUTPUT out, in order."""
        bodies = rows.column("body")
        types = rows.column("content_type") if "content_type" in rows.column_names else [None] * len(bodies)
        found = [self.row(body.as_py() or b"", str(kind or "")) for body, kind in zip(bodies, types, strict=True)]
        return pa.Table.from_pylist(found, schema=OUTPUT)

    def row(self, data: bytes, content_type: str) -> dict[str, Any]:
        """One output row; never raises for what the bytes hold."""
        facts: dict[str, Any] = {"original_hash": hashlib.sha256(data).hexdigest()}
        try:
            if len(data) > self.settings.max_bytes:
                raise Undecodable("too_many_bytes", f"{len(data)} is more than {self.settings.max_bytes} bytes")
            picture = decode(data, self.settings.max_pixels)
            height, width = picture.pixels.shape[:2]
            facts |= {
                "original_format": picture.format,
                "original_width": width,
                "original_height": height,
                "exif_orientation": picture.orientation,
                "num_frames": picture.num_frames,
            }
            facts |= self.stored(data, picture)
            return {"status": "ok", **facts, "phash": phash(picture.pixels)}
        except Undecodable as refusal:
            served = f"; served as {content_type[:100]}" if refusal.reason == "not_an_image" and content_type else ""
            return {"status": "error", "reason": refusal.reason, "detail": refusal.detail + served, **facts}
        except Exception as error:
            # Not the file's fault, as far as we know: memory, a bug. The row alone fails.
            return {"error": f"decode_image: {type(error).__name__}: {one_line(error)}"}

    def stored(self, data: bytes, picture: Picture) -> dict[str, Any]:
        """Columns of the stored picture; Undecodable "too_many_pixels" or "not_resizable"."""
        height, width = picture.pixels.shape[:2]
        keepable = picture.plain and picture.format in ENCODED_FORMAT.values()
        if self.settings.keep_original and keepable and not resizes(width, height, self.settings):
            return stored_columns(data, picture.format, width, height)
        width, height = resized_size(width, height, self.settings)
        if width * height > self.settings.max_pixels:
            raise Undecodable("too_many_pixels", f"resized to {width} x {height}")
        # The resizer decodes for itself, too leniently to be given the original: it gets the pixels as a bitmap.
        with RESIZER_LOCK:
            body, width, height, _, _, failed = self.resizer(io.BytesIO(as_bitmap(picture.pixels)))
        if failed:
            raise Undecodable("not_resizable", " ".join(str(failed).split())[:200])
        return stored_columns(body, ENCODED_FORMAT[self.settings.encode_format], width, height)


@functools.cache
def load_resizer() -> ModuleType:
    """img2dataset's resizer module alone: its package imports torch, wandb and webdataset, 5 s and 400 MB a worker."""
    # albumentations, which it imports, asks the network for its newest version otherwise.
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    package = importlib.util.find_spec("img2dataset")
    folder = Path(*(package.submodule_search_locations or []) if package else [])
    spec = importlib.util.spec_from_file_location("img2dataset_resizer", folder / "resizer.py")
    if spec is None or spec.loader is None:
        raise ImportError("img2dataset is not installed")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def stored_columns(body: bytes, encoded: str, width: int, height: int) -> dict[str, Any]:
    """Columns that describe the stored bytes."""
    digest = hashlib.sha256(body).hexdigest()
    return {"sha256": digest, "format": encoded, "width": width, "height": height, "body": body}


def measured_side(width: int, height: int, settings: ImagesSettings) -> int:
    """The side that the mode compares with `image_size`."""
    return min(width, height) if settings.resize_mode in ("keep_ratio", "center_crop") else max(width, height)


def resizes(width: int, height: int, settings: ImagesSettings) -> bool:
    """Whether the resizer would touch a picture of this size."""
    if settings.resize_mode == "no":
        return False
    return not settings.resize_only_if_bigger or measured_side(width, height, settings) > settings.image_size


def resized_size(width: int, height: int, settings: ImagesSettings) -> tuple[int, int]:
    """Size in pixels after scaling and before cropping or padding: what the resizer has to hold."""
    if not resizes(width, height, settings):
        return width, height
    side = measured_side(width, height, settings)
    return round(width * settings.image_size / side), round(height * settings.image_size / side)


def as_bitmap(pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> bytes:
    """The pixels, RGB, as an uncompressed BMP file."""
    import cv2

    return bytes(cv2.imencode(".bmp", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))[1].tobytes())
