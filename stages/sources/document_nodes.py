"""Nodes of documents that were extracted elsewhere: flat columns in, lists of schemas.document.NODE out.

A layout says which text and which picture stands where; here texts are brought into their normal form, picture URLs
into their canonical one, and what is no usable node is left out by a rule. A block of documents at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash
from numpy.typing import NDArray

from schemas.document import DROPPED, NODE
from schemas.keys import digest
from stages.text.normal_form import normalize, text_hash
from stages.web.urls import canonicalize_image, url_id

# A node before it is checked. `row`: index of its document in the block; rows are together and in reading order.
ITEM = pa.schema(
    [
        pa.field("row", pa.int64()),
        *(field for field in NODE if field.name != "image_id"),
        pa.field("bytes", pa.large_binary()),  # of a picture that comes with the document
    ]
)
# A picture that came with its document.
CARRIED_IMAGE = pa.struct(
    [
        pa.field("image_id", pa.string()),
        pa.field("content_hash", pa.string()),  # xxh3-128 hex of the bytes
        pa.field("bytes", pa.large_binary()),
    ]
)
# Anything but printable ASCII with single blanks inside: text that is perhaps not in its normal form (RE2).
_UNCERTAIN = r"[^ -~]|  |^ | $"
_DETAIL = 200  # characters of what was left out, as schemas.document.DROPPED has it


@dataclass(frozen=True)
class Nodes:
    """Columns of a block's documents, each of the block's length."""

    nodes: pa.Array  # list<NODE>
    dropped: pa.Array  # list<DROPPED>
    text_hash: pa.Array
    images: pa.Array  # list<CARRIED_IMAGE>


def items(num_items: int, **columns: pa.Array) -> pa.Table:
    """A table of ITEM; columns that are not given are null."""
    arrays = [
        columns[field.name].cast(field.type) if field.name in columns else pa.nulls(num_items, field.type)
        for field in ITEM
    ]
    return pa.Table.from_arrays(arrays, schema=ITEM)


def normal_texts(texts: pa.Array) -> pa.Array:
    """Texts in the normal form of a paragraph (stages.text.normal_form); most are, and are only looked at."""
    uncertain = pc.fill_null(pc.match_substring_regex(texts, _UNCERTAIN), False)
    return _replaced(texts, uncertain, [normalize(text) for text in texts.filter(uncertain).to_pylist()])


def _replaced(values: pa.Array, where: pa.Array, new: Sequence[str | None]) -> pa.Array:
    return pc.replace_with_mask(values, where, pa.array(new, values.type)) if new else values


def make_nodes(table: pa.Table, urls: Sequence[str], *, extra: Sequence[tuple[int, dict[str, Any]]] = ()) -> Nodes:
    """ITEM rows as the nodes of documents with these URLs, which relative picture addresses resolve against.

    `extra`: (row, DROPPED) of what a layout left out itself. Rules: unknown_kind, empty_text, no_source, bad_url.
    """
    table = table.combine_chunks()
    rows = np.asarray(table.column("row"))
    kinds = table.column("kind").combine_chunks()
    is_image = np.asarray(pc.fill_null(pc.equal(kinds, "image"), False))
    is_text = np.asarray(pc.fill_null(pc.equal(kinds, "text"), False))
    filled = np.asarray(pc.fill_null(pc.greater(pc.utf8_length(table.column("text")), 0), False))
    found = _images(table, rows, np.flatnonzero(is_image), urls)
    kept = (is_text & filled) | found.usable
    dropped = [*extra, *found.dropped, *_left_out(table, rows, ~is_image & ~kept)]
    mine = pa.array(kept)
    owners = rows[kept]
    text = pc.if_else(pa.array(is_text), table.column("text"), None).combine_chunks().filter(mine)
    columns = {
        **{name: table.column(name).combine_chunks().filter(mine) for name in table.column_names},
        "text": text,
        "tag": pc.coalesce(table.column("tag").combine_chunks(), _default(is_image, "img", "p")).filter(mine),
        "separator": pc.coalesce(table.column("separator").combine_chunks(), pa.scalar("\n\n")).filter(mine),
        "image_url": found.urls.filter(mine),
        "image_id": found.ids.filter(mine),
    }
    nodes = pa.StructArray.from_arrays([columns[field.name] for field in NODE], fields=list(NODE))
    return Nodes(
        nodes=_listed(owners, nodes, len(urls)),
        dropped=_dropped_lists(dropped, len(urls)),
        text_hash=_text_hashes(owners[is_text[kept]], text.filter(pa.array(is_text[kept])), len(urls)),
        images=_listed(found.carried_rows, found.carried, len(urls)),
    )


def _default(is_image: NDArray[np.bool_], image: str, text: str) -> pa.Array:
    return pc.if_else(pa.array(is_image), image, text)


def _listed(rows: NDArray[np.int64], values: pa.Array, num_rows: int) -> pa.Array:
    """Values as lists, one for each of `num_rows` rows; `rows`, ascending, says whose each is."""
    offsets = np.searchsorted(rows, np.arange(num_rows + 1))
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values)


def _text_hashes(rows: NDArray[np.int64], texts: pa.Array, num_rows: int) -> pa.Array:
    joined = pc.binary_join(_listed(rows, texts, num_rows), "\n\n").to_pylist()
    return pa.array([text_hash(text) if text else None for text in joined], pa.string())


def _dropped_lists(dropped: Sequence[tuple[int, dict[str, Any]]], num_rows: int) -> pa.Array:
    ordered = sorted(dropped, key=lambda item: item[0])
    rows = np.array([row for row, _ in ordered], np.int64)
    return _listed(rows, pa.array([said for _, said in ordered], DROPPED), num_rows)


def _left_out(table: pa.Table, rows: NDArray[np.int64], mask: NDArray[np.bool_]) -> list[tuple[int, dict[str, Any]]]:
    """What is neither a picture nor a text with words."""
    at = np.flatnonzero(mask)
    if not len(at):
        return []
    said = table.select(["kind", "text"]).take(pa.array(at)).to_pylist()
    return [
        (
            int(row),
            {"kind": "text", "rule": "empty_text", "detail": None}
            if node["kind"] == "text"
            else {"kind": "text", "rule": "unknown_kind", "detail": f"{node['kind']}: {node['text'] or ''}"[:_DETAIL]},
        )
        for row, node in zip(rows[at], said, strict=True)
    ]


@dataclass(frozen=True)
class _Images:
    """Pictures among the items; urls and ids are of the items' length, null where there is none."""

    usable: NDArray[np.bool_]
    urls: pa.Array
    ids: pa.Array
    dropped: list[tuple[int, dict[str, Any]]]
    carried: pa.Array
    carried_rows: NDArray[np.int64]


