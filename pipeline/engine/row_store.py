"""Row stores: append-only, content-addressed memory of every expensive row, outliving builds and versions.

rows/<function>/<key>/<folder>/<first>-<last>-<hash>.loose.parquet          rows as they were flushed
rows/<function>/<key>/<folder>/<hash>.loose.pack                            their large_binary values, end to end
rows/<function>/<key>/<folder>/<first>-<last>-<hash>-<footer>.parquet       rows as compaction left them, by key
rows/<function>/<key>/<folder>/<hash>.pack                                  their values: for ever
rows/<function>/<key>/link.json                        the key of a store whose rows are this one's too

A folder holds the rows whose keys have its name as their leading two digits; few rows of many folders lie in `all`
together, so that a small store has few files. `first` and `last` are the leading 32 bits of a file's keys. Work appends
loose files; before their rows enter a table they are compacted, which is when their values get the place that the
table's locators name and that is never changed again. Of rows of one key the newest generation holds, then the one of
the smallest value hash, then a compacted one. Files that lie in the store's folder itself are an earlier release's, and
count as compacted.

A file is named by the hash of its bytes (and of its footer, so that part of it can be read), a pack is written before
the rows that point into it, and what is compacted is there before anything loose goes: packs, then the rows that name
them. Rows whose file is not what its name says (a power cut, a killed writer on a store without atomic puts), or whose
pack is gone, are as good as absent and computed again, with a warning; where they were fetched they cannot be, and it
is Damaged.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash

from pipeline.engine.damage import NETWORK_STORES, Damaged, damaged
from pipeline.engine.key_range import SPACE, WHOLE, KeyRange, leading_bits
from pipeline.engine.packs import read_packed, write_pack
from pipeline.engine.storage import Storage, StorageError
from schemas.digests import encoded
from schemas.page import LOCATOR

ROW_KEY = "row_key"
GENERATION = "generation"
LINK = "link.json"
# Of the folder of few rows; the others are named by two hex digits.
ALL = "all"
FOLDERS = 256
# What a folder is at least to get of one flush, on average, or all its rows go to `all`.
FOLDER_ROWS = 1024
FOLDER_BYTES = 8_000_000
# Values of one pack; a larger value has one of its own.
PACK_BYTES = 64_000_000
# Above this only the columns and row groups that are asked for are read of a file.
WHOLE_FILE_BYTES = 4_000_000
GROUP_ROWS = 4096
# Of the end of a large file: what Arrow reads first, and where the footer mostly is.
_TAIL_BYTES = 65_536
# Files of a range that are kept open between two looks at them.
_HELD_FILES = 64
# How often files may go while they are read: each time a compaction has ended.
_LISTINGS = 10
# Columns that say whether a row is to be had or made again, where the function has them.
_TOLD = ("retryable", "error")
_PACKS = b"packs"
# In the names of files that are not compacted, before their ending.
LOOSE = ".loose"
_log = logging.getLogger(__name__)
_Found = TypeVar("_Found")


def stored_schema(output: pa.Schema) -> pa.Schema:
    """Columns of a store file for a function's output: large_binary becomes a locator."""
    fields = [pa.field(f.name, LOCATOR if pa.types.is_large_binary(f.type) else f.type) for f in output]
    return pa.schema([pa.field(ROW_KEY, pa.string()), pa.field(GENERATION, pa.int32()), *fields])


def parquet_bytes(table: pa.Table) -> bytes:
    """One Parquet file, zstd."""
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()


def store_folder(function: str, key: str) -> str:
    """Where the rows lie that a function computed under a key (pipeline.engine.keys.function_key)."""
    return f"rows/{function}/{key}"


def linked(storage: Storage, folder: str) -> list[str]:
    """The folder of a store, and those that its links lead to, the nearest first; a broken link leads nowhere."""
    return list(_listings(storage, folder))


def _listings(storage: Storage, folder: str) -> dict[str, dict[str, int]]:
    """What lies in the folder of a store, and in those that its links lead to, the nearest first."""
    found = {folder: storage.sizes(folder)}
    while LINK in found[folder]:
        try:
            key = str(json.loads(storage.read(f"{folder}/{LINK}"))["of"])
        except (ValueError, KeyError, TypeError, FileNotFoundError):
            break
        folder = f"{folder.rpartition('/')[0]}/{key}"
        if folder in found:
            break
        found[folder] = storage.sizes(folder)
    return found


