"""What ends a run early, by its exit code."""

from __future__ import annotations


class UserError(Exception):
    """A mistake in a recipe, a path or an option; the message says what to do. The command exits 2 with it."""


class CorruptRecordError(Exception):
    """A record that cannot be read; the message names the document and the image."""


class NotFiniteError(Exception):
    """The model answers with NaN or infinity: there is nothing to measure or to go on with. The command exits 1."""


class NoSpace(Exception):
    """A disk or a quota is full; the message names what could not be written. The command exits 1."""


class Terminated(BaseException):
    """SIGTERM came; the steps done are in a checkpoint. The command exits 143.

    Like KeyboardInterrupt it is no Exception: it may come in the middle of a library, which must not pass over it.
    """


# What one rank finds and every rank is told of, so that none waits for another that has left.
TOLD = (UserError, CorruptRecordError, NotFiniteError, NoSpace, OSError, Terminated)
