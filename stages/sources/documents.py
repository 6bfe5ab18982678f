"""Documents that were extracted elsewhere: files of our own layout, of OBELICS and of MMC4, as Arrow tables.

A file is read in pieces, a batch of rows at a time. Every row is either a document or a row that says why it is none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from schemas.document import DOCUMENT
from schemas.keys import digest
from stages.sources import layout_interloom, layout_mmc4, layout_obelics
from stages.sources.document_blocks import Block, DamagedFile, Unreadable, column_names, is_parquet, misfit, read_blocks
from stages.sources.document_nodes import CARRIED_IMAGE, Nodes
from stages.sources.sample import Sample
from stages.web.urls import canonicalize

LAYOUTS: dict[str, ModuleType] = {"interloom": layout_interloom, "obelics": layout_obelics, "mmc4": layout_mmc4}
PATTERNS = ("*.parquet", "*.jsonl", "*.jsonl.gz", "*.jsonl.zip")

# A row of a file, document or not.
HEADER = pa.schema(
    [
        pa.field("document_id", pa.string(), nullable=False),
        pa.field("url", pa.string(), nullable=False),  # canonical; as given, or FILE#PLACE, where there is none
        pa.field("file", pa.string(), nullable=False),
        pa.field("place", pa.int64(), nullable=False),  # row of a Parquet file; byte where a JSON line begins
        pa.field("reason", pa.string()),  # why it is no document, else null
        pa.field("detail", pa.string()),
    ]
)
_MADE = ("document_id", "page_id", "url", "image_bodies", "consent", "provenance")
# What it holds; columns are null where there is a reason.
READ = pa.schema(
    [
        *HEADER,
        *(pa.field(field.name, field.type) for field in DOCUMENT if field.name not in _MADE),
        pa.field("images", pa.list_(CARRIED_IMAGE)),  # pictures that came with it
    ]
)
_ID = re.compile("[0-9a-f]{32}")


@dataclass(frozen=True)
class Piece:
    """A part of a file: piece `index` of `count`."""

    name: str  # kept as provenance, and part of ids: the same wherever the files lie
    index: int = 0
    count: int = 1


@dataclass(frozen=True)
class Layout:
    """How a file's rows are laid out."""

    name: str
    schema: pa.Schema  # columns that are read
    header: pa.Schema  # those that say which document it is

    @property
    def module(self) -> ModuleType:
        return LAYOUTS[self.name]


def find_layout(stream: BinaryIO, name: str, wanted: str = "auto") -> Layout | None:
    """The layout of a file, by the columns that it has; None for an empty file of JSON Lines.

    Raises ValueError, one line, for a file of no layout or not of the `wanted` one; DamagedFile for one that cannot be
    read.
    """
    names = column_names(stream, name)
    stream.seek(0)
    if not names:
        return None
    fits = [each for each, module in LAYOUTS.items() if set(names) >= module.NEEDS and wanted in (each, "auto")]
    if not fits:
        needed = [wanted] if wanted != "auto" else list(LAYOUTS)
        known = "; ".join(f"{each} has {', '.join(sorted(LAYOUTS[each].NEEDS))}" for each in needed)
        shown = ", ".join(names[:8]) + (" …" if len(names) > 8 else "")
        raise ValueError(f"its columns are {shown[:200]}, and of the layouts {known}")
    module = LAYOUTS[fits[0]]
    pictures = {"pictures": True} if module is layout_obelics and _has_pictures(stream, name) else {}
    layout = Layout(fits[0], module.schema(**pictures), module.HEADER)
    if said := misfit(stream, name, layout.schema):
        raise ValueError(f"{said}, which does not fit layout {layout.name}")
    stream.seek(0)
    return layout


def _has_pictures(stream: BinaryIO, name: str) -> bool:
    """Whether an OBELICS file holds pictures and not their addresses."""
    if not is_parquet(name):
        return False
    kind = pq.ParquetFile(stream).schema_arrow.field("images").type
    stream.seek(0)
    return bool(hasattr(kind, "value_type") and pa.types.is_struct(kind.value_type))


def read_headers(stream: BinaryIO, piece: Piece, wanted: str, sample: Sample) -> Iterator[pa.Table]:
    """HEADER tables of a piece's rows, those of the sample alone; no nodes are read."""
    for read in _rows(stream, piece, wanted, sample, header_only=True):
        yield read.header


def read_documents(stream: BinaryIO, piece: Piece, wanted: str, sample: Sample) -> Iterator[pa.Table]:
    """READ tables of a piece's rows, those of the sample alone.

    Reasons: damaged_file, unknown_layout, not_json, bad_row, too_large, no_url, bad_url.
    """
    for read in _rows(stream, piece, wanted, sample, header_only=False):
        yield read.header if read.block is None else _documents(read.header, read.block)


@dataclass(frozen=True)
class _Found:
    """Columns of rows in their file, their layout, and by row what could not be read."""

    table: pa.Table
    layout: Layout
    faults: list[str | None]


@dataclass(frozen=True)
class _Read:
    """HEADER rows, and what they hold; nothing for what could not be read."""

    header: pa.Table
    block: _Found | None = None


