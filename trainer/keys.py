"""Keys of what the trainer caches: hashes of the weights, the tokenizer and the code that shaped it."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xxhash

from schemas import keys
from schemas.keys import digest, library_versions

if TYPE_CHECKING:
    import torch

# Packages whose modules are followed; what else is imported counts by its installed version.
OWN_PACKAGES = frozenset({"pictures", "schemas", "trainer"})


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
    """Digest of the modules' code, of that of our own they import, and of installed libraries' versions.

    Raises ModuleNotFoundError for a module without source.
    """
    versions = [f"{name}=={version}" for name, version in library_versions(libraries).items()]
    return digest(keys.code_key(modules, OWN_PACKAGES), *versions)
