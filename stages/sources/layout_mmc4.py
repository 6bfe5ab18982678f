"""Layout mmc4: sentences, and pictures that are each matched to one of them.

`text_list`: sentences; `image_info`: `raw_url`, `matched_text_index`. Source: README of allenai/mmc4. A picture stands
before the sentence it is matched to, as OpenFlamingo reads MMC4 (mlfoundations/open_flamingo,
open_flamingo/train/data.py, preprocess_interleaved); several of one sentence in the order they are listed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stages.sources.document_nodes import Nodes, items, make_nodes, normal_texts

NEEDS = frozenset({"text_list", "image_info"})
HEADER = pa.schema([pa.field("url", pa.string())])
_IMAGE = pa.struct([pa.field("raw_url", pa.string()), pa.field("matched_text_index", pa.int64())])


def schema() -> pa.Schema:
    """Columns that are read."""
    return pa.schema([*HEADER, pa.field("text_list", pa.list_(pa.string())), pa.field("image_info", pa.list_(_IMAGE))])


def urls(block: pa.Table) -> list[str | None]:
    """The address of each document, as it is given."""
    found: list[str | None] = block.column("url").to_pylist()
    return found


def faults(block: pa.Table) -> list[str | None]:
    """Why a row is no document."""
    missing = [np.asarray(pc.is_null(block.column(name))).tolist() for name in ("text_list", "image_info")]
    return [
        "it has no text_list" if no_texts else "it has no image_info" if no_images else None
        for no_texts, no_images in zip(*missing, strict=True)
    ]


def nodes(block: pa.Table, urls: Sequence[str]) -> Nodes:
    """The nodes of rows without a fault: one a sentence, joined by blanks, and one a picture."""
    texts, images = (block.column(name).combine_chunks() for name in ("text_list", "image_info"))
    owner = np.asarray(pc.list_parent_indices(texts))
    starts = np.searchsorted(owner, np.arange(block.num_rows))
    words = normal_texts(texts.flatten())
    image_owner = np.asarray(pc.list_parent_indices(images))
    flat = images.flatten()
    index = np.asarray(pc.fill_null(pc.struct_field(flat, "matched_text_index"), -1))
    number = np.asarray(pc.fill_null(pc.list_value_length(texts), 0))[image_owner] if len(image_owner) else image_owner
    placed = (index >= 0) & (index < number)
    addresses = pc.struct_field(flat, "raw_url")
    extra = [
        (int(image_owner[at]), {"kind": "image", "rule": "matched_text_index", "detail": (addresses[at].as_py() or "")})
        for at in np.flatnonzero(~placed)
    ]
    sentences = items(
        len(words),
        row=pa.array(owner),
        kind=pa.repeat("text", len(words)),
        text=words,
        separator=pa.repeat(" ", len(words)),
    )
    pictures = items(
        int(placed.sum()),
        row=pa.array(image_owner[placed]),
        kind=pa.repeat("image", int(placed.sum())),
        image_url=addresses.filter(pa.array(placed)),
    )
    order = np.lexsort(
        (
            np.concatenate((np.zeros(len(pictures)), np.ones(len(sentences)))),
            np.concatenate((starts[image_owner[placed]] + index[placed], np.arange(len(words)))),
        )
    )
    return make_nodes(pa.concat_tables([pictures, sentences]).take(pa.array(order)), urls, extra=extra)
