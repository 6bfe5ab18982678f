"""Keys: what a row or a phase was made by, hashed; never a number that a person must remember to bump."""

from __future__ import annotations

import ast
import functools
import importlib.metadata
import importlib.util
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import xxhash
from pydantic import BaseModel

from stages.row_function import RowFunction

OWN_PACKAGES = frozenset({"schemas", "alignment", "stages"})


def digest(*parts: str | bytes) -> str:
    """xxh3-128 hex of the parts, each preceded by its length so that ("ab","c") and ("a","bc") differ."""
    state = xxhash.xxh3_128()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        state.update(len(data).to_bytes(8, "little"))
        state.update(data)
    return str(state.hexdigest())


def digest_json(value: Any) -> str:
    """Digest of a JSON-serialisable value with sorted keys."""
    return digest(json.dumps(value, sort_keys=True, separators=(",", ":"), default=str))


class _Documentation(ast.NodeTransformer):
    """Removes docstrings: comments and prose never make a corpus stale."""

    def _strip(self, node: Any) -> Any:
        self.generic_visit(node)
        body = [
            statement
            for statement in node.body
            if not (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant))
        ]
        node.body = body or [ast.Pass()]
        return node

    visit_Module = visit_ClassDef = visit_FunctionDef = visit_AsyncFunctionDef = _strip


def _imports(tree: ast.AST) -> set[str]:
    """Modules of our own packages that a syntax tree imports, wherever the import stands."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return {name for name in found if name.split(".")[0] in OWN_PACKAGES}


@functools.cache
def _source(module: str) -> Path | None:
    """A module's file, found without importing it or the packages around it."""
    top, *inner = module.split(".")
    spec = importlib.util.find_spec(top)
    if spec is None:
        return None
    if not inner:
        return Path(spec.origin) if spec.origin and spec.origin.endswith(".py") else None
    for folder in spec.submodule_search_locations or ():
        at = Path(folder, *inner)
        for file in (at / "__init__.py", at.parent / f"{at.name}.py"):
            if file.is_file():
                return file
    return None


@functools.cache
def _parsed(module: str) -> tuple[str, frozenset[str]] | None:
    path = _source(module)
    if path is None:
        return None
    tree = ast.parse(path.read_text())
    return digest(ast.dump(_Documentation().visit(tree))), frozenset(_imports(tree))


@functools.cache
def code_key(module: str) -> str:
    """Digest of a module's syntax tree and of those of our own modules that it imports, directly or not."""
    seen: dict[str, str] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in seen or (parsed := _parsed(name)) is None:
            continue
        seen[name] = parsed[0]
        waiting.extend(parsed[1])
    if not seen:
        raise ModuleNotFoundError(f"no source for module {module!r}")
    return digest(*(part for name in sorted(seen) for part in (name, seen[name])))


def library_versions(names: Iterable[str]) -> dict[str, str]:
    """Installed versions by distribution name."""
    return {name: importlib.metadata.version(name) for name in sorted(set(names))}


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
