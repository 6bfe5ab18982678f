"""However a process that uses the kernels ends, it ends with its own exit code."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

# The libraries are loaded once; each process is forked before any thread has started, and from there on starts threads,
# computes and ends by itself. Four at once, on however few cores; the first alone, for it may have to compile the
# kernel, and last of all the one that has loaded them.
FORKS = """
import os, sys
import torch, numba
from alignment import lanes, soft_dtw, threads
folder, times = sys.argv[1], int(sys.argv[2])
at_work, codes = set(), {}
def wait():
    child, status = os.wait()
    at_work.remove(child)
    codes[child] = os.waitstatus_to_exitcode(status)
for number in range(times - 1):
    if number == 1 or len(at_work) == 4:
        wait()
    if not (child := os.fork()):
        for stream in (1, 2):
            os.dup2(os.open(f"{folder}/{number}.{stream}", os.O_WRONLY | os.O_CREAT), stream)
        break
    at_work.add(child)
else:
    while at_work:
        wait()
    print(sorted(codes.values()))
"""
START = """
import threading
torch.set_num_threads(2)
cost = torch.rand((400, 40, 40))
print(bool(torch.isfinite(soft_dtw(cost, 0.1)).all()))
"""
# Of a host program's: they run a compiled kernel until the interpreter ends.
DAEMONS = """
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


@pytest.mark.slow
@pytest.mark.parametrize(("code", "times"), [("", 10), (DAEMONS, 10), (LATE, 4)], ids=["plain", "daemons", "late"])
def test_processes_end_well_under_load(code: str, times: int, tmp_path: Path) -> None:
    words = [sys.executable, "-W", "error", "-c", FORKS + START + code, str(tmp_path), str(times)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    codes = [0] * (times - 1)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, f"{codes}\nTrue", "")
    said = [tuple((tmp_path / f"{number}.{stream}").read_text() for stream in (1, 2)) for number in range(times - 1)]
    assert said == [("True\n", "")] * (times - 1)
