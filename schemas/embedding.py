"""Embeddings: two unit vectors for each distinct slice content (design: primary within, shared across)."""

import pyarrow as pa

from schemas.contract import contract

# float16 in storage: the label error is 2e-5, a tenth of what matters, at half the bytes.
VECTOR = pa.list_(pa.float16())

EMBEDDING = contract(
    "embedding",
    1,
    [
        pa.field("content_id", pa.string(), nullable=False),  # xxh3-128 hex of kind + sentence text or image sha256
        pa.field("kind", pa.string(), nullable=False),  # "image" | "sentence"
        pa.field("primary", VECTOR),  # unit norm, within a modality; null when the encoder failed on this content
        pa.field("shared", VECTOR),  # unit norm, across modalities
    ],
    key="content_id",
)
