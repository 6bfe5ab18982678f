"""Layout interloom: documents as schemas.document has them, also without the columns that say more than the nodes.

Nodes are taken as they are; ids of documents are kept where they are 32 hex digits, and hashed where they are not.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.document import DOCUMENT, NODE
from stages.sources.document_nodes import Nodes, items, make_nodes

NEEDS = frozenset({"nodes"})
HEADER = pa.schema([pa.field("document_id", pa.string()), pa.field("url", pa.string())])
ABOUT = ("canonical_url", "title", "language", "license", "meta_robots", "meta_tdm", "modified")


def schema() -> pa.Schema:
    """Columns that are read."""
    nodes = pa.struct([field for field in NODE if field.name != "image_id"])
    about = [pa.field(name, DOCUMENT.field(name).type) for name in ABOUT]
    return pa.schema([*HEADER, *about, pa.field("nodes", pa.list_(nodes))])


def urls(block: pa.Table) -> list[str | None]:
    """The address of each document, as it is given."""
    found: list[str | None] = block.column("url").to_pylist()
    return found


def faults(block: pa.Table) -> list[str | None]:
    """Why a row is no document."""
    missing = np.asarray(pc.is_null(block.column("nodes")))
    return ["it has no nodes" if each else None for each in missing.tolist()]


def nodes(block: pa.Table, urls: Sequence[str]) -> Nodes:
    """The nodes of every row."""
    column = block.column("nodes").combine_chunks()
    flat = column.flatten()
    columns = {field.name: pc.struct_field(flat, field.name) for field in flat.type}
    return make_nodes(items(len(flat), row=pc.list_parent_indices(column), **columns), urls)
