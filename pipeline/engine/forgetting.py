"""Forgetting: rows and bytes go from the row stores for good, while everything else keeps its place.

Values lie end to end in packs that tables point into by offset, so what is forgotten in one is overwritten with zeros:
no other locator changes, and one that still points there reads as damaged. Files of rows are named by nobody: they are
written anew without the rows, and then the old one goes. Killed at any moment, doing it again goes on.

Nobody may be at work with the stores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.engine.damage import damaged
from pipeline.engine.memo import row_keys
from pipeline.engine.row_store import GENERATION, ROW_KEY, RowStore
from pipeline.engine.storage import Storage

# Mask of rows, True for those meant.
Mask = np.ndarray[tuple[int], np.dtype[np.bool_]]


@dataclass(frozen=True)
class RowFile:
    """A file of rows in a store, whatever release wrote it."""

    storage: Storage
    name: str  # from the corpus root

    def read(self, *columns: str) -> pa.Table:
        """Some columns, those that it lacks left out; all without any. Damaged when it cannot be read."""
        try:
            file = pq.ParquetFile(pa.BufferReader(self.storage.read(self.name)))
            there = [each for each in columns if each in file.schema_arrow.names]
            return file.read(there if columns else None, use_threads=False)
        except (pa.ArrowException, OSError):
            raise damaged(self.name, "cannot be read") from None

    def without(self, gone: Mask) -> None:
        """Have the file be gone, with one of its other rows in its place."""
        rows = self.read()
        fields = [
            each.with_type(pa.large_binary()) if _is_locator(each.type) else each
            for each in rows.schema
            if each.name not in (ROW_KEY, GENERATION)
        ]
        _, function, key, _ = self.name.split("/", 3)
        RowStore(self.storage, function, key, pa.schema(fields)).replace(self.name, rows.filter(pa.array(~gone)))


def row_files(storage: Storage, *functions: str) -> Iterator[RowFile]:
    """Files of rows of the functions' stores, under whichever keys."""
    for function in functions:
        for name in storage.walk(f"rows/{function}"):
            if name.endswith(".parquet"):
                yield RowFile(storage, name)


def forget_rows(
    storage: Storage, files: Iterable[RowFile], columns: tuple[str, ...], meant: Callable[[pa.Table], Mask]
) -> tuple[int, int]:
    """(Rows, bytes of their values) that went from files: those `meant`, which sees the columns that there are."""
    there = [(file, meant(file.read(ROW_KEY, *columns))) for file in files]
    going = [(file, gone) for file, gone in there if gone.any()]
    values = [each for file, gone in going for each in _values(file, gone)]
    # Packs are named by what they hold, so that rows of equal values may point into one: what others have stays.
    packs = {each["pack"] for each in values}
    shared = {_place(each) for file, gone in there if packs for each in _values(file, ~gone) if each["pack"] in packs}
    overwritten = overwrite(storage, [each for each in values if _place(each) not in shared])
    for file, gone in going:
        file.without(gone)
    return sum(int(gone.sum()) for _, gone in going), overwritten


def _values(file: RowFile, chosen: Mask) -> Iterator[dict[str, Any]]:
    """Locators of the values of a file's rows."""
    for column in file.read().filter(pa.array(chosen)).columns:
        if _is_locator(column.type):
            yield from filter(None, column.to_pylist())


def _is_locator(kind: pa.DataType) -> bool:
    """Whether it is LOCATOR, or what earlier releases had for it: without a hash."""
    return pa.types.is_struct(kind) and {"pack", "offset", "length"} <= {each.name for each in kind.fields}


def _place(locator: dict[str, Any]) -> tuple[str, int]:
    return locator["pack"], locator["offset"]


def overwrite(storage: Storage, locators: Iterable[dict[str, Any] | None]) -> int:
    """Put zeros where values lie; how many bytes were not zero before. Packs that are gone are as good as that."""
    by_pack: dict[str, list[tuple[int, int]]] = {}
    for each in locators:
        if each is not None:
            by_pack.setdefault(each["pack"], []).append((each["offset"], each["length"]))
    count = 0
    for pack in sorted(by_pack):
        try:
            data = bytearray(storage.read(pack))
        except FileNotFoundError:
            continue
        before = count
        for offset, length in by_pack[pack]:
            part = memoryview(data)[offset : offset + length]
            if any(part):
                count += len(part)
                part[:] = bytes(len(part))
        if count > before:
            storage.write(pack, bytes(data))
    return count


def content_suffixes(*columns: pa.ChunkedArray) -> list[str]:
    """The last 24 digits of the keys of rows that are made of these columns (pipeline.engine.memo.row_keys)."""
    names = [str(index) for index in range(len(columns))]
    table = pa.table(dict(zip(names, columns, strict=True)))
    owners = pa.array([""] * table.num_rows, pa.string())
    found: list[str] = row_keys(table.append_column("owner", owners), "owner", names).to_pylist()
    return found


def key_suffixes(rows: pa.Table) -> list[str]:
    """Of stored rows the same digits."""
    found: list[str] = pc.utf8_slice_codeunits(rows.column(ROW_KEY), 8).to_pylist()
    return found
