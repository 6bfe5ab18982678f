"""What a test session must not leave: threads in its own process, processes below it, files in the checkout."""

from __future__ import annotations

import gc
import os
import subprocess
import threading
import time
from pathlib import Path

import psutil

from pipeline.engine.ending import LIBRARY_THREADS
from pipeline.engine.resident import RESIDENT

# Seconds that what is already ending may take.
GRACE = 10.0
# Caches of tools, which belong where they are.
CACHES = {".cache", ".venv", "__pycache__"}


def threads(grace: float = GRACE) -> list[str]:
    """Daemon threads: the interpreter waits for all others, but ends these by force wherever they stand.

    Where it stands in a compiled kernel or in a library's C++, that is a crash after the last test has passed.
    """
    gc.collect()
    until = time.monotonic() + grace
    while True:
        # Of pytest-xdist, in its workers: it ends them itself.
        alive = [each for each in threading.enumerate() if not _expected(each)]
        if not alive or time.monotonic() > until:
            return [f"thread {each.name!r} of {getattr(each, '_target', None)}" for each in alive]
        time.sleep(0.05)


def _expected(thread: threading.Thread) -> bool:
    target = getattr(thread, "_target", None)
    module = str(getattr(target, "__module__", ""))
    # Executors' threads are joined by Python itself, whoever started them.
    known = thread.name in LIBRARY_THREADS or "execnet" in module or module == "concurrent.futures.thread"
    return not thread.daemon or known


def processes(grace: float = GRACE) -> list[str]:
    """Processes below this one that still run; pytest-xdist's own have ended by then."""
    RESIDENT.stop()  # the one process that ends when this one does
    children = psutil.Process().children(recursive=True)
    _, alive = psutil.wait_procs(children, timeout=grace)
    found = []
    for each in alive:
        try:
            command = " ".join(each.cmdline())
            # Python's own, of this very process, and ends with it.
            tracker = each.ppid() == os.getpid() and "multiprocessing.resource_tracker" in command
            if not tracker and each.status() != psutil.STATUS_ZOMBIE:
                found.append(f"process {each.pid}: {command[:120]}")
        except psutil.NoSuchProcess:
            continue
    return found


def in_checkout(root: Path) -> set[str] | None:
    """Files and folders that git does not track, ignored ones too; None where there is no git."""
    # The environment alone has tens of thousands of files, which take seconds to list.
    without = [f":(exclude){name}" for name in sorted(CACHES)]
    status = ["status", "--porcelain", "--ignored", "--untracked-files=all"]
    command = ["git", "-C", str(root), *status, "--", ".", *without]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    paths = {line[3:].strip('"') for line in done.stdout.splitlines() if line.startswith(("??", "!!"))}
    return {f"file {path}" for path in paths if not CACHES & set(Path(path).parts)}