class _Unreadable(Exception):
    """A file is not what its name says."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path


class _Ranges(io.RawIOBase):
    """A large object as Arrow reads it: its end at once, the rest by range, those that are known ahead together."""

    def __init__(self, storage: Storage, path: str, size: int) -> None:
        self._storage = storage
        self._path = path
        self._size = size
        self._at = 0
        self._ahead: dict[tuple[int, int], bytes] = {}
        self._end = b""
        self._end = self._bytes(max(0, size - _TAIL_BYTES), size)

    def fetch(self, ranges: Sequence[tuple[int, int]]) -> None:
        """Read (start, end) ranges at once and hold them until the next call."""
        self._ahead = dict(zip(ranges, self._asked(ranges), strict=True))

    def _bytes(self, start: int, end: int) -> bytes:
        tail = self._size - len(self._end)
        if (start, end) in self._ahead:
            return self._ahead[start, end]
        if start >= tail:
            return self._end[start - tail : end - tail]
        return self._asked([(start, end)])[0]

    def _asked(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        try:
            return self._storage.read_ranges([(self._path, start, end - start) for start, end in ranges])
        except Damaged:
            if self._storage.exists(self._path):
                raise _Unreadable(self._path) from None
            raise FileNotFoundError(self._path) from None

    def footer(self) -> bytes:
        """The file's footer, with its length and mark."""
        length = int.from_bytes(self._end[-8:-4], "little") + 8
        return self._bytes(max(0, self._size - length), self._size)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        end = self._size if size is None or size < 0 else min(self._size, self._at + size)
        data = self._bytes(self._at, end) if self._at < end else b""
        self._at = end
        return data


class _Opened:
    """A Parquet file whose bytes are checked: all of them, or its footer, and pages as they are read."""

    def __init__(self, source: bytes | _Ranges) -> None:
        self._ranges = source if isinstance(source, _Ranges) else None
        file = pa.BufferReader(source) if isinstance(source, bytes) else pa.PythonFile(source, mode="r")
        self._parquet = pq.ParquetFile(file, pre_buffer=False, page_checksum_verification=True)
        self.names: list[str] = self._parquet.schema_arrow.names
        said = (self._parquet.schema_arrow.metadata or {}).get(_PACKS)
        # What its rows point into; None where it does not say.
        self.packs: list[str] | None = None if said is None else json.loads(said)
        metadata = self._parquet.metadata
        self._groups = [metadata.row_group(group) for group in range(metadata.num_row_groups)]
        self._starts = np.cumsum([0, *(group.num_rows for group in self._groups)])

    def keys(self, within: KeyRange) -> tuple[pa.Table, np.ndarray[Any, np.dtype[np.int64]]]:
        """row_key and generation of the rows in a range, and which rows these are, int64 (n,)."""
        place = self.names.index(ROW_KEY)
        groups = [
            number
            for number, group in enumerate(self._groups)
            if (said := group.column(place).statistics) is None
            or not said.has_min_max
            or _hull(said.min, said.max).overlaps(within)
        ]
        found = self._read(groups, [ROW_KEY, GENERATION])
        spans = [np.arange(self._starts[number], self._starts[number + 1]) for number in groups]
        rows = np.concatenate([np.zeros(0, np.int64), *spans])
        bits = leading_bits(found.column(ROW_KEY))
        inside = (bits >= within.first) & (bits <= within.last)
        return found.filter(pa.array(inside)), rows[inside]

    def take(self, rows: np.ndarray[Any, np.dtype[np.int64]], names: Sequence[str]) -> pa.Table:
        """Those of the columns that there are, of some rows."""
        group_of = np.searchsorted(self._starts, rows, side="right") - 1
        groups = np.unique(group_of)
        found = self._read(groups.tolist(), names)
        before = np.cumsum([0, *(self._groups[group].num_rows for group in groups)])
        return found.take(pa.array(rows - self._starts[group_of] + before[np.searchsorted(groups, group_of)]))

    def _read(self, groups: Sequence[int], names: Sequence[str]) -> pa.Table:
        there = [name for name in names if name in self.names]
        if self._ranges is not None:
            chunks = (self._groups[group].column(place) for group in groups for place in self._places(there))
            self._ranges.fetch([_span(chunk) for chunk in chunks])
        return self._parquet.read_row_groups(groups, columns=there, use_threads=False)

    def _places(self, names: Sequence[str]) -> list[int]:
        """Numbers of the Parquet columns that make up columns of the table."""
        schema = self._parquet.schema
        return [place for place in range(len(schema)) if schema.column(place).path.partition(".")[0] in names]


