"""Keys: what a row, a table or a cache was made by, hashed; never a number that a person must remember to bump.

Code is known by its syntax tree, so that comments and prose make nothing stale, and is found without importing it.
"""

from __future__ import annotations

import ast
import functools
import importlib.metadata
import importlib.util
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import xxhash

_BLOCK = 1 << 20


def digest(*parts: str | bytes) -> str:
    """xxh3-128 hex of the parts, each preceded by its length so that ("ab","c") and ("a","bc") differ."""
    state = xxhash.xxh3_128()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        state.update(len(data).to_bytes(8, "little"))
        state.update(data)
    return str(state.hexdigest())


def file_digest(path: str | Path) -> str:
    """xxh3-128 hex of a file's bytes, as manifests list them."""
    state = xxhash.xxh3_128()
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            state.update(block)
    return str(state.hexdigest())


def library_versions(names: Iterable[str]) -> dict[str, str]:
    """Installed versions by distribution name."""
    return {name: library_version(name) for name in sorted(set(names))}


@functools.cache
def library_version(name: str) -> str:
    """Installed version of a distribution, read once a process: a plan asks for some of them a hundred times."""
    return importlib.metadata.version(name)


def code_key(modules: Sequence[str], packages: frozenset[str]) -> str:
    """Digest of modules' syntax trees and of those of `packages` that they import, directly or not.

    Raises ModuleNotFoundError for a module without source.
    """
    seen: dict[str, str] = {}
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        parsed = _parsed(name)
        if parsed is None:
            if name in modules:
                raise ModuleNotFoundError(f"no source for module {name!r}")
            continue  # not a module: a name imported from one
        seen[name] = parsed[0]
        waiting += [each for each in parsed[1] if each.split(".")[0] in packages]
    return digest(*(part for name in sorted(seen) for part in (name, seen[name])))


class _Documentation(ast.NodeTransformer):
    """Removes docstrings."""

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
    """What a syntax tree imports, wherever the import stands: modules, and names that may be modules."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


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
    """(digest of a module's tree, what it imports), None where there is no such module."""
    path = _source(module)
    if path is None:
        return None
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return digest(ast.dump(_Documentation().visit(tree))), frozenset(_imports(tree))
