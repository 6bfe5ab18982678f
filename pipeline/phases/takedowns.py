"""Takedowns: what a corpus is to do without from here on, and how phases leave it out.

takedowns/<hash of the file>.json      what one command took down (schemas.takedown)

Their digest is in the keys of the phases that let something in; all others follow by what these make.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from pipeline.engine.damage import Damaged
from pipeline.engine.storage import Storage
from pipeline.spec.loading import Spec
from schemas.keys import digest
from schemas.takedown import Entry, TakedownList
from stages.web.consent.excluded import HASHED, hashed, hosts
from stages.web.settings import CrawlSettings

FOLDER = "takedowns"
# Columns of a row that say which page or picture it is of; the others say what was had, and go with it.
_STAYS = frozenset({"page_id", "image_id", "url", "depth", "provenance", "consent", "documents", "file", "offset"})


@dataclass(frozen=True)
class Takedowns:
    """What is taken down for one snapshot."""

    entries: Mapping[tuple[str, str], Entry] = field(default_factory=dict)
    """By kind and hash."""

    @cached_property
    def digest(self) -> str | None:
        """Of all that they say; None for none."""
        said = sorted(f"{kind} {name} {entry.rule}" for (kind, name), entry in self.entries.items())
        return digest(*said) if said else None

    @cached_property
    def _kinds(self) -> frozenset[str]:
        return frozenset(kind for kind, _ in self.entries)

    def of_url(self, url: str | None) -> Entry | None:
        """The entry that takes down a URL, by itself or by its host; None for none, and for what is no URL."""
        if url is None or not self._kinds & {"url", "host"}:
            return None
        found = self.entries.get(("url", hashed(url)))
        if found is None and "host" in self._kinds:
            found = next((entry for each in hosts(url) if (entry := self.entries.get(("host", hashed(each))))), None)
        return found

    def of_content(self, *sha256: str | None) -> Entry | None:
        """The entry that takes down content with one of these hashes."""
        return next((entry for each in sha256 if each and (entry := self.entries.get(("sha256", each)))), None)

    def refused(self, table: pa.Table) -> pa.Table:
        """Rows of pages or pictures (url, status, reason, detail, retryable, …), those taken down as refused ones.

        Looked at are `url`, `final_url` and the bytes in `body`, where they are there; what was had of them goes.
        """
        if not self.entries or not table.num_rows:
            return table
        found = self._entries(table)
        gone = np.array([each is not None for each in found])
        if not gone.any():
            return table
        told = {
            "status": ["refused" if each else None for each in found],
            "reason": [each and each.rule for each in found],
            "detail": [each and each.said for each in found],
            "retryable": [False if each else None for each in found],
        }
        places = pa.array(np.arange(len(gone)), pa.int64(), mask=gone)
        for index, each in enumerate(table.schema):
            if each.name in told:
                column = pc.if_else(pa.array(gone), pa.array(told[each.name], each.type), table.column(index))
            elif each.name in _STAYS or not each.nullable:
                continue
            else:
                column = table.column(index).take(places)
            table = table.set_column(index, each, column)
        return table

    def _entries(self, table: pa.Table) -> list[Entry | None]:
        found = [self.of_url(url) for url in table.column("url").to_pylist()]
        if "final_url" in table.column_names:
            finals = table.column("final_url").to_pylist()
            found = [each or self.of_url(url) for each, url in zip(found, finals, strict=True)]
        if "sha256" in self._kinds and "body" in table.column_names and _holds_bytes(table.schema.field("body")):
            bodies = table.column("body")
            found = [
                each or (self.of_content(content_hash(body.as_buffer())) if body.is_valid else None)
                for each, body in zip(found, bodies, strict=True)
            ]
        return found


def content_hash(data: pa.Buffer | bytes) -> str:
    """How content is remembered."""
    return hashlib.sha256(data).hexdigest()


def _holds_bytes(of: pa.Field) -> bool:
    return bool(pa.types.is_large_binary(of.type) or pa.types.is_binary(of.type))


def read_lists(storage: Storage) -> dict[str, TakedownList]:
    """Every list by its name, from the corpus root; Damaged when a file is none."""
    found: dict[str, TakedownList] = {}
    for name in (f"{FOLDER}/{each}" for each in storage.names(FOLDER) if each.endswith(".json")):
        try:
            found[name] = TakedownList.from_json(storage.read(name))
        except ValueError as error:
            raise Damaged(f"{storage.path(name)}: {error}: put it back from a copy") from None
    return found


def read_entries(storage: Storage) -> list[Entry]:
    """Every entry of every list; Damaged when a file is none."""
    return [entry for each in read_lists(storage).values() for entry in each.entries]


@functools.cache
def _entries_at(url: str) -> tuple[Entry, ...]:
    # Once a process: what is taken down while a build is at work is for the next one.
    return tuple(read_entries(Storage(url)))


def takedowns_of(spec: Spec) -> Takedowns:
    """What is taken down in the spec's output for its snapshot, and what the spec excludes, fetched before or not.

    Of two entries about one thing the first by rule.
    """
    snapshot = digest(spec.source.snapshot)
    mine = [each for each in _entries_at(spec.output.url) if each.snapshot in ("", snapshot)]
    mine += [
        Entry(
            kind, name.removeprefix(HASHED) if name.startswith(HASHED) else hashed(name), "excluded", "crawl.excluded"
        )
        for name in spec.crawl.excluded
        for kind in ("url", "host")
    ]
    ordered = sorted(mine, key=lambda each: (each.rule, each.said), reverse=True)
    return Takedowns({(each.kind, each.hash): each for each in ordered})


def write_entries(storage: Storage, entries: Iterable[Entry]) -> list[Entry]:
    """Take down what was not yet; the entries that are new, whose file is there when this returns."""
    known = {(each.kind, each.hash, each.rule, each.snapshot) for each in read_entries(storage)}
    new = {
        (each.kind, each.hash, each.rule, each.snapshot): each
        for each in entries
        if (each.kind, each.hash, each.rule, each.snapshot) not in known
    }
    if new:
        made = TakedownList(tuple(new[key] for key in sorted(new)))
        data = made.to_json().encode()
        storage.write(f"{FOLDER}/{xxhash.xxh3_128_hexdigest(data)}.json", data)
    _entries_at.cache_clear()
    return list(new.values())


def crawl_without(crawl: CrawlSettings, taken: Takedowns) -> CrawlSettings:
    """The spec's section, with what is to be forgotten excluded: it is not even asked for."""
    forgotten = [
        HASHED + name for (kind, name), entry in taken.entries.items() if kind != "sha256" and entry.rule == "forgotten"
    ]
    return crawl.model_copy(update={"excluded": (*crawl.excluded, *sorted(forgotten))}) if forgotten else crawl


def without_content(image: dict[str, Any], taken: Takedowns) -> dict[str, Any]:
    """An image's facts (schemas.image), refused and without what was had of it where its bytes are taken down."""
    entry = taken.of_content(image["original_hash"], image["sha256"])
    if entry is None:
        return image
    stays = {name: image[name] for name in (*_STAYS, "content_key", "num_documents") if name in image}
    refused = {"status": "refused", "reason": entry.rule, "detail": entry.said, "retryable": False}
    return dict.fromkeys(image) | stays | refused
