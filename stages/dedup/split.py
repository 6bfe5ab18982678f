"""Split: train or held out, whole groups of related documents on one side.

Near-duplicates, and documents that share an image, would leak from one side to the other (measured on caption
pairs: retrieval at 1 of .44 with a naive split, .23 with one by group).
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from schemas.shard import SPLITS
from schemas.tables import SPLIT

# What `split` reads: one row a kept document.
RELATIONS = pa.schema(
    [
        pa.field("document_id", pa.string(), nullable=False),
        pa.field("cluster_id", pa.string()),  # of near-duplicate text, or null
        pa.field("image_hashes", pa.list_(pa.string())),  # sha256 and perceptual hashes of its images: equal = shared
    ]
)


def split(rows: pa.Table, held_out_fraction: float) -> pa.Table:
    """Group documents and assign each group to a side: RELATIONS to SPLIT, rows in order.

    A group is a connected component over near-duplicate clusters and shared image hashes. Its side depends on its
    smallest document_id and the fraction (0..1) alone, so other groups may come and go, and a larger fraction only
    moves groups from train to held_out. ValueError for a repeated document_id.
    """
    ids = rows.column("document_id").to_pylist()
    count = len(ids)
    if len(set(ids)) != count:
        raise ValueError("split: a document_id occurs twice")
    clusters = rows.column("cluster_id")
    hashes = rows.column("image_hashes").combine_chunks()
    parents = np.asarray(pc.list_parent_indices(hashes).to_numpy(zero_copy_only=False), dtype=np.int64)
    # A cluster and an image may carry the same name: the kind keeps them apart.
    names = [("cluster", name) for name in clusters.to_pylist()]
    names += [("image", name) for name in pc.list_flatten(hashes).to_pylist()]
    members = np.concatenate([np.arange(count), parents])
    known = np.array([name is not None for _, name in names], dtype=np.bool_)
    keys = {name: count + place for place, name in enumerate(dict.fromkeys(names))}
    targets = np.array([keys[name] for name in names], dtype=np.int64)
    size = count + len(keys)
    edges = coo_array((np.ones(int(known.sum()), dtype=np.int8), (members[known], targets[known])), shape=(size, size))
    _, labels = connected_components(edges, directed=False)

    smallest: dict[int, str] = {}
    for label, name in zip(labels[:count].tolist(), ids, strict=True):
        smallest[label] = min(name, smallest.get(label, name))
    group = [smallest[label] for label in labels[:count].tolist()]
    return pa.table([ids, group, [side(name, held_out_fraction) for name in group]], schema=SPLIT)


def side(group: str, held_out_fraction: float) -> str:
    """The side of a group by its id: a hash, as a fraction of its range, against `held_out_fraction`."""
    train, held_out = SPLITS
    position = xxhash.xxh3_64_intdigest(f"split\0{group}".encode()) / 2**64
    return held_out if position < held_out_fraction else train