def _rows(stream: BinaryIO, piece: Piece, wanted: str, sample: Sample, *, header_only: bool) -> Iterator[_Read]:
    try:
        layout = find_layout(stream, piece.name, wanted)
    except ValueError as error:
        if piece.index == 0:
            reason = "damaged_file" if isinstance(error, DamagedFile) else "unknown_layout"
            yield _Read(_unreadable(piece, Unreadable(0, reason, str(error)), header_only))
        return
    if layout is None:
        return
    columns = layout.header if header_only else layout.schema
    for read in read_blocks(stream, piece.name, columns, piece.index, piece.count):
        if isinstance(read, Unreadable):
            yield _Read(_unreadable(piece, read, header_only))
            continue
        header = _header(read, piece, layout)
        taken = sample.mask(header.column("url").to_pylist())
        told = dict(read.faults)
        faults = [told.get(index) for index in np.flatnonzero(taken).tolist()]
        if taken.all():
            yield _Read(header, _Found(read.table, layout, faults))
        elif taken.any():
            mask = pa.array(taken)
            yield _Read(header.filter(mask), _Found(read.table.filter(mask), layout, faults))


def _unreadable(piece: Piece, row: Unreadable, header_only: bool) -> pa.Table:
    url = f"{piece.name}#{row.place}"
    made = {
        "document_id": _row_id(url, piece.name, row.place),
        "url": url,
        "file": piece.name,
        "place": row.place,
        "reason": row.reason,
        "detail": row.detail,
    }
    return pa.Table.from_pylist([made], schema=HEADER if header_only else READ)


def _row_id(url: str, name: str, place: int) -> str:
    return xxhash.xxh3_128_hexdigest(f"{url}\n{name}\n#{place}".encode("utf-8", "surrogatepass"))


def _header(block: Block, piece: Piece, layout: Layout) -> pa.Table:
    places = block.places.tolist()
    given: list[str | None] = layout.module.urls(block.table)
    urls, reasons, details = [], [], []
    for place, url in zip(places, given, strict=True):
        reason = detail = None
        try:
            made = canonicalize(url) if url else f"{piece.name}#{place}"
            if not url:
                reason, detail = "no_url", "it does not say of which page it is"
        except ValueError as error:
            made, reason, detail = url or "", "bad_url", str(error)
        urls.append(made)
        reasons.append(reason)
        details.append(detail)
    return pa.Table.from_arrays(
        [
            pa.array(_ids(block.table, urls, piece.name, places), pa.string()),
            pa.array(urls, pa.string()),
            pa.array([piece.name] * len(urls), pa.string()),
            pa.array(block.places),
            pa.array(reasons, pa.string()),
            pa.array(details, pa.string()),
        ],
        schema=HEADER,
    )


def _ids(table: pa.Table, urls: Sequence[str], name: str, places: Sequence[int]) -> list[str]:
    """The documents' own ids where they have some, else of their address and place."""
    own: Sequence[str | None] = [None] * len(urls)
    if "document_id" in table.column_names:
        own = table.column("document_id").to_pylist()
    return [
        _row_id(url, name, place) if given is None else given if _ID.fullmatch(given) else digest(given)
        for given, url, place in zip(own, urls, places, strict=True)
    ]


def _documents(header: pa.Table, block: _Found) -> pa.Table:
    """READ rows of HEADER rows and what they hold."""
    faults = [
        unread or fault for unread, fault in zip(block.faults, block.layout.module.faults(block.table), strict=True)
    ]
    if any(faults):
        told = zip(header.column("reason").to_pylist(), header.column("detail").to_pylist(), faults, strict=True)
        why = [(reason, detail) if reason or not fault else ("bad_row", fault) for reason, detail, fault in told]
        for at, name in enumerate(("reason", "detail")):
            values = pa.array([each[at] for each in why], pa.string())
            header = header.set_column(HEADER.get_field_index(name), HEADER.field(name), values)
    usable = np.asarray(header.column("reason").is_null())
    if usable.all():
        return _filled(header, block.table, block.layout)
    mask = pa.array(usable)
    failed = _padded(header.filter(pa.array(~usable)))
    return pa.concat_tables([_filled(header.filter(mask), block.table.filter(mask), block.layout), failed])


def _filled(header: pa.Table, block: pa.Table, layout: Layout) -> pa.Table:
    if not header.num_rows:
        return READ.empty_table()
    made: Nodes = layout.module.nodes(block, header.column("url").to_pylist())
    columns = {
        **{name: block.column(name) for name in block.column_names},
        **{name: header.column(name) for name in HEADER.names},
        "nodes": made.nodes,
        "dropped": made.dropped,
        "text_hash": made.text_hash,
        "images": made.images,
    }
    return _padded(pa.table({name: columns[name] for name in READ.names if name in columns}))


def _padded(table: pa.Table) -> pa.Table:
    """READ rows of a table that lacks some columns."""
    columns = [
        table.column(field.name).cast(field.type)
        if field.name in table.column_names
        else pa.nulls(table.num_rows, field.type)
        for field in READ
    ]
    return pa.Table.from_arrays(columns, schema=READ)
