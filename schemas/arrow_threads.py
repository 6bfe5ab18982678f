"""The end of a process that used Arrow: its pool threads are let finish first.

A thread of Arrow's pools may hold the last reference to bytes of Python's (a file read into memory, a numpy array)
after the call that it worked for has returned. Where it lets go of them while the interpreter is taken down, Python
ends the thread by force inside a C++ destructor, and that ends the process: by SIGABRT ("terminate called without an
active exception"), or by a jump into memory that a compiler of kernels has freed.
"""

from __future__ import annotations

import os
import threading
import time

# How long a process waits at most, and how often it looks; threads that were seen idle so many times in a row are done.
# Between two looks one that waits for the interpreter has to get it, also where others keep the processors busy.
MOST_SECONDS = 5.0
LOOK_SECONDS = 0.01
CALM_LOOKS = 3


def running_threads() -> int:
    """How many threads of this process, but for the caller's, are at work or about to be; 0 where nothing tells."""
    own = str(threading.get_native_id())
    found = 0
    try:
        others = [each for each in os.listdir("/proc/self/task") if each != own]
    except OSError:
        return 0
    for thread in others:
        try:
            with open(f"/proc/self/task/{thread}/stat", "rb") as file:
                found += file.read().rpartition(b")")[2].split()[0] == b"R"
        except OSError:  # it has ended meanwhile
            continue
    return found


def let_threads_finish() -> None:
    """Wait, without holding the interpreter, until no other thread is at work."""
    until = time.monotonic() + MOST_SECONDS
    calm = 0
    while calm < CALM_LOOKS and time.monotonic() < until:
        time.sleep(LOOK_SECONDS)
        calm = 0 if running_threads() else calm + 1