@dataclass
class _File:
    """One file of rows."""

    path: str
    size: int
    covers: KeyRange
    loose: bool
    footer: str = ""  # hash; "" where files are named by the hash of all their bytes alone

    @classmethod
    def named(cls, folder: str, name: str, size: int) -> _File | None:
        """The file of that name, None where it is none of rows."""
        stem, dot, ending = name.partition(".")
        if ending not in ("parquet", f"{LOOSE[1:]}.parquet") or not dot:
            return None
        first, last, _, *footer = stem.split("-")
        covers = KeyRange(int(first, 16), int(last, 16))
        return cls(f"{folder}/{name}", size, covers, ending != "parquet", *footer)

    @property
    def hash(self) -> str:
        return self.path.rpartition("/")[2].partition(".")[0].split("-")[2]


@dataclass
class _Listing:
    """What a store holds of a key range."""

    files: list[_File] = field(default_factory=list)
    packs: set[str] = field(default_factory=set)


class RowStore:
    """Rows of one function under one key.

    Who works at a key range appends what it has made to it and compacts it once at its end; of a range that no other
    has compacted in the meantime the listing of `keys` or `read` serves for that too.
    """

    def __init__(
        self, storage: Storage, function: str, key: str, output: pa.Schema, *, needed: bool | None = None
    ) -> None:
        """`needed`: whether rows that are lost are Damaged, rather than as good as absent; by default where they were
        fetched."""
        self.storage = storage
        self.function = function
        self.folder = store_folder(function, key)
        self._needed = function in NETWORK_STORES if needed is None else needed
        self.schema = stored_schema(output)
        self._blobs = [f.name for f in output if pa.types.is_large_binary(f.type)]
        self._bad: set[str] = set()
        self._opened: dict[str, _Opened] = {}  # files of the listing that are read more than once
        self._listing: tuple[KeyRange, _Listing] | None = None

    def append(self, rows: pa.Table, within: KeyRange = WHOLE) -> pa.Table:
        """Write rows (row_key, generation and the function's output columns); returns them as stored.

        They are safe then, and may be read; their locators hold until they are compacted, so no table may have them.
        The rows' keys lie `within`, the range that the caller works at (ValueError).
        """
        return self._write(rows, within, loose=True)

    def keep(self, rows: pa.Table, within: KeyRange = WHOLE) -> pa.Table:
        """The same for rows that are as good as compacted: their locators hold for ever.

        For what is written once and in large pieces, as a reader of files does; each call leaves files for ever.
        """
        return self._write(rows, within, loose=False)

    def read(self, within: KeyRange = WHOLE, wanted: Sequence[str] | None = None) -> pa.Table:
        """Every row with a key in the range, or those of the keys `wanted`, once and by key.

        Key columns are read first, and the others of the rows that hold. The locators of rows that are not compacted
        are good until somebody compacts them.
        """
        return self._trying(within, lambda listing: self._read(listing, within, wanted))

    def keys(self, within: KeyRange = WHOLE) -> pa.Table:
        """row_key and generation of every row in the range, and `retryable` and `error` where the function has them.

        For finding out what is to be computed; reads no other column of large files.
        """
        told = [name for name in (ROW_KEY, GENERATION, *_TOLD) if name in self.schema.names]
        return self._trying(within, lambda listing: self._columns(listing, self._holding(listing, within), told))

    def compact(
        self, within: KeyRange = WHOLE, rows: pa.Table | None = None, wanted: Sequence[str] | None = None
    ) -> pa.Table:
        """Make every row of the range one that tables may point to, and `rows` too; the rows as `read` gives them then.

        To be called by whoever works at a range, after its last append and before a part of a table is made of its
        rows; no locator that was handed out before is to enter one. With no loose file in the range nothing is done.
        `rows` are the last that were made: with no loose file in the range they go straight to where they stay.

        Loose files that lie in the range are removed once their rows are compacted. Of one that reaches beyond it the
        rows of the range are copied and it stays, until it is `superseded`. Ranges apart may be compacted side by side;
        two that overlap lose nothing, but do the same work twice. Others may read. A kill at any moment loses nothing,
        and calling again goes on.
        """
        listing = self._list(within, known=True)
        loose = any(file.loose for file in listing.files)
        if rows is not None and rows.num_rows:
            self._write(rows, within, loose=loose)
        if loose:
            self._trying(within, lambda listing: self._merge(listing, within), known=True)
        return self._trying(within, lambda listing: self._read(listing, within, wanted), known=True)

    def replace(self, path: str, rows: pa.Table) -> None:
        """Have rows, as they are stored, stand in the place of one of the store's files; none: have it be gone.

        Nobody else may be at work with the store. A kill leaves the file, or both.
        """
        folder = path.removeprefix(f"{self.folder}/").rpartition("/")[0]
        if rows.num_rows:
            # An earlier release put its files into the store's folder itself.
            self._put(folder or ALL, rows, loose=LOOSE in path)
        self.storage.delete(path)

    def _write(self, rows: pa.Table, within: KeyRange, *, loose: bool) -> pa.Table:
        if not rows.num_rows:
            return self.schema.empty_table()
        bits = leading_bits(rows.column(ROW_KEY))
        if bits.min() < within.first or bits.max() > within.last:
            raise ValueError(f"{self.folder}: a row lies outside {within.label}")
        sizes = np.zeros(len(bits), np.int64)
        for name in self._blobs:
            sizes += np.asarray(pc.fill_null(pc.binary_length(rows.column(name)), 0), np.int64)
        made = []
        places = np.empty(len(bits), np.int64)
        done = 0
        for folder, members in _pieces(bits, sizes):
            piece = rows.take(pa.array(members))
            values = [value.as_py() for name in self._blobs for value in piece.column(name)]
            packed = self._packed(folder, values, covers=_extent(bits[members]) if loose else None)
            arrays = [packed[f.name] if f.name in packed else piece.column(f.name).cast(f.type) for f in self.schema]
            made.append(pa.Table.from_arrays(arrays, schema=self.schema))
            self._put(folder, made[-1], loose=loose)
            places[members] = np.arange(done, done + len(members))
            done += len(members)
        return pa.concat_tables(made).take(pa.array(places))

    def _packed(self, folder: str, values: Sequence[bytes | None], covers: KeyRange | None) -> dict[str, pa.Array]:
        """Locator columns by name, once the values of all of them, column after column, are in a pack.

        `covers`: of a loose pack, which is named by it too: others' values of the same bytes are not dropped with it.
        """
        if not self._blobs:
            return {}
        name = "{}.pack" if covers is None else f"{covers.label}-{{}}{LOOSE}.pack"
        locators = write_pack(self.storage, f"{self.folder}/{folder}", values, name)
        if self._listing is not None:
            self._listing[1].packs |= {each["pack"] for each in locators if each is not None}
        rows = len(values) // len(self._blobs)
        return {
            name: pa.array(locators[place * rows : (place + 1) * rows], LOCATOR)
            for place, name in enumerate(self._blobs)
        }

    def _put(self, folder: str, table: pa.Table, *, loose: bool) -> _File:
        """Write a file of rows whose packs are there."""
        table = table.sort_by(ROW_KEY)
        packs = sorted(self._packs_in(table))
        sink = io.BytesIO()
        table = table.replace_schema_metadata({_PACKS: json.dumps(packs).encode()})
        pq.write_table(table, sink, compression="zstd", row_group_size=GROUP_ROWS, write_page_checksum=True)
        data = sink.getvalue()
        covers = _extent(leading_bits(table.column(ROW_KEY)))
        footer = _footer_hash(data[-int.from_bytes(data[-8:-4], "little") - 8 :])
        stem = f"{covers.label}-{xxhash.xxh3_128_hexdigest(data)}"
        name = f"{stem}{LOOSE}.parquet" if loose else f"{stem}-{footer}.parquet"
        file = _File.named(f"{self.folder}/{folder}", name, len(data))
        assert file is not None
        self.storage.write(file.path, data)
        if self._listing is not None and file.path not in {each.path for each in self._listing[1].files}:
            self._listing[1].files.append(file)
            self._hold(file, _Opened(data))
        return file

    def _list(self, within: KeyRange, *, known: bool = False) -> _Listing:
        """What there is of a range; `known`: what this object has listed, with what it has written since, will do."""
        if known and self._listing is not None and self._listing[0] == within:
            return self._listing[1]
        found = _Listing()
        for store, names in _listings(self.storage, self.folder).items():
            contents = {store: names}
            for name in sorted(names):
                if name == ALL or ((covers := _folder_range(name)) is not None and covers.overlaps(within)):
                    contents[f"{store}/{name}"] = self.storage.sizes(f"{store}/{name}")
            for folder, there in contents.items():
                found.packs |= {f"{folder}/{name}" for name in there if name.endswith(".pack")}
                files = (_File.named(folder, name, there[name]) for name in sorted(there))
                found.files += [file for file in files if file is not None and file.covers.overlaps(within)]
        found.files = [file for file in found.files if file.path not in self._bad]
        self._listing = within, found
        self._opened = {file.path: self._opened[file.path] for file in found.files if file.path in self._opened}
        return found

    def _trying(self, within: KeyRange, work: Callable[[_Listing], _Found], *, known: bool = False) -> _Found:
        """What work on a range comes to; files that go meanwhile are looked for again, bad ones left out."""
        for turn in range(_LISTINGS):
            try:
                return work(self._list(within, known=known and turn == 0))
            except FileNotFoundError:
                continue
            except _Unreadable as error:
                self._lost(error.path, "holds other bytes than were written")
                self._bad.add(error.path)
        raise damaged(self.folder, "changes faster than it can be read")

    def _read(self, listing: _Listing, within: KeyRange, wanted: Sequence[str] | None) -> pa.Table:
        index = self._holding(listing, within)
        if wanted is not None:
            index = index.filter(pc.is_in(index.column(ROW_KEY), value_set=pa.array(wanted, pa.string())))
        return self._columns(listing, index, self.schema.names)

    def _holding(self, listing: _Listing, within: KeyRange) -> pa.Table:
        """Which row of which file holds for each key: _INDEX, by key."""
        pieces = [self._indexed(listing, number, within) for number in range(len(listing.files))]
        index = pa.concat_tables([_INDEX.empty_table(), *pieces]).combine_chunks().sort_by(_ORDER)
        if pc.any(index.column("gone")).as_py():
            index = self._without_gone(listing, index)
        alike = _as_before(index, (ROW_KEY, GENERATION))
        if alike.any():
            tied = alike | np.r_[alike[1:], False]
            # The hash is of what rows say: of rows that say the same any will do.
            values = np.zeros(index.num_rows, np.int64)
            values[tied] = self._value_hashes(self._columns(listing, index.filter(pa.array(tied)), self.schema.names))
            place = index.schema.get_field_index("value")
            index = index.set_column(place, "value", pa.array(values)).sort_by(_ORDER)
        return index.filter(pa.array(~_as_before(index, (ROW_KEY,))))

    def _indexed(self, listing: _Listing, number: int, within: KeyRange) -> pa.Table:
        """_INDEX of a file's rows in the range."""
        file = listing.files[number]
        with _reading(file):
            opened = self._open(file)
            keys, rows = opened.keys(within)
        gone = [pack for pack in self._packs_of(file, opened) if not self._is_there(listing, pack)]
        lost = pa.array([False] * len(rows))
        if gone:
            lost = pa.array(np.zeros(len(rows), bool))
            stored = self._take(file, rows, self._blobs)
            for name in self._blobs:
                pack = pc.struct_field(stored.column(name).combine_chunks(), "pack")
                lost = pc.or_(lost, pc.is_in(pack, value_set=pa.array(gone, pa.string())))
        count = len(rows)
        return pa.table(
            [
                keys.column(ROW_KEY).cast(pa.string()),
                keys.column(GENERATION).cast(pa.int32()),
                pa.array(np.zeros(count, np.int64)),
                pa.array(np.full(count, int(file.loose), np.int8)),
                pa.array(np.full(count, number, np.int64)),
                pa.array(rows),
                lost,
            ],
            schema=_INDEX,
        )

    def _without_gone(self, listing: _Listing, index: pa.Table) -> pa.Table:
        """The index without rows whose pack is gone; these are lost unless the store has them elsewhere."""
        there = index.filter(pc.invert(index.column("gone")))
        generations: dict[str, int] = {}
        for key, generation in zip(
            there.column(ROW_KEY).to_pylist(), there.column(GENERATION).to_pylist(), strict=True
        ):
            generations.setdefault(key, generation)
        lost = {
            row["file"]
            for row in index.filter(index.column("gone")).to_pylist()
            if generations.get(row[ROW_KEY], -1) < row[GENERATION]
        }
        for file in (listing.files[number] for number in sorted(lost)):
            for pack in self._packs_of(file, self._open(file)):
                if not self._is_there(listing, pack):
                    self._lost(pack, "is missing")
        return there

    def _is_there(self, listing: _Listing, pack: str) -> bool:
        """Whether a pack is there; a listing in several answers may name the rows and not yet their pack."""
        if pack not in listing.packs and self.storage.exists(pack):
            listing.packs.add(pack)
        return pack in listing.packs

    def _value_hashes(self, rows: pa.Table) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """63 bits of a hash of what each row says, wherever its values lie."""
        columns = []
        for each in (rows.column(name).combine_chunks() for name in self.schema.names):
            is_blob = each.type == LOCATOR
            columns += [pc.struct_field(each, part) for part in ("length", "hash")] if is_blob else [each]
        return np.array([xxhash.xxh3_64_intdigest(row.as_py()) >> 1 for row in encoded(columns)], np.int64)

    def _columns(self, listing: _Listing, index: pa.Table, names: Sequence[str]) -> pa.Table:
        """Some columns of the rows of an index, in its order."""
        numbers, rows = index.column("file").to_numpy(), index.column("row").to_numpy()
        tables, places = [pa.schema([self.schema.field(name) for name in names]).empty_table()], [np.zeros(0, np.int64)]
        for number in np.unique(numbers).tolist():
            places.append(np.flatnonzero(numbers == number))
            tables.append(self._take(listing.files[number], rows[places[-1]], names))
        order = np.argsort(np.concatenate(places), kind="stable")
        return pa.concat_tables(tables).take(pa.array(order)).combine_chunks()

    def _take(self, file: _File, rows: np.ndarray[Any, np.dtype[np.int64]], names: Sequence[str]) -> pa.Table:
        """Some columns of rows of a file, which may lack some: those of earlier releases have not what came since."""
        with _reading(file):
            found = self._open(file).take(rows, names)
        fields = [self.schema.field(name) for name in names]
        columns = [
            found.column(f.name).cast(f.type) if f.name in found.column_names else pa.nulls(len(rows), f.type)
            for f in fields
        ]
        return pa.Table.from_arrays(columns, schema=pa.schema(fields))

    def _open(self, file: _File) -> _Opened:
        """A file, checked: all of it, or its footer where pages are read as they are needed; those check themselves."""
        if file.path not in self._opened:
            if file.footer and file.size > WHOLE_FILE_BYTES:
                ranges = _Ranges(self.storage, file.path, file.size)
                if _footer_hash(ranges.footer()) != file.footer:
                    raise _Unreadable(file.path)
                opened = _Opened(ranges)
            else:
                data = self.storage.read(file.path)
                if xxhash.xxh3_128_hexdigest(data) != file.hash:
                    raise _Unreadable(file.path)
                opened = _Opened(data)
            self._hold(file, opened)
            return opened
        return self._opened[file.path]

    def _hold(self, file: _File, opened: _Opened) -> None:
        if len(self._opened) < _HELD_FILES:
            self._opened[file.path] = opened

    def _packs_of(self, file: _File, opened: _Opened) -> list[str]:
        """The packs that a file's rows point into."""
        if opened.packs is not None:
            return opened.packs
        with _reading(file):
            _, rows = opened.keys(WHOLE)
            return sorted(self._packs_in(self._take(file, rows, self._blobs)))

    def _packs_in(self, rows: pa.Table) -> set[str]:
        found: set[str] = set()
        for name in self._blobs:
            found.update(pc.unique(pc.struct_field(rows.column(name), "pack")).drop_null().to_pylist())
        return found

    def _merge(self, listing: _Listing, within: KeyRange) -> None:
        """Compact the rows that hold of the loose files of a range, and drop the files that lie in it wholly."""
        loose = [file for file in listing.files if file.loose]
        index = self._holding(listing, within)
        index = index.filter(pc.equal(index.column("loose"), 1))
        rows = self._columns(listing, index, self.schema.names)
        bits = leading_bits(rows.column(ROW_KEY))
        for folder, members in _pieces(bits, self._bytes(rows)):
            self._settle(folder, rows.take(pa.array(members)))
        for file in loose:
            # What a link leads to is another store's to drop.
            ours = file.path.startswith(f"{self.folder}/")
            if ours and within.first <= file.covers.first and file.covers.last <= within.last:
                # The rows go last: while they are there, a compaction knows which packs are to go.
                packs = self._packs_of(file, self._open(file))
                for pack in packs:
                    self.storage.delete(pack)
                    listing.packs.discard(pack)
                self.storage.delete(file.path)
                listing.files.remove(file)

    def _bytes(self, rows: pa.Table) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """Bytes of the values of each row."""
        found = np.zeros(rows.num_rows, np.int64)
        for name in self._blobs:
            found += np.asarray(pc.fill_null(pc.struct_field(rows.column(name), "length"), 0), np.int64)
        return found

    def _settle(self, folder: str, rows: pa.Table) -> None:
        """Write rows with their values in packs of their own; what was fetched is read back, as its source will go."""
        made = []
        for start, stop in _runs(self._bytes(rows), PACK_BYTES):
            run = rows.slice(start, stop - start)
            try:
                values = [value for name in self._blobs for value in read_packed(self.storage, run.column(name))]
            except Damaged as error:
                if error.name is None or (self.function in NETWORK_STORES and self.storage.exists(error.name)):
                    raise
                # As good as absent: the next listing misses the pack, and says so where that is a loss.
                self.storage.delete(error.name)
                raise FileNotFoundError(error.name) from None
            packed = self._packed(folder, values, None)
            arrays = [packed[f.name] if f.name in packed else run.column(f.name) for f in self.schema]
            made.append(pa.Table.from_arrays(arrays, schema=self.schema))
        table = pa.concat_tables(made)
        again = self.function in NETWORK_STORES
        for pack in sorted(self._packs_in(table)) if again else ():
            self._require_written(pack, pack.rpartition("/")[2].removesuffix(".pack"))
        file = self._put(folder, table, loose=False)
        if again:
            self._require_written(file.path, file.hash)

    def _require_written(self, name: str, hashed: str) -> None:
        """StorageError, and no such object, when the storage returns other bytes than were written."""
        if xxhash.xxh3_128_hexdigest(self.storage.read(name)) != hashed:
            self.storage.delete(name)
            raise StorageError(f"{self.storage} returned other bytes of {name} than were written")

    def _lost(self, name: str, what: str) -> None:
        """Warn that rows are passed over; Damaged where nothing can make them again."""
        if self._needed:
            raise damaged(name, what)
        _log.warning("%s %s: what it held is made again", name, what)


