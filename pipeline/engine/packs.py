"""Packs: large values end to end in one file, read by range; a locator says where and is checked on every read.

A pack is named by the hash of its bytes, and a locator carries the hash of its own range, so that neither a file cut
short nor a flipped bit passes for what was written.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import xxhash

from pipeline.engine.damage import damaged
from pipeline.engine.storage import Storage

Locator = dict[str, Any]


def write_pack(
    storage: Storage, folder: str, values: Sequence[bytes | None], name: str = "{}.pack"
) -> list[Locator | None]:
    """Write the values as one pack; their locators (schemas.page.LOCATOR), None for None, in order.

    `name` is the pack's, with {} for the hash.
    """
    there = [value for value in values if value is not None]
    if not there:
        return [None] * len(values)
    state = xxhash.xxh3_128()
    for value in there:
        state.update(value)
    pack = f"{folder}/{name.format(state.hexdigest())}"
    storage.write(pack, b"".join(there))
    locators: list[Locator | None] = []
    offset = 0
    for each in values:
        if each is None:
            locators.append(None)
            continue
        hashed = xxhash.xxh3_64_intdigest(each)
        locators.append({"pack": pack, "offset": offset, "length": len(each), "hash": hashed})
        offset += len(each)
    return locators


def read_packed(storage: Storage, locators: pa.ChunkedArray | pa.Array) -> list[bytes | None]:
    """Bytes behind a LOCATOR column, None for None, in order; Damaged when they are not those that were written.

    Locators of earlier releases carry no hash: of their bytes only the number is checked.
    """
    wanted = locators.to_pylist()
    there = [each for each in wanted if each is not None]
    found = storage.read_ranges([(each["pack"], each["offset"], each["length"]) for each in there])
    for each, data in zip(there, found, strict=True):
        if each["hash"] is not None and xxhash.xxh3_64_intdigest(data) != each["hash"]:
            raise damaged(each["pack"], "holds other bytes than were written")
    data_of = iter(found)
    return [None if each is None else next(data_of) for each in wanted]
