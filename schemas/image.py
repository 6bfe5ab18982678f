"""Images: one row a distinct image URL, facts and a locator; bytes stay in the row store."""

import pyarrow as pa

from schemas.consent import CONSENT
from schemas.contract import CARRIED, contract
from schemas.page import LOCATOR

IMAGE = contract(
    "image",
    2,
    [
        pa.field("image_id", pa.string(), nullable=False),  # xxh3-128 hex of the URL
        pa.field("url", pa.string(), nullable=False),
        pa.field("status", pa.string(), nullable=False),  # "ok" | "error" | "refused" | "quarantined"
        pa.field("reason", pa.string()),  # rule name when not ok: "http_status", "truncated", "bomb", ...
        pa.field("detail", pa.string(), metadata=CARRIED),
        pa.field("retryable", pa.bool_(), metadata=CARRIED),
        pa.field("original_hash", pa.string()),  # sha256 hex of the bytes as fetched
        pa.field("original_format", pa.string()),  # jpeg | png | webp | gif | bmp | tiff ...
        pa.field("original_width", pa.int32()),  # pixels, after EXIF orientation
        pa.field("original_height", pa.int32()),
        pa.field("exif_orientation", pa.int32()),  # 1..8, null when absent
        pa.field("num_frames", pa.int32()),
        pa.field("sha256", pa.string()),  # sha256 hex of the bytes as stored (resized, re-encoded)
        pa.field("phash", pa.string()),  # 64-bit perceptual hash, 16 hex digits
        pa.field("format", pa.string()),  # of the stored bytes
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("body", LOCATOR, metadata=CARRIED),  # the stored bytes
        pa.field("consent", CONSENT),
    ],
)
