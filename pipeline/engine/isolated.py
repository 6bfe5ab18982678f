"""The process that pipeline.engine.resident holds: takes batches from standard input and answers on standard output.

Each request is a row function, the seconds a row may take, and rows as an Arrow stream; a crash here is a finding, not
a failure. The clock is the system's: when it runs out, the process ends even inside a library's own code.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
import pickle
import signal
import sys
from pathlib import Path
from typing import Any, BinaryIO

import cloudpickle
import pyarrow as pa

from pipeline.engine.memo import compute
from pipeline.engine.resident import HEADER
from stages.row_function import CannotRun

# A row that waits does no work: its time on the wall is this many times its time on the processor, which does not
# depend on what else the machine does.
WALL_FACTOR = 10.0


def main() -> None:
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print must not reach the answers
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the build, which closes this process's input
    for number in (signal.SIGPROF, signal.SIGALRM):
        signal.signal(number, signal.SIG_DFL)
    with contextlib.suppress(OSError):  # where memory runs out, this is what should go
        Path("/proc/self/oom_score_adj").write_text("1000")
    while (request := _read(sys.stdin.buffer)) is not None:
        answer = pickle.dumps(_answer(*pickle.loads(request)), protocol=5)
        answers.write(HEADER.pack(len(answer)) + answer)
        answers.flush()


def _read(source: BinaryIO) -> bytes | None:
    """The next request; None when there will be none."""
    header = source.read(HEADER.size)
    return source.read(HEADER.unpack(header)[0]) if len(header) == HEADER.size else None


def _answer(function: bytes, seconds: float | None, rows: bytes) -> tuple[str, Any]:
    try:
        known = _function(function)
        with pa.ipc.open_stream(rows) as reader:
            table = reader.read_all()
        _set_clock(seconds or 0.0)
        result = compute(known, table)
    except CannotRun as error:
        return "cannot run", str(error)
    finally:
        _set_clock(0.0)
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, result.schema) as writer:
        writer.write_table(result)
    return "rows", sink.getvalue()


@functools.lru_cache(maxsize=4)
def _function(pickled: bytes) -> Any:
    """A row function, with what it has loaded, kept from batch to batch."""
    return cloudpickle.loads(pickled)


def _set_clock(seconds: float) -> None:
    """Ask for this process's end after some processor seconds; 0 takes it back."""
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.setitimer(signal.ITIMER_REAL, seconds * WALL_FACTOR)


if __name__ == "__main__":
    main()
