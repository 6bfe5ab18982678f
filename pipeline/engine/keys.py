"""Keys of row functions and phases, and what differs between two of them."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from schemas import keys
from schemas.keys import digest, library_versions
from stages.row_function import RowFunction

# Packages whose modules are followed: what shapes rows. What moves them is named by the phases.
OWN_PACKAGES = frozenset({"schemas", "alignment", "pictures", "stages"})


def digest_json(value: Any) -> str:
    """Digest of a JSON-serialisable value with sorted keys."""
    return digest(json.dumps(value, sort_keys=True, separators=(",", ":"), default=str))


@functools.cache
def code_key(module: str) -> str:
    """Digest of a module's code and of that of our own modules that shape rows and that it imports."""
    return keys.code_key((module,), OWN_PACKAGES)


def settings_json(settings: BaseModel | None) -> Any:
    return None if settings is None else settings.model_dump(mode="json")


def function_ingredients(function: RowFunction) -> dict[str, Any]:
    """All that shapes a row function's results, by name."""
    return {
        "name": function.name,
        "code": code_key(type(function).__module__),
        "settings": settings_json(function.settings),
        "libraries": library_versions(function.libraries),
        "weights": function.weights,
    }


def function_key(function: RowFunction) -> str:
    """Names the row store folder of a function: rows/<name>/<key>/."""
    return digest_json(function_ingredients(function))


def differences(old: Any, new: Any, prefix: str = "") -> list[str]:
    """Dotted names of what differs between two nested mappings, with both values: the why of a dry run."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        found = []
        for name in sorted(set(old) | set(new)):
            label = f"{prefix}.{name}" if prefix else str(name)
            if name not in old:
                found.append(f"{label} is new")
            elif name not in new:
                found.append(f"{label} is gone")
            else:
                found.extend(differences(old[name], new[name], label))
        return found
    if old == new:
        return []
    if len(str(old)) > 40 or len(str(new)) > 40 or _is_digest(old):
        return [f"{prefix} changed"]
    return [f"{prefix}: {old} -> {new}"]


def _is_digest(value: Any) -> bool:
    return isinstance(value, str) and len(value) == 32 and all(c in "0123456789abcdef" for c in value)
