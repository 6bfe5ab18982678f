"""Decisions: one row for everything that was dropped, cut, refused or quarantined, and why."""

import pyarrow as pa

from schemas.contract import CARRIED, contract

KINDS = ("page", "document", "paragraph", "image", "sentence", "pair", "negative")
ACTIONS = ("drop", "refuse", "quarantine", "cut")

DECISION = contract(
    "decision",
    1,
    [
        pa.field("phase", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),  # one of KINDS
        pa.field("action", pa.string(), nullable=False),  # one of ACTIONS
        pa.field("subject_id", pa.string(), nullable=False),  # page_id, document_id, image_id
        pa.field("document_id", pa.string()),  # the document it stands in, null for pages and global images
        pa.field("url", pa.string()),  # of the page, or of the image for image rows
        pa.field("position", pa.int32()),  # node index in the extracted document, null for whole pages and documents
        pa.field("rule", pa.string(), nullable=False),
        pa.field("value", pa.float64()),  # the measured score, where the rule has one
        pa.field("low", pa.float64()),  # the bounds it was held against
        pa.field("high", pa.float64()),
        # for people: the kept copy, the error line, the first words
        pa.field("detail", pa.string(), metadata=CARRIED),
    ],
)
