"""Adoption: rows that earlier code computed are taken over by code that comes to the same results.

A function's key changes with its code and its libraries, also where its results do not (files that moved, a patch of
numpy). Before such a phase runs, some rows of the earlier store, drawn by hash, are computed again; where all of them
come out the same, the new store is linked to the earlier one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.engine import memo
from pipeline.engine.key_range import KeyRange, hull
from pipeline.engine.keys import digest_json
from pipeline.engine.row_store import LINK, ROW_KEY, RowStore, store_folder
from pipeline.engine.storage import Storage
from pipeline.engine.table import records_of
from schemas.digests import encoded
from stages.row_function import RowFunction

# Rows of one function that are computed again.
SAMPLE = 1000
# What may differ between two keys of a function without its results being others.
_MAY_DIFFER = ("code", "libraries")


def earlier(storage: Storage, phase: str, functions: Mapping[str, Any], least: int = SAMPLE) -> dict[str, str]:
    """Function -> key of a store that it may take over: of the phase's last record in which it was told to do the same.

    Not for functions that have rows of their own, nor where so few are there that it is as quick to make them again.
    """
    wanted = {name: made_by for name, made_by in functions.items() if not storage.names(_folder(name, made_by))}
    found: dict[str, str] = {}
    for record in sorted(records_of(storage, phase) if wanted else (), key=lambda each: str(each.run.get("finished"))):
        for name, made_by in wanted.items():
            old = record.ingredients.get("functions", {}).get(name)
            if old is not None and record.rows > least and _told_alike(old, made_by):
                found[name] = digest_json(old)
    return {name: key for name, key in found.items() if storage.names(store_folder(name, key))}


def _folder(name: str, made_by: Any) -> str:
    return store_folder(name, digest_json(made_by))


def _told_alike(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    now: dict[str, Any] = json.loads(json.dumps(new, default=str))
    return all(old.get(name) == value for name, value in now.items() if name not in _MAY_DIFFER)


@dataclass(frozen=True)
class Probe:
    """Computes rows of earlier stores again, and stores nothing."""

    storage: Storage
    keys: Mapping[str, str]  # function -> key of the earlier store
    sample: int  # rows of a function in one key range

    def drawn(self, function: RowFunction, rows: pa.Table, within: KeyRange) -> pa.Table:
        """Those of a range's rows, which carry their ROW_KEY, that are computed again: drawn by hash, by key."""
        there = set(self._store(function).keys(within).column(ROW_KEY).to_pylist())
        first = memo.first_rows(rows)
        chosen = sorted((key for key in first if key in there), key=lambda key: key[8:])[: self.sample]
        return rows.take(pa.array([first[key] for key in sorted(chosen)], pa.int64()))

    def differing(self, function: RowFunction, keys: pa.ChunkedArray, made: pa.Table) -> int:
        """How many rows, sorted by key, come out otherwise than they were stored."""
        if not made.num_rows:
            return 0
        known = self._store(function).read(hull(keys), wanted=keys.to_pylist())
        stored = known.take(pc.index_in(keys, value_set=known.column(ROW_KEY).combine_chunks()))
        before = memo.load_blobs(self.storage, stored.select(function.output.names)).cast(function.output)
        same = pc.equal(encoded(_columns(made)), encoded(_columns(before)))
        # What failed for a reason that may pass says nothing of the function.
        excused = pc.fill_null(stored.column(memo.RETRYABLE.name), False)
        return int(pc.sum(pc.invert(pc.or_(same, excused.combine_chunks()))).as_py() or 0)

    def _store(self, function: RowFunction) -> RowStore:
        """The earlier store."""
        return RowStore(self.storage, function.name, self.keys[function.name], memo.output_of(function))


def _columns(table: pa.Table) -> list[pa.Array]:
    table = table.combine_chunks()
    return [table.column(name).combine_chunks() for name in table.column_names]


def adopt(storage: Storage, function: str, made_by: Any, earlier_key: str) -> None:
    """Link a function's store to the earlier one, which readers of it then read too."""
    storage.write(f"{_folder(function, made_by)}/{LINK}", json.dumps({"of": earlier_key}).encode())
