"""That the rows of a shard are what their contract says, beyond what Arrow's types can: indices, kinds, lengths.

Whole columns at a time, never row by row; of pictures only the offsets are read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from schemas.shard import NODE_KINDS, SLICE_KINDS, SPLITS

Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
# Numbers of a vector by the vectors that are compared with each other; 0 where there are none.
Widths = dict[str, int]


class _Items:
    """The items of a list column end to end, and which row each is of."""

    def __init__(self, batch: pa.RecordBatch, column: str) -> None:
        lists = batch.column(column)
        self.column, self.batch = column, batch
        self.values = lists.flatten()
        self.lengths: Ints = pc.list_value_length(lists).to_numpy(zero_copy_only=False).astype(np.int64)
        self.starts: Ints = np.concatenate([[0], np.cumsum(self.lengths)])[:-1].astype(np.int64)
        self.row: Ints = np.repeat(np.arange(len(self.lengths)), self.lengths)

    def field(self, name: str) -> pa.Array:
        return pc.struct_field(self.values, name)

    def integers(self, name: str) -> Ints:
        """An integer field; -1 where it is null."""
        return _numbers(pc.fill_null(self.field(name), -1))

    def present(self, name: str) -> Mask:
        return _mask(pc.is_valid(self.field(name)))

    def is_kind(self, kind: str) -> Mask:
        return _mask(pc.fill_null(pc.equal(self.field("kind"), kind), False))

    def require(self, holds: Mask, otherwise: Callable[[int], str]) -> None:
        """ValueError that names document and item for the first item of which it does not hold."""
        if not holds.all():
            item = int(np.argmin(holds))
            row = int(self.row[item])
            place = item - int(self.starts[row])
            raise _refusal(self.batch, row, f"{self.column}[{place}] {otherwise(item)}")

    def require_kinds(self, kinds: Sequence[str]) -> None:
        known = _mask(pc.is_in(self.field("kind"), value_set=pa.array(kinds, pa.string())))
        self.require(known, lambda item: f"is of kind {_said(self.field('kind')[item])}")

    def require_inside(self, index: Ints, of: _Items, where: Mask, name: str) -> None:
        """That `index` is one of its row's items of another column, wherever `where` holds."""
        most = of.lengths[self.row]
        self.require(
            ~where | ((index >= 0) & (index < most)),
            lambda item: f"has {name} {int(index[item])}, and its document has {int(most[item])} {of.column}",
        )


def check_rows(batch: pa.RecordBatch) -> Widths:
    """Check a batch of schemas.shard.SHARD that has passed `validate(full=True)` and holds no null where none may be.

    ValueError, naming the document, for the first thing that contradicts the contract.
    """
    split = batch.column("split")
    unknown = ~_mask(pc.is_in(split, value_set=pa.array(SPLITS, pa.string())))
    if unknown.any():
        row = int(np.argmax(unknown))
        raise _refusal(batch, row, f"split is {_said(split[row])}, neither {' nor '.join(SPLITS)}")
    nodes, images, info, slices, negatives = (
        _Items(batch, column) for column in ("nodes", "images", "image_info", "slices", "negatives")
    )
    _check_images(batch, images, info)
    _check_nodes(nodes, images)
    widths = _check_slices(slices, nodes)
    _check_negatives(negatives, slices)
    return widths


def _check_images(batch: pa.RecordBatch, images: _Items, info: _Items) -> None:
    unequal = images.lengths != info.lengths
    if unequal.any():
        row = int(np.argmax(unequal))
        raise _refusal(batch, row, f"it has {images.lengths[row]} images and {info.lengths[row]} image_info")
    images.require(images.present("bytes"), lambda _: "has no bytes")
    info.require(info.present("sha256"), lambda _: "has no sha256")


def _check_nodes(nodes: _Items, images: _Items) -> None:
    nodes.require_kinds(NODE_KINDS)
    nodes.require_inside(nodes.integers("image"), images, nodes.is_kind("image"), "image")
    nodes.require(nodes.present("text") | nodes.is_kind("image"), lambda _: "is of kind text and has none")


def _check_slices(slices: _Items, nodes: _Items) -> Widths:
    slices.require_kinds(SLICE_KINDS)
    every = np.ones(len(slices.row), dtype=np.bool_)
    is_image = slices.is_kind("image")
    node, matched = slices.integers("node"), slices.integers("matched")
    slices.require_inside(node, nodes, every, "node")
    at = nodes.starts[slices.row] + node
    slices.require(nodes.is_kind("image")[at] == is_image, lambda item: f"is of node {int(node[item])}, no such kind")
    start, end = slices.integers("start"), slices.integers("end")
    length = _numbers(pc.fill_null(pc.utf8_length(nodes.field("text")), 0))[at]
    slices.require(
        (start >= 0) & (start <= end) & (is_image | (end <= length)),
        lambda item: f"spans {int(start[item])} to {int(end[item])} of {int(length[item])} characters",
    )
    before = np.maximum(np.arange(len(at)) - 1, 0)
    first = (np.arange(len(at)) == 0) | (slices.row != slices.row[before])
    later = (node > node[before]) | ((node == node[before]) & (start >= end[before]))
    slices.require(first | later, lambda _: "is not in reading order")
    has_match = slices.present("matched")
    slices.require_inside(matched, slices, has_match, "match")
    other = is_image[np.where(has_match, slices.starts[slices.row] + matched, 0)]
    slices.require(~has_match | (other != is_image), lambda item: f"is matched to slice {int(matched[item])}, its like")
    return {
        "image primary": _width(slices, "primary", is_image),
        "sentence primary": _width(slices, "primary", ~is_image),
        "shared": _width(slices, "shared", every),
    }


def _width(slices: _Items, name: str, of: Mask) -> int:
    """Numbers of each vector of these slices, of which none is null; 0 where there is no vector."""
    column = slices.field(name)
    numbers = column.flatten()
    if numbers.null_count:
        null = pc.filter(pc.list_parent_indices(column), pc.is_null(numbers))
        slices.require(~np.isin(np.arange(len(column)), null), lambda _: f"has a {name} vector that holds a null")
    widths = _numbers(pc.fill_null(pc.list_value_length(column), 0))
    widest = int(np.max(widths[of], initial=0))
    slices.require(
        ~of | (widths == 0) | (widths == widest),
        lambda item: f"has a {name} vector of {int(widths[item])} numbers where another has {widest}",
    )
    return widest


def _check_negatives(negatives: _Items, slices: _Items) -> None:
    every = np.ones(len(negatives.row), dtype=np.bool_)
    negatives.require_inside(negatives.integers("slice"), slices, every, "slice")
    negatives.require(negatives.present("kind"), lambda _: "has no kind")
    mined, text = negatives.is_kind("mined"), negatives.is_kind("counterfactual")
    named = negatives.present("document_id") & (negatives.integers("candidate") >= 0) & negatives.present("score")
    negatives.require(~mined | named, lambda _: "is mined and lacks a document, a candidate or a score")
    negatives.require(~text | negatives.present("text"), lambda _: "is counterfactual and has no text")


def _refusal(batch: pa.RecordBatch, row: int, problem: str) -> ValueError:
    return ValueError(f"document {_said(batch.column('document_id')[row])}: {problem}")


def _said(value: Any) -> str:
    """A value of the file on one line."""
    return ascii(value.as_py())[:80]


def _numbers(column: pa.Array) -> Ints:
    found: Ints = column.to_numpy(zero_copy_only=False).astype(np.int64)
    return found


def _mask(column: pa.Array) -> Mask:
    found: Mask = column.to_numpy(zero_copy_only=False).astype(np.bool_)
    return found
