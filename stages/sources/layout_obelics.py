"""Layout obelics: parallel lists of pictures and texts, one of the two at every place.

`images`: URLs, or pictures as `datasets` stores its Image feature (struct of bytes and path). `metadata`: a JSON list
parallel to them, with what a page says of each picture. `general_metadata`: a JSON object with the page's `url`.
Source: the card of HuggingFaceM4/OBELICS, "Data Fields". A text holds several paragraphs with an empty line between
them, and the words END_OF_DOCUMENT_TOKEN_TO_BE_REPLACED where another subject begins (arXiv 2306.16527, A.1.2).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pj

from stages.extract.nodes import alt_text
from stages.sources.document_nodes import Nodes, items, make_nodes, normal_texts

NEEDS = frozenset({"images", "texts"})
HEADER = pa.schema([pa.field("general_metadata", pa.string())])
_PICTURE = pa.struct([pa.field("bytes", pa.large_binary()), pa.field("path", pa.string())])
_ABOUT = pa.struct(
    [
        pa.field("src", pa.string()),
        pa.field("alt_text", pa.string()),
        pa.field("rendered_width", pa.int32()),
        pa.field("rendered_height", pa.int32()),
    ]
)
_END_OF_DOCUMENT = "END_OF_DOCUMENT_TOKEN_TO_BE_REPLACED"


def schema(*, pictures: bool = False) -> pa.Schema:
    """Columns that are read; `pictures`: images are bytes."""
    return pa.schema(
        [
            *HEADER,
            pa.field("metadata", pa.string()),
            pa.field("images", pa.list_(_PICTURE if pictures else pa.string())),
            pa.field("texts", pa.list_(pa.string())),
        ]
    )


def urls(block: pa.Table) -> list[str | None]:
    """The address of each document, as it is given."""
    said = _parsed(block.column("general_metadata"), pa.struct([pa.field("url", pa.string())]))
    found: list[str | None] = pc.struct_field(said, "url").to_pylist()
    return found


def faults(block: pa.Table) -> list[str | None]:
    """Why a row is no document."""
    images, texts = (pc.list_value_length(block.column(name)).to_pylist() for name in ("images", "texts"))
    return [_fault(*lengths) for lengths in zip(images, texts, strict=True)]


def _fault(num_images: int | None, num_texts: int | None) -> str | None:
    if num_images is None or num_texts is None:
        return "it has no images" if num_images is None else "it has no texts"
    return None if num_images == num_texts else f"{num_images} images and {num_texts} texts: they must be as many"


def nodes(block: pa.Table, urls: Sequence[str]) -> Nodes:
    """The nodes of rows without a fault: a picture and a text at one place stand in this order."""
    images, texts = (block.column(name).combine_chunks() for name in ("images", "texts"))
    owner = np.asarray(pc.list_parent_indices(images))
    place = np.arange(len(owner))
    flat_images = images.flatten()
    about, unused = _about(block)
    there = np.asarray(flat_images.is_valid())
    pieces = pc.split_pattern(texts.flatten(), "\n\n")
    words = normal_texts(pc.list_flatten(pieces))
    place_of_words = np.asarray(pc.list_parent_indices(pieces))
    marks = np.asarray(pc.equal(words, _END_OF_DOCUMENT))
    full = np.asarray(pc.greater(pc.utf8_length(words), 0)) & ~marks
    extra: list[tuple[int, dict[str, Any]]] = [
        (int(row), {"kind": "text", "rule": "end_of_document", "detail": _END_OF_DOCUMENT})
        for row in owner[place_of_words[marks]]
    ]
    extra += [(row, {"kind": "text", "rule": "bad_metadata", "detail": said}) for row, said in unused]
    nothing = ~there & ~np.asarray(texts.flatten().is_valid())
    extra += [(int(row), {"kind": "image", "rule": "no_source", "detail": None}) for row in owner[nothing]]
    pictures = _pictures(flat_images, about, owner, there)
    paragraphs = items(
        int(full.sum()),
        row=pa.array(owner[place_of_words[full]]),
        kind=pa.repeat("text", int(full.sum())),
        text=words.filter(pa.array(full)),
    )
    order = np.lexsort(
        (
            np.concatenate((np.zeros(len(pictures)), np.ones(len(paragraphs)))),
            np.concatenate((place[there], place_of_words[full])),
        )
    )
    return make_nodes(pa.concat_tables([pictures, paragraphs]).take(pa.array(order)), urls, extra=extra)


def _pictures(images: pa.Array, about: pa.Array, owner: Any, there: Any) -> pa.Table:
    mine = pa.array(there)
    images, about = images.filter(mine), about.filter(mine)
    source = pc.struct_field(about, "src")
    bodies = None
    if pa.types.is_struct(images.type):
        bodies = pc.struct_field(images, "bytes")
        path = pc.struct_field(images, "path")
        address = pc.if_else(pc.fill_null(pc.match_substring_regex(path, "^https?://"), False), path, None)
        source = pc.coalesce(source, address)
    else:
        source = images
    alts = pc.struct_field(about, "alt_text")
    words = [alt_text({"alt": alt, "src": src}) for alt, src in zip(alts.to_pylist(), source.to_pylist(), strict=True)]
    return items(
        len(images),
        row=pa.array(owner[there]),
        kind=pa.repeat("image", len(images)),
        image_url=source,
        alt=pa.array(words, pa.string()),
        rendered_width=pc.struct_field(about, "rendered_width"),
        rendered_height=pc.struct_field(about, "rendered_height"),
        **({} if bodies is None else {"bytes": bodies}),
    )


def _about(block: pa.Table) -> tuple[pa.Array, list[tuple[int, str]]]:
    """What the pages say of pictures, one of _ABOUT a place, and (row, first words) of metadata that fits no places."""
    said = _parsed(block.column("metadata"), pa.list_(_ABOUT))
    wanted = pc.list_value_length(block.column("images").combine_chunks())
    fits = pc.fill_null(pc.equal(pc.list_value_length(said), wanted), False)
    if pc.all(fits).as_py():
        return said.flatten(), []
    rows = zip(fits.to_pylist(), said.to_pylist(), wanted.to_pylist(), strict=True)
    filled = pa.array([row if fit else [None] * length for fit, row, length in rows], said.type)
    texts = block.column("metadata").to_pylist()
    unused = [
        (row, text[:200])
        for row, (fit, text) in enumerate(zip(fits.to_pylist(), texts, strict=True))
        if text and not fit
    ]
    return filled.flatten(), unused


def _parsed(column: pa.ChunkedArray, kind: pa.DataType) -> pa.Array:
    """JSON inside strings as a type; null where it is none, or not of that type."""
    texts = column.combine_chunks()
    if len(texts):
        on_a_line = pc.replace_substring(pc.fill_null(texts, "null"), "\n", " ")
        lines = pc.binary_join_element_wise('{"x":', on_a_line, "}", "")
        data = "\n".join(lines.to_pylist()).encode()
        try:
            found = pj.read_json(
                pa.BufferReader(data),
                read_options=pj.ReadOptions(use_threads=False, block_size=len(data) + 1),
                parse_options=pj.ParseOptions(
                    explicit_schema=pa.schema([pa.field("x", kind)]), unexpected_field_behavior="ignore"
                ),
            )
            if found.num_rows == len(texts):
                return found.column("x").combine_chunks()
        except (pa.ArrowException, ValueError):
            pass  # one of them, found below
    return pa.array([_one(text, kind) for text in texts.to_pylist()], kind)


def _one(text: str | None, kind: pa.DataType) -> Any:
    """One of them, numbers made whole; None when it is not of the type."""
    try:
        value = _whole(json.loads(text)) if text else None
        return pa.array([value], kind)[0].as_py()
    except (pa.ArrowException, ValueError, TypeError, OverflowError, RecursionError):
        return None


def _whole(value: Any) -> Any:
    """Sizes as they are written: 300, 300.0, "300"; null for "100%"."""
    if isinstance(value, list):
        return [_whole(each) for each in value]
    if not isinstance(value, dict):
        return value
    return {
        name: _size(each) if name in ("rendered_width", "rendered_height") else each for name, each in value.items()
    }


def _size(value: Any) -> int | None:
    try:
        return int(float(value))
    except (TypeError, ValueError, OverflowError):
        return None
