"""A cache in numbered parts: built by all ranks between them, and gone on with after a kill."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from trainer.errors import TOLD
from trainer.training.disk import room_for


class Peers(Protocol):
    """The ranks that build together (trainer.parallel.stop.Stop)."""

    @property
    def rank(self) -> int:
        """This rank's number."""

    @property
    def world(self) -> int:
        """How many ranks there are."""

    def most(self, count: int) -> int:
        """The largest count of any rank."""

    def agree(self, error: BaseException | None = None) -> None:
        """Raise the same on every rank when one has an error or is told to stop."""


def build_parts(count: int, ready: Callable[[int], bool], build: Callable[[int], None], peers: Peers) -> None:
    """`build` every part of 0 .. count - 1 that is not `ready`, each on one rank; all are there on return.

    The ranks meet after every part, so none waits longer for another than a part takes. Raises on every rank what
    `build` raises of trainer.errors.TOLD on one, and Terminated when one was told to stop.
    """
    missing = [number for number in range(peers.rank, count, peers.world) if not ready(number)]
    for turn in range(peers.most(len(missing))):
        problem: BaseException | None = None
        if turn < len(missing):
            try:
                build(missing[turn])
            except TOLD as error:
                problem = error
        peers.agree(problem)


def write_part(path: Path, content: bytes) -> None:
    """A part's bytes, complete or not there; NoSpace names it."""
    with room_for(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}")
        temporary.write_bytes(content)
        temporary.replace(path)
