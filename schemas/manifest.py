"""Manifests: the JSON file, written last, that makes a table exist."""

from __future__ import annotations

import json
from dataclasses import MISSING, asdict, dataclass, field, fields
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

VERSION = 1
_Made = TypeVar("_Made")


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
        return _parsed(VersionManifest, text, "manifest_version")


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
        return _parsed(Manifest, text, "version")


def _parsed(kind: type[_Made], text: str | bytes, version_field: str) -> _Made:
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
        return _made(kind, data, "")
    except ValueError as error:
        raise ValueError(f"not a manifest: {error}") from None


def _made(kind: type[_Made], data: Any, place: str) -> _Made:
    """A dataclass out of a JSON object."""
    _require(isinstance(data, dict), place, "is no object")
    known = {each.name: each for each in fields(kind)}  # type: ignore[arg-type]  # every kind is a dataclass
    hints = get_type_hints(kind)
    for name in data:
        _require(name in known, f"{place}{name}", "is unknown")
    values = {}
    for name, each in known.items():
        if name in data:
            values[name] = _value(hints[name], data[name], f"{place}{name}")
        else:
            _require(each.default is not MISSING or each.default_factory is not MISSING, f"{place}{name}", "is missing")
    return kind(**values)


def _value(hint: Any, value: Any, place: str) -> Any:
    """A field's value out of JSON: text, a number, a list of objects, or an object by name."""
    origin, arguments = get_origin(hint) or hint, get_args(hint)
    if origin is Any:
        return value
    if origin is tuple:
        _require(isinstance(value, list), place, "is no list")
        return tuple(_made(arguments[0], each, f"{place}.{index}.") for index, each in enumerate(value))
    _require(type(value) is origin, place, f"is no {origin.__name__}")
    if origin is dict:
        return {name: _value(arguments[1], each, f"{place}.{name}") for name, each in value.items()}
    return value


def _require(holds: bool, place: str, otherwise: str) -> None:
    if not holds:
        raise ValueError(f"{place.removesuffix('.')} {otherwise}")