# Of a row: its key and generation, the hash of what it says where that decides, whether its file is loose, which file
# and row it is, and whether its pack is gone.
_INDEX = pa.schema(
    [
        (ROW_KEY, pa.string()),
        (GENERATION, pa.int32()),
        ("value", pa.int64()),
        ("loose", pa.int8()),
        ("file", pa.int64()),
        ("row", pa.int64()),
        ("gone", pa.bool_()),
    ]
)
# The row that holds comes first.
_ORDER = [
    (ROW_KEY, "ascending"),
    (GENERATION, "descending"),
    *((name, "ascending") for name in ("value", "loose", "file", "row")),
]


def superseded(storage: Storage, folder: str) -> list[str]:
    """Loose files of a store, and their packs, whose every row is there compacted, or was made again since.

    A compaction that was killed, or that had part of a file alone, leaves such. Nobody may be at work with the store.
    """
    _, function, key = folder.split("/")
    store = RowStore(storage, function, key, pa.schema([]))
    listing = store._list(WHOLE)
    found: list[str] = []
    for file in (each for each in listing.files if each.loose):
        with contextlib.suppress(_Unreadable):  # what is damaged is left to whoever reads it
            if _is_superseded(store, file, [each for each in listing.files if not each.loose]):
                found += [
                    file.path,
                    *(pack for pack in store._packs_of(file, store._open(file)) if pack in listing.packs),
                ]
    return found


