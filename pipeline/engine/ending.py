"""How a command ends: SIGTERM like Ctrl-C, in one line, Ray shut down and what is finished kept; no thread left behind.

An interpreter that ends kills daemon threads wherever they stand, and in a library's compiled code that is a crash of
the whole process after its work is done.
"""

from __future__ import annotations

import atexit
import contextlib
import signal
import sys
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


# Names of the daemon threads that `end_library_threads` ends: tqdm's monitor, fsspec's event loop.
LIBRARY_THREADS = ("tqdm_monitor", "fsspecIO")


@atexit.register
def end_library_threads() -> None:
    """End the daemon threads that libraries start and never end, once no code of ours runs any more."""
    monitor = getattr(getattr(sys.modules.get("tqdm.std"), "tqdm", None), "monitor", None)
    if monitor is not None:
        monitor.exit()
    asyn = sys.modules.get("fsspec.asyn")
    if asyn is not None and asyn.loop[0] is not None and asyn.iothread[0] is not None:
        asyn.loop[0].call_soon_threadsafe(asyn.loop[0].stop)
        asyn.iothread[0].join()
