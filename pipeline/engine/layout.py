"""Where things lie under a corpus root: what writers and readers of a corpus both go by."""

from __future__ import annotations

LATEST = "latest"
# Records of builds, and a folder for what is said of one that made no version.
BUILDS = "builds"
# Relative to a version's folder.
REPORT = "report/index.html"


def version_folder(version: str) -> str:
    """Where a version lies, from the corpus root."""
    return f"versions/{version}"


def version_of(shards_key: str) -> str:
    """A version is named by the key of the phase that wrote its shards."""
    return shards_key[:12]
