"""Resident processes: where row functions meet bytes that nobody vouches for, with a limit on what a row may take.

A worker holds one child (pipeline.engine.isolated) and hands it batches. The child lives from batch to batch; when one
kills it, or takes more than one row may take, a new child gets the rows of the batch one by one, and the row that does
it again is a row with an error: neighbours and worker are not lost. The clock of a batch is that of a single row, so
that what never ends costs two limits and not one for each row; a batch of slow rows is merely run again in pieces.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import resource
import select
import signal
import struct
import subprocess
import sys
import threading

import cloudpickle
import pyarrow as pa

from stages.row_function import CannotRun, Limits, RowFunction

# How often a working child's memory is looked at.
WATCH_SECONDS = 0.1
_PAGE_BYTES = resource.getpagesize()
# Before each message, either way: its bytes.
HEADER = struct.Struct("<Q")
QUARANTINED = "quarantined: "


class RowEnded(RuntimeError):
    """A batch ended its process or was ended; the message says how, as an error of the row that does it alone."""


class Resident:
    """One child process, started when it is first needed and again after it died."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None

    def run(self, function: RowFunction, rows: pa.Table, limits: Limits | None) -> pa.Table:
        """What the function makes of a batch, computed in the child; RowEnded when that ends, CannotRun as it says."""
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, rows.schema) as writer:
            writer.write_table(rows)
        seconds = None if limits is None else limits.seconds
        request = pickle.dumps((cloudpickle.dumps(function), seconds, sink.getvalue().to_pybytes()), protocol=5)
        with self._lock:
            child = self._started()
            try:
                kind, answer = self._asked(child, request, limits)
            except (EOFError, BrokenPipeError):
                raise RowEnded(self._ended(function, child, limits)) from None
            except BaseException:
                self.stop()
                raise
            if limits is not None and _resident_bytes(child.pid) > limits.megabytes * 500_000:
                self.stop()  # what it holds on to would be counted against the next batch
        if kind == "cannot run":
            raise CannotRun(answer)
        with pa.ipc.open_stream(answer) as reader:
            return reader.read_all()

    def stop(self) -> None:
        """End the child, if there is one."""
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            child.wait()
            for stream in (child.stdin, child.stdout):
                if stream is not None:
                    with contextlib.suppress(BrokenPipeError):
                        stream.close()

    def _started(self) -> subprocess.Popen[bytes]:
        if self._child is None or self._child.poll() is not None:
            self.stop()
            self._child = subprocess.Popen(
                [sys.executable, "-m", "pipeline.engine.isolated"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                bufsize=0,
                pipesize=1 << 20,
                # It imports what this process does, from wherever that found it.
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )
        return self._child

    def _asked(self, child: subprocess.Popen[bytes], request: bytes, limits: Limits | None) -> tuple[str, bytes]:
        assert child.stdin is not None and child.stdout is not None
        waiting = memoryview(HEADER.pack(len(request)) + request)
        while waiting:
            waiting = waiting[child.stdin.write(waiting) or 0 :]
        ready = select.poll()
        ready.register(child.stdout, select.POLLIN)
        found = bytearray()
        wanted = HEADER.size
        while len(found) < wanted:
            if not ready.poll(WATCH_SECONDS * 1000):
                if limits is not None and _resident_bytes(child.pid) > limits.megabytes * 1_000_000:
                    self.stop()
                    raise RowEnded(f"MemoryLimit: more than {limits.megabytes:,} megabytes")
                continue
            if not (chunk := os.read(child.stdout.fileno(), 1 << 20)):
                raise EOFError
            found += chunk
            if wanted == HEADER.size and len(found) >= HEADER.size:
                wanted += HEADER.unpack_from(found)[0]
        kind, answer = pickle.loads(memoryview(found)[HEADER.size :])
        return kind, answer

    def _ended(self, function: RowFunction, child: subprocess.Popen[bytes], limits: Limits | None) -> str:
        code = child.wait()
        self.stop()
        if limits is not None and -code in (signal.SIGPROF, signal.SIGALRM):
            return f"TimeLimit: more than {limits.seconds:g} seconds"
        why = f"signal {-code}" if code < 0 else f"exit {code}"
        return f"{QUARANTINED}{function.name} ended its process ({why})"


def _resident_bytes(process: int) -> int:
    """Memory that a process has in use, bytes; 0 where the system does not say."""
    try:
        with open(f"/proc/{process}/statm", "rb") as file:
            return int(file.read().split()[1]) * _PAGE_BYTES
    except (OSError, IndexError):
        return 0


# One for each worker: its functions take turns.
RESIDENT = Resident()
