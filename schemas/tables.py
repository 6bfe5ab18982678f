"""Contracts of tables that live between phases and leave the corpus folder with them."""

import pyarrow as pa

from schemas.contract import CARRIED, contract
from schemas.document import DOCUMENT, NODE
from schemas.embedding import VECTOR
from schemas.image import IMAGE
from schemas.negative import NEGATIVE
from schemas.page import LOCATOR
from schemas.text_scores import TEXT_SCORES

_DOCUMENT_ID = pa.field("document_id", pa.string(), nullable=False)

# Text scores of documents, ordered by document: what every rule over words decides by.
SCORED = contract(
    "scored",
    1,
    [
        _DOCUMENT_ID,
        pa.field("url", pa.string(), nullable=False),
        *TEXT_SCORES,
    ],
    key="document_id",
)

# One paragraph that too many documents of a domain hold: all copies but one are to be cut.
REPEATED = contract(
    "repeated",
    1,
    [
        pa.field("key", pa.string(), nullable=False),  # of the domain and the paragraph
        _DOCUMENT_ID,
        pa.field("position", pa.int32(), nullable=False),
        pa.field("words", pa.int32(), nullable=False),
    ],
    key="key",
)

# Documents that passed the text side: which nodes are left.
SELECTED = contract(
    "selected",
    2,
    [
        _DOCUMENT_ID,
        pa.field("language", pa.string()),
        pa.field("positions", pa.list_(pa.int32()), nullable=False),  # node indices kept, ascending
        pa.field("num_images", pa.int32(), nullable=False),
        pa.field("text", pa.large_string(), nullable=False),  # kept paragraphs, joined
        pa.field("text_hash", pa.string()),  # of the whole text, 32 hex digits; null where there is none
        pa.field("url_key", pa.string(), nullable=False),  # id of the URL it is known by, 32 hex digits
    ],
    key="document_id",
)

SIGNATURE = contract(
    "signature",
    3,
    [
        _DOCUMENT_ID,
        pa.field("signature", pa.binary()),  # uint32 values, little-endian; null for a text without words
        pa.field("text_hash", pa.string()),
        pa.field("url_key", pa.string(), nullable=False),
    ],
    key="document_id",
)

# A document id as the 16 bytes of its digits.
_DOCUMENT_KEY = pa.binary(16)

# What two documents share.
_SHARED_KIND = pa.field("kind", pa.uint8(), nullable=False)  # stages.dedup.banding: BAND, TEXT or URL

# Two documents that share a band of their signatures, a text or a URL; two that share several are there as often.
EDGE = contract(
    "edge",
    4,
    [
        pa.field("key", pa.string(), nullable=False),  # of what they share, 16 hex digits
        pa.field("a", _DOCUMENT_KEY, nullable=False),
        pa.field("b", _DOCUMENT_KEY, nullable=False),  # the larger
        _SHARED_KIND,
    ],
    key="key",
)

# The same beside the larger one, each kind once.
CANDIDATE_PAIR = contract(
    "candidate_pair",
    2,
    [_DOCUMENT_ID, pa.field("a", _DOCUMENT_KEY, nullable=False), _SHARED_KIND],
    key="document_id",
)

# The same beside the smaller one, compared where they share a band.
SIMILARITY = contract(
    "similarity",
    2,
    [
        _DOCUMENT_ID,
        pa.field("b", _DOCUMENT_KEY, nullable=False),
        _SHARED_KIND,
        pa.field("similarity", pa.float64()),  # Jaccard, 0..1; null where it is not measured
    ],
    key="document_id",
)

# Documents that may be copies of others: the smallest document ids of those with which they share something.
CLUSTER = contract(
    "cluster",
    3,
    [
        _DOCUMENT_ID,
        pa.field("cluster_id", pa.string(), nullable=False),  # the same or nearly the same text
        pa.field("text_id", pa.string(), nullable=False),  # the same text
        pa.field("url_id", pa.string(), nullable=False),  # the same URL
        pa.field("copies_id", pa.string(), nullable=False),  # any of these
        pa.field("similarity", pa.float64()),  # to the nearest, 0..1; null where none was measured
    ],
    key="document_id",
)

# One image URL of one document, on its way to being fetched.
IMAGE_REFERENCE = pa.schema(
    [
        pa.field("site_key", pa.string()),
        pa.field("image_id", pa.string()),
        pa.field("url", pa.string()),
        pa.field("document_id", pa.string()),
        pa.field("copies_id", pa.string()),  # of the document and its copies
        pa.field("content_hash", pa.string()),  # of bytes that came with the document, null where there are none
        pa.field("body", LOCATOR),
    ]
)

# One image URL as fetched: the bytes of the server, and who wants them.
FETCHED_IMAGE = contract(
    "fetched_image",
    4,
    [
        pa.field("site_key", pa.string(), nullable=False),  # of its site; its own where it has none
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("url", pa.string(), nullable=False),
        pa.field("status", pa.string(), nullable=False),
        pa.field("reason", pa.string()),
        pa.field("detail", pa.string(), metadata=CARRIED),
        pa.field("retryable", pa.bool_(), metadata=CARRIED),
        pa.field("content_type", pa.string()),
        pa.field("content_hash", pa.string()),
        IMAGE.field("body"),
        pa.field("consent", IMAGE.field("consent").type),
        pa.field("documents", pa.list_(pa.string()), nullable=False),  # distinct, sorted
        pa.field("copies", pa.list_(pa.string()), nullable=False),  # these without copies of each other: copies_id
    ],
    key="site_key",
)

