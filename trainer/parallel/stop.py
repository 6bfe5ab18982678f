"""Stopping a run: SIGTERM, or a mistake that one rank finds, ends the work of every rank at the same place."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from trainer.errors import TOLD, Terminated
from trainer.parallel.ranks import Ranks

T = TypeVar("T")

_AGAIN = "SIGTERM: run the same command to go on"


class Stop:
    """Remembers SIGTERM while a run lasts; elsewhere than in the main thread (a Ray worker) it only looks on.

    A rank that left on its own would leave the others waiting in a collective, so whoever works in a loop asks
    `agree` once a turn, each rank as often as every other. Long work without a collective in it and with nothing to
    keep (loading a model) is done by `together`, which SIGTERM ends at once.
    """

    def __init__(self, ranks: Ranks) -> None:
        self.received = False
        self._ranks = ranks
        self._at_once = False
        self._before: Any = None

    def __enter__(self) -> Stop:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._receive)
        return self

    def _receive(self, number: int, frame: Any) -> None:
        self.received = True
        if self._at_once:
            self._at_once = False
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

    def together(self, work: Callable[[], T]) -> T:
        """What `work` gives here; raises on every rank what it raised of trainer.errors.TOLD on one, or Terminated.

        `work` must not wait for another rank.
        """
        problem: BaseException | None = None
        result: Any = None
        try:
            self._at_once = True
            if not self.received:
                result = work()
        except TOLD as error:
            problem = error
        finally:
            self._at_once = False
        self.agree(problem)
        done: T = result
        return done

    def agree(self, error: BaseException | None = None) -> None:
        """Raise the same on every rank: the first rank's error that has one, else Terminated after SIGTERM to any."""
        if error is None and self.received:
            error = Terminated(_AGAIN)
        if not self._ranks.any(error is not None):
            return
        found = [item for item in self._ranks.gather(error) if item is not None]
        found.sort(key=lambda item: isinstance(item, Terminated))
        raise found[0]