def _is_superseded(store: RowStore, file: _File, compacted: Sequence[_File]) -> bool:
    with _reading(file):
        left = dict(_said(store._open(file).keys(file.covers)[0]))
    for other in compacted:
        if left and other.covers.overlaps(file.covers):
            with _reading(other):
                there, _ = store._open(other).keys(file.covers)
            for row_key, generation in _said(there):
                if row_key in left and generation >= left[row_key]:
                    del left[row_key]
    return not left


@contextlib.contextmanager
def _reading(file: _File) -> Iterator[None]:
    """Turns what Arrow says of a file that it cannot read into _Unreadable."""
    try:
        yield
    except (FileNotFoundError, StorageError):
        raise
    except (OSError, pa.ArrowException):
        raise _Unreadable(file.path) from None


def _footer_hash(footer: bytes) -> str:
    return xxhash.xxh3_64_hexdigest(footer)


def _span(chunk: Any) -> tuple[int, int]:
    """First byte of a column's chunk in its file, and the one after its last."""
    start = chunk.data_page_offset
    if chunk.has_dictionary_page:
        start = min(start, chunk.dictionary_page_offset)
    return start, start + chunk.total_compressed_size


def _said(rows: pa.Table) -> Iterator[tuple[str, int]]:
    """row_key and generation of each row."""
    return zip(rows.column(ROW_KEY).to_pylist(), rows.column(GENERATION).to_pylist(), strict=True)


