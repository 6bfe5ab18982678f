"""However a process that uses the kernels ends, it ends with its own exit code."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

START = """
import threading, torch
from alignment import soft_dtw, threads
torch.set_num_threads(2)
cost = torch.rand((400, 40, 40))
print(bool(torch.isfinite(soft_dtw(cost, 0.1)).all()))
"""
# Of a host program's: they run a compiled kernel until the interpreter ends.
DAEMONS = """
import numba
@numba.njit(nogil=True)
def work(first):
    total = 0.0
    for number in range(3_000_000):
        total += (number % 7) * first
    return total
work(1)
started = threading.Barrier(4)
def endless():
    started.wait()
    while True:
        threads.share(lambda first, step: work(first), 4, 10**9)
for _ in range(3):
    threading.Thread(target=endless, daemon=True).start()
started.wait()
"""
# Goes on when the main thread has ended, and with it the pool.
LATE = """
def late():
    threading.main_thread().join()
    soft_dtw(cost, 0.1)
threading.Thread(target=late).start()
"""


def end(code: str) -> tuple[int, str, str]:
    done = subprocess.run([sys.executable, "-c", START + code], capture_output=True, text=True, timeout=300)
    return done.returncode, done.stdout.strip(), done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("code", "times"), [("", 10), (DAEMONS, 10), (LATE, 4)], ids=["plain", "daemons", "late"])
def test_processes_end_well_under_load(code: str, times: int) -> None:
    """Four at once, on however few cores."""
    with ThreadPoolExecutor(4) as pool:
        ends = list(pool.map(end, [code] * times))
    assert ends == [(0, "True", "")] * times
