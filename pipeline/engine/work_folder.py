"""What a phase has done so far under its key: a receipt for every key range that is finished.

work/<phase>/<key>/<first>-<last>-<generation>.json

A receipt is written after the files that it lists. Ranges follow the processors at hand: whoever goes on reads what is
there and does the rest. Receipts of an earlier generation hold unless something in them failed that may pass.
"""

from __future__ import annotations

import base64
import contextlib
import json
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

import pyarrow as pa
import xxhash
from pydantic import TypeAdapter

from pipeline.engine.key_range import KeyRange, hull
from pipeline.engine.storage import Storage
from pipeline.engine.table import put_parquet
from schemas.contract import ContractError, conform, identity, key_of
from schemas.decision import DECISION
from schemas.digests import DIGEST_BYTES, bucket_digests, table_digest
from schemas.manifest import ListedFile, Part, TableManifest

_NUMBER_BYTES = 2


@dataclass(frozen=True)
class Receipt:
    """What one finished key range left."""

    first: int
    last: int
    side: str
    generation: int
    part: ListedFile
    decisions: list[ListedFile]
    files: list[ListedFile]
    counts: dict[str, int]
    buckets: str = field(repr=False)  # base64 of bucket number, big-endian, and digest, end to end

    @property
    def keys(self) -> KeyRange:
        return KeyRange(self.first, self.last, self.side)


_RECEIPT = TypeAdapter(Receipt)


def _packed(buckets: Mapping[int, bytes]) -> str:
    said = b"".join(number.to_bytes(_NUMBER_BYTES, "big") + digest for number, digest in sorted(buckets.items()))
    return base64.b64encode(said).decode()


def _unpacked(text: str) -> dict[int, bytes]:
    data, step = base64.b64decode(text), _NUMBER_BYTES + DIGEST_BYTES
    cells = (data[at : at + step] for at in range(0, len(data), step))
    return {int.from_bytes(cell[:_NUMBER_BYTES], "big"): cell[_NUMBER_BYTES:] for cell in cells}


def _require_within(rows: pa.Table, keys: KeyRange) -> None:
    """Rows sorted by their key lie in the range, or readers of the range would never see them."""
    column = rows.column(key_of(rows.schema))
    if not len(column):
        return
    held = hull(column)
    if held.first < keys.first or held.last > keys.last:
        name, _ = identity(rows.schema)
        outside = column[0 if held.first < keys.first else -1]
        raise ContractError(f"{name}: a row with the key {outside} in the range {keys.label}")


class WorkFolder:
    """One phase under one key, on its way to a table."""

    def __init__(self, storage: Storage, phase: str, key: str, *, together: bool = False) -> None:
        """`together`: what fails in one range may keep rows from any other, as pages that a crawl finds by links."""
        self.storage = storage
        self.phase = phase
        self.name = f"work/{phase}/{key}"
        self._together = together
        self._read: dict[str, Receipt] = {}  # by name: what is there once does not change

    def put(
        self,
        keys: KeyRange,
        generation: int,
        made: pa.Table,
        schema: pa.Schema,
        decisions: pa.Table,
        files: list[ListedFile],
        counts: dict[str, int],
    ) -> None:
        """Write a key range's rows and decisions, and then its receipt; ContractError for a row of another range."""
        rows = conform(made, schema).sort_by(key_of(schema))
        _require_within(rows, keys)
        said = [conform(decisions, DECISION)] if decisions.num_rows else []
        receipt = Receipt(
            first=keys.first,
            last=keys.last,
            side=keys.side,
            generation=generation,
            part=put_parquet(self.storage, f"tables/{self.phase}/parts", rows),
            decisions=[put_parquet(self.storage, f"tables/{self.phase}/decisions", table) for table in said],
            files=files,
            counts=counts,
            buckets=_packed(bucket_digests(rows)),
        )
        self.storage.write(self._receipt(keys, generation), json.dumps(asdict(receipt), sort_keys=True).encode())

    def _receipt(self, keys: KeyRange, generation: int) -> str:
        return f"{self.name}/{keys.label}-{generation:05d}.json"

    def receipts(self, generation: int) -> list[Receipt]:
        """Receipts that hold in this generation, in the order of their keys; no two of them overlap."""
        there = [name for name in self.storage.names(self.name) if name.endswith(".json")]
        for name in there:
            if name not in self._read:
                # What is no receipt is as good as absent: its range is made again.
                with contextlib.suppress(ValueError, FileNotFoundError):
                    self._read[name] = _RECEIPT.validate_json(self.storage.read(f"{self.name}/{name}"))
        found = [receipt for name in there if (receipt := self._read.get(name)) is not None]
        holding = [
            each
            for each in found
            if each.generation >= generation or not (self._together or each.counts.get("retryable"))
        ]
        held: dict[str, list[KeyRange]] = {}  # by side, in order
        chosen: list[Receipt] = []
        for receipt in sorted(holding, key=lambda each: (-each.generation, each.keys)):
            beside = held.setdefault(receipt.side, [])
            place = bisect_right(beside, receipt.keys)
            if not any(each.overlaps(receipt.keys) for each in beside[max(0, place - 1) : place + 1]):
                beside.insert(place, receipt.keys)
                chosen.append(receipt)
        return sorted(chosen, key=lambda each: each.keys)

    def forget(self, receipt: Receipt) -> None:
        """Take back that a range is finished."""
        name = self._receipt(receipt.keys, receipt.generation)
        self.storage.delete(name)
        self._read.pop(name.rpartition("/")[2], None)

    def finish(self, receipts: list[Receipt], schema: pa.Schema) -> tuple[str, str]:
        """Write the table of these receipts; (its manifest, named from the corpus root, its digest)."""
        digest = table_digest(schema, (_unpacked(receipt.buckets) for receipt in receipts))
        parts = tuple(
            Part(part.name, part.rows, part.bytes, part.hash, receipt.first, receipt.last)
            for receipt in receipts
            for part in [receipt.part]
        )
        name, version = identity(schema)
        data = TableManifest(name, version, digest, parts).to_json().encode()
        path = f"tables/{self.phase}/{digest}/{xxhash.xxh3_128_hexdigest(data)}.json"
        self.storage.write(path, data)
        return path, digest
