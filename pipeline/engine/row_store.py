"""Row stores: append-only, content-addressed memory of every expensive row, outliving builds and versions.

rows/<function>/<key>/<first>-<last>-<hash>.parquet   rows whose keys start within first..last
rows/<function>/<key>/<hash>.pack                      their large_binary values, end to end
rows/<function>/<key>/link.json                        the key of a store whose rows are this one's too

A file is named by the hash of its bytes, so writing it twice changes nothing, and a pack is written before the
rows that point into it. Rows whose file is not what its name says (a power cut, a killed writer on a store without
atomic puts), or whose pack is gone, are as good as absent and computed again, with a warning; where they were fetched
they cannot be, and it is Damaged.
"""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash

from pipeline.engine.damage import NETWORK_STORES, damaged
from pipeline.engine.key_range import WHOLE, KeyRange, leading_bits
from pipeline.engine.packs import write_pack
from pipeline.engine.storage import Storage
from schemas.page import LOCATOR

ROW_KEY = "row_key"
GENERATION = "generation"
LINK = "link.json"
_log = logging.getLogger(__name__)


def stored_schema(output: pa.Schema) -> pa.Schema:
    """Columns of a store file for a function's output: large_binary becomes a locator."""
    fields = [pa.field(f.name, LOCATOR if pa.types.is_large_binary(f.type) else f.type) for f in output]
    return pa.schema([pa.field(ROW_KEY, pa.string()), pa.field(GENERATION, pa.int32()), *fields])


def parquet_bytes(table: pa.Table) -> bytes:
    """One Parquet file, zstd."""
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()


def parquet_rows(data: bytes) -> pa.Table:
    """The rows of a Parquet file, read by the caller's thread alone: workers fill the processors by themselves."""
    return pq.ParquetFile(pa.BufferReader(data)).read(use_threads=False)


def store_folder(function: str, key: str) -> str:
    """Where the rows lie that a function computed under a key (pipeline.engine.keys.function_key)."""
    return f"rows/{function}/{key}"


def linked(storage: Storage, folder: str) -> list[str]:
    """The folder of a store, and those that its links lead to, the nearest first; a broken link leads nowhere."""
    found = [folder]
    while LINK in storage.names(found[-1]):
        try:
            key = str(json.loads(storage.read(f"{found[-1]}/{LINK}"))["of"])
        except (ValueError, KeyError, TypeError, FileNotFoundError):
            break
        following = f"{found[-1].rpartition('/')[0]}/{key}"
        if following in found:
            break
        found.append(following)
    return found


class RowStore:
    """Rows of one function under one key."""

    def __init__(self, storage: Storage, function: str, key: str, output: pa.Schema) -> None:
        self.storage = storage
        self.function = function
        self.folder = store_folder(function, key)
        self.schema = stored_schema(output)
        self._blobs = [f.name for f in output if pa.types.is_large_binary(f.type)]

    def append(self, rows: pa.Table, within: KeyRange = WHOLE) -> pa.Table:
        """Write rows (row_key, generation and the function's output columns); returns them as stored.

        `within` must cover the rows' keys; it is how readers find the file.
        """
        if not rows.num_rows:
            return self.schema.empty_table()
        values = [value.as_py() for name in self._blobs for value in rows.column(name)]
        locators = write_pack(self.storage, self.folder, values)
        packed = {
            name: pa.array(locators[place * rows.num_rows : (place + 1) * rows.num_rows], LOCATOR)
            for place, name in enumerate(self._blobs)
        }
        arrays = [packed[f.name] if f.name in packed else rows.column(f.name).cast(f.type) for f in self.schema]
        table = pa.Table.from_arrays(arrays, schema=self.schema)
        data = parquet_bytes(table)
        self.storage.write(f"{self.folder}/{within.label}-{xxhash.xxh3_128_hexdigest(data)}.parquet", data)
        return table

    def read(self, within: KeyRange = WHOLE) -> pa.Table:
        """Every row with a key in the range, once: of several, the newest generation, then the first file by name."""
        tables = [table for folder in linked(self.storage, self.folder) for table in self._files(folder, within)]
        if not tables:
            return self.schema.empty_table()
        table = pa.concat_tables(tables).combine_chunks()
        order = pa.table(
            {
                ROW_KEY: table.column(ROW_KEY),
                GENERATION: pc.negate(table.column(GENERATION)),
                "index": pa.array(range(table.num_rows), pa.int64()),
            }
        ).sort_by([(ROW_KEY, "ascending"), (GENERATION, "ascending"), ("index", "ascending")])
        keys = order.column(ROW_KEY).to_pylist()
        indices = order.column("index").to_pylist()
        newest = [i for i, key in enumerate(keys) if i == 0 or keys[i - 1] != key]
        return table.take(pa.array([indices[i] for i in newest], pa.int64()))

    def _files(self, folder: str, within: KeyRange) -> Iterator[pa.Table]:
        """Rows of the range out of each file of a folder."""
        names = self.storage.names(folder)
        packs = pa.array([f"{folder}/{name}" for name in names if name.endswith(".pack")], pa.string())
        for name in (each for each in names if each.endswith(".parquet")):
            first, last, _ = name.split("-")
            covers = KeyRange(int(first, 16), int(last, 16))
            if not covers.overlaps(within) or (table := self._rows(f"{folder}/{name}")) is None:
                continue
            if covers.first < within.first or covers.last > within.last:
                bits = leading_bits(table.column(ROW_KEY))
                table = table.filter(pa.array((bits >= within.first) & (bits <= within.last)))
            yield self._with_packs(table, packs)

    def _rows(self, path: str) -> pa.Table | None:
        """A file's rows; None, with a warning, when it is not what its name says."""
        name = path.rpartition("/")[2]
        data = self.storage.read(path)
        if xxhash.xxh3_128_hexdigest(data) != name.removesuffix(".parquet").rpartition("-")[2]:
            self._lost(path, "holds other bytes than were written")
            return None
        table = parquet_rows(data)
        # Files of earlier releases lack what was added since.
        columns = [
            table.column(f.name).cast(f.type) if f.name in table.column_names else pa.nulls(table.num_rows, f.type)
            for f in self.schema
        ]
        return pa.Table.from_arrays(columns, schema=self.schema)

    def _with_packs(self, table: pa.Table, packs: pa.Array) -> pa.Table:
        """The rows whose packs are there."""
        for name in self._blobs:
            pack = pc.struct_field(table.column(name), "pack")
            unlisted = pc.filter(pc.unique(pack), pc.invert(pc.is_in(pc.unique(pack), value_set=packs))).drop_null()
            # A listing in several answers may name the rows and not yet their pack.
            gone = [each for each in unlisted.to_pylist() if not self.storage.exists(each)]
            for each in gone:
                self._lost(each, "is missing")
            if gone:
                table = table.filter(pc.invert(pc.is_in(pack, value_set=pa.array(gone, pa.string()))))
        return table

    def _lost(self, name: str, what: str) -> None:
        """Warn that rows are passed over; Damaged where nothing can make them again."""
        if self.function in NETWORK_STORES:
            raise damaged(name, what)
        _log.warning("%s %s: what it held is made again", name, what)
