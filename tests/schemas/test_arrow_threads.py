"""The end of a process that used Arrow: threads that are at work are let finish, and none is waited for in vain."""

from __future__ import annotations

import subprocess
import sys
import time

from schemas import arrow_threads
from schemas.arrow_threads import let_threads_finish, running_threads

# Compiled code that holds no interpreter, and comes back for it: as a thread of Arrow's pools that drops a buffer.
WORKING = """
import hashlib, threading
from schemas import contract
began = threading.Event()
def work():
    began.set()
    hashlib.pbkdf2_hmac("sha256", b"x", b"y", 300_000)
    print("finished", flush=True)
threading.Thread(target=work, daemon=True).start()
began.wait()
"""
WAITING = """
import threading, time
from schemas import contract
threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
"""


def test_a_thread_at_work_is_let_finish() -> None:
    done = subprocess.run([sys.executable, "-c", WORKING], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "finished\n", "")


def test_a_thread_that_waits_is_not_waited_for() -> None:
    began = time.monotonic()
    assert subprocess.run([sys.executable, "-c", WAITING], timeout=60).returncode == 0
    assert time.monotonic() - began < 30


def test_a_thread_that_never_rests_holds_nobody_up_for_long(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(arrow_threads, "MOST_SECONDS", 0.2)
    monkeypatch.setattr(arrow_threads, "running_threads", lambda: 1)
    began = time.monotonic()
    let_threads_finish()
    assert 0.2 <= time.monotonic() - began < 10


def test_the_own_thread_is_not_counted() -> None:
    assert min(running_threads() for _ in range(20)) == 0
