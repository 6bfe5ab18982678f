"""Threads for kernels that release the GIL.

numba's own parallel loops are not used: its default threading layer must not be entered from two
Python threads at once and does not survive a fork. A block of pairs is computed by the same
instructions whichever thread takes it, so results do not depend on the number of threads.

A kernel never runs while the interpreter is taken down: whoever is in one is waited for, and a daemon thread that
asks for one later is parked. Ended by force in compiled code, it would take the process with it.
"""

import atexit
import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
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
# Calls that are in a kernel, and whether the interpreter ends.
_inside = 0
_ending = False
_left = threading.Condition()


def _forget_pool() -> None:
    """A forked child has no threads: start again with an empty pool, free locks and nobody in a kernel."""
    global _pool, _pool_size, _lock, _inside, _left
    _pool, _pool_size, _lock = None, 0, threading.Lock()
    _inside, _left = 0, threading.Condition()


@contextlib.contextmanager
def _in_kernel() -> Iterator[None]:
    """Around a call that runs kernels; a thread that comes or leaves when the interpreter ends does not return."""
    global _inside
    with _left:
        _park()
        _inside += 1
    try:
        yield
    finally:
        with _left:
            _inside -= 1
            _left.notify_all()
            _park()


def _park() -> None:
    """Wait for ever in a daemon thread of an interpreter that ends: on its way back are frames of torch's C++."""
    while _ending and threading.current_thread().daemon:
        _left.wait()


@atexit.register
def _end() -> None:
    """When all threads but daemons have ended: wait for those that are in a kernel."""
    global _ending
    with _left:
        _ending = True
        while _inside:
            _left.wait()


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
    with _in_kernel():
        if workers == 1:
            task(0, 1)
        else:
            _share(task, min(blocks, SHARES_PER_THREAD * workers, max(workers, cells // CELLS_PER_THREAD)), workers)


def _share(task: Callable[[int, int], None], shares: int, workers: int) -> None:
    remaining = iter(range(shares))

    def work() -> None:
        # next() on a range iterator is one step of the interpreter: no two threads get one number.
        for number in remaining:
            task(number, shares)

    others: list[Future[None]] = []
    # A pool takes nothing more once the main thread has ended; a thread that goes on does its work alone.
    with contextlib.suppress(RuntimeError):
        pool = _pool_of(workers - 1)
        others.extend(pool.submit(work) for _ in range(workers - 1))
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
