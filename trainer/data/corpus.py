"""Where a corpus's shards are, and that they are the ones its manifest lists."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import xxhash

from schemas.keys import digest, file_digest
from schemas.manifest import ListedFile, VersionManifest
from schemas.shard import FILE_PATTERNS, shard_order
from schemas.shard_check import Widths
from schemas.shard_file import NotAShard, ShardFile, same_widths
from trainer.data.cache_parts import Peers, build_parts, write_part
from trainer.data.shards import ShardCorpus
from trainer.errors import UserError
from trainer.keys import code_key

MANIFEST = "manifest.json"


def open_corpus(location: str, cache: Path | None = None) -> ShardCorpus:
    """The newest version of the corpus at `location`: the shards its manifest lists, their sizes checked.

    `location` is OUT of the build (OUT/latest names OUT/versions/<version>) or one version's folder. The one case
    without a manifest: a folder that itself holds train-*.arrow and held_out-*.arrow (or part-*.arrow, of version 1),
    all of which are read and hashed (`cache` remembers the hashes). Raises UserError when there is nothing to read, or
    not what the manifest says.
    """
    if not location:
        raise UserError("no corpus: name its folder with --corpus OUT or the recipe's field corpus")
    root = Path(location)
    if not root.is_dir():
        raise UserError(f"corpus {location!r} is not a folder; build one with python -m pipeline.build")
    if (root / "latest").is_file():
        root = root / "versions" / _read_latest(root / "latest")
    elif root.name == "shards" and (root.parent / MANIFEST).is_file():
        root = root.parent
    found = (path for pattern in FILE_PATTERNS for path in root.glob(pattern))
    bare = sorted(found, key=lambda path: shard_order(path.name))
    if (root / MANIFEST).is_file():
        shards, hashes = _listed(root)
        listed: tuple[str, ...] | None = hashes
    elif bare:
        shards, hashes, listed = bare, tuple(_remembered(path, cache) for path in bare), None
    elif (root / "shards").exists() or root != Path(location):
        raise UserError(f"corpus {location!r}: {root} has no {MANIFEST}, so its build did not finish; build it again")
    else:
        names = f"latest, {MANIFEST}, {', '.join(FILE_PATTERNS[:-1])} nor {FILE_PATTERNS[-1]}"
        raise UserError(f"corpus {location!r} has no shards: neither {names} is there")
    content = xxhash.xxh3_128()
    for path, hash_of_bytes in zip(shards, hashes, strict=True):
        content.update(f"{path.name}\0{hash_of_bytes}\n".encode())
    corpus = ShardCorpus(root, root.name, shards, content.hexdigest(), listed)
    if not len(corpus):
        raise UserError(f"corpus {location!r} holds no document")
    return corpus


def check_shards(corpus: ShardCorpus, cache: Path, peers: Peers) -> None:
    """Look at every byte once, before any row is used: the hash that the manifest lists, if there is one, and that the
    rows are what the schema says (schemas.shard_check).

    The ranks share the work, and `cache` remembers it by content. Raises UserError naming the first shard that differs
    or is none, and as build_parts.
    """
    listed = corpus.listed
    passed = cache / "checked" / code_key("schemas.shard_file", libraries=("pyarrow",))

    def mark(path: Path, found: str) -> Path:
        # By name too, so that no two ranks ever write one mark.
        return passed / digest(path.name, found)

    def ready(number: int) -> bool:
        found = _recall(corpus.shards[number], cache)
        right = bool(found) and (listed is None or found == listed[number])
        return right and mark(corpus.shards[number], found).is_file()

    def check(number: int) -> None:
        path = corpus.shards[number]
        found = _remembered(path, cache)
        if listed is not None and found != listed[number]:
            raise UserError(f"{path}: its bytes are not those that {corpus.folder / MANIFEST} lists; build it again")
        if not mark(path, found).is_file():
            try:
                with pa.memory_map(str(path)) as source:
                    widths = ShardFile(source).check()
            except NotAShard as error:
                raise UserError(f"{path} is not a shard: {error}") from None
            write_part(mark(path, found), json.dumps(widths).encode())

    build_parts(len(corpus.shards), ready, check, peers)
    seen: Widths = {}
    for path in corpus.shards:
        try:
            seen = same_widths(seen, json.loads(mark(path, _remembered(path, cache)).read_bytes()))
        except NotAShard as error:
            raise UserError(f"{path} does not belong to the shards before it: {error}") from None


def _read_latest(path: Path) -> str:
    text = path.read_text(encoding="utf-8").strip()
    if not text or "/" in text:
        raise UserError(f"{path} does not name a version: {text!r}")
    return text


def _listed(root: Path) -> tuple[list[Path], tuple[str, ...]]:
    """(paths, hashes) of the shards a version's manifest lists, in their order; each file is there with its size."""
    manifest = root / MANIFEST
    try:
        parts = VersionManifest.from_json(manifest.read_bytes()).shards
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{manifest} is not the manifest of a corpus version: {error}") from None
    if not parts:
        raise UserError(f"{manifest} lists no shard")
    parts = tuple(sorted(parts, key=lambda part: shard_order(part.name)))
    for part in parts:
        _check_size(root, part)
    return [root / part.name for part in parts], tuple(part.hash for part in parts)


def _check_size(root: Path, part: ListedFile) -> None:
    if Path(part.name).is_absolute() or ".." in Path(part.name).parts:
        raise UserError(f"{root / MANIFEST} lists {part.name!r}, which is outside its folder")
    path = root / part.name
    if not path.is_file():
        raise UserError(f"{path} is missing, though {root / MANIFEST} lists it; copy it again or build it again")
    size = path.stat().st_size
    if size != part.bytes:
        raise UserError(
            f"{path} has {size} bytes where {root / MANIFEST} lists {part.bytes}; copy it or build it again"
        )


def _remembered(path: Path, cache: Path | None) -> str:
    """xxh3-128 hex of a file's bytes, read again only when its size or time of change differ."""
    found = _recall(path, cache)
    if not found:
        found = file_digest(path)
        if cache is not None:
            memory = _memory(path, cache)
            memory.parent.mkdir(parents=True, exist_ok=True)
            memory.write_text(found, encoding="utf-8")
    return found


def _recall(path: Path, cache: Path | None) -> str:
    """The hash as it was remembered, "" when it was not, or only in part."""
    if cache is None or not (memory := _memory(path, cache)).is_file():
        return ""
    found = memory.read_text(encoding="utf-8")
    return found if len(found) == 32 else ""


def _memory(path: Path, cache: Path) -> Path:
    found = path.stat()
    return cache / "hashes" / digest(str(path.absolute()), str(found.st_size), str(found.st_mtime_ns))