def _hull(first: str, last: str) -> KeyRange:
    return KeyRange(int(first[:8], 16), int(last[:8], 16))


def _extent(bits: np.ndarray[Any, np.dtype[np.int64]]) -> KeyRange:
    return KeyRange(int(bits.min()), int(bits.max()))


def _folder_range(name: str) -> KeyRange | None:
    """The keys of a folder; None for any other name, and for `all`."""
    step = SPACE // FOLDERS
    if len(name) != 2 or not set(name) <= set("0123456789abcdef"):
        return None
    return KeyRange(int(name, 16) * step, (int(name, 16) + 1) * step - 1)


def _pieces(
    bits: np.ndarray[Any, np.dtype[np.int64]], sizes: np.ndarray[Any, np.dtype[np.int64]]
) -> list[tuple[str, np.ndarray[Any, np.dtype[np.int64]]]]:
    """Which rows go to which folder, by leading bits and bytes of values; rows are numbers from 0, int64 (n,)."""
    owners = bits // (SPACE // FOLDERS)
    folders = np.unique(owners)
    enough = len(bits) >= FOLDER_ROWS * len(folders) or int(sizes.sum()) >= FOLDER_BYTES * len(folders)
    if len(folders) > 1 and not enough:
        return [(ALL, np.arange(len(bits)))]
    return [(f"{owner:02x}", np.flatnonzero(owners == owner)) for owner in folders.tolist()]


def _runs(sizes: np.ndarray[Any, np.dtype[np.int64]], most: int) -> list[tuple[int, int]]:
    """Rows in runs [start, stop) of at most so many bytes; a row that is larger is a run of its own."""
    found: list[tuple[int, int]] = []
    start, held = 0, 0
    for row, size in enumerate(sizes.tolist()):
        if row > start and held + size > most:
            found.append((start, row))
            start, held = row, 0
        held += size
    return [*found, (start, len(sizes))]


def _as_before(table: pa.Table, columns: Sequence[str]) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Mask of the rows that have the same in these columns as the row before."""
    same = np.zeros(table.num_rows, bool)
    same[1:] = True
    for name in columns:
        column = table.column(name).combine_chunks()
        same[1:] &= np.asarray(pc.equal(column[1:], column[:-1]), bool)
    return same
