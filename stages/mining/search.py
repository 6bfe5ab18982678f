"""Search: the nearest contents by cosine, exactly, over candidates that arrive in tables of any size.

Screened in float32 by blocks (on a GPU when there is one), then scored by `stages.encoders.cosine`, whose numbers do
not depend on the processor. The screen keeps whatever may reach the list within the proven error of a float32
scalar product, so the result is that of comparing everything with everything, whatever the blocks.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from stages.encoders.cosine import Half, Mask, Single, pair_cosines

if TYPE_CHECKING:
    import torch

Ints = npt.NDArray[np.int64]
Names = npt.NDArray[np.bytes_]


@dataclass(frozen=True)
class Entries:
    """Slices to search for or among, one a row; every array has as many."""

    document: Names  # document_id
    slice: npt.NDArray[np.int32]
    content: Names  # content_id
    cluster: Names
    split: Names
    shared: Half  # (rows, dim), unit norm
    primary: Half  # (rows, dim of the slice's own modality); zero where missing
    has_primary: Mask
    match_content: Names  # content_id of the matched slice, b"" without a match
    phash: npt.NDArray[np.uint64]  # of the image of the slice's pair: itself, or its match
    has_phash: Mask

    def __len__(self) -> int:
        return len(self.slice)

    def take(self, rows: npt.NDArray[Any]) -> Entries:
        return Entries(*(getattr(self, field.name)[rows] for field in fields(self)))


@dataclass(frozen=True)
class Hits:
    """Nearest candidates, by query, falling score, (document, slice)."""

    query: Ints  # row of the query
    score: Single
    candidate: Ints  # row of `entries`
    entries: Entries  # candidates that are in some list; their shared vectors are left out


class Search:
    """The `count` nearest distinct contents for each query, among candidates of its split and of other clusters.

    Of equal contents the first by (document, slice) stands for all. Ties of the score (float32) go by
    (document, slice). block_size: rows of queries and of candidates per product; the result does not depend on it,
    nor on how candidates are spread over calls of `add` or in which order. Memory: the queries, one table,
    block_size^2 scores, the metadata and primary vectors of the hits.
    """

    def __init__(self, queries: Entries, count: int, block_size: int, device: torch.device | str) -> None:
        self._count, self._block_size, self._device = count, block_size, device
        # A float32 sum of dim products of float16 values is off by less than dim * 2^-24 * |a| |b|, on either side
        # of the bound; norms are close to 1. The rest of the factor covers accumulators that truncate.
        self._margin = queries.shared.shape[1] * 2.0**-21
        self._lists = _ListState(queries, count, block_size)

    def add(self, candidates: Entries) -> None:
        """Compare all queries with these candidates too."""
        import torch  # a second to import: workers of other phases load this module for its settings

        precision = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("highest")
        try:
            for split in np.unique(candidates.split):
                chosen = _first_copies(candidates.take(np.flatnonzero(candidates.split == split)))
                for start in range(0, len(chosen), self._block_size):
                    block = chosen.take(np.arange(start, min(start + self._block_size, len(chosen))))
                    for part in self._lists.parts(split):
                        floor = self._lists.floor[part.rows]
                        scored = _screen(part, block, floor, self._count, self._margin, self._device)
                        self._lists.offer(part, block, *scored)
        finally:
            torch.set_float32_matmul_precision(precision)

    def hits(self) -> Hits:
        """The lists so far."""
        return self._lists.hits()


def _first_copies(entries: Entries) -> Entries:
    """Of each content its first copy, and the first from another cluster (the first may be the anchor's own)."""
    order = np.lexsort((entries.slice, entries.document, entries.content))
    content, cluster = entries.content[order], entries.cluster[order]
    first = np.ones(len(order), dtype=np.bool_)
    first[1:] = content[1:] != content[:-1]
    starts = np.flatnonzero(first)
    group = np.cumsum(first) - 1
    other = np.flatnonzero(cluster != cluster[starts][group])
    _, second = np.unique(group[other], return_index=True)
    return entries.take(order[np.sort(np.concatenate([starts, other[second]]))])


@dataclass(frozen=True)
class _Part:
    """A block of queries of one split."""

    number: int
    rows: Ints  # of the queries
    cluster: Names
    shared: Half


def _screen(
    part: _Part, block: Entries, floor: Single, count: int, margin: float, device: torch.device | str
) -> tuple[Ints, Ints, Single]:
    """(query row in the part, candidate row in the block, exact score) of all that may enter a list."""
    import torch

    left, right = part.shared.astype(np.float32), block.shared.astype(np.float32)
    scores = torch.from_numpy(left).to(device) @ torch.from_numpy(right).to(device).T
    same_rows, same_columns = _equal_pairs(part.cluster, block.cluster)
    scores[torch.from_numpy(same_rows).to(device), torch.from_numpy(same_columns).to(device)] = -torch.inf
    bound = torch.from_numpy(floor).to(device)
    if bool(torch.isinf(bound).any()):
        # Lists that are not full yet: two copies of a content at most, so twice as many hold `count` contents.
        best = torch.topk(scores, min(2 * count, scores.shape[1]), dim=1, sorted=True).values[:, -1]
        bound = torch.maximum(bound, best)
    # No cosine lies under -2, and pairs of one cluster are at -inf.
    found = (scores >= (bound - margin).clamp(min=-2.0)[:, None]).nonzero().cpu().numpy()
    rows, columns = found[:, 0], found[:, 1]
    exact = pair_cosines(left, rows, right, columns)
    enters = exact >= floor[rows]
    return rows[enters], columns[enters], exact[enters]


def _equal_pairs(left: Names, right: Names) -> tuple[Ints, Ints]:
    """All (row of left, row of right) with equal names."""
    order = np.argsort(right, kind="stable")
    start = np.searchsorted(right[order], left, side="left")
    length = np.searchsorted(right[order], left, side="right") - start
    rows: Ints = np.repeat(np.arange(len(left), dtype=np.int64), length)
    within = np.arange(len(rows)) - np.repeat(np.cumsum(length) - length, length)
    columns: Ints = order[np.repeat(start, length) + within].astype(np.int64)
    return rows, columns


@dataclass(frozen=True)
class _Lists:
    """The lists of one part so far: a row a list entry, and the candidates that are in any of them."""

    query: Ints
    score: Single
    candidate: Ints  # row of entries
    entries: Entries


class _ListState:
    """The lists found so far, a part of the queries at a time."""

    def __init__(self, queries: Entries, count: int, block_size: int) -> None:
        self.count = count
        self.floor = np.full(len(queries), -np.inf, dtype=np.float32)  # score of the last of a full list
        nobody = queries.take(np.arange(0))
        self._nothing = nothing = _Lists(
            np.empty(0, np.int64), np.empty(0, np.float32), np.empty(0, np.int64), _unsearchable(nobody)
        )
        self._parts: dict[bytes, list[_Part]] = {}
        self._lists: list[_Lists] = []
        self._waiting: list[list[_Lists]] = []
        for split in np.unique(queries.split):
            rows = np.flatnonzero(queries.split == split)
            for start in range(0, len(rows), block_size):
                piece = rows[start : start + block_size]
                part = _Part(len(self._lists), piece, queries.cluster[piece], queries.shared[piece])
                self._parts.setdefault(bytes(split), []).append(part)
                self._lists.append(nothing)
                self._waiting.append([])

    def parts(self, split: bytes) -> list[_Part]:
        return self._parts.get(bytes(split), [])

    def offer(self, part: _Part, block: Entries, rows: Ints, columns: Ints, scores: Single) -> None:
        """Take scored candidates of a block; they are sorted in once they outnumber the list, which costs less."""
        if not len(rows):
            return
        used, places = np.unique(columns, return_inverse=True)
        waiting = self._waiting[part.number]
        waiting.append(_Lists(part.rows[rows], scores, places.astype(np.int64), _unsearchable(block.take(used))))
        if sum(len(item.query) for item in waiting) >= len(self._lists[part.number].query):
            self._merge(part)

    def _merge(self, part: _Part) -> None:
        """Sort what waits into the lists of a part; equal contents collapse into the first."""
        merged = _chain([self._lists[part.number], *self._waiting[part.number]])
        self._waiting[part.number].clear()
        query, score, candidate, entries = merged.query, merged.score, merged.candidate, merged.entries
        place = np.empty(len(entries), dtype=np.int64)
        place[np.lexsort((entries.slice, entries.document))] = np.arange(len(entries))
        order = np.lexsort((place[candidate], -score, query))
        _, content = np.unique(entries.content, return_inverse=True)
        _, first = np.unique(query[order] * len(entries) + content[candidate[order]], return_index=True)
        order = order[np.sort(first)]
        order = order[rank(query[order]) < self.count]
        live, candidate = np.unique(candidate[order], return_inverse=True)
        query, score = query[order], score[order]
        self._lists[part.number] = _Lists(query, score, candidate.astype(np.int64), entries.take(live))

        counts = np.bincount(np.searchsorted(part.rows, query), minlength=len(part.rows))
        full = counts == self.count
        self.floor[part.rows[full]] = score[(np.cumsum(counts) - 1)[full]]

    def hits(self) -> Hits:
        """All lists, by query."""
        for part in (part for parts in self._parts.values() for part in parts):
            self._merge(part)
        merged = _chain([self._nothing, *self._lists])
        order = np.argsort(merged.query, kind="stable")
        return Hits(merged.query[order], merged.score[order], merged.candidate[order], merged.entries)


def _chain(parts: list[_Lists]) -> _Lists:
    """Lists one after another, with the entries of all."""
    shifts = np.cumsum([0, *(len(part.entries) for part in parts)])
    return _Lists(
        np.concatenate([part.query for part in parts]),
        np.concatenate([part.score for part in parts]),
        np.concatenate([part.candidate + shift for part, shift in zip(parts, shifts, strict=False)]),
        concatenate([part.entries for part in parts]),
    )


def _unsearchable(entries: Entries) -> Entries:
    """Entries without their shared vectors, which nobody needs once the score is known."""
    return replace(entries, shared=entries.shared[:, :0])


def concatenate(parts: list[Entries]) -> Entries:
    """Rows of all parts, in order; parts without any primary vector take the width of the others."""
    width = max((part.primary.shape[1] for part in parts if part.has_primary.any()), default=0)
    parts = [
        part if part.has_primary.any() else replace(part, primary=np.zeros((len(part), width), dtype=np.float16))
        for part in parts
    ]
    return Entries(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Entries)))


def rank(groups: Ints) -> Ints:
    """0, 1, 2 ... within each run of equal values."""
    start = np.ones(len(groups), dtype=np.bool_)
    start[1:] = groups[1:] != groups[:-1]
    index: Ints = np.arange(len(groups), dtype=np.int64)
    first: Ints = index[start][np.cumsum(start) - 1]
    return index - first
