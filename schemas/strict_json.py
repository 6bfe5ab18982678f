"""Strict JSON: an object with every field of a dataclass there, none unknown, and each of its type."""

from __future__ import annotations

import json
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

_Made = TypeVar("_Made")


def parsed(
    kind: type[_Made], text: str | bytes, what: str, version_field: str, version: int, *, oldest: int | None = None
) -> _Made:
    """A dataclass out of JSON; ValueError, one line that calls it `what`, for another version and for anything else.

    Versions from `oldest` on, where it is given, have the same fields.
    """
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON: {error}") from None
    found = data.get(version_field) if isinstance(data, dict) else None
    if type(found) is not int:
        raise ValueError(f"not a {what}: it has no {version_field}")
    if not (version if oldest is None else oldest) <= found <= version:
        raise ValueError(f"{what} version {found}, and this program reads version {version}")
    try:
        return _made(kind, data, "")
    except ValueError as error:
        raise ValueError(f"not a {what}: {error}") from None


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
    """A field's value out of JSON: text, a number, an object, a list, or an object by name."""
    origin, arguments = get_origin(hint) or hint, get_args(hint)
    if origin is Any:
        return value
    if isinstance(origin, type) and is_dataclass(origin):
        return _made(origin, value, f"{place}.")
    if origin is tuple:
        _require(isinstance(value, list), place, "is no list")
        return tuple(_value(arguments[0], each, f"{place}.{index}") for index, each in enumerate(value))
    _require(type(value) is origin, place, f"is no {origin.__name__}")
    if origin is dict:
        return {name: _value(arguments[1], each, f"{place}.{name}") for name, each in value.items()}
    return value


def _require(holds: bool, place: str, otherwise: str) -> None:
    if not holds:
        raise ValueError(f"{place.removesuffix('.')} {otherwise}")
