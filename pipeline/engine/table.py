"""Finished phases as readers see them: a record says which table, and the table which files hold which key ranges.

records/<phase>/<key>/<generation>.json      what made it, what it decided, its table
tables/<phase>/<digest>/<hash of files>.json its table's files
tables/<phase>/parts/<hash>.parquet          these
tables/<phase>/decisions/<hash>.parquet      what was decided
"""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from itertools import pairwise

import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from pipeline.engine.damage import Damaged, damaged
from pipeline.engine.key_range import KeyRange, within
from pipeline.engine.row_store import parquet_bytes
from pipeline.engine.storage import Storage
from schemas.contract import key_of
from schemas.manifest import ListedFile, Part, PhaseRecord, TableManifest


def described(name: str, data: bytes, rows: int) -> ListedFile:
    """A manifest's entry for a file."""
    return ListedFile(name=name, rows=rows, bytes=len(data), hash=xxhash.xxh3_128_hexdigest(data))


def put_parquet(storage: Storage, folder: str, table: pa.Table) -> ListedFile:
    """Write rows as a file of a folder, named by the hash of its bytes."""
    data = parquet_bytes(table)
    hashed = xxhash.xxh3_128_hexdigest(data)
    listed = ListedFile(name=f"{folder}/{hashed}.parquet", rows=table.num_rows, bytes=len(data), hash=hashed)
    storage.write(listed.name, data)
    return listed


def record_folder(phase: str, key: str) -> str:
    """Where the records of a phase under a key lie, from the corpus root."""
    return f"records/{phase}/{key}"


def read_record(storage: Storage, name: str) -> PhaseRecord | None:
    """The record of that name, None where there is none; Damaged when the file is not one."""
    try:
        return PhaseRecord.from_json(storage.read(name))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise Damaged(f"{storage.path(name)}: {error}: delete it and build again") from None


def newest_record(storage: Storage, phase: str, key: str) -> PhaseRecord | None:
    """The record of the highest generation that a phase has under a key, None where there is none; Damaged as above."""
    folder = record_folder(phase, key)
    names = sorted(name for name in storage.names(folder) if name.endswith(".json"))
    return read_record(storage, f"{folder}/{names[-1]}") if names else None


def finished(storage: Storage, phase: str, key: str, generation: int) -> PhaseRecord | None:
    """The record of a phase that is finished in this generation, else None; Damaged when its file is no record."""
    record = newest_record(storage, phase, key)
    return record if record is not None and holds(record, generation) else None


def holds(record: PhaseRecord, generation: int) -> bool:
    """Whether a record holds in a generation: one of an earlier one unless something in it failed that may pass."""
    return record.generation >= generation or not record.counts.get("retryable")


def records_of(storage: Storage, phase: str) -> list[PhaseRecord]:
    """The newest record under every key that a phase was finished under, without what this program cannot read."""
    found = []
    for key in storage.names(f"records/{phase}"):
        with contextlib.suppress(Damaged):  # of another version of this program: it explains nothing
            if (record := newest_record(storage, phase, key)) is not None:
                found.append(record)
    return found


def record_at(storage: Storage, place: str) -> PhaseRecord | None:
    """The record of a phase of a build that lies at a place: the record itself, or the folder of its receipts.

    None where the phase was not finished, or not begun. Damaged as above.
    """
    if place.startswith("work/"):
        _, phase, key = place.split("/")
        return newest_record(storage, phase, key)
    return read_record(storage, place) if place else None


# Manifests that this process has read, by their corpus and name: what is there once does not change.
_MANIFESTS: OrderedDict[tuple[str, str], TableManifest] = OrderedDict()
_MOST_MANIFESTS = 64


def _manifest(storage: Storage, name: str) -> TableManifest:
    found = _MANIFESTS.get((storage.url, name))
    if found is None:
        try:
            found = TableManifest.from_json(storage.read(name))
        except FileNotFoundError:
            raise damaged(name, "is missing") from None
        except ValueError as error:
            raise Damaged(f"{storage.path(name)}: {error}: delete it and build again", name) from None
        _MANIFESTS[storage.url, name] = found
        if len(_MANIFESTS) > _MOST_MANIFESTS:
            _MANIFESTS.popitem(last=False)
    return found


