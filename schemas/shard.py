"""Shards: what the trainer reads. Arrow IPC files, one document a row, self-contained."""

import pyarrow as pa

from schemas.consent import CONSENT
from schemas.contract import contract
from schemas.embedding import VECTOR
from schemas.negative import NEGATIVE
from schemas.page import PROVENANCE

SPLITS = ("train", "held_out")

SHARD_NODE = pa.struct(
    [
        pa.field("kind", pa.string()),  # "text" | "image"
        pa.field("text", pa.large_string()),  # null for images
        pa.field("separator", pa.string()),  # what follows the node when text is joined
        pa.field("image", pa.int32()),  # index into the row's images, null for text
        pa.field("position", pa.int32()),  # node index in the extracted document, for the decision log
    ]
)

SHARD_IMAGE = pa.struct(
    [
        pa.field("image_id", pa.string()),  # xxh3-128 hex of the URL
        pa.field("url", pa.string()),
        pa.field("sha256", pa.string()),  # of bytes below
        pa.field("bytes", pa.large_binary()),  # encoded as `format`
        pa.field("format", pa.string()),  # jpeg | png | webp
        pa.field("width", pa.int32()),  # pixels, of bytes
        pa.field("height", pa.int32()),
        pa.field("original_width", pa.int32()),
        pa.field("original_height", pa.int32()),
        pa.field("phash", pa.string()),  # 16 hex digits
        pa.field("alt", pa.string()),
        pa.field("title", pa.string()),
        pa.field("caption", pa.string()),
        pa.field("consent", CONSENT),
    ]
)

# A slice is one image or one sentence, in reading order.
SLICE = pa.struct(
    [
        pa.field("kind", pa.string()),  # "image" | "sentence"
        pa.field("node", pa.int32()),  # index into the row's nodes
        pa.field("start", pa.int32()),  # character span in the node's text, 0 and 0 for images
        pa.field("end", pa.int32()),
        pa.field("primary", VECTOR),  # unit norm; null where the encoder failed
        pa.field("shared", VECTOR),
        pa.field(
            "matched", pa.int32()
        ),  # images: slice index of the matched sentence; sentences: of the image; else null
        pa.field("similarity", pa.float32()),  # cosine of shared vectors to the match, null without a match
    ]
)

SHARD = contract(
    "shard",
    1,
    [
        pa.field("document_id", pa.string(), nullable=False),
        pa.field("url", pa.string(), nullable=False),
        pa.field("title", pa.string()),
        pa.field("language", pa.string()),  # as identified, ISO 639-1
        pa.field("license", pa.string()),
        pa.field("split", pa.string(), nullable=False),  # one of SPLITS; whole clusters on one side
        pa.field("cluster_id", pa.string(), nullable=False),  # near-duplicates and shared images: one id
        pa.field("nodes", pa.list_(SHARD_NODE), nullable=False),  # reading order
        pa.field("images", pa.list_(SHARD_IMAGE), nullable=False),
        pa.field("slices", pa.list_(SLICE), nullable=False),  # reading order
        # rows: image slices in order; columns: sentence slices in order; cosine of shared vectors
        pa.field("similarity_matrix", pa.list_(pa.list_(pa.float32())), nullable=False),
        pa.field("negatives", pa.list_(NEGATIVE), nullable=False),  # by slice, kind, falling score, candidate id
        pa.field("provenance", PROVENANCE, nullable=False),
        pa.field("consent", CONSENT, nullable=False),
    ],
)
