"""SIGTERM and Ctrl-C where no run listens for them: one line and 143 or 130, whatever is being loaded.

Commands call `listen` before they import anything that takes time. A run keeps its steps first (trainer.parallel.stop).
"""

from __future__ import annotations

import os
import signal
from types import FrameType

_SAID = {
    signal.SIGTERM: "SIGTERM: run the same command to go on\n",
    signal.SIGINT: "interrupted; run the same command to go on\n",
}


def listen() -> None:
    """Let both signals end this process with one line; the second of a kind ends it at once."""
    for number in _SAID:
        signal.signal(number, _leave)


def _leave(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_DFL)
    # The main thread may be in the middle of a print, which must not be entered twice.
    os.write(2, _SAID[signal.Signals(number)].encode())
    raise SystemExit(128 + number)
