"""Where weights come from: a local path, the hub's cache, or the hub; and the hash that names them.

Only `hub_file` and `hub_folder` use the network, through huggingface_hub and its environment (HF_HOME, HF_ENDPOINT,
HF_TOKEN, HF_HUB_OFFLINE). Each failure becomes one line.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import xxhash

from stages.encoders.protocol import WeightsMissing

CHUNK = 1 << 22
# Seconds that the hub has to answer when it is asked whether it holds a file.
HUB_TIMEOUT = 5.0
# What an encoder's folder needs; the same weights in other formats (ONNX, TensorFlow) stay on the hub.
FOLDER_PATTERNS = ("*.json", "*.txt", "*.model", "*.safetensors")
FALLBACK_PATTERNS = ("pytorch_model*.bin",)


def looks_local(name: str) -> bool:
    """True for what can only be meant as a path, and for any path that is there."""
    return name.startswith(("/", "./", "../", "~")) or Path(name).exists()


def local_path(name: str, spec: str) -> Path:
    """The path; WeightsMissing when nothing is there."""
    path = Path(name).expanduser()
    if not path.exists():
        raise WeightsMissing(f"{spec}: there is no {path}")
    return path


def hub_file(repository: str, file: str, spec: str) -> Path:
    """The file out of the hub's cache, else downloaded; WeightsMissing when it cannot be had."""
    import huggingface_hub

    try:
        return Path(huggingface_hub.hf_hub_download(repository, file, etag_timeout=HUB_TIMEOUT))
    except Exception as error:
        raise missing(spec, repository, error) from None


def hub_folder(repository: str, spec: str) -> Path:
    """The repository's folder out of the hub's cache, else downloaded; WeightsMissing when it cannot be had."""
    import huggingface_hub

    patterns: Sequence[str] = FOLDER_PATTERNS
    try:
        folder = Path(huggingface_hub.snapshot_download(repository, allow_patterns=list(patterns)))
        if not any(folder.glob("*.safetensors")):
            patterns = FOLDER_PATTERNS + FALLBACK_PATTERNS
            folder = Path(huggingface_hub.snapshot_download(repository, allow_patterns=list(patterns)))
    except Exception as error:
        raise missing(spec, repository, error) from None
    return folder


def is_cached(repository: str, *files: str) -> bool:
    """Whether the hub's cache on this machine holds one of the files; asks nobody."""
    import huggingface_hub

    return any(isinstance(huggingface_hub.try_to_load_from_cache(repository, file), str) for file in files)


def check_hub(repository: str, file: str, spec: str) -> None:
    """WeightsMissing unless the file is cached or the hub, asked once, has it."""
    import huggingface_hub

    if is_cached(repository, file):
        return
    try:
        if huggingface_hub.constants.HF_HUB_OFFLINE:
            raise ConnectionError("HF_HUB_OFFLINE is set")
        address = huggingface_hub.hf_hub_url(repository, file)
        huggingface_hub.get_hf_file_metadata(address, timeout=HUB_TIMEOUT, retry_on_errors=False)
    except Exception as error:
        raise missing(spec, repository, error) from None


def missing(spec: str, repository: str, error: Exception) -> WeightsMissing:
    """The one line for whatever went wrong with the hub."""
    said = " ".join(str(error).split())[:160] or type(error).__name__
    return WeightsMissing(
        f"{spec}: {repository} is not in the hub's cache and cannot be downloaded ({type(error).__name__}: {said}); "
        f"run `hf download {repository}` where there is a network, or name a local path"
    )


def files_of(path: Path) -> tuple[Path, ...]:
    """The file itself, or the files of a folder that an encoder reads, sorted."""
    if path.is_file():
        return (path,)
    patterns: Iterable[str] = (*FOLDER_PATTERNS, *FALLBACK_PATTERNS, "*/config.json")
    return tuple(sorted({file for pattern in patterns for file in path.glob(pattern) if file.is_file()}))


def hash_files(path: Path) -> str:
    """xxh3-128 hex over names and contents of `files_of(path)`; read once a process for each state of the files."""
    stats = [(file, file.stat()) for file in files_of(path)]
    return hash_state(path, tuple((str(file), stat.st_size, stat.st_mtime_ns) for file, stat in stats))


@functools.cache
def hash_state(path: Path, state: tuple[tuple[str, int, int], ...]) -> str:
    """The hash for one state (name, size, time of change) of the files."""
    digest = xxhash.xxh3_128()
    base = path if path.is_dir() else path.parent
    for name, size, _ in state:
        digest.update(f"{Path(name).relative_to(base)}\0{size}\0".encode())
        with open(name, "rb") as file:
            while chunk := file.read(CHUNK):
                digest.update(chunk)
    return str(digest.hexdigest())


def hash_of(*parts: Any) -> str:
    """xxh3-128 hex over the parts' text, in order."""
    return xxhash.xxh3_128_hexdigest("\0".join(str(part) for part in parts).encode())