def _images(table: pa.Table, rows: NDArray[np.int64], at: NDArray[np.int64], urls: Sequence[str]) -> _Images:
    usable = np.zeros(table.num_rows, np.bool_)
    raw = table.column("image_url").take(pa.array(at)).to_pylist()
    bodies = table.column("bytes").combine_chunks().take(pa.array(at))
    has_bytes = np.asarray(bodies.is_valid())
    found: list[str | None] = []
    ids: list[str | None] = []
    dropped: list[tuple[int, dict[str, Any]]] = []
    carried_ids: list[str | None] = []
    contents: list[str] = []
    for index, (item, given) in enumerate(zip(at.tolist(), raw, strict=True)):
        row = int(rows[item])
        url, said = _image_url(given, urls[row])
        image_id = None if url is None else url_id(url)
        if has_bytes[index]:
            content = xxhash.xxh3_128_hexdigest(bodies[index].as_buffer())
            # Where nobody says under which address it lay, its content is its name.
            url = url or f"urn:xxh3:{content}"
            image_id = digest(url, content)
            carried_ids.append(image_id)
            contents.append(content)
        if url is None:
            dropped.append((row, {"kind": "image", "rule": said, "detail": (given or "")[:_DETAIL] or None}))
        usable[item] = url is not None
        found.append(url)
        ids.append(image_id)
    place = np.full(table.num_rows, -1, np.int64)
    place[at] = np.arange(len(at))
    where = pa.array(place, mask=place < 0)
    return _Images(
        usable=usable,
        urls=pa.array(found, pa.string()).take(where),
        ids=pa.array(ids, pa.string()).take(where),
        dropped=dropped,
        carried=pa.StructArray.from_arrays(
            [pa.array(carried_ids, pa.string()), pa.array(contents, pa.string()), bodies.drop_null()],
            fields=list(CARRIED_IMAGE),
        ),
        carried_rows=rows[at[has_bytes]],
    )


def _image_url(given: str | None, base: str) -> tuple[str | None, str]:
    """The canonical URL of a picture, or None and the rule that leaves it out."""
    if not given:
        return None, "no_source"
    try:
        return canonicalize_image(given, base), ""
    except ValueError:
        return None, "bad_url"
