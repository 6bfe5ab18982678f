"""TensorBoard's event files, written at once and in this thread.

torch's SummaryWriter hands events to a thread of its own, where a full disk is a traceback in the middle of a run.
"""

from __future__ import annotations

import os
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from trainer.training.disk import room_for


class EventFile:
    """One start's event file in `folder`; TensorBoard forgets what files before it hold of steps >= `first`."""

    def __init__(self, folder: Path, first: int) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._event: Any = Event
        seconds, rest = divmod(time.time_ns(), 10**9)
        # TensorBoard reads files in the order of their names: the rest keeps that of starts within a second.
        name = f"events.out.tfevents.{seconds:010d}.{rest:09d}.{socket.gethostname()}.{os.getpid()}"
        self.path = folder / name
        with room_for(self.path):
            folder.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("wb")
            self._writer: Any = RecordWriter(self._file)
            self._write(Event(wall_time=seconds, file_version="brain.Event:2"))
            self._write(Event(wall_time=seconds, step=first, session_log=SessionLog(status=SessionLog.START)))

    def close(self) -> None:
        """End the file; everything was written, or has failed and was said."""
        with suppress(OSError):
            self._file.close()

    def scalar(self, name: str, value: float, step: int) -> None:
        """A number after `step` steps."""
        from torch.utils.tensorboard.summary import scalar

        summary: Any = scalar
        self._summary(summary(name, value), step)

    def histogram(self, name: str, counts: list[int], step: int) -> None:
        """Counts of equal bins of [0, 1] after `step` steps."""
        from torch.utils.tensorboard.summary import histogram_raw

        middles = [(number + 0.5) / len(counts) for number in range(len(counts))]
        summary: Any = histogram_raw
        self._summary(
            summary(
                name,
                min=0.0,
                max=1.0,
                num=sum(counts),
                sum=sum(middle * count for middle, count in zip(middles, counts, strict=True)),
                sum_squares=sum(middle**2 * count for middle, count in zip(middles, counts, strict=True)),
                bucket_limits=[(number + 1) / len(counts) for number in range(len(counts))],
                bucket_counts=counts,
            ),
            step,
        )

    def _summary(self, summary: Any, step: int) -> None:
        with room_for(self.path):
            self._write(self._event(wall_time=time.time(), step=step, summary=summary))

    def _write(self, event: Any) -> None:
        self._writer.write(event.SerializeToString())
        self._file.flush()
