"""Keys of what is cached: hashes of the bytes, weights, tokenizer and code that shaped it.

Nothing is versioned by hand: a cache made by other code, libraries or weights has another name.
"""

from __future__ import annotations

import ast
import functools
import importlib.metadata
import importlib.util
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xxhash

if TYPE_CHECKING:
    import torch

# Top-level packages whose modules are followed; what else is imported counts by its installed version.
OWN_PACKAGES = frozenset({"schemas", "trainer"})


def digest(*parts: str | bytes) -> str:
    """xxh3-128 hex of the parts, each preceded by its length, so that ("ab", "c") and ("a", "bc") differ."""
    state = xxhash.xxh3_128()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        state.update(len(data).to_bytes(8, "little"))
        state.update(data)
    return state.hexdigest()


def file_digest(path: Path) -> str:
    """xxh3-128 hex of a file's bytes, as manifests list them."""
    state = xxhash.xxh3_128()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            state.update(block)
    return state.hexdigest()


def weights_key(state: Mapping[str, torch.Tensor]) -> str:
    """Digest of a state dict: names, types, shapes and bytes."""
    import torch

    parts: list[str | bytes] = []
    for name in sorted(state):
        value = state[name].detach().cpu().contiguous()
        flat = value.reshape(-1).view(torch.uint8).numpy()
        parts += [name, f"{value.dtype} {tuple(value.shape)}", xxhash.xxh3_128_digest(flat.data)]
    return digest(*parts)


def tokenizer_key(tokenizer: Any) -> str:
    """Digest of the files a transformers tokenizer saves itself as, wherever it came from."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        files = sorted(path for path in Path(folder).rglob("*") if path.is_file())
        return digest(*(part for path in files for part in (path.name, path.read_bytes())))


def code_key(*modules: str, libraries: tuple[str, ...] = ()) -> str:
    """Digest of the modules' syntax trees, of those of our own they import, and of installed libraries' versions.

    Comments and docstrings do not count. Raises ModuleNotFoundError for a module without source.
    """
    found: dict[str, str] = {}
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        parsed = _parsed(name)
        if parsed is None:
            if name in modules:
                raise ModuleNotFoundError(f"no source for module {name!r}")
            continue  # not a module: a name imported from one
        found[name] = parsed[0]
        waiting += parsed[1]
    versions = [f"{name}=={importlib.metadata.version(name)}" for name in sorted(libraries)]
    return digest(*(part for name in sorted(found) for part in (name, found[name])), *versions)


@functools.cache
def _parsed(module: str) -> tuple[str, frozenset[str]] | None:
    """(digest of a module's tree, names of ours that it imports), None where there is no such module."""
    path = _source(module)
    if path is None:
        return None
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imported: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            imported.add(node.module)
            imported.update(f"{node.module}.{alias.name}" for alias in node.names)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            prose = [item for item in node.body if isinstance(item, ast.Expr) and isinstance(item.value, ast.Constant)]
            node.body = [item for item in node.body if item not in prose]
    ours = frozenset(name for name in imported if name.split(".")[0] in OWN_PACKAGES)
    return digest(ast.dump(tree)), ours


def _source(module: str) -> Path | None:
    """A module's file, found without importing it."""
    top, *inner = module.split(".")
    spec = importlib.util.find_spec(top)
    if spec is None or not spec.submodule_search_locations:
        return None
    for folder in spec.submodule_search_locations:
        place = Path(folder, *inner)
        for file in (place / "__init__.py", place.with_name(f"{place.name}.py")):
            if file.is_file():
                return file
    return None
