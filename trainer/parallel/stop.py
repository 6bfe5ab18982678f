"""Stopping a run: SIGTERM, or a mistake that one rank finds, ends the work of every rank at the same place."""

from __future__ import annotations

import signal
import threading
from typing import Any

from trainer.errors import Terminated
from trainer.parallel.ranks import Ranks

_AGAIN = "SIGTERM: run the same command to go on"


class Stop:
    """Remembers SIGTERM while a run lasts; elsewhere than in the main thread (a Ray worker) it only looks on.

    A rank that left on its own would leave the others waiting in a collective, so whoever works in a loop asks
    `agree` once a turn, each rank as often as every other. Before the first `agree` there is nothing to keep, and
    what runs may be long (loading a model): SIGTERM then raises Terminated at once.
    """

    def __init__(self, ranks: Ranks) -> None:
        self.received = False
        self._ranks = ranks
        self._agreed = False
        self._before: Any = None

    def __enter__(self) -> Stop:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._receive)
        return self

    def _receive(self, number: int, frame: Any) -> None:
        self.received = True
        if not self._agreed:
            raise Terminated(_AGAIN)

    def __exit__(self, *error: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)

    @property
    def rank(self) -> int:
        """This rank's number."""
        return self._ranks.rank

    @property
    def world(self) -> int:
        """How many ranks there are."""
        return self._ranks.world

    def most(self, count: int) -> int:
        """The largest count of any rank."""
        return max(self._ranks.gather(count))

    def agree(self, error: Exception | None = None) -> None:
        """Raise the same on every rank: the first rank's error that has one, else Terminated after SIGTERM to any."""
        self._agreed = True
        if error is None and self.received:
            error = Terminated(_AGAIN)
        if not self._ranks.any(error is not None):
            return
        found = [item for item in self._ranks.gather(error) if item is not None]
        found.sort(key=lambda item: isinstance(item, Terminated))
        raise found[0]
