"""Generations: how often a snapshot's failures that may pass have been tried again on request.

Counters rise together: what was computed for one snapshot serves another, and the failures of any are older than a
request made after them.
"""

from __future__ import annotations

import json

from pipeline.engine.damage import Damaged
from pipeline.engine.storage import Storage
from schemas.keys import digest

_FOLDER = "rows/generations"


class Generation:
    """A small counter beside the row stores; it enters the keys of fetching phases, and so of all that follow."""

    def __init__(self, storage: Storage, snapshot: str) -> None:
        self._storage = storage
        self._name = f"{_FOLDER}/{digest(snapshot)}.json"

    def current(self) -> int:
        """0 until somebody asks for failures to be tried again; Damaged when the file holds no number."""
        return _count(self._storage, self._name)

    def advance(self) -> int:
        """From here on, failures of earlier generations that may pass are tried again."""
        names = {self._name, *(f"{_FOLDER}/{name}" for name in self._storage.names(_FOLDER))}
        following = 1 + max(_count(self._storage, name) for name in names)
        self._storage.write(self._name, json.dumps({"generation": following}).encode())
        return following


def _count(storage: Storage, name: str) -> int:
    try:
        return int(json.loads(storage.read(name))["generation"])
    except FileNotFoundError:
        return 0
    except (ValueError, KeyError, TypeError):
        raise Damaged(f"{storage.path(name)} holds no generation: delete it to count from 0 again") from None
