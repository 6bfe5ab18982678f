"""Tables: what a phase leaves. Parts first, a receipt for each, the manifest last; it exists when its manifest does."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import pyarrow as pa
import pyarrow.parquet as pq
import xxhash
from pydantic import TypeAdapter

from pipeline.engine.damage import Damaged, damaged
from pipeline.engine.row_store import parquet_bytes
from pipeline.engine.storage import Storage
from schemas.contract import conform
from schemas.decision import DECISION
from schemas.manifest import ListedFile, Manifest


def described(name: str, data: bytes, rows: int) -> ListedFile:
    """A manifest's entry for a file."""
    return ListedFile(name=name, rows=rows, bytes=len(data), hash=xxhash.xxh3_128_hexdigest(data))


@dataclass(frozen=True)
class Receipt:
    """What one finished partition left."""

    parts: list[ListedFile]
    decisions: list[ListedFile]
    files: list[ListedFile]
    counts: dict[str, int]


_RECEIPT = TypeAdapter(Receipt)


class Table:
    """One phase's table under one key: tables/<phase>/<key>/."""

    def __init__(self, storage: Storage, phase: str, key: str) -> None:
        self.storage = storage
        self.folder = f"tables/{phase}/{key}"
        self._manifest: Manifest | None = None

    def manifest(self) -> Manifest | None:
        """The manifest, or None while the phase is unfinished; Damaged when the file is not one."""
        if self._manifest is None:
            name = f"{self.folder}/manifest.json"
            try:
                self._manifest = Manifest.from_json(self.storage.read(name))
            except FileNotFoundError:
                return None
            except ValueError as error:
                raise Damaged(f"{self.storage.path(name)}: {error}: delete it and build again") from None
        return self._manifest

    def finish(self, manifest: Manifest) -> None:
        """Write the manifest: from here on the table exists."""
        self.storage.write(f"{self.folder}/manifest.json", manifest.to_json().encode())
        self._manifest = manifest

    def _put(self, name: str, data: bytes, rows: int) -> ListedFile:
        self.storage.write(f"{self.folder}/{name}", data)
        return described(name, data, rows)

    def put_part(self, index: int, table: pa.Table, schema: pa.Schema) -> ListedFile:
        return self._put(f"part-{index:05d}.parquet", parquet_bytes(conform(table, schema)), table.num_rows)

    def put_decisions(self, index: int, decisions: pa.Table) -> ListedFile:
        table = conform(decisions, DECISION)
        return self._put(f"decisions-{index:05d}.parquet", parquet_bytes(table), table.num_rows)

    def put_receipt(self, index: int, receipt: Receipt) -> None:
        """Say that one partition is complete; written after its files."""
        data = json.dumps(asdict(receipt), sort_keys=True)
        self.storage.write(f"{self.folder}/receipt-{index:05d}.json", data.encode())

    def forget(self, index: int) -> None:
        """Take back that a partition is complete."""
        self.storage.delete(f"{self.folder}/receipt-{index:05d}.json")

    def lost(self) -> list[int]:
        """Partitions of a finished table whose files outside its folder are gone, or have another size."""
        manifest = self.manifest()
        if manifest is None or not manifest.files:
            return []
        gone = {
            file.name
            for file in manifest.files
            if not self.storage.exists(file.name) or self.storage.size(file.name) != file.bytes
        }
        receipts = self.receipts() if gone else {}
        return [index for index, receipt in receipts.items() if any(file.name in gone for file in receipt.files)]

    def reopen(self, indices: Sequence[int]) -> None:
        """Make a finished table one of which these partitions are still to be made."""
        self.storage.delete(f"{self.folder}/manifest.json")
        self._manifest = None
        for index in indices:
            self.forget(index)

    def receipts(self) -> dict[int, Receipt]:
        """Complete partitions by index."""
        found: dict[int, Receipt] = {}
        for name in self.storage.names(self.folder):
            if name.startswith("receipt-") and name.endswith(".json"):
                try:
                    found[int(name[8:13])] = _RECEIPT.validate_json(self.storage.read(f"{self.folder}/{name}"))
                except (ValueError, FileNotFoundError):
                    continue  # no receipt: its partition is made again
        return found

    def read_file(self, part: ListedFile) -> bytes:
        """Bytes of a listed file, checked; Damaged when they are not those that were written."""
        name = f"{self.folder}/{part.name}"
        try:
            data = self.storage.read(name)
        except FileNotFoundError:
            raise damaged(name, "is missing") from None
        if xxhash.xxh3_128_hexdigest(data) != part.hash:
            raise damaged(name, "holds other bytes than were written")
        return data

    def _require(self) -> Manifest:
        manifest = self.manifest()
        if manifest is None:
            raise damaged(f"{self.folder}/manifest.json", "is missing")
        return manifest

    def _read(self, parts: tuple[ListedFile, ...], index: int | None) -> Iterator[pa.Table]:
        for part in parts:
            if index is None or int(part.name.split("-")[1][:5]) == index:
                yield pq.read_table(pa.BufferReader(self.read_file(part)))

    def read(self, index: int) -> pa.Table:
        """The part of one partition."""
        return pa.concat_tables(self._read(self._require().parts, index))

    def read_all(self) -> Iterator[pa.Table]:
        """Every part, in order."""
        return self._read(self._require().parts, None)

    def decisions(self) -> Iterator[pa.Table]:
        """Every file of decisions, in order."""
        return self._read(self._require().decisions, None)