# An image with the documents that show it and how many, copies counted once, show the same bytes, whatever the URL.
IMAGE_USE = contract(
    "image_use",
    3,
    [
        pa.field("content_key", pa.string(), nullable=False),  # of the fetched bytes, else of the URL
        *IMAGE,
        pa.field("documents", pa.list_(pa.string()), nullable=False),
        pa.field("num_documents", pa.int32(), nullable=False),
    ],
    key="content_key",
)

# A document that every rule has let pass but those among copies: nodes left, with the images that stand in them.
PASSED = contract(
    "passed",
    1,
    [
        _DOCUMENT_ID,
        pa.field("url", pa.string(), nullable=False),
        pa.field("language", pa.string()),
        pa.field("modified", pa.timestamp("s", tz="UTC")),
        pa.field("positions", pa.list_(pa.int32()), nullable=False),
        pa.field("num_images", pa.int32(), nullable=False),
        pa.field("num_words", pa.int32(), nullable=False),
        pa.field("pictures", pa.string()),  # digest of the set of its pictures, by perceptual hash
        pa.field("captions", pa.string()),  # digest of the set of their captions
        # facts of the distinct images among the nodes, by image_id
        pa.field("images", pa.list_(pa.struct(list(IMAGE))), nullable=False),
    ],
    key="document_id",
)

# What was chosen of documents that have a copy or a repeated paragraph; all others stay as they are.
CHOICE = contract(
    "choice",
    1,
    [
        _DOCUMENT_ID,
        pa.field("cluster_id", pa.string(), nullable=False),
        pa.field("kept", pa.bool_(), nullable=False),
        pa.field("cut", pa.list_(pa.int32()), nullable=False),  # positions of paragraphs that stand elsewhere
        pa.field("position", pa.float64(), nullable=False),  # p of stages.dedup.split
    ],
    key="document_id",
)

# A document that shows a picture of one with a larger position (stages.dedup.split).
REACHED = contract(
    "reached",
    1,
    [
        pa.field("key", pa.string(), nullable=False),  # of the picture
        _DOCUMENT_ID,
        pa.field("position", pa.float64(), nullable=False),
    ],
    key="key",
)

# Where a corpus is split: one row.
BORDER = contract(
    "border",
    1,
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("border", pa.float64(), nullable=False),  # t of stages.dedup.split
    ],
    key="key",
)

# A document after all filters and choices: nodes left, with the images that stand in them.
KEPT = contract(
    "kept",
    4,
    [
        _DOCUMENT_ID,
        pa.field("url", pa.string(), nullable=False),
        pa.field("title", pa.string()),
        pa.field("language", pa.string()),
        pa.field("license", pa.string()),
        pa.field("cluster_id", pa.string(), nullable=False),  # of its near-duplicates
        pa.field("split", pa.string(), nullable=False),  # one of schemas.shard.SPLITS
        pa.field("positions", pa.list_(pa.int32()), nullable=False),
        pa.field("nodes", pa.list_(NODE), nullable=False),
        # facts of the distinct images among the nodes, by image_id
        pa.field("images", pa.list_(pa.struct(list(IMAGE))), nullable=False),
        pa.field("consent", DOCUMENT.field("consent").type),
        pa.field("provenance", DOCUMENT.field("provenance").type),
    ],
    key="document_id",
)

SLICED = contract(
    "sliced",
    1,
    [
        _DOCUMENT_ID,
        pa.field("kinds", pa.list_(pa.string()), nullable=False),
        pa.field("nodes", pa.list_(pa.int32()), nullable=False),
        pa.field("starts", pa.list_(pa.int32()), nullable=False),
        pa.field("ends", pa.list_(pa.int32()), nullable=False),
        pa.field("content_ids", pa.list_(pa.string()), nullable=False),
    ],
    key="document_id",
)

# One distinct content with its vectors and the slices that hold it.
EMBEDDED = contract(
    "embedded",
    1,
    [
        pa.field("content_id", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("primary", VECTOR),
        pa.field("shared", VECTOR),
        pa.field("documents", pa.list_(pa.string()), nullable=False),
    ],
    key="content_id",
)

# One slice after pairing: what mining searches and shards store. Ordered by document and slice.
PAIRED = contract(
    "paired",
    2,
    [
        _DOCUMENT_ID,
        pa.field("slice", pa.int32(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("content_id", pa.string(), nullable=False),
        pa.field("node", pa.int32(), nullable=False),  # index into the document's kept nodes, those left by pairing
        pa.field("start", pa.int32(), nullable=False),
        pa.field("end", pa.int32(), nullable=False),
        pa.field("cluster_id", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("phash", pa.string()),
        pa.field("primary", VECTOR),
        pa.field("shared", VECTOR),
        pa.field("matched", pa.int32()),
        pa.field("match_kind", pa.string()),  # one of schemas.shard.MATCH_KINDS, null without a match
        pa.field("similarity", pa.float32()),
        # images: cosines to the document's sentences in order; null for sentences
        pa.field("similarities", pa.list_(pa.float32())),
        pa.field("position", pa.int32(), nullable=False),  # node index in the extracted document
    ],
    key="document_id",
)

# Hard negatives of a document: by slice, direction, falling score, candidate.
MINED = contract(
    "mined", 2, [_DOCUMENT_ID, pa.field("negatives", pa.list_(NEGATIVE), nullable=False)], key="document_id"
)
