"""A finished corpus as readers see it: a version, its shards, and the tables and decisions it was made from."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import xxhash

from pipeline.mistake import UserMistake
from pipeline.storage import Storage, StorageError
from pipeline.tables import Damaged, Table
from schemas.manifest import Manifest, VersionManifest

LATEST = "latest"


def version_folder(version: str) -> str:
    """Where a version lies, from the corpus root."""
    return f"versions/{version}"


def version_of(shards_key: str) -> str:
    """A version is named by the key of the phase that wrote its shards."""
    return shards_key[:12]


def latest(storage: Storage) -> str | None:
    """The version that readers get who name none; None before the first is published."""
    try:
        return storage.read(LATEST).decode().strip()
    except FileNotFoundError:
        return None


class Corpus:
    """One version of the corpus under `url`; `latest` when none is named.

    UserMistake, one line, when there is no corpus or no such version.
    """

    def __init__(self, url: str, version: str | None = None) -> None:
        try:
            self.storage = Storage(url)
        except StorageError as error:
            raise UserMistake(f"--corpus {url}: {error}") from None
        version = version or latest(self.storage)
        if version is None:
            raise UserMistake(
                f"--corpus {url}: no finished corpus there; build one with python -m pipeline.build --out {url}"
            )
        self.version = version
        self.folder = version_folder(version)
        try:
            self.manifest = VersionManifest.from_json(self.storage.read(f"{self.folder}/manifest.json"))
        except FileNotFoundError:
            there = ", ".join(self.storage.names("versions")) or "none"
            raise UserMistake(f"--corpus {url}: no version {version!r}; there are: {there}") from None

    @property
    def phases(self) -> list[str]:
        """Phase names in build order."""
        return list(self.manifest.phases)

    @property
    def retryable(self) -> int:
        """Fetches of pages and images that failed in a way that may pass."""
        return sum(self.manifest.counts.get(f"{phase}.retryable", 0) for phase in ("pages", "fetched_images"))

    def libraries(self) -> dict[str, str]:
        """Versions of all that shaped the corpus, by distribution, sorted."""
        found: dict[str, str] = {}
        for phase in self.phases:
            ingredients = self.phase_manifest(phase).ingredients
            found |= ingredients.get("libraries", {})
            for function in ingredients.get("functions", {}).values():
                found |= function.get("libraries", {})
        return dict(sorted(found.items()))

    def table(self, phase: str) -> Table:
        """A phase's table: `.read_all()` yields its parts."""
        return Table(self.storage, phase, self.manifest.phases[phase])

    def phase_manifest(self, phase: str) -> Manifest:
        """A phase's manifest: counts, seconds, ingredients."""
        manifest = self.table(phase).manifest()
        if manifest is None:
            raise Damaged(f"tables/{phase}/{self.manifest.phases[phase]}/manifest.json is missing: build again")
        return manifest

    def rows(self, phase: str, columns: list[str] | None = None) -> pa.Table:
        """A whole table, or some of its columns; where it may be large, iterate `table().read_all()` instead."""
        tables = [part.select(columns) if columns else part for part in self.table(phase).read_all()]
        return pa.concat_tables(tables)

    def decisions(self) -> Iterator[pa.Table]:
        """schemas.decision.DECISION tables of all phases, in build order."""
        for phase in self.phases:
            yield from self.table(phase).decisions()

    def shards(self) -> Iterator[pa.Table]:
        """schemas.shard.SHARD tables, a file at a time; Damaged when a file is not what the manifest lists."""
        for part in self.manifest.shards:
            name = f"{self.folder}/{part.name}"
            try:
                data = self.storage.read(name)
            except FileNotFoundError:
                raise Damaged(f"{name} is missing: build again") from None
            if xxhash.xxh3_128_hexdigest(data) != part.hash:
                raise Damaged(f"{name} holds other bytes than were written: delete it and build again")
            with pa.ipc.open_file(pa.BufferReader(data)) as reader:
                yield reader.read_all()
