"""Shards: what the trainer reads. Arrow IPC files, one document a row, self-contained, one split a file."""

import pyarrow as pa

from schemas.consent import VERDICT
from schemas.contract import contract
from schemas.embedding import VECTOR
from schemas.hugging_face import PICTURE, features_metadata
from schemas.negative import NEGATIVE
from schemas.page import PROVENANCE

SPLITS = ("train", "held_out")

# How a match was found. markup: the page says so (the sentence stands in the picture's own caption). reference: the
# sentence names the figure. similarity: assignment by cosine of shared vectors. order: the neighbour in reading order.
MATCH_KINDS = ("markup", "reference", "similarity", "order")

NODE_KINDS = ("text", "image")
SLICE_KINDS = ("image", "sentence")

SHARD_NODE = pa.struct(
    [
        pa.field("kind", pa.string()),  # one of NODE_KINDS
        pa.field("text", pa.large_string()),  # null for images
        pa.field("separator", pa.string()),  # what follows the node when text is joined
        pa.field("image", pa.int32()),  # index into the row's images, null for text
        pa.field("position", pa.int32()),  # node index in the extracted document, for the decision log
    ]
)

# About the picture of the same index: `images` hold nothing but pictures, so that they open as such anywhere.
IMAGE_INFO = pa.struct(
    [
        pa.field("image_id", pa.string()),  # xxh3-128 hex of the URL
        pa.field("url", pa.string()),
        pa.field("sha256", pa.string()),  # of the picture's bytes
        pa.field("format", pa.string()),  # of the picture's bytes: jpeg | png | webp
        pa.field("width", pa.int32()),  # pixels, of the picture's bytes
        pa.field("height", pa.int32()),
        pa.field("original_width", pa.int32()),
        pa.field("original_height", pa.int32()),
        pa.field("phash", pa.string()),  # 16 hex digits
        pa.field("alt", pa.string()),
        pa.field("title", pa.string()),
        pa.field("caption", pa.string()),  # figcaption or equivalent, whole
        pa.field("consent", VERDICT),
    ]
)

# A slice is one image or one sentence, in reading order.
SLICE = pa.struct(
    [
        pa.field("kind", pa.string()),  # one of SLICE_KINDS
        pa.field("node", pa.int32()),  # index into the row's nodes
        pa.field("start", pa.int32()),  # character span in the node's text, 0 and 0 for images
        pa.field("end", pa.int32()),
        pa.field("primary", VECTOR),  # unit norm; null where the encoder failed
        pa.field("shared", VECTOR),
        pa.field(
            "matched", pa.int32()
        ),  # images: slice index of the matched sentence; sentences: of the image; else null
        pa.field("match_kind", pa.string()),  # one of MATCH_KINDS; null without a match, and where none was recorded
        pa.field("similarity", pa.float32()),  # cosine of shared vectors to the match, null without a match
    ]
)

_FIELDS = [
    pa.field("document_id", pa.string(), nullable=False),
    pa.field("url", pa.string(), nullable=False),
    pa.field("title", pa.string()),
    pa.field("language", pa.string()),  # as identified, ISO 639-1
    pa.field("license", pa.string()),
    pa.field("split", pa.string(), nullable=False),  # one of SPLITS; no text or picture on both sides
    pa.field("cluster_id", pa.string(), nullable=False),  # of its near-duplicates
    pa.field("nodes", pa.list_(SHARD_NODE), nullable=False),  # reading order
    # Distinct pictures, encoded; path is image_id.format. Never null: declared so because `datasets` decodes no other.
    pa.field("images", pa.list_(PICTURE)),
    pa.field("image_info", pa.list_(IMAGE_INFO), nullable=False),  # one a picture, in their order
    pa.field("slices", pa.list_(SLICE), nullable=False),  # reading order
    # rows: image slices in order; columns: sentence slices in order; cosine of shared vectors
    pa.field("similarity_matrix", pa.list_(pa.list_(pa.float32())), nullable=False),
    pa.field("negatives", pa.list_(NEGATIVE), nullable=False),  # by slice, direction, falling score, candidate id
    pa.field("provenance", PROVENANCE, nullable=False),
    pa.field("consent", VERDICT, nullable=False),
]

SHARD = contract("shard", 2, _FIELDS, features_metadata(_FIELDS))

# Names of shard files, for finding them where no manifest lists them; the last is that of version 1.
FILE_PATTERNS = (*(f"{split}-*.arrow" for split in SPLITS), "part-*.arrow")


def shard_order(name: str) -> tuple[int, str]:
    """Sort key of shard files by name: training first, then held out, each like its keys; version 1 after them."""
    file = name.rpartition("/")[2]
    return next((index for index, split in enumerate(SPLITS) if file.startswith(f"{split}-")), len(SPLITS)), name


def shard_name(split: str, number: int, count: int) -> str:
    """Name of shard `number` of `count` of a split, in the version's folder shards/; names sort like keys."""
    return f"{split}-{number:05d}-of-{count:05d}.arrow"
