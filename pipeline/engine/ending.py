"""How a build ends when it is told to: SIGTERM like Ctrl-C, in one line, Ray shut down and what is finished kept."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator


class Terminated(BaseException):
    """SIGTERM came; no `except Exception` may hold it up."""


def catch_sigterm() -> None:
    """From here on SIGTERM raises Terminated in the main thread."""
    signal.signal(signal.SIGTERM, _terminate)


def _terminate(*_: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough: what follows is the way out
    raise Terminated


@contextlib.contextmanager
def own_sigterm() -> Iterator[None]:
    """Around what sets handlers of its own, as ray.init does: the caller's are back after it.

    Ray's handlers leave by SystemExit with a number of theirs; that is Terminated too.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    except SystemExit:
        raise Terminated from None
    finally:
        signal.signal(signal.SIGTERM, handler)