class Table:
    """What a finished phase left: its rows, and its decisions."""

    def __init__(self, storage: Storage, record: PhaseRecord) -> None:
        self.storage = storage
        self.record = record

    @property
    def record_name(self) -> str:
        """Its record, named from the corpus root."""
        return f"{record_folder(self.record.phase, self.record.key)}/{self.record.generation:05d}.json"

    @property
    def parts(self) -> tuple[Part, ...]:
        """Its files; Damaged when their list is not there, or is none."""
        return _manifest(self.storage, self.record.table).parts

    def lost(self) -> list[str]:
        """Files beside the tables that are gone, or have another size."""
        folders = {file.name.rpartition("/")[0] for file in self.record.files}
        there = {f"{folder}/{name}": size for folder in folders for name, size in self.storage.sizes(folder).items()}
        return [file.name for file in self.record.files if there.get(file.name) != file.bytes]

    def rows_of(self, file: ListedFile | Part) -> pa.Table:
        """The rows of one of its files; Damaged when it is not what was written."""
        return read_listed(self.storage, file)

    def read(self, keys: KeyRange) -> pa.Table:
        """The rows of a key range, by key; Damaged when a file is not what was written."""
        return read_range(self.storage, self.around(keys), keys)

    def around(self, keys: KeyRange) -> tuple[Part, ...]:
        """The files in which rows of a key range may lie, one at least."""
        return tuple(part for part in self.parts if KeyRange(part.first, part.last).overlaps(keys)) or self.parts[:1]

    def read_all(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """Every part, or some columns of it, in the order of their keys."""
        for part in self.parts:
            yield read_listed(self.storage, part, columns)

    def decisions(self) -> Iterator[pa.Table]:
        """Every file of decisions, in order."""
        for file in self.record.decisions:
            yield self.rows_of(file)


def read_listed(storage: Storage, file: ListedFile | Part, columns: Sequence[str] | None = None) -> pa.Table:
    """Rows of a listed file, or some of their columns; Damaged when its bytes are not those that were written.

    Read by the caller's thread alone: workers fill the processors by themselves.
    """
    try:
        data = storage.read(file.name)
    except FileNotFoundError:
        raise damaged(file.name, "is missing") from None
    if xxhash.xxh3_128_hexdigest(data) != file.hash:
        raise damaged(file.name, "holds other bytes than were written")
    return pq.ParquetFile(pa.BufferReader(data)).read(None if columns is None else list(columns), use_threads=False)


def read_range(
    storage: Storage, parts: Sequence[Part], keys: KeyRange, columns: Sequence[str] | None = None
) -> pa.Table:
    """The rows of a key range, by key, out of files of one table, one at least; `columns` have the key among them."""
    found = []
    for part in parts:
        rows = read_listed(storage, part, columns)
        inside = keys.first <= part.first and part.last <= keys.last
        found.append(rows if inside else within(rows, key_of(rows.schema), keys))
    rows = pa.concat_tables(found)
    # Files of a table that is cut by splits too lie beside each other.
    apart = all(one.last < other.first for one, other in pairwise(parts))
    return rows if apart else rows.sort_by(key_of(rows.schema))


# A file of one table, and those of another in which rows of the same keys lie.
Beside = tuple[Part, tuple[Part, ...]]


def side_by_side(one: Table, other: Table) -> list[Beside]:
    """The files of a table with those of another that hold rows of their key ranges."""
    return [(part, other.around(KeyRange(part.first, part.last))) for part in one.parts]


def read_beside(
    storage: Storage, beside: Beside, columns: Sequence[str], others: Sequence[str]
) -> tuple[pa.Table, pa.Table]:
    """Some columns of both, the key among them."""
    part, around = beside
    return read_listed(storage, part, columns), read_range(storage, around, KeyRange(part.first, part.last), others)
