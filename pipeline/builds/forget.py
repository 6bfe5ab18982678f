"""Forgetting what somebody asks for: remembered by its hash, and gone from what a corpus has stored."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.builds.lease import holder
from pipeline.engine.damage import Damaged
from pipeline.engine.forgetting import (
    Mask,
    RowFile,
    content_suffixes,
    forget_rows,
    key_suffixes,
    overwrite,
    row_files,
)
from pipeline.engine.mistake import UserMistake
from pipeline.engine.storage import Storage
from pipeline.engine.table import Table, read_listed, records_of
from pipeline.phases.takedowns import FOLDER, Takedowns, content_hash, read_lists, write_entries
from schemas.takedown import Entry
from stages.web.consent.excluded import hashed
from stages.web.sites import is_public_suffix
from stages.web.urls import canonicalize

# Row stores of what came from outside, and of what was made of it: the first are looked at for what the others hold.
_FETCHED = ("fetch_page", "fetch_image", "fetch_sitemap", "read_source")
_EXTRACTED = ("extract",)
_DECODED = ("decode_image",)
# An empty object here for each list whose entries are out of the stores.
SWEPT = f"{FOLDER}/swept"
_SHA256 = re.compile("[0-9a-f]{64}")
# A hash that is none of ours: of another length or kind.
_DIGITS = re.compile("[0-9a-f]{32,}")
_HOST = re.compile(r"[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*\.?(:\d{1,5})?|\[[0-9a-f:]+\](:\d{1,5})?")


@dataclass(frozen=True)
class Forgotten:
    """What went."""

    new: int = 0  # entries that were not remembered before
    rows: int = 0
    overwritten: int = 0  # bytes


def entry_of(what: str, said: str) -> Entry:
    """The entry of a URL, a host or the sha256 of content; UserMistake for anything else."""
    given = what.strip()
    if _SHA256.fullmatch(given.lower()):
        return Entry("sha256", given.lower(), "forgotten", said)
    if "://" in given:
        try:
            return Entry("url", hashed(canonicalize(given)), "forgotten", said)
        except ValueError as error:
            raise UserMistake(f"--forget {what}: {error}") from None
    host = given.lower().removesuffix(".")
    if _DIGITS.fullmatch(host):
        raise UserMistake(f"--forget {what}: a sha256 has 64 hexadecimal digits, this has {len(host)}")
    if not _HOST.fullmatch(host):
        raise UserMistake(f"--forget {what}: neither a URL nor a host nor the sha256 of a page or picture, in hex")
    if is_public_suffix(host):
        raise UserMistake(f"--forget {what}: all sites that there are under {host}; name one of them")
    return Entry("host", hashed(host), "forgotten", said)


def forget(storage: Storage, wanted: Iterable[Entry]) -> Forgotten:
    """Remember what is to be forgotten, and take it out of the row stores, with what a killed run left there.

    Versions that are there keep what they hold. UserMistake while a build is at work.
    """
    if (other := holder(storage)) is not None:
        raise UserMistake(f"--forget: build {other.id} is at work in {storage}: let it end, or end it")
    wanted = list(wanted)
    # Remembered first: what is killed from here on is gone on with by whichever is asked for next.
    new = len(write_entries(storage, wanted))
    swept = set(storage.names(SWEPT))
    lists = {name: each for name, each in read_lists(storage).items() if _mark(name) not in swept}
    left = [entry for each in lists.values() for entry in each.entries if entry.rule == "forgotten"]
    search = _Search(storage, Takedowns({(each.kind, each.hash): each for each in (*left, *wanted)}))
    new += len(write_entries(storage, search.more))
    found = search.sweep()
    for name in sorted({*lists, *read_lists(storage)}):
        if _mark(name) not in swept:
            storage.write(f"{SWEPT}/{_mark(name)}", b"")
    return replace(found, new=new)


def _mark(name: str) -> str:
    return name.rpartition("/")[2].removesuffix(".json")


class _Search:
    """Where the stores hold what is taken down."""

    def __init__(self, storage: Storage, taken: Takedowns) -> None:
        self._storage = storage
        self._taken = taken
        contents = {name for kind, name in taken.entries if kind == "sha256"}
        # Content by the keys of rows that were made of it; what was not decoded is found by its bytes alone.
        self._decoded = self._decoded_rows(contents)
        self._unseen = contents - {each for found in self._decoded.values() for each in found}
        self._pages: set[str] = set()  # suffixes of the keys of extracted rows
        self._pictures: set[str] = set()  # content hashes
        self._documents: set[str] = set()
        # What is to be remembered besides: the originals of stored pictures, and the addresses of content.
        self.more: list[Entry] = [
            replace(entry, hash=original)
            for original, *stored in self._decoded.values()
            for entry in [taken.of_content(original, *stored)]
            if entry is not None and original not in contents
        ]
        for file in row_files(storage, *_FETCHED):
            self._look(file)
        self._loose = list(self._loose_pictures())
        self._keep_shared()

    def sweep(self) -> Forgotten:
        """Take it all out. What was fetched goes last: the rest is found by it."""
        overwritten = overwrite(self._storage, self._loose)
        rows = 0
        suffixes = {*self._decoded, *self._suffixes(self._pictures)}
        for files, columns, meant in (
            (row_files(self._storage, *_EXTRACTED), ("url",), self._extracted),
            (row_files(self._storage, *_DECODED), (), lambda table: _among(key_suffixes(table), suffixes)),
            (row_files(self._storage, *_FETCHED), _LOOKED_AT, self._fetched),
        ):
            gone, size = forget_rows(self._storage, files, columns, meant)
            rows += gone
            overwritten += size
        return Forgotten(0, rows, overwritten)

    def _decoded_rows(self, contents: set[str]) -> dict[str, tuple[str, str]]:
        """Suffix of the row key -> (original hash, stored hash) of decoded rows of such content."""
        found: dict[str, tuple[str, str]] = {}
        for file in row_files(self._storage, *_DECODED) if contents else ():
            rows = file.read("row_key", "original_hash", "sha256")
            hashes = zip(rows.column("original_hash").to_pylist(), rows.column("sha256").to_pylist(), strict=True)
            for suffix, (original, stored) in zip(key_suffixes(rows), hashes, strict=True):
                if original and (original in contents or stored in contents):
                    found[suffix] = original, stored or ""
        return found

    def _suffixes(self, content_hashes: Iterable[str]) -> list[str]:
        return content_suffixes(pa.chunked_array([pa.array(sorted(content_hashes), pa.string())]))

    def _fetched(self, rows: pa.Table) -> Mask:
        """Which rows of what was fetched are meant."""
        urls = zip(rows.column("url").to_pylist(), rows.column("final_url").to_pylist(), strict=True)
        meant = np.array([any(map(self._taken.of_url, each)) for each in urls], np.bool_)
        if self._decoded:
            meant |= _among(content_suffixes(rows.column("content_hash")), set(self._decoded))
        if self._unseen:
            meant |= self._by_bytes(rows.column("body").to_pylist())
        # That a page was not asked for is what a build remembers of what is forgotten.
        return meant & np.array([each != "excluded" for each in rows.column("reason").to_pylist()], np.bool_)

    def _by_bytes(self, locators: list[dict[str, Any] | None]) -> Mask:
        """Which values are content that is meant, or were: a run that was killed has overwritten them, and not gone
        on to their rows."""
        there = [each for each in locators if each is not None]
        found = iter(self._storage.read_ranges([(each["pack"], each["offset"], each["length"]) for each in there]))
        values = [None if each is None else next(found) for each in locators]
        return np.array(
            [each is not None and (not any(each) or content_hash(each) in self._unseen) for each in values], np.bool_
        )

    def _look(self, file: RowFile) -> None:
        rows = file.read(*_LOOKED_AT)
        mine = rows.filter(pa.array(self._fetched(rows)))
        if not mine.num_rows:
            return
        keys = [mine.column(name) for name in ("final_url", "content_type", "content_hash")]
        self._pages.update(content_suffixes(*keys))
        self._pictures.update(each for each in mine.column("content_hash").to_pylist() if each)
        for url in mine.column("url").to_pylist():
            if self._taken.of_url(url) is None:
                self.more.append(Entry("url", hashed(url), "forgotten", "the address of what is to be forgotten"))

    def _extracted(self, rows: pa.Table) -> Mask:
        meant = np.array([self._taken.of_url(url) is not None for url in rows.column("url").to_pylist()], np.bool_)
        return meant | _among(key_suffixes(rows), self._pages)

    def _keep_shared(self) -> None:
        """What another page or picture, which is not meant, has too is not forgotten."""
        for file in row_files(self._storage, *_FETCHED) if self._pictures else ():
            rows = file.read(*_LOOKED_AT)
            others = rows.filter(pa.array(~self._fetched(rows)))
            self._pictures.difference_update(others.column("content_hash").to_pylist())

    def _tables(self, phase: str, *columns: str) -> Iterator[dict[str, Any]]:
        """Rows of a phase's tables that are there; of a damaged part nothing can be had, by nobody."""
        for record in records_of(self._storage, phase):
            for part in Table(self._storage, record).parts:
                with contextlib.suppress(Damaged):
                    yield from read_listed(self._storage, part, columns).to_pylist()

    def _loose_pictures(self) -> Iterator[dict[str, Any]]:
        """Locators of pictures that came with the pages and documents that are meant: they have no rows of their own.

        Their content joins what is meant, unless other documents show it too.
        """
        self._documents.update(
            row["page_id"]
            for row in self._tables("pages", "page_id", "url", "final_url")
            if self._taken.of_url(row["url"]) is not None or self._taken.of_url(row["final_url"]) is not None
        )
        shown: set[str] = set()
        alone: set[str] = set()
        for row in self._tables("fetched_images", "documents", "content_hash", "body"):
            if row["body"] is not None and row["body"]["pack"].startswith(_CAME_ALONG):
                meant = self._documents.issuperset(row["documents"])
                (alone if meant else shown).add(row["content_hash"])
                if meant or row["content_hash"] in self._pictures:
                    yield row["body"]
        self._pictures |= alone - shown
        for row in self._tables("documents", "document_id", "image_bodies"):
            for each in row["image_bodies"] or ():
                if row["document_id"] in self._documents or each["content_hash"] in self._pictures:
                    yield each["body"]


# Packs that no row points into.
_CAME_ALONG = ("rows/read_source/data/", "rows/read_source/documents/")
_LOOKED_AT = ("url", "final_url", "reason", "content_type", "content_hash", "body")


def _among(values: list[str], wanted: set[str]) -> Mask:
    return np.array([each in wanted for each in values], np.bool_)
