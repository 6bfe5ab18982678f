"""Documents: text and images of a page in reading order."""

import pyarrow as pa

from schemas.consent import CONSENT
from schemas.contract import CARRIED, contract
from schemas.page import LOCATOR, PROVENANCE

NODE = pa.struct(
    [
        pa.field("kind", pa.string()),  # "text" | "image"
        pa.field("tag", pa.string()),  # the block element it came from: p, h1..h6, li, td, pre, figcaption, img
        pa.field("text", pa.string()),  # text nodes: NFC, no-break spaces and runs of blanks folded (not in pre)
        pa.field("separator", pa.string()),  # what follows the node when text is joined: "\n\n", "\n" or " "
        pa.field("image_url", pa.string()),  # image nodes: absolute canonical URL, or a data: URI
        # image nodes: xxh3-128 hex of image_url; of URL and bytes where the picture came with the document
        pa.field("image_id", pa.string()),
        pa.field("alt", pa.string()),
        pa.field("title", pa.string()),
        pa.field("caption", pa.string()),  # figcaption or equivalent
        pa.field("rendered_width", pa.int32()),  # CSS pixels, from attributes, null when not given
        pa.field("rendered_height", pa.int32()),
    ]
)

# Parts of a page that extraction left out on purpose (an image without a usable source, say).
DROPPED = pa.struct(
    [
        pa.field("kind", pa.string()),  # "image" | "text"
        pa.field("rule", pa.string()),
        pa.field("detail", pa.string()),  # the URL, or the first 200 characters
    ]
)

# A picture whose bytes came with the document: nobody fetches it.
IMAGE_BODY = pa.struct(
    [
        pa.field("image_id", pa.string()),
        pa.field("content_hash", pa.string()),  # xxh3-128 hex of the bytes
        pa.field("body", LOCATOR, metadata=CARRIED),
    ]
)

DOCUMENT = contract(
    "document",
    3,
    [
        pa.field("document_id", pa.string(), nullable=False),  # the page's id while a document is a page
        pa.field("page_id", pa.string(), nullable=False),
        pa.field("url", pa.string(), nullable=False),
        pa.field("canonical_url", pa.string()),  # link rel=canonical, absolute, or null
        pa.field("title", pa.string()),
        pa.field("language", pa.string()),  # as declared by the page (html lang), BCP 47
        pa.field("license", pa.string()),  # rel=license link, absolute, or null
        # content of the robots meta tags, those for one robot as "name: content", joined by "; ", or null
        pa.field("meta_robots", pa.string()),
        pa.field("meta_tdm", pa.string()),  # content of meta tdm-reservation, and of tdm-policy behind a blank, or null
        pa.field("modified", pa.timestamp("s", tz="UTC")),
        pa.field("text_hash", pa.string()),  # xxh3-128 hex of the normalised text of all text nodes
        pa.field("nodes", pa.list_(NODE), nullable=False),
        pa.field("dropped", pa.list_(DROPPED), nullable=False),
        pa.field("image_bodies", pa.list_(IMAGE_BODY)),  # null where pages carry no pictures
        # of its page: what a shard says of both, so that nothing after this has to look at pages
        pa.field("consent", CONSENT),
        pa.field("provenance", PROVENANCE),
    ],
    key="document_id",
)
