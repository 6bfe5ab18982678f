"""Row stores: append-only, content-addressed memory of every expensive row, outliving builds and versions.

rows/<function>/<key>/<first>-<last>-<hash>.parquet   rows whose keys start within first..last
rows/<function>/<key>/<hash>.pack                      their large_binary values, end to end

A file is named by the hash of its bytes, so writing it twice changes nothing, and a pack is written before the
rows that point into it. A file that cannot be read (a killed writer on a store without atomic puts) is as good as
absent: its rows are computed again.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash

from pipeline.engine.partition import WHOLE, KeyRange, leading_bits
from pipeline.engine.storage import Storage
from schemas.page import LOCATOR

ROW_KEY = "row_key"
GENERATION = "generation"
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


class RowStore:
    """Rows of one function under one key."""

    def __init__(self, storage: Storage, function: str, key: str, output: pa.Schema) -> None:
        self.storage = storage
        self.folder = f"rows/{function}/{key}"
        self.schema = stored_schema(output)
        self._blobs = [f.name for f in output if pa.types.is_large_binary(f.type)]

    def append(self, rows: pa.Table, within: KeyRange = WHOLE) -> pa.Table:
        """Write rows (row_key, generation and the function's output columns); returns them as stored.

        `within` must cover the rows' keys; it is how readers find the file.
        """
        if not rows.num_rows:
            return self.schema.empty_table()
        pieces: list[bytes] = []
        columns: dict[str, Any] = {name: rows.column(name) for name in rows.column_names}
        offset = 0
        for name in self._blobs:
            locators: list[dict[str, Any] | None] = []
            for value in rows.column(name):
                data = value.as_py()
                locators.append(None if data is None else {"offset": offset, "length": len(data)})
                if data is not None:
                    pieces.append(data)
                    offset += len(data)
            columns[name] = locators
        if pieces:
            state = xxhash.xxh3_128()
            for piece in pieces:
                state.update(piece)
            pack = f"{self.folder}/{state.hexdigest()}.pack"
            self.storage.write(pack, b"".join(pieces))
            for name in self._blobs:
                for locator in columns[name]:
                    if locator is not None:
                        locator["pack"] = pack
        arrays = [
            pa.array(columns[f.name], f.type) if f.name in self._blobs else rows.column(f.name).cast(f.type)
            for f in self.schema
        ]
        table = pa.Table.from_arrays(arrays, schema=self.schema)
        data = parquet_bytes(table)
        self.storage.write(f"{self.folder}/{within.label}-{xxhash.xxh3_128_hexdigest(data)}.parquet", data)
        return table

    def _files(self, within: KeyRange) -> Iterator[tuple[str, KeyRange]]:
        for name in self.storage.names(self.folder):
            if name.endswith(".parquet"):
                first, last, _ = name.split("-")
                covers = KeyRange(int(first, 16), int(last, 16))
                if covers.overlaps(within):
                    yield name, covers

    def read(self, within: KeyRange = WHOLE) -> pa.Table:
        """Every row with a key in the range, once: of several, the newest generation, then the first file by name."""
        tables = []
        for name, covers in self._files(within):
            try:
                table = pq.read_table(pa.BufferReader(self.storage.read(f"{self.folder}/{name}")))
            except (pa.ArrowInvalid, OSError) as error:
                _log.warning("%s/%s cannot be read and is passed over: %s", self.folder, name, error)
                continue
            if covers.first < within.first or covers.last > within.last:
                bits = leading_bits(table.column(ROW_KEY))
                table = table.filter(pa.array((bits >= within.first) & (bits <= within.last)))
            tables.append(table.select(self.schema.names).cast(self.schema))
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
        first = [i for i, key in enumerate(keys) if i == 0 or keys[i - 1] != key]
        return table.take(pa.array([indices[i] for i in first], pa.int64()))
