"""Threads for kernels that release the GIL.

numba's own parallel loops are not used: its default threading layer must not be entered from two
Python threads at once and does not survive a fork. A block of pairs is computed by the same
instructions whichever thread takes it, so results do not depend on the number of threads.
"""

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

# Below this many cells a thread (about a tenth of a millisecond of work) waking another one costs more.
CELLS_PER_THREAD = 60_000
# More shares than threads, so that threads that are slowed down take fewer.
SHARES_PER_THREAD = 4
# Scratch memory is kept between calls up to this many bytes a thread.
KEEP_BYTES = 32 * 2**20

_lock = threading.Lock()
_pool: ThreadPoolExecutor | None = None
_pool_size = 0
_local = threading.local()


def _forget_pool() -> None:
    """A forked child has no threads: start again with an empty pool and a free lock."""
    global _pool, _pool_size, _lock
    _pool, _pool_size, _lock = None, 0, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)


def _pool_of(size: int) -> ThreadPoolExecutor:
    global _pool, _pool_size
    with _lock:
        if _pool is None or _pool_size < size:
            # A smaller pool that others still use finishes its work and is then collected.
            _pool = ThreadPoolExecutor(size, thread_name_prefix="alignment")
            _pool_size = size
        return _pool


def share(task: Callable[[int, int], None], blocks: int, cells: int) -> None:
    """Run task(first, step), for some step and all first below it: blocks first, first + step, ... each.

    Uses at most torch.get_num_threads() threads, the calling one included. Threads take the next share
    when they are done with one, and the caller does not wait for a thread that has not started: on a
    busy machine it does the work itself.
    """
    workers = max(1, min(torch.get_num_threads(), blocks, cells // CELLS_PER_THREAD))
    if workers == 1:
        task(0, 1)
        return
    shares = min(blocks, SHARES_PER_THREAD * workers, max(workers, cells // CELLS_PER_THREAD))
    remaining = iter(range(shares))

    def work() -> None:
        # next() on a range iterator is one step of the interpreter: no two threads get one number.
        for number in remaining:
            task(number, shares)

    pool = _pool_of(workers - 1)
    others = [pool.submit(work) for _ in range(workers - 1)]
    try:
        work()
    finally:
        for other in others:
            if not other.cancel():
                other.result()


def scratch(name: str, elements: int, dtype: torch.dtype) -> Any:
    """An uninitialised numpy array of this thread, aligned to 64 bytes, valid until the next call."""
    kept: dict[tuple[str, torch.dtype], Any] = _local.__dict__.setdefault("kept", {})
    buffer = kept.get((name, dtype))
    if buffer is None or buffer.size < elements:
        buffer = torch.empty(elements, dtype=dtype).numpy()
        if buffer.nbytes <= KEEP_BYTES:
            kept[name, dtype] = buffer
    return buffer
