"""Where unpacked assets lie, and how to find one."""

from __future__ import annotations

import os
from pathlib import Path

from assets.catalog import Asset, find


class MissingAsset(FileNotFoundError):
    """The asset was not fetched; the message is one line that names the command."""


def cache_root() -> Path:
    """$INTERLOOM_CACHE, or interloom in $XDG_CACHE_HOME or ~/.cache, and in it `assets`."""
    if root := os.environ.get("INTERLOOM_CACHE"):
        return Path(root) / "assets"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "interloom" / "assets"


def location(asset: Asset) -> Path:
    """Its folder in the cache, whether or not it is there.

    The folder appears by one rename once it is complete, so its being there means that all of it is.
    """
    return cache_root() / asset.folder


def resolve(name: str) -> Path:
    """Folder that holds the asset's files.

    Raises MissingAsset when it was not fetched, UnknownAsset when the catalogue does not know the name.
    """
    asset = find(name)
    folder = location(asset)
    if not folder.is_dir():
        raise MissingAsset(f"{asset.folder} is not in {cache_root()}: run `python -m assets fetch {name}`")
    return folder
