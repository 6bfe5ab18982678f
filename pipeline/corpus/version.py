"""A finished corpus as readers see it: a version, its shards, and the tables and decisions it was made from."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, TypeVar

import pyarrow as pa
import xxhash
from pydantic import ValidationError

from pipeline.corpus.records import build_command, record_of_version
from pipeline.engine.aggregates import Rows, decision_rows
from pipeline.engine.credentials import refuse_credentials
from pipeline.engine.damage import Damaged
from pipeline.engine.layout import LATEST, REPORT, version_folder, version_of
from pipeline.engine.mistake import UserMistake
from pipeline.engine.storage import Storage, StorageError
from pipeline.engine.table import Table, read_record
from schemas.build_record import BuildRecord
from schemas.contract import identity
from schemas.decision import DECISION
from schemas.manifest import VERSION, ListedFile, PhaseRecord, VersionManifest
from schemas.shard import SHARD, shard_order
from schemas.shard_file import NotAShard, ShardFile
from stages.row_function import Settings

_Settings = TypeVar("_Settings", bound=Settings)
EARLIER_RELEASE = (
    "the tables of this version are of an earlier release: build again, which takes what was fetched and computed from "
    "the folder rows; its shards can be trained on as they are"
)
_VERSION_NAME = re.compile(r"[0-9A-Za-z_-]{1,64}")


def latest(storage: Storage) -> str | None:
    """The version that readers get who name none; None before the first is published, Damaged when it names none."""
    try:
        name = storage.read(LATEST).decode("ascii", "replace").strip()
    except FileNotFoundError:
        return None
    except IsADirectoryError:
        name = ""
    if not _VERSION_NAME.fullmatch(name):
        raise Damaged(f"{storage.path(LATEST)} names no version: delete it and build again")
    return name


def open_storage(url: str) -> Storage:
    """The storage that --corpus names; UserMistake, one line, when it cannot be opened or does not answer."""
    refuse_credentials("--corpus", url)
    try:
        storage = Storage(url)
        storage.ask(LATEST)
    except StorageError as error:
        raise UserMistake(f"--corpus {url}: {error}") from None
    return storage


def version_manifest(storage: Storage, version: str) -> VersionManifest | None:
    """The manifest of a version, None where there is none; Damaged when the file is not one."""
    name = f"{version_folder(version)}/manifest.json"
    try:
        manifest = VersionManifest.from_json(storage.read(name))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:
        raise Damaged(f"{storage.path(name)}: {error}: delete it and build again") from None
    if manifest.version != version:
        raise Damaged(f"{storage.path(name)} is of version {manifest.version!r}: delete it and build again")
    return manifest


def manifest_of(spec: dict[str, Any], tables: Sequence[Table], run: dict[str, Any]) -> VersionManifest:
    """What a version of these finished phases, in build order, says of itself; one without shards has no name."""
    records = {table.record.phase: table.record for table in tables}
    shards = records.get("shards")
    version = version_of(shards.key) if shards else ""
    files = shards.files if shards else ()
    schema, schema_version = identity(SHARD)
    return VersionManifest(
        name=str(spec.get("name", "")),
        version=version,
        shards=tuple(
            ListedFile(file.name.removeprefix(f"{version_folder(version)}/"), file.rows, file.bytes, file.hash)
            for file in sorted(files, key=lambda each: shard_order(each.name))
        ),
        schema=schema,
        schema_version=schema_version,
        phases={table.record.phase: table.record_name for table in tables},
        spec=spec,
        # Each name is used by one phase.
        counts={f"{phase}.{name}": n for phase, record in records.items() for name, n in record.counts.items()},
        run=run,
    )


class Corpus:
    """One version of the corpus under `url`; `latest` when none is named.

    UserMistake, one line, when there is no corpus or no such version; Damaged when its files contradict each other.
    """

    # Phases that are not finished, in build order: a version has none.
    ahead: tuple[str, ...] = ()
    # Why this is no corpus to build upon, in one line.
    caveat: str = ""

    def __init__(self, url: str, version: str | None = None) -> None:
        self.storage = open_storage(url)
        named = version
        version = named or latest(self.storage)
        if version is None:
            raise UserMistake(f"--corpus {url}: no finished corpus there; build one with {build_command(url, None)}")
        self.version = version
        self.called = f"version {version}"
        self.folder = version_folder(version)
        self.report = f"{self.folder}/{REPORT}"
        manifest = version_manifest(self.storage, version) if _VERSION_NAME.fullmatch(version) else None
        if manifest is None:
            there = ", ".join(self.storage.names("versions")) or "none"
            if named:
                raise UserMistake(f"--corpus {url}: no version {version!r}; there are: {there}")
            raise Damaged(
                f"{self.storage.path(LATEST)} names version {version!r}, which is not there (there are: {there}): "
                "build again"
            )
        self.manifest = manifest
        self._said_by = f"{self.folder}/manifest.json"

    @cached_property
    def record(self) -> BuildRecord | None:
        """The record of the build that made it, None where there is none."""
        return record_of_version(self.storage, self.version)

    def command(self, *more: str) -> str:
        """The command that builds it again, with more options."""
        return build_command(self.storage.url, self.record, *more)

    def section(self, name: str, model: type[_Settings]) -> _Settings:
        """A section of the resolved spec; Damaged when this version of the program does not take it."""
        try:
            return model.model_validate(self.manifest.spec.get(name))
        except ValidationError:
            raise Damaged(
                f"{self.storage.path(self._said_by)}: its spec's section {name!r} is not what this version of the "
                "program takes: build again"
            ) from None

    @property
    def phases(self) -> list[str]:
        """Phase names in build order."""
        return list(self.manifest.phases)

    @property
    def retryable(self) -> int:
        """Fetches and computed rows that failed in a way that may pass."""
        return sum(number for name, number in self.manifest.counts.items() if name.endswith(".retryable"))

    def libraries(self) -> dict[str, str]:
        """Versions of all that shaped the corpus, by distribution, sorted."""
        found: dict[str, str] = {}
        for phase in self.phases:
            ingredients = self.table(phase).record.ingredients
            found |= ingredients.get("libraries", {})
            for function in ingredients.get("functions", {}).values():
                found |= function.get("libraries", {})
        return dict(sorted(found.items()))

    def table(self, phase: str) -> Table:
        """A phase's table: `.read_all()` yields its parts, `.record` has counts, seconds, ingredients.

        Damaged when its record is not there, and for a corpus of an earlier release.
        """
        if phase not in self._tables:
            name = self.manifest.phases[phase]
            if self.manifest.manifest_version != VERSION:
                raise Damaged(f"{self.storage.path(self._said_by)}: {EARLIER_RELEASE}")
            record = read_record(self.storage, name)
            if record is None:
                raise Damaged(f"{self.storage.path(name)} is missing: build again")
            self._tables[phase] = Table(self.storage, record)
        return self._tables[phase]

    def remember(self, records: Iterable[PhaseRecord]) -> None:
        """Take records of its phases that are at hand, so that they need not be read again."""
        for table in (Table(self.storage, record) for record in records):
            if self.manifest.phases.get(table.record.phase) == table.record_name:
                self._tables[table.record.phase] = table

    @cached_property
    def _tables(self) -> dict[str, Table]:
        """The tables that have been asked for."""
        return {}

    def rows(self, phase: str, columns: list[str] | None = None) -> pa.Table:
        """A whole table, or some of its columns; where it may be large, iterate `table().read_all()` instead."""
        tables = [part.select(columns) if columns else part for part in self.table(phase).read_all()]
        return pa.concat_tables(tables)

    def decisions(self) -> Iterator[pa.Table]:
        """schemas.decision.DECISION tables of all phases, in build order."""
        for phase in self.phases:
            yield from self.table(phase).decisions()

    def decided(self) -> Rows:
        """All decisions, to be aggregated."""
        return decision_rows([self.table(phase) for phase in self.phases], DECISION)

    def shards(self) -> Iterator[pa.Table]:
        """schemas.shard.SHARD tables, a file at a time, whatever version wrote them; Damaged as `read_shard`."""
        for part in self.shard_files:
            yield read_shard(self.storage, part)

    @property
    def shard_files(self) -> list[ListedFile]:
        """The shards, named from the corpus root."""
        return [replace(part, name=f"{self.folder}/{part.name}") for part in self.manifest.shards]


def read_shard(storage: Storage, file: ListedFile) -> pa.Table:
    """A shard in the layout of schemas.shard.SHARD, whatever version wrote it.

    Damaged when it is not what its manifest lists, or no shard.
    """
    name = file.name
    try:
        data = storage.read(name)
    except FileNotFoundError:
        raise Damaged(f"{name} is missing: build again") from None
    if xxhash.xxh3_128_hexdigest(data) != file.hash:
        raise Damaged(f"{name} holds other bytes than were written: delete it and build again")
    try:
        return ShardFile(pa.BufferReader(data)).table()
    except NotAShard as error:
        raise Damaged(f"{name} is not a shard: {error}") from None
