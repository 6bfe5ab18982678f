"""Generations: how often a snapshot's failed fetches have been tried again on request."""

from __future__ import annotations

import json

from pipeline.damage import Damaged
from pipeline.engine.storage import Storage
from schemas.keys import digest


class Generation:
    """A small counter beside the row stores; it enters the keys of fetching phases."""

    def __init__(self, storage: Storage, snapshot: str) -> None:
        self._storage = storage
        self._name = f"rows/generations/{digest(snapshot)}.json"

    def current(self) -> int:
        """0 until somebody asks for failed fetches to be tried again; Damaged when the file holds no number."""
        try:
            return int(json.loads(self._storage.read(self._name))["generation"])
        except FileNotFoundError:
            return 0
        except (ValueError, KeyError, TypeError):
            raise Damaged(
                f"{self._storage.path(self._name)} holds no generation: delete it to count from 0 again"
            ) from None

    def advance(self) -> int:
        """From here on, failures of earlier generations that may pass are fetched again."""
        following = self.current() + 1
        self._storage.write(self._name, json.dumps({"generation": following}).encode())
        return following
