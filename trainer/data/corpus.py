"""Where a corpus's shards are, and that they are the ones its manifest lists."""

from __future__ import annotations

from pathlib import Path

import xxhash

from schemas.keys import digest, file_digest
from schemas.manifest import Part, VersionManifest
from trainer.data.parts import Peers, build_parts
from trainer.data.shards import Corpus
from trainer.errors import UserError

MANIFEST = "manifest.json"


def open_corpus(location: str, cache: Path | None = None) -> Corpus:
    """The newest version of the corpus at `location`: the shards its manifest lists, their sizes checked.

    `location` is OUT of the build (OUT/latest names OUT/versions/<version>) or one version's folder. The one case
    without a manifest: a folder that itself holds part-*.arrow, all of which are read and hashed (`cache` remembers
    the hashes). Raises UserError when there is nothing to read, or not what the manifest says.
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
    bare = sorted(root.glob("part-*.arrow"))
    if (root / MANIFEST).is_file():
        shards, hashes = _listed(root)
        listed: tuple[str, ...] | None = hashes
    elif bare:
        shards, hashes, listed = bare, tuple(_remembered(path, cache) for path in bare), None
    elif (root / "shards").exists() or root != Path(location):
        raise UserError(f"corpus {location!r}: {root} has no {MANIFEST}, so its build did not finish; build it again")
    else:
        raise UserError(f"corpus {location!r} has no shards: neither latest, {MANIFEST} nor part-*.arrow is there")
    content = xxhash.xxh3_128()
    for path, found in zip(shards, hashes, strict=True):
        content.update(f"{path.name}\0{found}\n".encode())
    corpus = Corpus(root, root.name, shards, content.hexdigest(), listed)
    if not len(corpus):
        raise UserError(f"corpus {location!r} holds no document")
    return corpus


def check_shards(corpus: Corpus, cache: Path, peers: Peers) -> None:
    """Compare the bytes of every shard with the hash its manifest lists, once as long as the file is not touched.

    The ranks share the work. Raises UserError naming the first shard that differs, and as build_parts.
    """
    listed = corpus.listed
    if listed is None:
        return

    def check(number: int) -> None:
        path = corpus.shards[number]
        if _remembered(path, cache) != listed[number]:
            raise UserError(f"{path}: its bytes are not those that {corpus.folder / MANIFEST} lists; build it again")

    def ready(number: int) -> bool:
        return _recall(corpus.shards[number], cache) == listed[number]

    build_parts(len(corpus.shards), ready, check, peers)


def _read_latest(path: Path) -> str:
    text = path.read_text(encoding="utf-8").strip()
    if not text or "/" in text:
        raise UserError(f"{path} does not name a version: {text!r}")
    return text


def _listed(root: Path) -> tuple[list[Path], tuple[str, ...]]:
    """(paths, hashes) of the shards a version's manifest lists, by name; each file is there with its size."""
    manifest = root / MANIFEST
    try:
        parts = VersionManifest.from_json(manifest.read_bytes()).shards
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{manifest} is not the manifest of a corpus version: {error}") from None
    if not parts:
        raise UserError(f"{manifest} lists no shard")
    parts = tuple(sorted(parts, key=lambda part: part.name))
    for part in parts:
        _check_size(root, part)
    return [root / part.name for part in parts], tuple(part.hash for part in parts)


def _check_size(root: Path, part: Part) -> None:
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
