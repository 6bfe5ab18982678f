"""Manifests and records: the JSON files, written last, that make a table, a finished phase and a version exist."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from schemas.strict_json import parsed

VERSION = 2
# In version 1 the phases of a corpus named tables that this release does not read; the shards are listed alike.
OLDEST = 1


@dataclass(frozen=True)
class ListedFile:
    """One file: its name, rows, bytes, xxh3-128 hex of the bytes."""

    name: str
    rows: int
    bytes: int
    hash: str


@dataclass(frozen=True)
class Part:
    """One file of a table, named from the corpus root, with the key range that its rows lie in: 32 bits, inclusive."""

    name: str
    rows: int
    bytes: int
    hash: str
    first: int
    last: int


@dataclass(frozen=True)
class VersionManifest:
    """What makes a version of a corpus exist: its shard files and all it was made from."""

    name: str
    version: str
    shards: tuple[ListedFile, ...]  # names relative to the version's folder
    schema: str
    schema_version: int
    phases: dict[str, str]  # phase -> its record, in build order, named from the corpus root
    spec: dict[str, Any]  # resolved, every default filled in
    counts: dict[str, int]
    run: dict[str, Any] = field(default_factory=dict)  # volatile
    manifest_version: int = VERSION

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1)

    @staticmethod
    def from_json(text: str | bytes) -> VersionManifest:
        """Parse a version's manifest; ValueError, one line, when it is another version or no manifest."""
        return parsed(VersionManifest, text, "manifest", "manifest_version", VERSION, oldest=OLDEST)


@dataclass(frozen=True)
class TableManifest:
    """A table: what it says, as a digest, and the files that hold it.

    Two tables of one digest may differ in carried columns, so a table is named by its digest and its files.
    """

    schema: str
    schema_version: int
    digest: str  # schemas.digests.table_digest
    parts: tuple[Part, ...]  # in the order of their keys
    table_version: int = VERSION

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1, sort_keys=True)

    @staticmethod
    def from_json(text: str | bytes) -> TableManifest:
        """Parse a table's manifest; ValueError, one line, when it is another version or not one."""
        return parsed(TableManifest, text, "table", "table_version", VERSION)


@dataclass(frozen=True)
class PhaseRecord:
    """A phase that is finished under a key: its table, what it decided, and why it has that key."""

    phase: str
    key: str
    generation: int  # how often failures that may pass had been asked for again
    table: str  # the table's manifest, named from the corpus root
    digest: str  # of the table: what the keys of phases that read it are made of
    rows: int
    decisions: tuple[ListedFile, ...]  # named from the corpus root
    # everything that went into the key, by name: settings, code, libraries, weights, the inputs' digests
    ingredients: dict[str, Any]
    # files it wrote outside the tables, named from the corpus root (shards)
    files: tuple[ListedFile, ...] = ()
    # decisions by rule, rows in and out and the like: deterministic, shown by the report
    counts: dict[str, int] = field(default_factory=dict)
    # volatile: seconds, cache hits, when; never part of a key
    run: dict[str, Any] = field(default_factory=dict)
    record_version: int = VERSION

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1, sort_keys=True)

    @staticmethod
    def from_json(text: str | bytes) -> PhaseRecord:
        """Parse a phase's record; ValueError, one line, when it is another version or no record."""
        return parsed(PhaseRecord, text, "record", "record_version", VERSION)
