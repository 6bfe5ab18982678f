"""Manifests: the JSON file, written last, that makes a table exist."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

VERSION = 1
_STRICT = ConfigDict(strict=True, extra="forbid")
_Any = TypeVar("_Any")


@dataclass(frozen=True)
class Part:
    """One file of a table: name inside the table's folder, rows, bytes, xxh3-128 hex of the bytes."""

    name: str
    rows: int
    bytes: int
    hash: str

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT


@dataclass(frozen=True)
class VersionManifest:
    """What makes a version of a corpus exist: its shard files and all it was made from."""

    name: str
    version: str
    shards: tuple[Part, ...]  # names relative to the version's folder
    schema: str
    schema_version: int
    phases: dict[str, str]  # phase -> key, in build order: tables/<phase>/<key>
    spec: dict[str, Any]  # resolved, every default filled in
    counts: dict[str, int]
    run: dict[str, Any] = field(default_factory=dict)  # volatile
    manifest_version: int = VERSION

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1)

    @staticmethod
    def from_json(text: str | bytes) -> VersionManifest:
        """Parse a version's manifest; ValueError, one line, when it is another version or no manifest."""
        return _parsed(_VERSION_MANIFEST, text, "manifest_version")


@dataclass(frozen=True)
class Manifest:
    """What a finished phase left: its key, why it has that key, its parts and its decisions."""

    phase: str
    key: str
    schema: str
    schema_version: int
    parts: tuple[Part, ...]
    decisions: tuple[Part, ...]
    # everything that went into the key, by name: settings, code, libraries, weights, inputs
    ingredients: dict[str, Any]
    # files it wrote outside its folder, named from the corpus root (shards)
    files: tuple[Part, ...] = ()
    # decisions by rule, rows in and out and the like: deterministic, shown by the report
    counts: dict[str, int] = field(default_factory=dict)
    # volatile: seconds, cache hits, when; never part of a key
    run: dict[str, Any] = field(default_factory=dict)
    version: int = VERSION

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1, sort_keys=True)

    @staticmethod
    def from_json(text: str | bytes) -> Manifest:
        """Parse a manifest; ValueError, one line, when it is another version or not a manifest."""
        return _parsed(_MANIFEST, text, "version")


_VERSION_MANIFEST = TypeAdapter(VersionManifest)
_MANIFEST = TypeAdapter(Manifest)


def _parsed(adapter: TypeAdapter[_Any], text: str | bytes, version_field: str) -> _Any:
    """A manifest from JSON with every field there, none unknown, and of its type; ValueError, one line, otherwise."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON: {error}") from None
    found = data.get(version_field) if isinstance(data, dict) else None
    if type(found) is not int:
        raise ValueError(f"not a manifest: it has no {version_field}")
    if found != VERSION:
        raise ValueError(f"manifest version {found}, and this program reads version {VERSION}")
    try:
        return adapter.validate_json(text)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, fault["loc"]))
        raise ValueError(f"not a manifest: {place}: {fault['msg']}") from None
