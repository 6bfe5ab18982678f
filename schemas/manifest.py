"""Manifests: the JSON file, written last, that makes a table exist."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from schemas.strict_json import parsed

VERSION = 1


@dataclass(frozen=True)
class ListedFile:
    """One file of a table: name inside the table's folder, rows, bytes, xxh3-128 hex of the bytes."""

    name: str
    rows: int
    bytes: int
    hash: str


@dataclass(frozen=True)
class VersionManifest:
    """What makes a version of a corpus exist: its shard files and all it was made from."""

    name: str
    version: str
    shards: tuple[ListedFile, ...]  # names relative to the version's folder
    schema: str
    schema_version: int
    phases: dict[str, str]  # phase -> key, in build order: tables/<phase>/<key>
    spec: dict[str, Any]  # resolved, every default filled in
    counts: dict[str, int]
    run: dict[str, Any] = field(default_factory=dict)  # volatile
    manifest_version: int = VERSION

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1)

    @staticmethod
    def from_json(text: str | bytes) -> VersionManifest:
        """Parse a version's manifest; ValueError, one line, when it is another version or no manifest."""
        return parsed(VersionManifest, text, "manifest", "manifest_version", VERSION)


@dataclass(frozen=True)
class Manifest:
    """What a finished phase left: its key, why it has that key, its parts and its decisions."""

    phase: str
    key: str
    schema: str
    schema_version: int
    parts: tuple[ListedFile, ...]
    decisions: tuple[ListedFile, ...]
    # everything that went into the key, by name: settings, code, libraries, weights, inputs
    ingredients: dict[str, Any]
    # files it wrote outside its folder, named from the corpus root (shards)
    files: tuple[ListedFile, ...] = ()
    # decisions by rule, rows in and out and the like: deterministic, shown by the report
    counts: dict[str, int] = field(default_factory=dict)
    # volatile: seconds, cache hits, when; never part of a key
    run: dict[str, Any] = field(default_factory=dict)
    version: int = VERSION

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1, sort_keys=True)

    @staticmethod
    def from_json(text: str | bytes) -> Manifest:
        """Parse a manifest; ValueError, one line, when it is another version or not a manifest."""
        return parsed(Manifest, text, "manifest", "version", VERSION)
