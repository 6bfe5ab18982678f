"""Builds that are killed: where they stand, what runs under them, and whether anything stays behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import psutil

from tests.end_to_end.builds import ROOT, environment

# The node's own daemons also call themselves ray::; when one of them dies, Ray ends the node. When the node dies they
# try for a minute, fixed in Ray, to tell it so before they end.
_DAEMONS = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")


@contextlib.contextmanager
def started(log: Path, *arguments: str, **env: str) -> Iterator[psutil.Popen]:
    """`python -m` with these arguments in a session of its own, its words in `log`; nothing outlives the block."""
    with open(log, "ab") as file:
        process = psutil.Popen(
            [sys.executable, "-m", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            cwd=ROOT,
            env=environment(**env),
            start_new_session=True,
            # Where tests run in the background of a shell, Ctrl-C is ignored, and children inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
    try:
        yield process
    finally:
        family = [process, *descendants(process)]
        for member in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()
        process.wait()
        psutil.wait_procs(family, timeout=60)


def descendants(process: psutil.Process) -> list[psutil.Process]:
    """All processes below one, [] when it is gone."""
    try:
        found: list[psutil.Process] = process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    return found


class Named(NamedTuple):
    """A process under its name; Ray's are called after what they do: ray::MapBatches(emit), ray::Tally."""

    name: str
    pid: int
    process: psutil.Process


def named(family: list[psutil.Process]) -> list[Named]:
    """The living of a family, by name."""
    found = []
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            found.append(Named((process.cmdline() or [""])[0], process.pid, process))
    return sorted(found, key=lambda each: each[:2])


def workers(driver: psutil.Process) -> list[Named]:
    """Ray's worker processes below a driver that have been given something to do, by name."""
    others = (*_DAEMONS, "ray::IDLE")
    return [
        each
        for each in named(descendants(driver))
        if each.name.startswith("ray::") and not each.name.startswith(others)
    ]


def daemons(family: list[psutil.Process]) -> list[psutil.Process]:
    """Those of a family that are the node's agents."""
    return [each.process for each in named(family) if each.name.startswith(_DAEMONS)]


def left_over(family: list[psutil.Process], seconds: float) -> list[str]:
    """What of a family still runs after so many seconds at most; zombies do not count."""
    until = time.monotonic() + seconds
    while True:
        alive = []
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                    alive.append(f"{process.pid} {' '.join(process.cmdline())[:80]}")
        if not alive or time.monotonic() > until:
            return alive
        time.sleep(0.1)


def wait_for_files(folder: Path, count: int, process: psutil.Popen, seconds: float = 500) -> bool:
    """True once so many files lie under the folder, False when the process ends before."""
    until = time.monotonic() + seconds
    while count_files(folder) < count:
        if process.poll() is not None:
            return False
        assert time.monotonic() < until, "the build makes no progress"
        time.sleep(0.02)
    return True


def count_files(folder: Path) -> int:
    """Files under a folder that may change meanwhile."""
    return sum(len(names) for _, _, names in os.walk(folder))
